"""Embedded Reber grammar (Cleeremans et al. 1989; Fahlman 1991; experiment 1 of Hochreiter & Schmidhuber 1997).

Read a string of a grammar and say at each step what may come next::

    input     B    T     B    T    S    X    S   E   T          a string, without its last symbol
    legal     T P  B     T P  S X  S X  X S  E   T   E          what may follow; what follows is the target

The grammar, where from each state with two arrows both are equally likely::

    Reber grammar     0 -B→ 1     1 -T→ 2 -S→ 2     2 -X→ 4     3 -T→ 3     4 -X→ 3     5 -P→ 4     6 -E→ end
                                  1 -P→ 3           3 -V→ 5                 4 -S→ 6     5 -V→ 6
    embedded          B, then T or P, then a string of the above, then the same T or P again, then E

The symbol before the last repeats the one after the first, T or P; everything else can be told from the last few
symbols. A string longer than `length` is replaced by another draw. The loss is the cross-entropy of what follows,
over all symbols; a string is right if at each step each legal successor has a larger output than every other symbol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from rnnlstm.config.options import option
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import RandomSource
from rnnlstm.tasks.task import OVER, Task, register_task, right_sequences, share_right, step_numbers, until_over

SYMBOLS = "BTPSXVE"
SHORTEST = 9  # B T BTXSE T E
INNER = {0: ("B1",), 1: ("T2", "P3"), 2: ("S2", "X4"), 3: ("T3", "V5"), 4: ("X3", "S6"), 5: ("P4", "V6"), 6: ("E7",)}
#: States of the embedded automaton: 0 the start, 1 before the outer symbol, then eight inner states for each outer
#: symbol (the eighth has the inner string behind it), then 18 before the last E, 19 the end.
STATES, BEFORE_E, END = 20, 18, 19


def inner_state(branch: int, state: int) -> int:
    return 2 + 8 * branch + state


class Automaton:
    """The embedded grammar as a finite automaton, which has the inner grammar twice, once for each outer symbol.

    `next` and `symbol`, int64 (states, 2): where each of two equally likely choices leads, and what it writes.
    """

    def __init__(self) -> None:
        arrows: dict[int, tuple[tuple[str, int], ...]] = {
            0: (("B", 1),),
            1: (("T", inner_state(0, 0)), ("P", inner_state(1, 0))),
            BEFORE_E: (("E", END),),
            END: (("E", END),),
        }
        for branch, outer in enumerate("TP"):
            for state, ways in INNER.items():
                arrows[inner_state(branch, state)] = tuple((w[0], inner_state(branch, int(w[1]))) for w in ways)
            arrows[inner_state(branch, 7)] = ((outer, BEFORE_E),)
        pairs = [(arrows[state] * 2)[:2] for state in range(STATES)]  # one way: both choices take it
        self.next = np.array([[to for _, to in pair] for pair in pairs])
        self.symbol = np.array([[SYMBOLS.index(name) for name, _ in pair] for pair in pairs])
        self.legal = np.zeros((STATES, len(SYMBOLS)), dtype=bool)  # what may come next
        np.put_along_axis(self.legal, self.symbol, True, axis=1)
        self.after = np.full((STATES, len(SYMBOLS)), END)  # where a symbol leads; END from where it is not legal
        np.put_along_axis(self.after, self.symbol, self.next, axis=1)

    def run(self, choices: np.ndarray) -> np.ndarray:
        """States (T+1, B) along `choices` (T, B) of 0 and 1."""
        states = np.zeros((len(choices) + 1, choices.shape[1]), dtype=np.int64)
        for t, choice in enumerate(choices):
            states[t + 1] = self.next[states[t], choice]
        return states

    def read(self, symbols: np.ndarray) -> np.ndarray:
        """States (T, B) after each of `symbols` (T, B)."""
        states = np.zeros(symbols.shape, dtype=np.int64)
        state = np.zeros(symbols.shape[1], dtype=np.int64)
        for t, written in enumerate(symbols):
            states[t] = state = self.after[state, written]
        return states

    def chances(self, longest: int) -> np.ndarray:
        """Strings of at most `longest` symbols: the chance (longest, states, choices) to stand in a state before
        symbol number t of the string and to take a choice there. All of one t add up to the chance that the string
        has a symbol number t."""
        ends = np.zeros((longest + 1, STATES))  # the chance to be at the end after `longest` symbols
        ends[longest, END] = 1
        for t in range(longest, 0, -1):
            ends[t - 1] = ends[t][self.next].mean(1)
        stands = np.zeros(STATES)
        stands[0] = 1
        chances = np.zeros((longest, STATES, 2))
        for t in range(longest):
            chances[t] = stands[:, None] / 2 * ends[t + 1][self.next]
            step = np.zeros(STATES)
            np.add.at(step, self.next, np.repeat(stands[:, None] / 2, 2, axis=1))
            stands = step
        chances[:, END] = 0
        return chances / ends[0, 0]

    @cached_property
    def merged(self) -> np.ndarray:
        """States (states,) without the outer symbol: those of the second branch are replaced by the first's."""
        states = np.arange(STATES)
        states[inner_state(1, 0) : inner_state(1, 8)] = states[inner_state(0, 0) : inner_state(0, 8)]
        return states


AUTOMATON = Automaton()


