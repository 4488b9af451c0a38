"""How a run ended. Light: whoever only waits for runs needs no torch."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the summaries of its replicas, and the signal that stopped it, if one did."""

    folder: Path
    summaries: list[dict[str, Any]]
    stopped_by: signal.Signals | None = None
    trained: bool = True  #: False where everything had been finished before
