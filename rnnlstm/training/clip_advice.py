"""A word on the clipping threshold, where it decides everything or nothing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rnnlstm.sections import ClipOptions
from rnnlstm.training.replica import Replica

ALMOST_EVERY = 0.95  #: share of updates
ENOUGH, MANY = 100, 500  #: updates before "almost every", and before "none", says something


def clip_advice(options: ClipOptions, replicas: Sequence[Replica]) -> str | None:
    """A sentence if clipping fired on almost every update of a run, or on none of many; medians over the seeds."""
    if options.name == "none":
        return None
    updates = statistics.median(replica.updates for replica in replicas)
    rate = statistics.median(replica.clip_rate for replica in replicas)
    norms = [found[0] for replica in replicas if (found := replica.norms.quantiles([0.5]))]
    if not norms:
        return None
    numbers = f"median norm {statistics.median(norms):.2g}, threshold {options.threshold:g}"
    if updates >= ENOUGH and rate >= ALMOST_EVERY:
        return f"clipping fired on {rate:.0%} of the updates: it sets the size of every step ({numbers})"
    if updates >= MANY and rate == 0:
        return f"note: clipping never fired in {updates:,.0f} updates: the threshold has no effect ({numbers})"
    return None
