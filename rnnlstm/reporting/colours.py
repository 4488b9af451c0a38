"""Which colour a configuration has, so that it has the same one in every figure of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

#: Okabe & Ito's colours, which most colour-blind readers tell apart; no more lines than these in one panel.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")


def colour_numbers(names: Sequence[str]) -> list[int]:
    """For each configuration shown the number of its colour, dashes and mark: its name's rank in sorted order.

    Figures and commands each have an order of their own, by loss or as typed; names they have in common. Equal names
    have numbers of their own.
    """
    ranked = sorted(range(len(names)), key=names.__getitem__)
    return [ranked.index(k) for k in range(len(names))]
