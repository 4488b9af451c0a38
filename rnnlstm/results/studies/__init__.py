"""The studies, one a file. Importing this registers them."""

from rnnlstm.results.studies import (
    activations,
    adding,
    clipping,
    copy,
    cost,
    gates,
    gradient,
    keyword,
    length,
    long_lag,
)

#: The order of the page.
ORDER = (
    "adding",
    "keyword",
    "copy",
    "clipping",
    "gradient",
    "long_lag",
    "gates",
    "length",
    "activations",
    "cost",
)

__all__ = [
    "ORDER",
    "activations",
    "adding",
    "clipping",
    "copy",
    "cost",
    "gates",
    "gradient",
    "keyword",
    "length",
    "long_lag",
]
