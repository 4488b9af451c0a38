"""Every tag that is logged, with its unit and meaning: one list for TensorBoard, the record and the reader.

`<…>` in a tag stands for a name: `eval/<metric>` covers `eval/accuracy`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    tag: str
    unit: str
    meaning: str


GLOSSARY = (
    Entry("train/loss", "the task's loss", "loss of the training batch, before its update"),
    Entry("train/<metric>", "the task's metric", "metric on the training batch, before its update"),
    Entry("eval/loss", "the task's loss", "loss on held-out sequences, after the update"),
    Entry("eval/<metric>", "the task's metric", "metric on held-out sequences, after the update"),
    Entry("eval_T<length>/<metric>", "the task's metric", "loss or metric on held-out sequences of another length"),
    Entry("eval_decoys<rate>/<metric>", "the task's metric", "loss or metric on texts with another share of decoys"),
    Entry(
        "baseline/loss",
        "the task's loss",
        "loss of the best predictor that knows the task and the position, but no input value",
    ),
    Entry("grad/norm_before_clip", "1", "Euclidean norm of the gradient over all parameters, as backward() left it"),
    Entry("grad/norm_after_clip", "1", "the same norm after clipping: what the optimiser was given"),
    Entry("grad_param/<parameter>", "1", "norm before clipping of one parameter's gradient"),
    Entry("clip/fired", "0 or 1", "whether clipping changed this update's gradient"),
    Entry("clip/rate", "share", "share of all updates since the start on which clipping fired"),
    Entry("clip/coefficient", "factor", "by norm: min(1, threshold/norm), what the gradient was multiplied by"),
    Entry("clip/clipped_share", "share", "by value: share of the gradient's entries that were cut"),
    Entry(
        "time/steps_per_second",
        "updates/s",
        "speed of training since the last line, all replicas together making one update; evaluation left out",
    ),
)


@functools.cache
def explain(tag: str) -> Entry | None:
    """The glossary's entry for an emitted tag, exact names before patterns; None if there is none."""
    for entry in GLOSSARY:
        if entry.tag == tag:
            return entry
    for entry in GLOSSARY:
        pattern = "".join("[^/]+" if part.startswith("<") else re.escape(part) for part in _parts(entry.tag))
        if re.fullmatch(pattern, tag):
            return entry
    return None


def _parts(tag: str) -> list[str]:
    return re.split(r"(<[a-z ]+>)", tag)
