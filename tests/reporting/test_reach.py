"""How far a network reaches, counted from made-up runs."""

from __future__ import annotations

import pytest

from rnnlstm.reporting.charts import Reach, reaches
from rnnlstm.reporting.figures import save_figures
from rnnlstm.reporting.runs import find_runs
from rnnlstm.reporting.selection import group_by
from rnnlstm.reporting.statistics import wilson

from support.run_folders import make_run


@pytest.mark.parametrize(("solved", "longest"), [
    ([4, 4, 4], 80),
    ([4, 2, 1], 40),
    ([4, 1, 4], 20),  # what is solved only beyond a gap is luck, or another rule
    ([1, 4, 4], None),
    ([0, 0, 0], None),
])  # fmt: skip
def test_the_longest_length_is_reached_from_below(solved, longest):
    reach = Reach("adding", "lstm", [20, 40, 80], solved, [4, 4, 4])
    assert reach.longest == longest
    assert reach.intervals == [wilson(k, 4) for k in solved]


@pytest.mark.slow
def test_lengths_are_counted_for_each_network_and_only_ended_seeds(tmp_path):
    for length, ends in {10: "SSS", 20: "SUD", 40: "UUR"}.items():
        _run(tmp_path / f"lstm{length}", ends, model__name="lstm", task__length=length)
    for length in (10, 20):
        _run(tmp_path / f"rnn{length}", "U", model__name="rnn", task__length=length)
    _run(tmp_path / "gru", "S", model__name="gru", task__length=10)
    _run(tmp_path / "slow", "S", model__name="lstm", task__length=10, optimizer__lr=1e-6)
    found = {reach.name: reach for reach in reaches(find_runs([str(tmp_path)]))}
    assert set(found) == {"lstm", "rnn"}  # the others were trained at one length alone
    lstm = found["lstm"]
    assert (lstm.lengths, lstm.solved, lstm.seeds) == ([10, 20, 40], [3, 1, 0], [3, 3, 2])
    assert (lstm.longest, found["rnn"].longest) == (10, None)
    assert "reach.png" in [path.name for path in save_figures(find_runs([str(tmp_path)]), str(tmp_path / "pictures"))]


def test_a_rate_that_was_chosen_at_each_length_makes_no_other_network(tmp_path):
    for length, rate in {10: 0.01, 20: 0.01, 40: 0.003}.items():
        _run(tmp_path / f"{length}", "SS", model__name="lstm", task__length=length, optimizer__lr=rate)
    runs = find_runs([str(tmp_path)])
    assert [reach.lengths for reach in reaches(runs)] == [[10, 20]]
    (reach,) = reaches(runs, ["optimizer.lr"])
    assert reach.lengths == [10, 20, 40]
    assert "lr" not in reach.name


def _run(folder, ends, **config):
    """A seed for each letter: solved, unsolved, diverged, running."""
    status = {"S": "done", "U": "done", "D": "diverged", "R": "running"}
    make_run(
        folder,
        seeds=len(ends),
        solved=[seed for seed, end in enumerate(ends) if end == "S"],
        summaries=[{"status": status[end]} for end in ends],
        **config,
    )


def test_a_group_of_several_tasks_reaches_as_one(tmp_path):
    for task in ("keyword", "copy"):
        for length in (10, 20):
            _run(tmp_path / f"{task}{length}", "SS", task__name=task, task__length=length)
    (found,) = reaches(group_by(find_runs([str(tmp_path)]), ["length"]))
    assert (found.task, found.lengths, found.seeds) == ("several tasks", [10, 20], [4, 4])
