"""The gradient taken from an LSTM: truncated to k steps back, or cut where h enters the gates."""

from __future__ import annotations

from rnnlstm.reporting.statistics import wilson
from rnnlstm.studies.common import CHRONO, common, few_solve, most_solve, solved
from rnnlstm.studies.study import Arm, Check, Minutes, Rows, Setting, Study, Sweep, register_study

WHOLE = CHRONO
DETACHED = Arm(f"{CHRONO.name}, h detached", (*CHRONO.overrides, "surgery.detach=true"))
#: By size: length and learning rate, with the truncations k < T beside T − 1.
SETTINGS: dict[str, dict[tuple[int, float], tuple[int, ...]]] = {
    "quick": {(12, 1e-2): (3, 6), (24, 1e-2): (12,)},
    "standard": {(20, 3e-3): (5, 10), (50, 3e-3): (5, 20), (50, 1e-2): (5, 20), (100, 3e-3): (5, 20, 50)},
}


def truncated(k: int) -> Arm:
    return Arm(f"{CHRONO.name}, k = {k}", (*CHRONO.overrides, f"surgery.truncate={k}"))


@register_study("truncation")
class Truncation(Study):
    title = "The gradient taken from the LSTM"
    question = "Does an LSTM learn a lag if and only if its gradient reaches back that far?"
    reference = (
        "Truncated backpropagation through time: Williams & Peng 1990 (from memory). Hochreiter & Schmidhuber 1997 "
        "(from memory) cut the gradient where h enters gates and cell input, so that it goes back through the memory "
        "alone, and solve lags of 1,000 steps. No table of solved lags by truncation is known here"
    )
    deviations = (
        "Keyword recall: the keyword is the first token, the question the last, so that the gradient reaches the "
        "keyword if and only if k ≥ T. Chrono start, fixed rates, 20 seeds (quick: 5). k counts steps back from the "
        "end, the last one included. The forward pass is the same for all."
    )
    claims = ("C8", "C17")
    caption = (
        "What to see: share of seeds that solve the task, with Wilson's 95 % interval, by how many steps back the "
        "gradient reaches. The top row has the whole gradient, the second only its path through c."
    )
    minutes = Minutes(quick=0.7, standard=75)
    figure = "solved"

    def sweep(self, size: str) -> Sweep:
        few, steps = (("task.num_keywords=4",), 200) if size == "quick" else ((), 1000)
        settings = tuple(
            Setting(
                setting_name(length, rate),
                ("task=keyword", f"task.length={length}", *few),
                (WHOLE, DETACHED, *(truncated(k) for k in (*shorter, length - 1))),
                steps,
                rate=rate,
            )
            for (length, rate), shorter in SETTINGS[size].items()
        )
        return Sweep(settings, final_seeds=5 if size == "quick" else 20, common=common(size))

    def checks(self, size: str) -> list[Check]:
        return [check for at, shorter in SETTINGS[size].items() for check in _checks(*at, (*shorter, at[0] - 1))]


def setting_name(length: int, rate: float) -> str:
    return f"T={length}, lr {rate:g}"


def _checks(length: int, rate: float, truncations: tuple[int, ...]) -> list[Check]:
    setting = setting_name(length, rate)

    def reaches(t: Rows) -> tuple[bool, str]:
        rows = [t(setting, arm.name) for arm in (WHOLE, DETACHED)]
        return all(map(most_solve, rows)), solved(rows)

    def cut(t: Rows) -> tuple[bool, str]:
        whole, rows = t(setting, WHOLE.name), [t(setting, truncated(k).name) for k in truncations]
        low = wilson(whole.solved_count, whole.n)[0]
        apart = all(wilson(row.solved_count, row.n)[1] < low for row in rows)
        return apart and all(map(few_solve, rows)), solved([whole, *rows])

    return [
        Check(
            f"{setting}: most seeds solve it with the whole gradient, and with h detached, where it goes through c "
            "alone",
            reaches,
        ),
        Check(
            f"{setting}: at every k < T at most one seed in five solves it, and fewer than with the whole gradient: "
            "the 95 % intervals are apart",
            cut,
        ),
    ]
