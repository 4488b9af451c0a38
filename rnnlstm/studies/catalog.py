"""All studies by name. Importing this imports each study's file, which registers it."""

from rnnlstm.studies import (  # noqa: F401
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
from rnnlstm.studies.study import STUDIES, Study

#: The order of the page and of `reproduce --list`.
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


def studies() -> dict[str, Study]:
    """Every study by name, in the order of the page."""
    return {name: STUDIES[name] for name in ORDER}
