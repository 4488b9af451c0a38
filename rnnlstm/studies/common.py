"""What several studies share: networks by name, what every run has in common, and ways to word what was measured."""

from __future__ import annotations

from collections.abc import Iterable

from rnnlstm.studies.rows import Row
from rnnlstm.studies.study import Arm

TANH = Arm("tanh RNN", ("model=rnn",))
IRNN = Arm("IRNN", ("model=rnn", "model.nonlinearity=relu", "model.init=identity"))
DEFAULT = Arm("LSTM, default", ("model=lstm", "model.init=default"))
CHRONO = Arm("LSTM, chrono", ("model=lstm", "model.init=chrono"))
LSTM_1997 = Arm("LSTM of 1997", ("model=lstm_1997",))
GRU = Arm("GRU", ("model=gru",))


def forget_bias(bias: float) -> Arm:
    return Arm(f"LSTM, forget bias {bias:g}", ("model=lstm", "model.init=forget_bias", f"model.forget_bias={bias:g}"))


#: Of every run: nothing is looked at on the way, evaluation is all that is recorded.
QUIET = ("probe=off", "log.every=50")
#: One thread: networks this small gain little from a second, and lose tenfold where another process wants the core.
SMALL = (
    *QUIET,
    "threads=1",
    "model.hidden_size=32",
    "model.embedding_size=16",
    "train.batch_size=32",
    "eval.samples=512",
    "eval.every=25",
)
STANDARD = (*QUIET, "train.batch_size=32")


def common(size: str) -> tuple[str, ...]:
    return SMALL if size == "quick" else STANDARD


def each(rows: Iterable[Row], name: str = "metric", form: str = ".3g") -> str:
    """`tanh RNN 0.167, IRNN 0.165`: medians."""
    return ", ".join(f"{row.arm} {row.median(name):{form}}" for row in rows)


def solved(rows: Iterable[Row]) -> str:
    """`tanh RNN 0 of 5, GRU 5 of 5`."""
    return ", ".join(f"{row.arm} {row.solved_count} of {row.n}" for row in rows)


def all_solve(row: Row) -> bool:
    return row.n > 0 and row.solved_count == row.n


def most_solve(row: Row) -> bool:
    return 2 * row.solved_count > row.n


def few_solve(row: Row) -> bool:
    """At most one seed in five."""
    return 5 * row.solved_count <= row.n
