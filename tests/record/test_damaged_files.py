"""Files that are damaged, hostile or someone else's, against every command that reads them: an exit code and a line
that names the file, never a traceback; what is whole is still shown, and nothing of it is lost."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from rnnlstm import compare, events, gradflow
from rnnlstm.cli.exits import guarded
from rnnlstm.record.files import read_lines
from rnnlstm.reporting.figures import MOST_MAPS
from rnnlstm.training.checkpoint import checkpoints, load_newest, save_checkpoint
from rnnlstm.training.loop import train_run
from rnnlstm.training.progress import Progress

from support.resuming import StopAt
from support.training import SMALL, plan_for

pytestmark = pytest.mark.slow

OPTIONS = (*SMALL, "model=rnn", "seeds=2", "train.stop_when_solved=false", "train.steps=8", "log.every=1")
OPTIONS += ("eval.every=2", "probe.every=2", "checkpoint.every=2", "threads=1")

# Ways to damage a file, whatever is in it.


def content(data: bytes):
    return lambda path: path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def sparse(path: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, 100_000_000)


def hidden(path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root may read anything")
    path.chmod(0)


DEEP = content(b"[" * 100_000)
LATIN = content(b'{"text": "caf\xe9"}\n')
#: What every reader of JSON or YAML has to stand, and the words that it may use.
ANY = {
    "empty": (content(b""), ""),
    "cut in the middle": (cut, ""),
    "a list": (content(b"[1, 2]"), ""),
    "no UTF-8": (LATIN, "is no UTF-8"),
    "NUL bytes": (content(b"\0" * 500), ""),
    "a folder": (folder, ""),
    "a pipe": (pipe, "is no file"),
    "unreadable": (hidden, "Permission denied"),
    "100 MB": (sparse, ""),
    "deeply nested": (DEEP, ""),
    "a link to itself": (circle, "Too many levels"),
}


def changed(**fields):
    """A JSON object with other values."""
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def without(*names: str):
    def damage(path: Path) -> None:
        fields = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in fields.items() if name not in names}))

    return damage


SUMMARY = ANY | {
    "{}": (content(b"{}"), "has no status"),
    "a status alone": (content(b'{"status": "done"}'), "has no seed"),
    "no clip rate": (without("clip_rate"), "has no clip_rate"),
    "no metric": (without("metric"), "has no metric"),
    "seed x": (changed(seed="x"), "seed=x: must be a whole number"),
    "another seed": (changed(seed=7), "is of seed 7"),
    "a seed that climbs out": (changed(seed="../../../etc"), "seed=../../../etc"),
    "seed NaN": (changed(seed=math.nan), "seed=nan"),
    "seed true": (changed(seed=True), "seed=true"),
    "steps null": (changed(steps=None), "has no steps"),
    "endless steps": (changed(steps=10**40), "steps=1"),
    "loss abc": (changed(loss="abc"), "loss=abc: must be a number"),
    "a loss too large": (changed(loss=10**400), "loss=1"),
    "thousands of digits": (content(b'{"status": "done", "seed": ' + b"9" * 5000 + b"}"), ""),
    "solved 1": (changed(solved=1), "solved=1: must be true or false"),
    "solved, but when": (changed(solved=True, steps_to_solve=None), "has solved and no steps_to_solve"),
    "metric without loss": (changed(loss=None), "has metric and no loss"),
    "status a list": (changed(status=["done"]), "status=['done']: must be a text"),
    "metric name a number": (changed(metric_name=1), "metric_name=1: must be a text"),
}
HOSTILE = "\x1b[31m<script>alert(1)</script>[/red][bold]$\\frac{$\n| ../../x \u202e\x00" + "x" * 3000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that has finished and one that was interrupted, both of two seeds."""
    root = tmp_path_factory.mktemp("made")
    train_run(plan_for(*OPTIONS), root / "whole", Progress())
    train_run(plan_for(*OPTIONS), root / "begun", StopAt(5))
    return root


@pytest.fixture
def runs(made, tmp_path):
    """Copies to damage: `good` and `bad` have finished, `begun` (elsewhere) has not."""
    for name in ("good", "bad"):
        shutil.copytree(made / "whole", tmp_path / "runs" / name)
        config = tmp_path / "runs" / name / "config.yaml"  # a label of its own: else they would be one row
        config.write_text(config.read_text().replace("name: null\n", f"name: {name}\n"))
    shutil.copytree(made / "begun", tmp_path / "begun")
    return tmp_path / "runs"


