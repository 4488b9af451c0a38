"""The gates, one at a time: held in a trained network, and left out of a network in training."""

from __future__ import annotations

from pathlib import Path

from rnnlstm.studies.common import CHRONO, LSTM_1997, common, each, few_solve, most_solve, solved
from rnnlstm.studies.study import FIRST, Arm, Check, Minutes, Row, Rows, Setting, Study, Sweep, register_study

GATES = ("forget", "input", "output")
WITHOUT = tuple(Arm(f"without {gate} gate", (*CHRONO.overrides, f"surgery.open=[{gate}]")) for gate in GATES)
#: How the article comes to the gates: c += c̃ first, then c += i·c̃, then with a forget gate.
SUM = Arm("sum, c += c̃", (*CHRONO.overrides, "surgery.open=[input,forget]"))
ARMS = (SUM, LSTM_1997, CHRONO, *WITHOUT)
TASKS = ("keyword", "adding")


@register_study("gates")
class Gates(Study):
    title = "Gates held and gates left out"
    question = "Which gate does a trained LSTM need, and which does it need to learn?"
    reference = (
        "Greff et al. 2017, LSTM: a search space odyssey, comparison of variants: the forget gate and the "
        "output activation are the most "
        "critical parts, on speech, handwriting and music; Gers et al. 2000: without a forget gate the memory "
        "grows on continual input"
    )
    deviations = (
        "Synthetic tasks of one sequence each, where nothing has to be forgotten; chrono start in all; a gate "
        "left out is held at 1 from the first update. The sum has neither input nor forget gate, the LSTM of "
        "1997 no forget gate, and PyTorch's start."
    )
    claims = ("C12", "C14", "C16")
    caption = (
        "What to see: updates to solve the task, with every gate (LSTM, chrono) and without some of them. "
        "Right of it in the table: trained networks with a gate held at 1 or 0."
    )
    minutes = Minutes(quick=0.4, standard=40)
    figure = "steps"  # accuracy would show where training stopped
    columns = tuple(f"{gate}_{how}" for gate in GATES for how in ("open", "shut"))

    def sweep(self, size: str) -> Sweep:
        if size == "quick":
            settings = (
                Setting("keyword T=20", ("task=keyword", "task.length=20", "task.num_keywords=4"), ARMS, 200),
                Setting("adding T=20", ("task=adding", "task.length=20"), ARMS, 300),
            )
            return Sweep(settings, **FIRST | {"grid": (1e-2,), "tuning_seeds": 1}, common=common(size))
        settings = (
            Setting("keyword T=50", ("task=keyword", "task.length=50"), ARMS, 1000),
            Setting("adding T=50", ("task=adding", "task.length=50"), ARMS, 1500),
        )
        return Sweep(settings, common=common(size), **FIRST)

    def after(self, size: str, folder: Path, seed: int) -> dict[str, float]:
        """The headline metric of the trained network with every gate, one by one, held open or shut."""
        from rnnlstm.config.schema import Surgery
        from rnnlstm.studies.common import network_of, score

        plan, network = network_of(folder, seed)
        if not plan.config.surgery.nothing or plan.config.cell["name"] != "lstm":  # not every gate is there
            return {}
        task = plan.task
        samples = 256 if size == "quick" else 1024
        scores = {}
        for gate in GATES:
            for how, surgery in (("open", Surgery(open=[gate])), ("shut", Surgery(shut=[gate]))):
                scores[f"{gate}_{how}"] = score(task, network, seed, samples, surgery)
        return scores

    def checks(self, size: str) -> list[Check]:
        keyword, adding = ("keyword T=20", "adding T=20") if size == "quick" else ("keyword T=50", "adding T=50")
        checks = [
            Check(
                "trained on keyword recall: with the forget gate shut the accuracy is near chance (at most "
                "half of that with it)",
                lambda t: (_held(t(keyword, CHRONO.name), "forget_shut") < 0.5, _told(t(keyword, CHRONO.name))),
            ),
            Check(
                "trained on keyword recall: with the input gate held open it loses more than with the forget "
                "gate held open",
                lambda t: (
                    _held(t(keyword, CHRONO.name), "input_open") < _held(t(keyword, CHRONO.name), "forget_open"),
                    _told(t(keyword, CHRONO.name)),
                ),
            ),
            Check("most seeds of the whole LSTM solve both tasks", lambda t: _whole(t, (keyword, adding))),
        ]
        if size == "standard":
            checks += [
                Check(
                    "adding needs the input gate: without it at most one seed in five solves it",
                    lambda t: (few_solve(t(adding, WITHOUT[1].name)), solved(t.of(adding))),
                ),
                Check(
                    "neither task needs a forget gate that learns: without it most seeds solve both",
                    lambda t: (
                        all(most_solve(t(s, WITHOUT[0].name)) for s in (keyword, adding)),
                        "; ".join(f"{s}: {each([t(s, WITHOUT[0].name)])}" for s in (keyword, adding)),
                    ),
                ),
            ]
        return checks


def _held(row: Row, name: str) -> float:
    """The metric with a gate held, as a share of that without."""
    return row.median(name) / row.median("metric")


def _told(row: Row) -> str:
    return f"as it is {row.median('metric'):.3g}, " + ", ".join(
        f"{name.replace('_', ' ')} {row.median(name):.3g}" for name in Gates.columns
    )


def _whole(t: Rows, settings: tuple[str, ...]) -> tuple[bool, str]:
    rows = [t(setting, CHRONO.name) for setting in settings]
    return all(map(most_solve, rows)), "; ".join(f"{row.setting}: {row.solved_count} of {row.n}" for row in rows)
