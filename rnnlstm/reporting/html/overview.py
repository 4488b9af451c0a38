"""In short: what was asked, who solved it, and how far the gradient reached, in sentences made from the records."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass

import numpy as np

from rnnlstm.config.safety import config_folder
from rnnlstm.reporting.html.illustration import illustration
from rnnlstm.reporting.html.markup import render
from rnnlstm.reporting.html.parts import Report, Section, unbroken
from rnnlstm.reporting.html.scale import number, share
from rnnlstm.reporting.html.shown import Shown
from rnnlstm.reporting.statistics import solve_times
from rnnlstm.reporting.tables import finite, row

#: Powers of ten by which gradients must differ to say that they tell networks apart.
APART = 2.0
#: What a start is, for those who meet the word first here.
STARTS = {
    "default": "weights as PyTorch draws them; an LSTM’s forget gate then starts half closed",
    "chrono": "forget gates that start almost open: memory for about a sequence’s length (Tallec & Ollivier 2018)",
    "forget_bias": "a bias that opens the forget gate from the start (Gers et al. 2000)",
    "orthogonal": "recurrent weights that keep lengths",
    "identity": "recurrent weights that start by copying the state (Le et al. 2015)",
}
STUCK = 0.9  #: of the baseline's loss, and above: as good as not looking


@dataclass(frozen=True)
class Finding:
    """One configuration in a sentence: how many seeds solved the task, and what was left of the gradient."""

    shown: Shown
    solved: int
    seeds: int
    updates: str
    metric: str
    loss: float | None
    baseline: float | None
    reach: float | None  #: log10 of the gradient left at the first step
    reach_text: str
    state: str
    lag: int  #: at which that is
    steps_back: int  #: from the answer to the first step; farther back than `lag`, float32 holds nothing

    @property
    def stuck(self) -> bool:
        return bool(
            not self.solved and self.loss is not None and self.baseline and self.loss >= STUCK * self.baseline
        )


def section(report: Report) -> Section:
    parts = []
    for group in report.drawn:
        findings = [_finding(report, s) for s in group.shown]
        parts.append((group, _first_line("task", group.task), findings, _words(findings), _conclusion(findings)))
    body = render("overview.html", parts=parts, illustration=illustration(), several=len(report.groups) > 1)
    return Section("in-short", "In short", body)


def _words(findings: list[Finding]) -> list[tuple[str, str]]:
    """The models and starts among the configurations, each in a line."""
    configs = [finding.shown.run.config for finding in findings]
    models = {str(config.get("model.name")): None for config in configs}
    starts = {str(config.get("model.init")): None for config in configs}
    words = [(name, _first_line("model", name)) for name in models]
    words += [(f"init={name}", STARTS.get(name, "")) for name in starts]
    return [(word, meaning) for word, meaning in words if meaning]


def _first_line(group: str, name: str) -> str:
    """What a choice is, from the first line of its YAML file; nothing for a user's own."""
    path = config_folder() / group / f"{name}.yaml"
    if not re.fullmatch(r"\w+", name, re.ASCII) or not path.is_file():
        return ""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def _finding(report: Report, s: Shown) -> Finding:
    run, steps, metric = s.run, solve_times(s.run).median(), row(s.run)["metric"]
    losses, baselines = finite(run.values("loss")), finite(run.values("baseline"))
    reach, state, lag, steps_back = None, "", 0, 0
    for name, flow in report.records.flow(run).items():
        arrived = np.flatnonzero(np.isfinite(flow.last))  # float32 rounds the rest to nothing
        if len(arrived) and (reach is None or flow.last[arrived[-1]] > reach):
            reach, lag, steps_back = float(flow.last[arrived[-1]]), int(arrived[-1]), len(flow.last) - 1
            state = {"hidden": "its state h", "cell": "its memory c"}.get(name, name)
    return Finding(
        s, run.solved, len(run.seeds), number(steps) if math.isfinite(steps) else "",
        "" if metric is None else number(metric), statistics.median(losses) if losses else None,
        baselines[0] if baselines else None, reach, "" if reach is None else _left(reach), state, lag,
        steps_back,
    )  # fmt: skip


def _left(log10: float) -> str:
    if log10 > 0.3:
        return f"{number(10.0 ** min(log10, 300), '.2g')} times as strong as at the answer"
    return "as strong as at the answer" if log10 > -0.1 else unbroken(f"{share(log10)} of that at the answer")


def _conclusion(findings: list[Finding]) -> str:
    """What the records say together; nothing if they don't hold solved and stuck networks beside each other."""
    solved = [f.reach for f in findings if 2 * f.solved > f.seeds and f.reach is not None]
    stuck = [f.reach for f in findings if f.stuck and f.reach is not None]
    if not solved or not stuck:
        return ""
    if min(solved) - max(stuck) < APART:
        return (
            "Here the gradient’s reach alone does not tell the networks that learned from those that did not: look "
            "at its course over training, and at the gates."
        )
    between = [f for f in findings if not f.stuck and 2 * f.solved <= f.seeds and f.reach is not None]
    exceptions = [f.shown.name for f in between if min(solved) - (f.reach or 0.0) >= APART]
    told = (
        "Here the gradient tells those that solve the task from those that learn nothing: where it reaches back to "
        "the start, the network learned to remember; where it had vanished on the way, the network stayed at what "
        "can be had without looking."
    )
    if exceptions:
        names = " and ".join([*exceptions[:2], *(["others"] if len(exceptions) > 2 else [])])
        told += (
            f" Between them stands {names}: better than without looking, not solved, and at the last look without "
            "such a gradient. It may have learned at moments when its gradient did reach back: see the maps below, "
            "update by update."
        )
    return told