@register_task("embedded_reber")
@dataclass(frozen=True, kw_only=True)
class EmbeddedReber(Task):
    metric_name = "strings"
    solved_when = "every string right"
    kind_names = ("outer", "inner", "closing", "padding")
    takes_scored_answers = True

    length: int = option(40, "symbols of the longest string", at_least=SHORTEST, at_most=100_000)

    @property
    def sequence_length(self) -> int:
        return self.length - 1

    @property
    def num_tokens(self) -> int:
        return len(SYMBOLS)

    @property
    def output_size(self) -> int:
        return len(SYMBOLS)

    @property
    def baseline(self) -> float:
        """Mean entropy of the next symbol, given its number in the string and that the string has it."""
        return self._entropy(np.zeros(STATES, dtype=np.int64))

    @property
    def plateaus(self) -> Mapping[str, float]:
        """The grammar known and the outer symbol forgotten; and both known, where only the random choices cost."""
        return {
            "outer symbol forgotten": self._entropy(AUTOMATON.merged),
            "grammar": self._entropy(np.arange(STATES)),
        }

    def _entropy(self, seen_as: np.ndarray) -> float:
        """Nats for each scored symbol, for a predictor that knows the time step and `seen_as` of the state."""
        chances = AUTOMATON.chances(self.length)[1:]  # the first symbol is no target
        joint = np.zeros((len(chances), STATES, len(SYMBOLS)))
        for choice in (0, 1):
            for state, symbol in enumerate(AUTOMATON.symbol[:, choice]):
                joint[:, seen_as[state], symbol] += chances[:, state, choice]
        given = joint.sum(-1, keepdims=True)
        share = np.divide(joint, given, out=np.ones_like(joint), where=joint > 0)
        return float(-(joint * np.log(share)).sum() / chances.sum())

    def generate(self, random: RandomSource, batch_size: int) -> Batch:
        T, B = self.length, batch_size
        kept: list[np.ndarray] = []
        while sum(states.shape[1] for states in kept) < B:
            choices = random.integers(0, 2, (T, B)).numpy()
            states = AUTOMATON.run(choices)  # (T+1, B)
            fits = states[-1] == END
            kept.append(np.concatenate([states[:, fits], AUTOMATON.symbol[states[:-1], choices][:, fits]]))
        both = np.concatenate(kept, axis=1)[:, :B]
        states, symbols = both[: T + 1], torch.from_numpy(both[T + 1 :])
        alive = torch.from_numpy(states[1:-1] != END)  # (T−1, B): there is a next symbol
        kinds = torch.ones(T - 1, B, dtype=torch.int8)
        kinds[:2] = 0
        closes = alive & torch.from_numpy(np.isin(states[1:-1], (9, 17)))
        kinds = kinds.masked_fill(closes, 2).masked_fill(~alive, 3)
        kinds = kinds.masked_fill(closes.roll(1, 0) & alive, 0)  # the step that reads the outer symbol again
        return Batch(symbols[:-1].clone(), symbols[1:].clone(), alive, kinds)

    def words(self, batch: Batch, b: int) -> list[str]:
        assert batch.kinds is not None
        pairs = zip(batch.inputs[:, b].tolist(), batch.kinds[:, b].tolist(), strict=True)
        return [OVER if kind == 3 else SYMBOLS[token] for token, kind in pairs]

    def decode(self, batch: Batch, b: int) -> str:
        legal = self.legal(batch)[:, b][batch.mask[:, b]]
        names = ["".join(s for s, may in zip(SYMBOLS, row, strict=True) if may) for row in legal.tolist()]
        return f"{' '.join(until_over(self.words(batch, b)))} → {' '.join(names)}"

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        return " ".join(SYMBOLS[k] for k in outputs[:, b][batch.mask[:, b]].argmax(-1).tolist())

    def legal(self, batch: Batch) -> Tensor:
        """bool (T, B, 7): what may follow each symbol of the input."""
        states = AUTOMATON.read(batch.inputs.cpu().numpy())
        return torch.from_numpy(AUTOMATON.legal[states]).to(batch.inputs.device)

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        """Share of `strings` right at each scored step; of `symbols` predicted, which can't reach 1; and of
        `closings`, the outer symbol said again."""
        assert batch.kinds is not None
        answers, legal = batch.answers(outputs), batch.at_scored(self.legal(batch))
        least = answers.masked_fill(~legal, float("inf")).amin(-1)
        right = least > answers.masked_fill(legal, -float("inf")).amax(-1)  # (scored,)
        strings = right_sequences(right, batch).double().mean().item()
        scores = {"strings": strings, "symbols": share_right(answers, batch)}
        closes = batch.at_scored(batch.kinds) == 2
        if closes.any():
            scores["closings"] = right[closes].double().mean().item()
        return scores

    def solved(self, metrics: Mapping[str, float]) -> bool:
        """The paper's criterion over its 512 strings, here over the evaluation's."""
        return metrics["strings"] >= 1.0

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """The steps between the outer symbols, whose successors the last few symbols tell; and long strings."""
        long = (batch.mask.sum(0) > 12).expand_as(batch.mask)
        inner = batch.mask & (batch.kinds == 1) & (step_numbers(len(batch.mask), batch.mask.device) > 1)
        return {"inner": inner, "short_strings": batch.mask & ~long, "long_strings": batch.mask & long}
