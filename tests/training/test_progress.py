"""What a run shows as it goes: a line that fits the terminal, and a line now and then where there is none."""

from __future__ import annotations

import io
import itertools
import re
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from rich.console import Console

from rnnlstm.cli.progress import SweepProgress
from rnnlstm.jobs.listener import Standing
from rnnlstm.record.environment import COMMANDS, note_command
from rnnlstm.record.files import read_json
from rnnlstm.training.loop import choose_threads, train_run
from rnnlstm.training.loop import update_times as real
from rnnlstm.training.progress import LiveProgress, LoggedProgress, Part, Progress, duration, fitted, progress_on
from rnnlstm.training.resume import SeedGroup

from support.training import SMALL, plan_for


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40])
def test_count_and_time_left_are_whole_at_every_width(width, train):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    progress = LiveProgress(terminal, "[2/6] lstm_no_output_gate", 1500, redraw_every=0.0)
    train("train.steps=20", "seeds=2", progress=progress)
    drawn = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "\n", terminal.file.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", drawn) if "/1,500" in line]
    assert len(lines) >= 21
    assert max(map(len, lines)) <= width
    for line in lines[2:]:
        assert re.search(r"(^| )\d+/1,500 .*\d+:\d\d left$", line)
        assert ("[2/6] lstm_no_output_gate  " in line) == (width > 40)
        for word, least in (("loss", 60), ("accuracy", 120), ("clipped", 200), ("norm", 200), ("baseline", 200)):
            assert (word in line) == (width >= least), f"{word} at {width}: {line}"


def test_what_ranks_last_goes_first_and_what_has_no_rank_stays():
    parts = [Part("rnn", 1), Part("69/500"), Part("loss 2.07", 2), Part("norm 1", 3), Part("1:20 left")]
    assert fitted(parts, 80) == "rnn  69/500  loss 2.07  norm 1  1:20 left"
    assert fitted(parts, 40) == "rnn  69/500  loss 2.07  1:20 left"
    assert fitted(parts, 25) == "rnn  69/500  1:20 left"
    assert fitted(parts, 5) == "69/500  1:20 left"


def test_a_label_is_the_model_and_where_nothing_is_redrawn_the_task_too():
    config = plan_for("task=copy", "model=rnn", "train.steps=7").config
    assert progress_on(Console(force_terminal=True, file=io.StringIO()), config, "[2/6] ")._label == "[2/6] rnn"
    logged = progress_on(Console(file=io.StringIO()), config)
    assert isinstance(logged, LoggedProgress)
    assert logged._label == "copy, rnn"


def test_elsewhere_a_line_now_and_then(train, monkeypatch):
    """With a clock that goes ten seconds ahead for each update."""
    seconds = itertools.count(0.0, 10.0)
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("rnnlstm.training.progress.time", clock)
    log = Console(file=io.StringIO())
    train("train.steps=20", progress=LoggedProgress(log, "keyword, rnn", 20, say_every=60.0))
    start, *lines = log.file.getvalue().splitlines()
    assert start == "keyword, rnn: starts, 20 updates at most"
    assert [re.sub(r"loss [\d.]+", "loss …", line) for line in lines] == [
        "keyword, rnn: 6 of 20 updates, loss …, 2:20 left",
        "keyword, rnn: 12 of 20 updates, loss …, 1:20 left",
        "keyword, rnn: 18 of 20 updates, loss …, 0:20 left",
    ]


def test_a_short_run_says_that_it_starts_and_a_reader_that_has_gone_stops_no_training(train):
    log = Console(file=io.StringIO())
    train("train.steps=3", progress=LoggedProgress(log, "keyword, rnn", 3))
    assert log.file.getvalue() == "keyword, rnn: starts, 3 updates at most\n"

    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    outcome = train("train.steps=4", progress=LoggedProgress(Console(file=Gone()), "keyword, rnn", 4, say_every=0.0))
    assert outcome.summaries[0]["steps"] == 4


def test_durations():
    assert [duration(s) for s in (0, 59.6, 200, 3800)] == ["0:00", "1:00", "3:20", "1:03:20"]


