"""The literature's results, each as a study: a sweep, a criterion fixed before it was run, and a verdict.

Every study's file is imported here, which registers it.
"""

from rnnlstm.studies import (  # noqa: F401
    activations,
    adding,
    centring,
    clipping,
    clipping_map,
    copy,
    cost,
    counting,
    dynamics,
    gates,
    gradient,
    interference,
    irnn,
    keyword,
    lag_parts,
    leak,
    length,
    long_lag,
    memory_trace,
    restored_gradient,
    slow_paths,
    start_map,
    state_tracking,
    surgery,
    theory,
    truncation,
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
    "lag_parts",
    "gates",
    "length",
    "activations",
    "cost",
    "start_map",
    "truncation",
    "restored_gradient",
    "memory_trace",
    "interference",
    "counting",
    "state_tracking",
    "dynamics",
    "slow_paths",
    "surgery",
    "clipping_map",
    "centring",
    "irnn",
    "leak",
    "theory",
)


def studies() -> dict[str, Study]:
    """Every study by name, in the order of the page."""
    return {name: STUDIES[name] for name in ORDER}
