"""What a run shows as it goes: a line that fits the terminal, and a line now and then where there is none."""

from __future__ import annotations

import io
import itertools
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from rnnlstm.training.progress import LiveProgress, LoggedProgress, Part, duration, fitted, progress_on

from support.training import plan_for


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
    train("train.steps=20", progress=LoggedProgress(log, "keyword, rnn", 20))
    lines = log.file.getvalue().splitlines()
    assert [re.sub(r"loss [\d.]+", "loss …", line) for line in lines] == [
        "keyword, rnn: 6 of 20 updates, loss …, 2:20 left",
        "keyword, rnn: 12 of 20 updates, loss …, 1:20 left",
        "keyword, rnn: 18 of 20 updates, loss …, 0:20 left",
    ]


def test_a_short_run_says_nothing_and_a_reader_that_has_gone_stops_no_training(train):
    log = Console(file=io.StringIO())
    train("train.steps=3", progress=LoggedProgress(log, "keyword, rnn", 3))
    assert log.file.getvalue() == ""

    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    outcome = train("train.steps=4", progress=LoggedProgress(Console(file=Gone()), "keyword, rnn", 4, say_every=0.0))
    assert outcome.summaries[0]["steps"] == 4


def test_durations():
    assert [duration(s) for s in (0, 59.6, 200, 3800)] == ["0:00", "1:00", "3:20", "1:03:20"]