class Said:
    """What a command has said: on the terminal, and as warnings."""

    def __init__(self, capsys, caplog) -> None:
        self.capsys, self.caplog = capsys, caplog
        self()

    def __call__(self) -> str:
        output = self.capsys.readouterr()
        warnings = [record.getMessage() for record in self.caplog.records]
        self.caplog.clear()
        assert "Traceback" not in output.err
        assert all(line.isprintable() for line in [*output.err.splitlines(), *warnings]), output.err
        return "\n".join([*output.err.splitlines(), *warnings]), output.out


@pytest.fixture
def said(capsys, caplog):
    return Said(capsys, caplog)


def names(text: str, path: Path, words: str) -> None:
    lines = [line for line in text.splitlines() if str(path) in line and words in line]
    assert len(lines) == 1, text
    assert len(lines[0]) < 400 + 2 * len(str(path))


def train(folder: Path) -> int:
    """As `rnnlstm.train` does for its one job."""

    def command() -> int:
        train_run(plan_for(*OPTIONS), folder, Progress())
        return 0

    return guarded(command)


def files(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file() and p.stat().st_size < 10**6}
    return {str(name): path.read_bytes() for name, path in found.items() if path.name not in (".lock",)}


@pytest.mark.parametrize("name", SUMMARY)
def test_summary(name, runs, said):
    damage, words = SUMMARY[name]
    path = runs / "bad" / "seed_0" / "summary.json"
    damage(path)
    assert compare.main([str(runs), "--csv", str(runs.parent / "table.csv")]) == 0
    text, out = said()
    names(text, path, words)
    assert "0/1" in out  # the seed that is left
    assert "0/2" in out  # the other run
    assert len((runs.parent / "table.csv").read_text().splitlines()) == 3
    assert events.main([str(runs)]) == 0
    text, out = said()
    names(text, path, words)
    assert out.count("lines of 2 seeds") == 2
    before = files(runs)
    if name == "another seed":  # only who looks at the whole folder sees it
        return
    assert train(runs / "bad") == 3
    names(said()[0], path, words)
    assert files(runs) == before  # and nothing was started again


def test_a_summary_that_is_missing(runs, said):
    (runs / "bad" / "seed_0" / "summary.json").unlink()
    assert compare.main([str(runs)]) == 0
    assert "0/1" in said()[1]
    assert events.main([str(runs)]) == 0
    assert said()[0] == ""


def test_a_summary_that_is_damaged_is_not_needed_to_go_on(runs, said):
    path = runs.parent / "begun" / "seed_1" / "summary.json"
    path.write_bytes(b"{")
    assert train(runs.parent / "begun") == 0
    names(said()[0], path, "counts as not finished")
    assert json.loads(path.read_text())["steps"] == 8


