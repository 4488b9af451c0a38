"""The embedded Reber grammar as a finite automaton: what may follow, how likely, and strings at random.

    Reber grammar     0 -B→ 1     1 -T→ 2 -S→ 2     2 -X→ 4     3 -T→ 3     4 -X→ 3     5 -P→ 4     6 -E→ end
                                  1 -P→ 3           3 -V→ 5                 4 -S→ 6     5 -V→ 6
    embedded          B, then T or P, then a string of the above, then the same T or P again, then E

From each state that has two arrows both are as likely. The automaton of the embedded grammar has the inner one twice,
once for each outer symbol: the state is all that has to be remembered.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

SYMBOLS = "BTPSXVE"
SHORTEST = 9  # B T BTXSE T E
INNER = {0: ("B1",), 1: ("T2", "P3"), 2: ("S2", "X4"), 3: ("T3", "V5"), 4: ("X3", "S6"), 5: ("P4", "V6"), 6: ("E7",)}
#: States of the embedded automaton: 0 the start, 1 before the outer symbol, then eight inner states for each outer
#: symbol (the eighth has the inner string behind it), then 18 before the last E, 19 the end.
STATES, BEFORE_E, END = 20, 18, 19


def inner_state(branch: int, state: int) -> int:
    return 2 + 8 * branch + state


class Automaton:
    """`next` and `symbol`, int64 (states, 2): where each of two equally likely choices leads, and what it writes."""

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
        found = np.zeros((longest, STATES, 2))
        for t in range(longest):
            found[t] = stands[:, None] / 2 * ends[t + 1][self.next]
            step = np.zeros(STATES)
            np.add.at(step, self.next, np.repeat(stands[:, None] / 2, 2, axis=1))
            stands = step
        found[:, END] = 0
        return found / ends[0, 0]

    @cached_property
    def merged(self) -> np.ndarray:
        """States as one sees them who has forgotten the outer symbol: those of both branches as the first's."""
        states = np.arange(STATES)
        states[inner_state(1, 0) : inner_state(1, 8)] = states[inner_state(0, 0) : inner_state(0, 8)]
        return states


AUTOMATON = Automaton()
