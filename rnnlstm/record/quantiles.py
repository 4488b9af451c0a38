"""Quantiles of a stream of numbers in bounded memory."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Subsample:
    """Keeps every number of a stream until `most` are there, then every second of them, and so on.

    Quantiles are exact up to `most` numbers, and those of an evenly spaced half or more of `most` beyond.
    """

    def __init__(self, most: int = 65_536) -> None:
        self.most, self.stride, self.count = most, 1, 0
        self.kept = array("d")

    def add(self, value: float) -> None:
        if self.count % self.stride == 0:
            if len(self.kept) == self.most:
                self.kept = self.kept[::2]
                self.stride *= 2
            if self.count % self.stride == 0:
                self.kept.append(value)
        self.count += 1

    def state(self) -> dict[str, Any]:
        """Plain values that `restored` takes."""
        return {"most": self.most, "stride": self.stride, "count": self.count, "kept": self.kept.tolist()}

    @staticmethod
    def restored(state: Mapping[str, Any]) -> Subsample:
        found = Subsample(state["most"])
        found.stride, found.count, found.kept = state["stride"], state["count"], array("d", state["kept"])
        return found

    def quantiles(self, which: Sequence[float]) -> list[float] | None:
        """The quantiles asked for, each between 0 and 1; None without a number."""
        if not self.kept:
            return None
        return [float(q) for q in np.quantile(np.frombuffer(self.kept, dtype=np.float64), which)]
