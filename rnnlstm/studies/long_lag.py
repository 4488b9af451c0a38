"""Long time lags with the criteria of 1997."""

from __future__ import annotations

from rnnlstm.studies.common import CHRONO, LSTM_1997, TANH, all_solve, common, few_solve, solved
from rnnlstm.studies.study import FIRST, Arm, Check, Minutes, Row, Rows, Setting, Study, Sweep, register_study

ARMS = (TANH, LSTM_1997, CHRONO)
VARIANTS = ("2a", "2b", "2c")


@register_study("long_lag")
class LongLag(Study):
    title = "Long time lags, 2a, 2b, 2c"
    question = "Does the LSTM of 1997 name the first symbol after a hundred others, by the paper's own criterion?"
    reference = (
        "Hochreiter & Schmidhuber 1997, experiments 2a, 2b, 2c: LSTM p=100 solved by 100 % of trials in 5,040 "
        "(2a) and 5,680 (2b) "
        "sequences; 2c q=p=100 in 31,000, q=p=1000 in 49,000, means over 18 and 20 trials; BPTT and RTRL fail at "
        "p=100 in 2a (from memory; the sections on 2a to 2c not seen)"
    )
    deviations = (
        "Adam, batch 32, 64 units, embedded symbols, softmax. The paper's networks are others (from memory): "
        "one sequence at a time at rate 1.0 (2c: 0.01); one memory cell (2c: two, no biases) without output gate, g "
        "logistic, h the identity; direct connections from input to output; cell and input gate added once the error "
        "stops falling; logistic outputs; weights within ±0.2. So updates and sequences are not compared with the "
        "paper's. Criterion from memory (not "
        "seen: whether 2a bounds every output at every step, 2b at the end alone): every "
        "probability at the end within 0.25 (2c: 0.2) on 10,000 sequences in a row, 1,024 to choose the rate by "
        "(quick: 512 for both); 'sequences' are updates × batch"
    )
    caption = (
        "What to see: updates until the paper's criterion is met; 32 sequences each. Where no dot is, no seed met it."
    )
    minutes = Minutes(quick=0.5, standard=90)
    figure = "steps"

    def sweep(self, size: str) -> Sweep:
        if size == "quick":
            settings = tuple(_setting(v, 20, ARMS, 400) for v in VARIANTS)
            return Sweep(settings, **FIRST | {"grid": (3e-3, 1e-2), "tuning_seeds": 1}, common=common(size))
        exact = (*common(size), "eval.samples=10000", "eval.every=100")
        settings = tuple(_setting(v, 100, ARMS, 3000) for v in VARIANTS)
        return Sweep(settings, common=exact, tuning_samples=1024, **FIRST)  # 10,000 would be most of the work

    def checks(self, size: str) -> list[Check]:
        p = 20 if size == "quick" else 100
        checks = [_meets(variant, p) for variant in VARIANTS]
        checks.append(
            Check(
                f"2c at {p}: at most one seed in five of the tanh RNN does",
                lambda t: (few_solve(t(f"2c, {p}", TANH.name)), solved([t(f"2c, {p}", TANH.name)])),
            )
        )
        return checks


def _setting(variant: str, length: int, arms: tuple[Arm, ...], steps: int) -> Setting:
    return Setting(
        f"{variant}, {length}", ("task=long_lag", f"task.variant={variant}", f"task.length={length}"), arms, steps
    )


def _meets(variant: str, p: int) -> Check:
    def test(t: Rows) -> tuple[bool, str]:
        row = t(f"{variant}, {p}", LSTM_1997.name)
        return all_solve(row), _sequences(row)

    return Check(f"{variant} at {p}: every seed of the LSTM of 1997 meets the criterion", test)


def _sequences(row: Row) -> str:
    return f"{row.solved_count} of {row.n}, median {row.median_steps * row.batch_size:,.0f} sequences"