def test_hostile_texts_stay_texts(runs, said):
    bad = runs / "bad"
    for seed in (0, 1):
        hostile = changed(status=HOSTILE, metric_name=HOSTILE, backend=HOSTILE, reason=HOSTILE)
        hostile(bad / f"seed_{seed}" / "summary.json")
    line = {"step": 9, "samples": [{"text": HOSTILE + "\ud800", "answer": HOSTILE}]}
    with (bad / "seed_0" / "samples.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    config = bad / "config.yaml"
    escaped = json.dumps("\x1b[31m[/red]../../x $\\frac{$")
    config.write_text(
        config.read_text().replace("name: keyword", f"name: {escaped}").replace("lr: 0.003", "lr: '[/b]'")
    )
    pictures = runs.parent / "pictures"
    assert compare.main([str(runs), "--csv", str(runs.parent / "t.csv"), "--figures", str(pictures)]) == 0
    text, out = said()
    assert text == ""
    assert "\x1b" not in out
    assert "[/red]" in out
    assert "[/b]" in out
    assert {path.parent for path in runs.parent.rglob("*.png")} == {pictures}
    assert len(list(pictures.glob("*.png"))) == 4
    assert events.main([str(runs)]) == 0
    assert said()[0] == ""


# Lines: those that are whole count, and the file is named.

GOOD = b'{"step": 3, "eval/loss": 1.5}\n'


def inserted(line: bytes):
    """A line in the middle of the others, and as many bytes taken from the last: the file's length stays."""

    def damage(path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        lines[1] = line + b"\n"
        path.write_bytes(b"".join(lines))

    return damage


LINES = {
    "half a line": inserted(b'{"step": 4, "eval/lo'),
    "a list": inserted(b"[1]"),
    "a step that is none": inserted(b'{"step": "x"}'),
    "no step": inserted(b'{"eval/loss": 1.0}'),
    "a step below zero": inserted(b'{"step": -1}'),
    "a step too large": inserted(b'{"step": 99999999999999999999}'),
    "a value that is none": inserted(b'{"step": 4, "eval/loss": "abc", "hidden": "abc", "samples": "abc"}'),
    "null": inserted(b'{"step": 4, "eval/loss": null, "hidden": null, "samples": null}'),
    "a value too large": inserted(b'{"step": 4, "eval/loss": 1' + b"0" * 400 + b', "samples": 3}'),
    "other shapes": inserted(b'{"step": 4, "hidden": [[1, 2], [3]], "eval/loss": [1], "samples": [1]}'),
    "no UTF-8": inserted(b'{"step": 4, "\xe9": 1.0}'),
    "NUL bytes": inserted(b"\0" * 100),
    "deeply nested": inserted(b"[" * 100_000),
    "hostile tags": inserted(b'{"step": 4, "\\u001b[31m\\ud800": 1.0, "samples": [{}]}'),
}
RECORDS = ("metrics.jsonl", "flow.jsonl", "samples.jsonl")


@pytest.mark.parametrize("name", LINES)
def test_lines(name, runs, said):
    bad = runs / "bad"
    for record in RECORDS:
        LINES[name](bad / "seed_0" / record)
    assert events.main([str(runs)]) == 0
    text, out = said()
    for record in RECORDS:
        names(text, bad / "seed_0" / record, "line 2 is damaged and left out")
    assert out.count("lines of 2 seeds") == 2


WHOLE = {name: way for name, way in ANY.items() if name not in ("a list", "cut in the middle")}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("record", RECORDS[:2])
def test_records_that_are_no_records(name, record, runs, said):
    damage, words = WHOLE[name]
    path = runs / "bad" / "seed_0" / record
    damage(path)
    assert events.main([str(runs)]) == 0
    text, out = said()
    assert out.count("lines of 2 seeds") == 2
    if name != "empty" or record == "metrics.jsonl":  # without a probe there is no flow
        names(text, path, "" if words == "is no UTF-8" else words)
    elsewhere = runs.parent / "begun"
    damage(elsewhere / "seed_1" / record)
    before = files(elsewhere)
    code = train(elsewhere)  # what is long enough is cut back to the length that it had
    text, _ = said()
    assert str(elsewhere / "seed_1" / record) in text
    assert code == 0 if "damaged and left out" in text else code in (3, 74)
    if "overwrite=true" in text:
        assert files(elsewhere) == before


def test_pictures_of_all_that_is_damaged(runs, said):
    """One picture of many runs, since each costs most of a second."""
    for number, damage in enumerate(LINES.values()):
        shutil.copytree(runs / "good", runs / f"lines {number}")
        for record in RECORDS:
            damage(runs / f"lines {number}" / "seed_0" / record)
    for number, (name, (damage, _)) in enumerate(WHOLE.items()):
        if name == "unreadable":
            continue
        shutil.copytree(runs / "good", runs / f"whole {number}")
        for record in RECORDS:
            damage(runs / f"whole {number}" / "seed_1" / record)
    for number, values in enumerate(("NaN", "Infinity", "1e300", "-1e300", "0.0")):
        shutil.copytree(runs / "good", runs / f"values {number}")
        for seed in (0, 1):
            path = runs / f"values {number}" / f"seed_{seed}" / "metrics.jsonl"
            line = f'{{"step": 0, "baseline/loss": {values}, "baseline/x": {values}, "eval/loss": {values}}}\n'
            path.write_text(line + path.read_text())
    for folder in runs.iterdir():  # a label each: else they would be one row
        config = folder / "config.yaml"
        config.write_text(
            re.sub(r"^name: .*$", f"name: {folder.name.replace(' ', '-')}", config.read_text(), flags=re.M)
        )
    assert compare.main([str(runs), "--figures", str(runs.parent / "pictures")]) == 0
    _, out = said()
    assert out.count("0/2") == len(list(runs.iterdir()))
    damaged = sorted(map(str, runs.glob("lines *")))
    for k in range(0, len(damaged), MOST_MAPS):  # of very many, only the first are drawn and read
        assert compare.main([*damaged[k : k + MOST_MAPS], "--figures", str(runs.parent / "pictures")]) == 0
    text, _ = said()
    for number in range(len(LINES)):
        names(text, runs / f"lines {number}" / "seed_0" / "flow.jsonl", "line 2 is damaged and left out")
    assert text.count("metrics.jsonl: line 2 is damaged and left out") >= 5
    assert len(list((runs.parent / "pictures").iterdir())) == 3
    table = runs / "bad" / "seed_0" / "metrics.jsonl"
    assert [line["step"] for line in read_lines(table)] == list(range(9))


# The configuration.

CONFIG = {
    **{name: way for name, way in ANY.items() if name != "cut in the middle"},
    "cut in the middle": (lambda p: p.write_text(p.read_text()[:200] + "\n  {"), ""),
    "{}": (content(b"{}"), ""),
    "no task's name": (lambda p: p.write_text(p.read_text().replace("name: keyword", "name: null")), ""),
    "a length that is none": (lambda p: p.write_text(p.read_text().replace("length: 12", "length: long")), ""),
    "a key that is none": (lambda p: p.write_text(p.read_text() + '"\\e[31m": 1\n'), ""),
    "a number too large": (lambda p: p.write_text(p.read_text() + f"x: {10**400}\n"), ""),
    "tags": (content(b"task: !!python/object/apply:os.system ['true']\n"), ""),
}


@pytest.mark.parametrize("name", CONFIG)
def test_configuration(name, runs, said):
    damage, words = CONFIG[name]
    path = runs / "bad" / "config.yaml"
    damage(path)
    for command in (compare, events):
        assert command.main([str(runs)]) == 0
        text, out = said()
        names(text, path, "can't be read: ")
        assert words in text or name == "a link to itself"
        assert "0/2" in out or "lines of 2 seeds" in out
        assert command.main([str(runs / "bad")]) == 2
        text, _ = said()
        assert len(text.splitlines()) == 1
        assert f"; {path}: can't be read: " in text
    assert gradflow.main([f"weights={runs / 'bad'}", f"out={runs.parent / 'out'}"]) == 2
    assert len(said()[0].splitlines()) == 1
    assert not (runs.parent / "out").exists()
    elsewhere = runs.parent / "begun"
    damage(elsewhere / "config.yaml")
    before = files(elsewhere)
    code = train(elsewhere)
    text, _ = said()
    unseen = ("a link to itself", "a key that is none", "a number too large")  # it compares what it has itself
    assert (code, len(text.splitlines())) == (2, 1) or (name in unseen and code == 0), text
    if code == 2:
        assert files(elsewhere) == before


def test_a_configuration_that_is_missing(runs, said):
    path = runs / "bad" / "config.yaml"
    path.unlink()
    for command in (compare, events):
        assert command.main([str(runs)]) == 0
        names(said()[0], path, "can't be read: No such file or directory; the run is left out")


# Weights.


def saved(value):
    return lambda path: torch.save(value, path)


def rewritten(change):
    def damage(path: Path) -> None:
        weights = torch.load(path, weights_only=True)
        change(weights)
        torch.save(weights, path)

    return damage


def on_cuda(value) -> bytes:
    """The bytes of a file that says of its tensors that they were on cuda:0."""

    def tag(storage):
        return "cuda:0"

    registry = torch.serialization._package_registry
    kept = list(registry)
    torch.serialization.register_package(-1, tag, lambda storage, location: None)
    try:
        buffer = io.BytesIO()
        torch.save(value, buffer)
    finally:
        registry[:] = kept
    assert b"cuda:0" in buffer.getvalue()
    return buffer.getvalue()


WEIGHTS = {
    **{name: way for name, way in ANY.items() if name in ("empty", "cut in the middle", "NUL bytes", "100 MB")},
    **{name: way for name, way in ANY.items() if name in ("a pipe", "a folder", "unreadable", "deeply nested")},
    "wrong shapes": (rewritten(lambda w: w.update({"readout.bias": torch.zeros(99)})), "don't fit"),
    "a weight missing": (rewritten(lambda w: w.pop("readout.bias")), "don't fit"),
    "a tensor alone": (saved(torch.zeros(3)), "no weights by their names"),
    "a list of numbers": (saved([1, 2]), "no weights by their names"),
    "no names": (saved({1: torch.zeros(1)}), "no weights by their names"),
    "texts for weights": (saved({"readout.bias": "x"}), "don't fit"),
    "one too many": (rewritten(lambda w: w.update(more=torch.zeros(1))), "don't fit"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name, runs, said):
    damage, words = WEIGHTS[name]
    damage(runs / "bad" / "seed_0" / "weights.pt")
    assert gradflow.main([f"weights={runs / 'bad'}", f"out={runs.parent / 'out'}"]) == 2
    text, _ = said()
    assert len(text.splitlines()) == 1
    assert words in text
    assert not (runs.parent / "out").exists()


def test_weights_that_were_on_cuda_load_on_the_cpu(runs):
    path = runs / "good" / "seed_0" / "weights.pt"
    path.write_bytes(on_cuda(torch.load(path, weights_only=True)))
    out = runs.parent / "out"
    assert gradflow.main([f"weights={runs / 'good'}", f"out={out}", "show=surgery"]) == 0


# Checkpoints: what is no checkpoint at all is in test_checkpoints.py.


def state_with(change):
    """Every checkpoint of the run, with another state."""

    def damage(run: Path) -> None:
        state = load_newest(run, "seeds_0-1")
        change(state)
        for path in checkpoints(run, "seeds_0-1")[1:]:
            path.unlink()
        save_checkpoint(run, [0, 1], state["step"], state)

    return damage


def broken_weight(state) -> None:
    state["trainer"]["weights"]["readout.bias"][1, 0] = math.nan


def frozen_weight(state) -> None:
    broken_weight(state)
    state["trainer"]["frozen"] = [1]
    state["replicas"][1] |= {"status": "diverged", "reason": "made so"}


def broken_average(state) -> None:
    state["trainer"]["optimizer"]["state"][0]["exp_avg"][0] = math.nan


def newest_of(damage):
    return lambda run: damage(checkpoints(run, "seeds_0-1")[0])


def all_of(damage):
    return lambda run: [damage(path) for path in checkpoints(run, "seeds_0-1")]


CHECKPOINTS = {
    "weights that are not finite": (state_with(broken_weight), 3, "'?readout.bias'? is not finite"),
    "weights of a replica that has diverged": (state_with(frozen_weight), 0, ""),
    "an optimiser that is not a number": (state_with(broken_average), 3, "the optimiser's exp_avg is not a number"),
    "no replicas": (state_with(lambda s: s.pop("replicas")), 3, "it has no 'replicas'"),
    "fewer replicas": (state_with(lambda s: s["replicas"].pop()), 3, "fewer replicas than seeds"),
    "a replica without norms": (state_with(lambda s: s["replicas"][0].pop("norms")), 3, "it has no 'norms'"),
    "a clock that is none": (state_with(lambda s: s.update(clock=1)), 3, "its clock is a int"),
    "pipes": (all_of(pipe), 3, "is no file"),
    "deeply nested": (all_of(lambda p: p.write_bytes(b"[" * 1000 + b"\n")), 3, "first line is damaged"),
    "100 MB": (all_of(sparse), 3, "first line is damaged"),
    "the newest a pipe": (newest_of(pipe), 0, "resuming from the one before"),
    "the newest a folder": (newest_of(folder), 0, "resuming from the one before"),
    "the newest a link to itself": (newest_of(circle), 0, "resuming from the one before"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(name, runs, said):
    damage, code, words = CHECKPOINTS[name]
    run = runs.parent / "begun"
    damage(run)
    before = files(run)
    assert train(run) == code
    text, _ = said()
    assert re.search(words, text), text
    assert len(text.splitlines()) == bool(words)
    if code:
        assert {k: v for k, v in files(run).items() if "tfevents" not in k} == {
            k: v for k, v in before.items() if "tfevents" not in k
        }


def test_a_checkpoint_that_was_on_cuda_loads_on_the_cpu(made, runs):
    """And goes on to the same weights."""
    run = runs.parent / "begun"
    (newest, *older) = checkpoints(run, "seeds_0-1")
    state = load_newest(run, "seeds_0-1")
    for path in older:
        path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", lambda value, buffer: buffer.write(on_cuda_with(save, value)))
        save_checkpoint(run, [0, 1], state["step"], state)
    assert b"cuda:0" in newest.read_bytes()
    assert train(run) == 0
    for seed in (0, 1):
        found, expected = (
            torch.load(p / f"seed_{seed}" / "weights.pt", weights_only=True) for p in (run, made / "whole")
        )
        assert all(torch.equal(found[name], expected[name]) for name in expected)


save = torch.save


def on_cuda_with(save, value) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", save)
        return on_cuda(value)


def test_lines_that_were_lost_since_are_found_out_and_an_older_checkpoint_will_do(made, runs, said):
    run = runs.parent / "begun"
    newest, before = checkpoints(run, "seeds_0-1")
    path = run / "seed_0" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert train(run) == 0
    text, _ = said()
    assert newest.name in text
    assert str(path) in text
    assert f"resuming from the one before, {before.name}" in text
    steps = [line["step"] for line in read_lines(path)]
    assert steps == [line["step"] for line in read_lines(made / "whole" / "seed_0" / "metrics.jsonl")]
