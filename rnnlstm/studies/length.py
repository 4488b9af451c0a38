"""Networks trained on short sequences and tested on long ones."""

from __future__ import annotations

from pathlib import Path

from rnnlstm.studies.common import CHRONO, GRU, TANH, common, each, forget_bias, most_solve, solved
from rnnlstm.studies.study import FIRST, Check, Minutes, Row, Setting, Study, Sweep, register_study

BIAS_5 = forget_bias(5)
ARMS = (TANH, BIAS_5, CHRONO, GRU)
LENGTHS = {"quick": (20, 40, 100), "standard": (100, 200, 500, 1000)}


@register_study("length")
class Length(Study):
    title = "Trained short, tested long"
    question = "What is left of an answer when sequences are ten times as long as any in training?"
    reference = (
        "Pascanu, Mikolov & Bengio 2013: a tanh RNN with clipping and a regulariser, trained on temporal "
        "order of 50–200 steps, was right up "
        "to 5,000. Hochreiter & Schmidhuber 1997 train and test at one length"
    )
    deviations = (
        "Keyword recall and adding in place of temporal order, no regulariser; lengths drawn uniformly for "
        "each update."
    )
    caption = (
        "What to see: the score at the longest test, ten times the longest training sequence (quick: five times)."
    )
    minutes = Minutes(quick=0.2, standard=50)
    columns = tuple(f"at_{T}" for T in (20, 40, 100, 200, 500, 1000))
    figure = ("at_1000", "at_100")  # the longest

    def sweep(self, size: str) -> Sweep:
        uniform = ("curriculum=uniform",)
        if size == "quick":
            settings = (
                Setting(
                    "keyword 10–20",
                    ("task=keyword", "task.length=20", "task.num_keywords=4", *uniform, "curriculum.start=10"),
                    ARMS,
                    400,
                ),
                Setting(
                    "adding 10–20",
                    ("task=adding", "task.length=20", *uniform, "curriculum.start=10"),
                    (CHRONO, GRU),
                    500,
                ),
            )
            return Sweep(settings, **FIRST | {"grid": (1e-2,), "tuning_seeds": 1}, common=common(size))
        start = (*uniform, "curriculum.start=20")
        settings = (
            Setting("keyword 20–100", ("task=keyword", "task.length=100", *start), ARMS, 2500),
            Setting("adding 20–100", ("task=adding", "task.length=100", *start), ARMS, 3000),
        )
        return Sweep(settings, common=common(size), **FIRST)

    def after(self, size: str, folder: Path, seed: int) -> dict[str, float]:
        """The headline metric at each length of the test."""
        from rnnlstm.studies.common import network_of, score

        plan, network = network_of(folder, seed)
        task = plan.task
        samples = 256 if size == "quick" else 1024
        return {f"at_{T}": score(task.vary(length=T), network, seed, samples) for T in LENGTHS[size]}

    def checks(self, size: str) -> list[Check]:
        keyword, adding = (
            ("keyword 10–20", "adding 10–20") if size == "quick" else ("keyword 20–100", "adding 20–100")
        )
        middle, last = (f"at_{T}" for T in LENGTHS[size][-2:])
        return [
            Check(
                "keyword: most seeds of the chrono LSTM solve it at the training length, and its median "
                "accuracy is over 0.9 at "
                f"{middle.removeprefix('at_')} steps",
                lambda t: (
                    most_solve(t(keyword, CHRONO.name)) and t(keyword, CHRONO.name).median(middle) > 0.9,
                    _told(t(keyword, CHRONO.name), size),
                ),
            ),
            Check(
                f"keyword at {last.removeprefix('at_')} steps: the chrono LSTM's median accuracy is above the "
                f"tanh RNN's",
                lambda t: (
                    t(keyword, CHRONO.name).median(last) > t(keyword, TANH.name).median(last),
                    each((t(keyword, a.name) for a in ARMS), last),
                ),
            ),
            Check(
                f"adding at {middle.removeprefix('at_')} steps: the chrono LSTM's median error is below the "
                f"plateau 1/12",
                lambda t: (
                    t(adding, CHRONO.name).median(middle) < 1 / 12,
                    f"{_told(t(adding, CHRONO.name), size)}; {solved(t.of(adding))}",
                ),
            ),
        ]


def _told(row: Row, size: str) -> str:
    return ", ".join(f"T={T} {row.median(f'at_{T}'):.3g}" for T in LENGTHS[size])
