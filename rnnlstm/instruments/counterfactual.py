"""Counterfactual influence: would the answer be another if one token had been another?

Every token is replaced by another of its own kind (`Task.replacements`), one at a time, and the network reads the
text again. With p and q its probabilities for the text as it is and as it would be, at the last scored position:

    changed = share of texts with argmax q ≠ argmax p          classes
              mean |ŷ_q − ŷ_p|                                 numbers, in the target's unit
    divergence = mean KL(p ‖ q) = Σ_c p_c ln(p_c / q_c)        classes alone, nats

No target is needed: what counts is whether the network's answer changes, not whether it is right. Beside it stands
gradient influence ‖∂answer/∂x_t‖ (`jacobians.py`) at the same places. The two part where units are
saturated: they hold a word, so that another word changes the answer, while its derivative is zero. The first says
what the network remembers (forward), the second what training could still learn about that place (backward).

Of each kind of token at most `PLACES` places of a text are measured, from the answer back with growing gaps.

Dimensions: T time steps, B texts, H hidden units, L layers, O output features.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rnnlstm.cells import State
from rnnlstm.instruments.analysed_network import AnalysedNetwork, in_double
from rnnlstm.instruments.jacobians import influence
from rnnlstm.instruments.probe import last_scored
from rnnlstm.models import Network
from rnnlstm.tasks import Task
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import RandomStream

TEXTS = 256
IN_TRAINING = 64  #: texts, at the end of a run; fewer where they are long
LONG = 2**17  #: time steps of all these texts together, unless that leaves under 16
PLACES = 24  #: of each kind in a text, and distances that are told apart
AT_ONCE = 2**14  #: time steps of changed texts that are read together, and at least `LEAST` texts
LEAST = 64
PIECES = 32  #: of a text, at whose beginnings the states are kept


@dataclass(frozen=True)
class InfluenceRow:
    """All measured places of one kind, replaced in one way, at about one distance."""

    kind: str
    way: str  #: in which it was replaced; empty where the task has one way
    distance: float  #: mean steps before the answer
    nearest: int
    farthest: int
    places: int
    changed: float  #: share of answers that change, or mean |change| where answers are numbers
    divergence: float | None  #: mean KL divergence, nats; None where answers are numbers
    gradient: float  #: mean ‖∂answer/∂x_t‖ at the same places

    @property
    def label(self) -> str:
        return f"{self.kind}, {self.way}" if self.way else self.kind


def counterfactual_influence(
    task: Task,
    network: Network,
    seed: int,
    texts: int = TEXTS,
    at_once: int | None = None,
    device: torch.device | str = "cpu",
) -> list[InfluenceRow]:
    """Rows by kind, way and distance, on the first `texts` of the seed's stream `probe`; `network` is on the CPU.

    Answers are computed on `device` in the network's own precision and backend; gradients, which are few, on the CPU
    in float64, where they underflow later. Each text is read from the piece on in which it first differs. `at_once`
    texts together change no result but for rounding.
    """
    batch, pool = task.sample(seed, 0, "probe", texts), task.sample(seed, 1, "probe", TEXTS)
    last = last_scored(batch).mask.int().argmax(0)  # (B,)
    at_once = at_once or max(LEAST, AT_ONCE // len(batch.inputs))
    reader = _Reader(copy.deepcopy(network).to(device), batch, last, at_once)
    gradients = _gradients(task, network, batch, at_once)  # (T, B)
    names = task.kind_names if batch.kinds is not None else ("input",)
    measured: dict[tuple[str, str], list[Tensor]] = {}
    for number, (kind, steps, there) in enumerate(_places(batch, last)):
        ways = task.replacements(batch, steps, pool, RandomStream(seed, "probe", 2 + number))
        for way, inputs in ways.items():
            differs = (inputs != batch.inputs).flatten(2).any(-1) if inputs.dim() > 2 else inputs != batch.inputs
            chosen = (there & differs.any(0)).nonzero()[:, 0]  # texts
            if not len(chosen):
                continue
            effect = reader.effect(inputs, differs, chosen)  # (2, N)
            at = steps[chosen]
            place = torch.stack([(last[chosen] - at).double(), gradients[at, chosen].double()])
            measured.setdefault((names[kind], way), []).append(torch.cat([place, effect]))
    T = int(last.max()) + 1
    edges = np.array(
        sorted({*spaced(T), *(10**k for k in range(len(str(T))))})
    )  # no distance bin lies in two decades
    classes = not batch.targets.is_floating_point()
    return [
        row
        for (kind, way), parts in measured.items()
        for row in _rows(kind, way, torch.cat(parts, 1).numpy(), edges, classes)
    ]


def counterfactual_scalars(
    task: Task, network: Network, seed: int, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """What a run logs at its end, by tag: a value of each kind and decade of distances."""
    texts = max(16, min(IN_TRAINING, LONG // task.sequence_length))
    values: dict[str, float] = {}
    for row in by_decade(counterfactual_influence(task, network, seed, texts, device=device)):
        place = f"{row.label.replace(', ', '_').replace(' ', '_')}_lag_{_decade(row)}"
        for what in ("changed", "divergence", "gradient"):
            if (value := getattr(row, what)) is not None:
                values[f"counterfactual/{what}_{place}"] = value
    return values


def by_decade(rows: Sequence[InfluenceRow]) -> list[InfluenceRow]:
    """One row in place of those of a kind whose places are k … 10 k − 1 steps back, for k = 0, 1, 10, 100 …; values
    are means over all these places."""
    groups: dict[tuple[str, int], list[InfluenceRow]] = {}
    for row in rows:
        groups.setdefault((row.label, _decade(row)), []).append(row)
    return [_joined(group) for group in groups.values()]


def _decade(row: InfluenceRow) -> int:
    return 10 ** (len(str(row.nearest)) - 1) if row.nearest else 0


def _joined(rows: Sequence[InfluenceRow]) -> InfluenceRow:
    places = [row.places for row in rows]

    def mean(values: Sequence[float]) -> float:
        return float(np.average(values, weights=places))

    divergences = [row.divergence for row in rows if row.divergence is not None]
    return InfluenceRow(
        rows[0].kind, rows[0].way, mean([row.distance for row in rows]), min(row.nearest for row in rows),
        max(row.farthest for row in rows), sum(places), mean([row.changed for row in rows]),
        mean(divergences) if divergences else None, mean([row.gradient for row in rows]),
    )  # fmt: skip


def spaced(count: int, most: int = PLACES) -> list[int]:
    """`most` of the numbers 0 … count−1 with growing gaps, both ends among them; all, if they are no more."""
    tries = most
    while len(found := {round(n) - 1 for n in np.geomspace(1, count, tries)}) < min(count, most):
        tries += 1
    return sorted(found)


def _places(batch: Batch, last: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """A kind, the steps (B,) of its n-th place of each text, counted back from the answer, and whether there is one
    (B,): for each n that is measured."""
    T = len(batch.mask)
    kinds = torch.zeros_like(batch.mask, dtype=torch.int8) if batch.kinds is None else batch.kinds
    read = torch.arange(T)[:, None] <= last
    for kind in kinds[read].unique().tolist():
        here = (kinds == kind) & read
        number = here.flip(0).cumsum(0).flip(0)  # of places of this kind from here on
        for n in spaced(int(number.max())):
            match = here & (number == n + 1)
            yield kind, match.int().argmax(0), match.any(0)


class _Reader:
    """Reads changed texts: the network's answers to the texts as they are, and its states at each piece's start."""

    def __init__(self, network: Network, batch: Batch, last: Tensor, at_once: int) -> None:
        self.network, self.at_once, self.last = network, at_once, last
        self.device = network.readout.weight.device
        self.classes = not batch.targets.is_floating_point()
        T = len(batch.inputs)
        self.stride = math.ceil(T / PIECES)
        parts = [self._read(batch.inputs[:, which], last[which]) for which in self._chunks(torch.arange(batch.size))]
        self.answers = torch.cat([answers for answers, _ in parts])  # (B, O)
        # At the start of each piece, each (L, B, H).
        self.states = [
            tuple(torch.cat(state, 1) for state in zip(*chunks, strict=True))
            for chunks in zip(*(states for _, states in parts), strict=True)
        ]

    def effect(self, inputs: Tensor, differs: Tensor, chosen: Tensor) -> Tensor:
        """`changed` and the divergence of each of the `chosen` texts (N,): float64 (2, N) on the CPU. `differs`
        (T, B): where `inputs` are not those of the batch."""
        first = differs.int().argmax(0)[chosen]
        order = first.argsort(stable=True)  # texts that differ from a like step on are read together
        effects = torch.zeros(2, len(chosen), dtype=torch.float64)
        for part in self._chunks(order):
            which = chosen[part]
            piece = int(first[part].min()) // self.stride
            start, end = piece * self.stride, int(self.last[which].max()) + 1
            state = tuple(s[:, which.to(s.device)] for s in self.states[piece])
            with torch.no_grad():
                x = self.network.embed(inputs[start:end, which].to(self.device))
                hidden, _ = self.network.recurrence.run(x, state)
                answers = self._answers(hidden, self.last[which] - start)
            effects[:, part] = self._compared(self.answers[which], answers)
        return effects

    def _chunks(self, numbers: Tensor) -> Sequence[Tensor]:
        return numbers.split(self.at_once)

    def _read(self, inputs: Tensor, last: Tensor) -> tuple[Tensor, list[State]]:
        """Answers (B, O), and the states at the start of each piece."""
        with torch.no_grad():
            x = self.network.embed(inputs.to(self.device))
            zeros = x.new_zeros(self.network.recurrence.num_layers, x.shape[1], self.network.recurrence.hidden_size)
            states: list[State] = [tuple(zeros for _ in self.network.recurrence.cell.state_names)]
            pieces = []
            for piece in x.split(self.stride):
                hidden, state = self.network.recurrence.run(piece, states[-1])
                pieces.append(hidden)
                states.append(state)
            return self._answers(torch.cat(pieces), last), states[:-1]

    def _answers(self, hidden: Tensor, last: Tensor) -> Tensor:
        """float64 (B, O) on the CPU, at the steps `last` (B,)."""
        rows = hidden[last.to(self.device), torch.arange(len(last), device=self.device)]
        answers: Tensor = self.network.readout(rows)
        return answers.double().cpu()

    def _compared(self, before: Tensor, after: Tensor) -> Tensor:
        """`changed` and the divergence (NaN for numbers) of each answer, from outputs (N, O): (2, N)."""
        if not self.classes:
            change = (after - before).abs().mean(-1)
            return torch.stack([change, torch.full_like(change, math.nan)])
        p, q = before.log_softmax(-1), after.log_softmax(-1)
        divergence = (p.exp() * (p - q)).sum(-1).clamp(min=0)
        return torch.stack([(before.argmax(-1) != after.argmax(-1)).double(), divergence])


def _gradients(task: Task, network: Network, batch: Batch, at_once: int) -> Tensor:
    """Gradient influence (T, B) of the texts as they are, in float64."""
    network = copy.deepcopy(network).double().requires_grad_(False)
    parts = [batch.sequences(slice(start, start + at_once)) for start in range(0, batch.size, at_once)]
    return torch.cat([influence(AnalysedNetwork(task, network, in_double(part))) for part in parts], 1)


def _rows(kind: str, way: str, values: np.ndarray, edges: np.ndarray, classes: bool) -> Iterator[InfluenceRow]:
    """`values` (4, N): distance, gradient, changed, divergence of each place; `edges`: where each distance begins."""
    distances = values[0].astype(int)
    bins = np.searchsorted(edges, distances, side="right")
    for number in np.unique(bins):
        there = bins == number
        distance, gradient, changed, divergence = values[:, there].mean(1).tolist()
        yield InfluenceRow(
            kind, way, distance, int(distances[there].min()), int(distances[there].max()), int(there.sum()),
            changed, divergence if classes else None, gradient,
        )  # fmt: skip
