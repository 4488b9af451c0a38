"""The sections of a configuration, a dataclass each: keys, defaults, rules and a line of help."""

from __future__ import annotations

from dataclasses import dataclass

from rnnlstm.options import OptionError, option

MAX_STEPS = 1_000_000_000


@dataclass(frozen=True)
class NetworkOptions:
    """Those keys of `model` that every network has; the others are its cell's."""

    hidden_size: int = option(64, "units a layer, H", at_least=1, at_most=65_536)
    num_layers: int = option(1, "layers, L", at_least=1, at_most=100)
    embedding_size: int = option(32, "features of a token, for tasks of tokens", at_least=1, at_most=65_536)
    recurrent_dropout: float = option(0.0, "share of h hidden from the recurrent weights", at_least=0, below=1)
    zoneout: float = option(0.0, "chance of a unit to keep its state at a step", at_least=0, below=1)
    backend: str = option("auto", "how the recurrence is computed: auto, reference, fused, torch")


@dataclass(frozen=True)
class OptimizerOptions:
    """Keys of every optimiser."""

    name: str = option("adam", "the optimiser", choices=("adam", "rmsprop", "sgd"))
    lr: float = option(3e-3, "learning rate", above=0, at_most=1000)


@dataclass(frozen=True)
class RMSpropOptions(OptimizerOptions):
    alpha: float = option(0.99, "decay of the squared gradient's average", at_least=0, at_most=1)


@dataclass(frozen=True)
class SGDOptions(OptimizerOptions):
    momentum: float = option(0.0, "share of the last update that is kept", at_least=0, at_most=1)


@dataclass(frozen=True)
class ClipOptions:
    name: str = option("norm", "what is limited", choices=("norm", "value", "none"))
    threshold: float | None = option(1.0, "limit of the norm, or of each entry", above=0)

    def __post_init__(self) -> None:
        if self.threshold is None and self.name != "none":
            raise OptionError("threshold", None, f"clip={self.name} needs one; clip=none does without")


@dataclass(frozen=True)
class ProbeOptions:
    name: str = option("standard", "what is observed", choices=("off", "standard", "full"))
    every: int = option(50, "updates between observations", at_least=1, at_most=MAX_STEPS)


@dataclass(frozen=True)
class CurriculumOptions:
    """Which task lengths are trained at (`training/curriculum.py`)."""

    name: str = option("fixed", "how the length changes", choices=("fixed", "growing", "uniform"))
    start: int = option(10, "task length to begin with, or the shortest", at_least=1, at_most=1_000_000)
    factor: float = option(1.5, "with growing: what a solved length is multiplied by", above=1, at_most=1000)


@dataclass(frozen=True)
class TrainOptions:
    steps: int = option(2000, "updates at most", at_least=1, at_most=MAX_STEPS)
    batch_size: int = option(64, "sequences an update, B", at_least=1, at_most=1_000_000)
    stop_when_solved: bool = option(True, "freeze a replica that meets the task's criterion")


@dataclass(frozen=True)
class EvalOptions:
    every: int = option(50, "updates between evaluations", at_least=1, at_most=MAX_STEPS)
    samples: int = option(1024, "held-out sequences", at_least=1, at_most=10_000_000)
    lengths: list[int] = option([], "further task lengths to test at", at_least=1)
    decoys: list[float] = option([], "further decoy rates to test at", at_least=0, at_most=1)


@dataclass(frozen=True)
class CheckpointOptions:
    """When the state is saved; whichever comes first. How often says nothing about results."""

    every: int = option(1000, "updates between checkpoints", at_least=1, at_most=MAX_STEPS)
    seconds: float = option(60.0, "seconds between checkpoints", at_least=0, at_most=1e9)


@dataclass(frozen=True)
class LogOptions:
    every: int = option(10, "updates between lines of metrics.jsonl", at_least=1, at_most=MAX_STEPS)


@dataclass(frozen=True)
class SearchOptions:
    """How the values of a sweep's keys are chosen (`search/`): keys of every way, and all that `none` has."""

    name: str = option("none", "who chooses values", choices=("none", "optuna"))


@dataclass(frozen=True)
class OptunaOptions(SearchOptions):
    trials: int = option(20, "configurations to try", at_least=1, at_most=10_000)
    at_once: int = option(1, "trials that are chosen, and trained, together", at_least=1, at_most=10_000)
    startup: int = option(10, "trials at random before TPE has enough to go by", at_least=1, at_most=10_000)
    seed: int = option(0, "of the choices, not of the training", at_least=0, at_most=2**32 - 1)


@dataclass(frozen=True)
class Surgery:
    """What is done to a cell (`cells/surgery.py`). Gates by the names that the cell gives them."""

    open: list[str] = option([], "gates held at 1")
    shut: list[str] = option([], "gates held at 0")
    freeze: list[str] = option([], "gates held, unit by unit, at their mean over the sequences of the batch")
    cut: list[str] = option([], "gates that no longer see h of the step before: those weights count as zero")
    detach: bool = option(False, "no gradient through h of the step before into gates and candidate (1997 LSTM)")
    truncate: int | None = option(None, "gradients reach at most this many steps back", at_least=1, at_most=MAX_STEPS)

    @property
    def nothing(self) -> bool:
        return self == Surgery()
