"""The picture of updates a second, from what the benchmark writes."""

from __future__ import annotations

import json

import pytest

from rnnlstm.cli.exits import guarded

from updates_figure import main, rates


def times(**medians):
    return {name.replace("_", " "): {"median": ms} for name, ms in medians.items()}


FIGURES = {
    "threads": 1,
    "training": [
        {"task": "adding", "model": "lstm", "seeds": 1, "times": times(lockstep=1.0)},
        {
            "task": "keyword",
            "model": "lstm",
            "seeds": 1,
            "times": times(lockstep=10.0, fair_script=20.0, plain_script=25.0),
        },
        {
            "task": "keyword",
            "model": "lstm",
            "seeds": 8,
            "times": times(JAX_script=1000.0, fair_script=160.0, lockstep=80.0),
        },
    ],
}


def test_rates_count_every_seed_and_leave_out_who_is_not_there():
    one = {"PyTorch, plain script": 40.0, "PyTorch, tuned script": 50.0, "rnnlstm": 100.0}
    assert rates(FIGURES, 1) == one
    assert rates(FIGURES, 8) == {"PyTorch, tuned script": 50.0, "JAX": 8.0, "rnnlstm": 100.0}


def test_the_picture(tmp_path):
    (tmp_path / "speed.json").write_text(json.dumps(FIGURES))
    assert main([str(tmp_path / "speed.json"), str(tmp_path / "updates.png")]) == 0
    assert (tmp_path / "updates.png").stat().st_size > 5_000


@pytest.mark.parametrize("text", [None, "{", "{}", "[]", '{"training": [{"model": "lstm"}]}', '{"training": []}'])
def test_a_file_without_training_is_one_line(text, tmp_path, capsys):
    source = tmp_path / "speed.json"
    if text is not None:
        source.write_text(text)
    assert guarded(lambda: main([str(source), str(tmp_path / "updates.png")])) == 2
    assert guarded(lambda: main([str(source)])) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not (tmp_path / "updates.png").exists()
