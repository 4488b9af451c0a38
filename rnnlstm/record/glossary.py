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


TABLE = """\
train/loss | the task's loss | loss of the training batch, before its update
train/<metric> | the task's metric | metric on the training batch, before its update
eval/loss | the task's loss | loss on held-out sequences, after the update
eval/<metric> | the task's metric | metric on held-out sequences, after the update
eval_T<length>/<metric> | the task's metric | loss or metric on held-out sequences of another length
eval_slice/<slice> | the task's metric | headline metric on a part of those: see the task's `slices`
eval_current/<metric> | the task's metric | loss or metric on held-out sequences of the length that a growing
    curriculum is at
baseline_T<length>/loss | the task's loss | baseline/loss of another length that is evaluated
baseline_decoys<rate>/loss | the task's loss | baseline/loss of texts with another share of decoys
baseline_current/loss | the task's loss | baseline/loss of the length that a growing curriculum is at
curriculum/length | task length | length of this update's sequences, where a curriculum changes it
eval_decoys<rate>/<metric> | the task's metric | loss or metric on texts with another share of decoys
baseline/loss | the task's loss | loss of the best predictor that knows the task and the position, but no input
    value
baseline/<plateau> | the task's loss | a loss on which training tends to stall
grad/norm_before_clip | 1 | Euclidean norm of the gradient over all parameters, as backward() left it
grad/norm_after_clip | 1 | the same norm after clipping: what the optimiser was given
grad/window_max_norm | 1 | the largest norm before clipping of all updates since the last line
grad_param/<parameter> | 1 | norm before clipping of one parameter's gradient
clip/fired | 0 or 1 | whether clipping changed this update's gradient
clip/rate | share | share of all updates since the start on which clipping fired
clip/coefficient | factor | by norm: min(1, threshold/norm of clip.norm_type), what the gradient was multiplied by
clip/clipped_share | share | by value: share of the gradient's entries that were cut
clip/threshold | 1 | by norm: the threshold, the largest norm that the optimiser is given
clip/threshold_norm_<p> | 1 | the same where clip.norm_type names another norm than the Euclidean: its p, 1 or inf
clip/window_rate | share | share of all updates since the last line on which clipping fired
clip/window_min_coefficient | factor | by norm: the smallest coefficient of all updates since the last line
clip/event_norm | 1 | an update on which clipping fired, at its own step: the norm that clip.norm_type names, before
    clipping
clip/event_coefficient | factor | the same update: what its gradient was multiplied by
clip/event_clipped_share | share | the same update, by value: share of the gradient's entries that were cut
clip/event_thinning | fired updates | from this step on one in so many fired updates is shown as clip/event_…;
    clip_events.jsonl holds all
clip/norm_before_<quantile> | 1 | quantile of the norm that clip.norm_type names, before clipping, over updates
    since the last evaluation
clip/norm_after_<quantile> | 1 | quantile of that norm after clipping, over updates since the last evaluation
clip/largest/<parameter> | share | share of fired updates in which this parameter's gradient was largest
flow/<state>_lag_<k> | 1 | norm of the gradient of the loss at the last scored position for the state k steps
    before it
flow/half_life | steps | steps in which that gradient for h halves on its way back; infinite if it grows
flow/<state>_half_life | steps | the same for another state of the cell
flow/<state> | log10 of a ratio | gradient of the last answer by time step (left: first input, right: the answer)
    and update (top to bottom), against its strength at the answer: white as strong, blue weaker (down to 1e-8),
    red stronger (up to 1e4)
gate/<gate>_mean | activation | mean of a gate over units, time and the probe's sequences
gate/<gate>_saturated | share | share of a gate's activations below 0.1 or above 0.9
gate_by_kind/<gate>_<kind> | activation | mean of a gate while a kind of token is read
flow/<state>_half_life_low | steps | lower end of its 95 % interval, over the probe's sequences
flow/<state>_half_life_high | steps | upper end of its 95 % interval, over the probe's sequences
flow/gates_half_life | steps | what the gates imply: −ln 2 / mean ln f, the median unit's
flow/direct_share | share | of the norm of the whole loss's ∂L/∂h_t over all t, what came directly
weight_gradient/share_last_<k> | share | ⟨G_≤k, G⟩/‖G‖²: share of the weight gradient from uses at most k steps
    before the last scored position
jacobian/norm_lag_<k> | log10 | spectral norm of ∂state_T/∂state_{T−k}, the probe's first sequence
jacobian/bound_lag_<k> | log10 | its bound: Π ‖D_j‖ σ_max(W)^k of an RNN, else Π ‖J_j‖
jacobian/cell_path_lag_<k> | log10 | Frobenius norm of Π f, the part of ∂c_T/∂c_{T−k} along the cell
jacobian/cell_rest_lag_<k> | log10 | the same norm of the rest of ∂c_T/∂c_{T−k}, which passes through h
lyapunov/largest | nats a step | largest Lyapunov exponent along the probe's first sequence
lyapunov/mean | nats a step | mean of the Lyapunov exponents that are finite
influence/<kind> | output per input | mean ‖∂answer/∂x_t‖ over tokens of a kind
counterfactual/changed_<kind>_lag_<k> | share, or the target's unit | at the end: with one token of a kind, k to
    10k - 1 steps before the answer, replaced by another of its kind, the share of answers that change; of numbers
    the mean change
counterfactual/divergence_<kind>_lag_<k> | nats | the same replacements: mean KL divergence of the answer's
    probabilities, from those with the text as it is
counterfactual/gradient_<kind>_lag_<k> | output per input | mean ‖∂answer/∂x_t‖ at the same tokens
unit/saturated | share | activations whose slope is below a tenth of the steepest
unit/dead | share | units that put out zero at every step of every sequence
precision/loss_error | share | with precision=bfloat16 or tf32: what the loss is off by against full precision, on
    the probe's sequences
precision/gradient_error | share | the same of the gradient over all parameters: norm of the difference against
    the norm
samples | text | the probe's first sequences with the right answer and the model's
time/steps_per_second | updates/s | speed of training since the last line, an update being of all replicas;
    instruments and evaluation left out
time/instruments_share | share | time on probes, logging and the record since the start, against the time on
    training
"""
#: Which few matter first, beside the task's headline metric: does it learn, how large do gradients get, when does
#: clipping fire, and how often? The link that `train` and `compare` print pins them; their descriptions say it, too.
FIRST = ("eval/loss", "grad/norm_before_clip", "clip/event_norm", "clip/window_rate")
#: Tag, unit and meaning of each line of the table; an indented line continues the one above.
GLOSSARY = tuple(
    Entry(*(part.strip() for part in line.split(" | ", 2))) for line in TABLE.replace("\n    ", " ").splitlines()
)


#: What is put before a tag in a run's aggregate, and appended for one of several layers and a number over the seeds.
GROUP = r"([^/]+_T[^/]+/)?"
PLACEHOLDER = r"(<[a-z ]+>)"
SUFFIXES = r"(/layer_\d+)?(/(median|low|high))?"


@functools.cache
def explain(tag: str) -> Entry | None:
    """The glossary's entry for an emitted tag, the one that spells out most of it; None if there is none."""
    by_exactness = sorted(GLOSSARY, key=lambda entry: -len(re.sub(PLACEHOLDER, "", entry.tag)))
    for entry in by_exactness:
        parts = re.split(PLACEHOLDER, entry.tag)
        pattern = "".join("[^/]+" if part.startswith("<") else re.escape(part) for part in parts)
        if re.fullmatch(GROUP + pattern + SUFFIXES, tag):
            return entry
    return None