def test_the_command_seeds_and_threads_lie_beside_the_configuration(tmp_path):
    plan = plan_for(*SMALL, "train.steps=2", "seed=3", "seeds=2", f"runs_root={tmp_path}")
    for command in ("train a", "train b", "train a"):
        again = replace(plan, config=replace(plan.config, overwrite=True))
        train_run(again, tmp_path / "run", Progress(), command)
    noted = read_json(tmp_path / "run" / COMMANDS)
    seeds = {"seed": 3, "seeds": 2}
    assert noted == {"threads": 1, "commands": [{**seeds, "command": c} for c in ("train b", "train a")]}
    assert "seed" not in yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())


class Heard(Progress):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


def test_threads_are_chosen_once_by_time_and_resuming_takes_them(tmp_path, monkeypatch):
    """With PyTorch's threads pretended, and a clock by which the second of two updates takes longer or shorter."""
    plan = plan_for(*SMALL, "train.steps=3", "train.stop_when_solved=false")
    now, ratio = [0.0], [3.0]
    threads = [4]

    def timed(trainer, step):
        now[0] += 1.0 if threads[0] == 1 else ratio[0]

    with monkeypatch.context() as patch:
        patch.setattr("rnnlstm.training.loop.time", SimpleNamespace(perf_counter=lambda: now[0]))
        patch.setattr("rnnlstm.training.loop.Trainer.step", timed)
        patch.setattr(torch, "get_num_threads", lambda: threads[0])
        patch.setattr(torch, "set_num_threads", lambda number: threads.__setitem__(0, number))
        for ratio[0], chosen in ((3.0, 1), (0.5, 4)):
            threads[0], heard = 4, Heard()
            assert choose_threads(plan, tmp_path, [SeedGroup([0])], heard) == chosen == threads[0]
            (line,) = heard.lines
            assert line == f"threads={chosen}: an update takes 1e+03 ms with 1, {1e3 * ratio[0]:.3g} ms with 4"
        threads[0], heard = 4, Heard()
        note_command(tmp_path, 0, 1, "train", 2)
        assert choose_threads(plan, tmp_path, [SeedGroup([0])], heard) == 2 == threads[0]
        given = replace(plan, config=replace(plan.config, threads=3))
        assert choose_threads(given, tmp_path, [SeedGroup([0])], heard) == 3
        assert heard.lines == []


def test_timing_threads_changes_nothing_of_a_run(tmp_path, monkeypatch):
    plan = plan_for(*SMALL, "train.steps=3", "log.every=1")
    train_run(plan, tmp_path / "untimed", Progress())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # so that there is a choice
    monkeypatch.setattr("rnnlstm.training.loop.update_times", lambda *given: (real(*given)[0], float("inf")))
    heard = Heard()
    train_run(plan, tmp_path / "timed", heard)
    assert [line.partition(":")[0] for line in heard.lines] == ["threads=1", "starts, 3 updates at most"]
    for name in ("clip_events.jsonl", "weights.pt"):
        assert (tmp_path / "timed/seed_0" / name).read_bytes() == (tmp_path / "untimed/seed_0" / name).read_bytes()


def test_a_resumed_run_says_where(tmp_path):
    plan = plan_for(*SMALL, "train.steps=6", "checkpoint.every=2", "train.stop_when_solved=false")

    class Stops(Heard):
        def show(self, step, update, replicas):
            if step == 5:
                signal.raise_signal(signal.SIGINT)

    for heard, said in ((Stops(), "starts, 6 updates at most"), (Heard(), "resumed at update 5")):
        train_run(plan, tmp_path / "run", heard)
        assert heard.lines == [said]


def test_jobs_beside_each_other_say_when_they_start():
    log = Console(file=io.StringIO(), width=200)
    standing = Standing(3)
    sweep = SweepProgress(log)
    job = SimpleNamespace(folder="runs/a", config=plan_for().config)
    for running in ({0: job}, {0: job, 2: job}, {2: job}):
        sweep.show(standing.look(0, running, {}), 0)
    assert log.file.getvalue().splitlines() == ["[1/3] runs/a: started", "[3/3] runs/a: started"]
