"""Checkpoints: a damaged one is found out, the one before is used, and with none good nothing is lost or begun
again."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
import zipfile

import pytest
import torch

from rnnlstm.config.errors import BusyError, CheckpointError
from rnnlstm.record.files import locked, read_json, write_json
from rnnlstm.training.checkpoint import (
    KEPT,
    RunState,
    checkpoints,
    group_name,
    group_seeds,
    groups,
    load_newest,
    read_checkpoint,
    require_sound,
    save_checkpoint,
)
from rnnlstm.training.plan import make_plan
from rnnlstm.training.replica import ReplicaState
from rnnlstm.training.resume import groups_to_train, load_trainer
from rnnlstm.training.step import Trainer

from support.resuming import SMALL, assert_same, start
from support.training import compose

STATE = {"step": 3, "weights": {"w": torch.arange(6.0).view(2, 3)}, "text": "plain", "none": None}


def test_what_is_saved_is_what_is_read_and_the_newest_two_stay(tmp_path):
    for step in (1, 20, 300):
        save_checkpoint(tmp_path, [0, 1, 2], step, {**STATE, "step": step})
    save_checkpoint(tmp_path, [5], 7, STATE)
    files = checkpoints(tmp_path, "seeds_0-2")
    assert [path.name for path in files] == ["seeds_0-2.step_000000300.pt", "seeds_0-2.step_000000020.pt"]
    assert KEPT == 2
    assert groups(tmp_path) == ["seeds_0-2", "seeds_5-5"]
    state = load_newest(tmp_path, "seeds_0-2")
    assert state["step"] == 300
    assert torch.equal(state["weights"]["w"], STATE["weights"]["w"])
    assert not list((tmp_path / "checkpoints").glob(".*"))  # no temporary file is left


def test_a_checkpoint_holds_the_declared_entries_and_each_is_needed_to_resume(tmp_path):
    broken = start(tmp_path, "seeds=2", stop_at=18)
    (group,) = groups(broken.folder)
    state = load_newest(broken.folder, group)
    declared = set(ReplicaState.__required_keys__) | set(ReplicaState.__optional_keys__)
    assert set(state) == set(RunState.__annotations__)
    assert all(set(replica) == declared for replica in state["replicas"])
    for entries, names in ((state, RunState.__annotations__), (state["replicas"][1], ReplicaState.__required_keys__)):
        for name in names:
            value = entries.pop(name)
            save_checkpoint(broken.folder, [0, 1], 18, state)
            with pytest.raises(CheckpointError, match=rf"the checkpoint does not fit this run: it has no '{name}'"):
                start(tmp_path, "seeds=2")
            entries[name] = value
    del state["replicas"][0]["precision"]  # as in checkpoints of earlier versions
    save_checkpoint(broken.folder, [0, 1], 18, state)
    assert [summary["status"] for summary in start(tmp_path, "seeds=2").summaries] == ["done", "done"]


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2], [3, 4], [0, 2, 5], [10, 12]])
def test_a_groups_name_says_its_seeds(seeds):
    assert group_seeds(group_name(seeds)) == seeds


def test_cut_short_at_every_percent_and_200_flipped_bits_are_found_out(tmp_path):
    path = save_checkpoint(tmp_path, [0], 1, STATE)
    whole = path.read_bytes()
    for percent in range(100):
        path.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(CheckpointError, match=path.name):
            read_checkpoint(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(CheckpointError, match="added to"):
        read_checkpoint(path)
    bits = random.Random(0)
    for _ in range(200):
        bit = bits.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            state = read_checkpoint(path)
        except CheckpointError:
            continue
        # A flipped bit that goes unnoticed is one of the first line's that changes nothing: none does.
        pytest.fail(f"bit {bit} was flipped and {state} was read")
    path.write_bytes(whole)
    assert read_checkpoint(path)["step"] == 3


def as_file(path, payload, **header):
    first = {"format": "rnnlstm checkpoint", "version": 1, "bytes": len(payload)}
    first["sha256"] = hashlib.sha256(payload).hexdigest()
    path.write_bytes(json.dumps(first | header).encode() + b"\n" + payload)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/rnnlstm_was_here",)


@pytest.mark.parametrize(("content", "words"), [
    (lambda p: p.write_bytes(b""), "first line is damaged"),
    (lambda p: p.mkdir(), "Is a directory"),
    (lambda p: p.write_bytes(b"\0" * 5000), "first line is damaged"),
    (lambda p: p.write_bytes(b"[1]\nx"), "no checkpoint of this program"),
    (lambda p: as_file(p, b"x", version=2), "has version 2, this program reads 1"),
    (lambda p: as_file(p, b"not torch's"), "can't be read"),
    (lambda p: as_file(p, pickle.dumps(Evil(), protocol=2)), "can't be read"),
    (lambda p: torch.save({"evil": Evil()}, p), "first line is damaged"),
])  # fmt: skip
def test_what_is_no_checkpoint_is_refused_and_runs_nothing(content, words, tmp_path):
    path = tmp_path / "seeds_0-0.step_000000001.pt"
    content(path)
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(path)
    assert not os.path.exists("/tmp/rnnlstm_was_here")  # noqa: PTH110


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path, caplog):
    often = ("checkpoint.every=5", "seeds=2")
    whole = start(tmp_path / "whole", *often)
    broken = start(tmp_path / "broken", *often, stop_at=18)
    newest, before = checkpoints(broken.folder, "seeds_0-1")
    assert (newest.name, before.name) == ("seeds_0-1.step_000000018.pt", "seeds_0-1.step_000000015.pt")
    newest.write_bytes(newest.read_bytes()[:-100])
    assert_same(start(tmp_path / "broken", *often), whole, [0, 1])
    assert "cut short" in caplog.text
    assert "step_000000015" in caplog.text


def test_with_no_good_checkpoint_nothing_starts_again(tmp_path):
    broken = start(tmp_path, "checkpoint.every=5", stop_at=18)
    lines = (broken.folder / "seed_0" / "metrics.jsonl").read_bytes()
    for path in checkpoints(broken.folder, "seeds_0-0"):
        path.write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match=r"no good checkpoint in .*step_000000018.*step_000000015"):
        start(tmp_path)
    assert (broken.folder / "seed_0" / "metrics.jsonl").read_bytes() == lines
    anew = start(tmp_path, "overwrite=true")
    assert anew.summaries[0]["status"] == "done"


def test_a_checkpoint_that_was_deleted_is_missed_and_one_that_never_was_is_not(tmp_path, caplog):
    broken = start(tmp_path, "checkpoint.every=5", "seeds=2", stop_at=18)
    summaries = [broken.folder / f"seed_{seed}" / "summary.json" for seed in (0, 1)]
    assert [read_json(path)["checkpoint"] for path in summaries] == [18, 18]
    shutil.rmtree(broken.folder / "checkpoints")
    before = {path: path.read_bytes() for path in broken.folder.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(CheckpointError, match=r"seed 0 after update 18 is gone; overwrite=true starts again"):
        start(tmp_path, "seeds=2")
    assert {path: path.read_bytes() for path in before} == before
    for path in summaries:  # as in a run that was killed before its first checkpoint
        write_json(path, {k: v for k, v in read_json(path).items() if k != "checkpoint"} | {"status": "running"})
    ended = start(tmp_path, "checkpoint.every=5", "seeds=2")
    assert "was stopped before its first checkpoint and starts again" in caplog.text
    assert [summary["status"] for summary in ended.summaries] == ["done", "done"]
    assert not any("checkpoint" in summary for summary in ended.summaries)


@pytest.mark.slow
def test_an_early_end_is_not_a_missing_checkpoint(tmp_path):
    """Seeds that have finished need none, whatever became of the others' checkpoints."""
    start(tmp_path, "seeds=2")
    assert start(tmp_path, "seeds=2").trained is False
    broken = start(tmp_path, "seeds=3", stop_at=18)
    shutil.rmtree(broken.folder / "checkpoints")
    with pytest.raises(CheckpointError, match="seed 2 after update 18 is gone"):
        start(tmp_path, "seeds=3")
    assert start(tmp_path, "seeds=3", "overwrite=true").trained


@pytest.mark.parametrize(("change", "words"), [
    (lambda s: s.update(seeds=[7]), "of seeds"),
    (lambda s: s["trainer"]["weights"].pop("readout.bias"), "other weights"),
    (lambda s: s["trainer"]["weights"].update({"readout.bias": torch.zeros(1, 99)}), "another shape"),
    (lambda s: s["trainer"].pop("optimizer"), "optimizer"),
    (lambda s: s["trainer"]["optimizer"].update(param_groups=[]), "does not fit"),
])  # fmt: skip
def test_a_checkpoint_of_something_else_is_refused(change, words, tmp_path):
    broken = start(tmp_path, stop_at=18)
    state = load_newest(broken.folder, "seeds_0-0")
    change(state)
    save_checkpoint(broken.folder, [0], 18, state)
    with pytest.raises(CheckpointError, match=words):
        start(tmp_path)


#: What no entry of a checkpoint may be, by the kind of entry.
WRONG = {
    "whole": (None, True, "x", 1.5, -1, 10**30, math.nan, [1], {}, torch.ones(1)),
    "number": (None, True, "x", "1.5", [1.0], {}, torch.ones(()), 10**400),
    "time": (None, True, "x", [1.0], {}, -1.0, math.nan, math.inf, 1e300, 10**400),
    "flag": (None, 1, "x", [], torch.tensor(True)),
    "text": (1, True, [], "\x1b[31m", "x" * 2000),
    "words": ([], {}, "\x1b[31m", "x" * 2000),
    "list": (None, 1, "x", {}, (), torch.ones(2)),
    "dict": (None, 1, "x", [], torch.ones(2)),
    "numbers": (None, 1, "x", {}, ["x"], [None], [1.0, [2.0]], [torch.ones(1)], [1.0] * 5000),
    "wholes": (None, 1, "x", {}, ["x"], [-1], [1.5], [True], [10**30], [[0]]),
    "tensor": (None, 1, "x", [1.0], {}, torch.ones(3), torch.ones(2, 8, dtype=torch.int64)),
}
ENTRIES = {
    "seeds": "wholes", "step": "whole", "trainer": "dict", "replicas": "list", "instruments": "list",
    "clock": "dict", "logged": "numbers", "machine": "dict",
    "clock.training": "time", "clock.instruments": "time", "clock.evaluation": "time", "machine.torch": "words",
    "trainer.weights": "dict", "trainer.optimizer": "dict", "trainer.lengths": "wholes", "trainer.frozen": "wholes",
    "trainer.weights.readout.bias": "tensor", "trainer.optimizer.state": "dict",
    "trainer.optimizer.param_groups": "list", "trainer.optimizer.param_groups.0": "dict",
    "trainer.optimizer.param_groups.0.lr": "number", "trainer.optimizer.param_groups.0.params": "wholes",
    "trainer.optimizer.state.0": "dict", "trainer.optimizer.state.0.exp_avg": "tensor",
    "trainer.optimizer.state.0.exp_avg_sq": "tensor", "trainer.optimizer.state.0.step": "tensor",
    "replicas.1": "dict", "replicas.1.status": "text", "replicas.1.reason": "text", "replicas.1.updates": "whole",
    "replicas.1.fired": "whole", "replicas.1.scores": "dict", "replicas.1.scores.loss": "number",
    "replicas.1.precision": "dict", "replicas.1.norms": "dict", "replicas.1.window": "list",
    "replicas.1.window.0": "dict", "replicas.1.largest": "dict", "replicas.1.lengths": "dict",
    "replicas.1.lengths.metrics.jsonl": "whole", "replicas.1.norms.most": "whole", "replicas.1.norms.stride": "whole",
    "replicas.1.norms.count": "whole", "replicas.1.norms.kept": "numbers", "replicas.1.window.1.kept": "numbers",
    "instruments.0": "dict", "instruments.0.sampled_at": "wholes", "instruments.0.midway_due": "flag",
}  # fmt: skip
#: Of the right type, and out of range.
FORGED = [
    ("seeds", [0, 2]), ("step", 0), ("step", 31), ("logged", [1.0]), ("logged", [19, 0.0]), ("logged", [18, 1e9]),
    ("trainer.frozen", [2]), ("trainer.frozen", [1, 1]), ("trainer.lengths", [12]), ("trainer.lengths", [12, 13]),
    ("trainer.weights.readout.bias", torch.zeros(1, 1).expand(2, 8)),
    ("trainer.weights.readout.bias", torch.zeros(2, 8, device="meta")),
    ("trainer.weights.readout.bias", torch.zeros(2, 8).to_sparse()),
    ("trainer.weights.readout.bias", torch.zeros(2, 8, dtype=torch.float64)),
    ("trainer.optimizer.state.0.exp_avg", torch.zeros(1).expand(10**9)),
    ("trainer.optimizer.state.0.step", torch.tensor(math.nan)), ("trainer.optimizer.state.99", {}),
    ("trainer.optimizer.state.0.momentum_buffer", torch.zeros(2)), ("trainer.optimizer.state.0", {}),
    ("trainer.optimizer.param_groups.0.lr", 0.5),
    ("replicas.1.status", "resting"), ("replicas.1.updates", 19), ("replicas.1.fired", 19),
    ("replicas.1.largest", {"x": 19}), ("replicas.1.largest", {"\x1b[31m": 1}), ("replicas.1.largest", {1: 1}),
    ("replicas.1.lengths", {}), ("replicas.1.lengths", {"../../config.yaml": 1}),
    ("replicas.1.lengths.metrics.jsonl", 10**9), ("replicas.1.steps_to_solve", 19), ("replicas.1.speed", -1.0),
    ("replicas.1.norms.stride", 0), ("replicas.1.norms.most", 0), ("replicas.1.norms.count", 10**9),
    ("replicas.1.window", []), ("instruments.0.sampled_at", [19]), ("machine", {"torch": "\x1b[31m"}),
]  # fmt: skip


def put(state, path: str, value) -> None:
    """Put a value in the place of the entry at `path`. Names of weights and files have dots in them."""
    name, _, rest = path.partition(".")
    while isinstance(state, dict) and name not in state and int_or(name) not in state and "." in rest + ".":
        if not rest:
            break
        more, _, rest = rest.partition(".")
        name = f"{name}.{more}"
    key = int_or(name)
    if rest:
        put(state[key], rest, value)
    else:
        state[key] = value


def int_or(name: str) -> int | str:
    return int(name) if name.isdecimal() else name


@pytest.mark.slow
def test_a_forged_checkpoint_is_refused_whatever_entry_was_forged(tmp_path):
    """Its hash is right. Each entry in turn has a wrong type, or a value from which training can't go on."""
    broken = start(tmp_path, "seeds=2", stop_at=18)
    job = compose(*SMALL, f"runs_root={tmp_path}", "seeds=2")
    plan, whole = make_plan(job.config), load_newest(broken.folder, "seeds_0-1")
    trainer = Trainer(plan, [0, 1])
    forged = [(path, value) for path, kind in ENTRIES.items() for value in WRONG[kind]] + FORGED
    assert len(forged) > 300
    with pytest.raises(ValueError, match="it is of seeds"):  # the file's name says so, too
        require_sound({**whole, "seeds": [0, 0]}, [0, 0], 30)
    taken = []
    for path, value in forged:
        state = copy.deepcopy(whole)
        put(state, path, value)
        save_checkpoint(broken.folder, [0, 1], 18, state)
        try:
            (group,) = groups_to_train(broken.folder, job.config)
            load_trainer(trainer, group.state)
        except CheckpointError as error:
            words = str(error).replace(str(broken.folder), "")
            if words.isprintable() and len(words) < 400:
                continue
        taken.append((path, value))
    assert not taken
    save_checkpoint(broken.folder, [0, 1], 18, whole)
    assert [summary["status"] for summary in start(tmp_path, "seeds=2").summaries] == ["done", "done"]


def test_a_checkpoint_needs_no_more_memory_than_disk(tmp_path):
    payload = io.BytesIO()
    torch.save({"weights": torch.zeros(1_000_000)}, payload)
    packed = io.BytesIO()
    with zipfile.ZipFile(payload) as stored, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as deflated:
        for entry in stored.infolist():
            deflated.writestr(entry.filename, stored.read(entry))
    packed.seek(0)
    assert "weights" in torch.load(packed, weights_only=True)  # PyTorch itself takes it
    path = tmp_path / "seeds_0-0.step_000000001.pt"
    as_file(path, packed.getvalue())
    with pytest.raises(CheckpointError, match=r"is compressed, which torch\.save"):
        read_checkpoint(path)


def test_a_checkpoints_texts_reach_the_terminal_escaped(tmp_path, caplog):
    broken = start(tmp_path, stop_at=18)
    state = load_newest(broken.folder, "seeds_0-0")
    state["machine"]["torch"] = "9.9"
    state["machine"]["gpu"] = "x" * 500
    save_checkpoint(broken.folder, [0], 18, state)
    newest = checkpoints(broken.folder, "seeds_0-0")[0]
    as_file(newest.with_name("seeds_0-0.step_000000019.pt"), b"x", version="\x1b[31m" * 100)
    start(tmp_path)
    assert "torch 9.9 → " in caplog.text
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert all(len(record.getMessage()) < 600 for record in caplog.records)


@pytest.mark.slow
def test_a_folder_in_use_names_its_holder_and_is_free_when_the_holder_dies(tmp_path):
    code = "import sys, time; from pathlib import Path; from rnnlstm.record.files import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    began = time.monotonic()
    with pytest.raises(BusyError, match=f"{tmp_path} is in use by process {holder.pid} on "), locked(tmp_path):
        pass
    assert time.monotonic() - began < 1
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with locked(tmp_path):
        pass


def test_a_changed_configuration_in_the_folder_is_refused(tmp_path):
    broken = start(tmp_path, stop_at=18)
    config = broken.folder / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.003", "lr: 0.1"))
    with pytest.raises(ValueError, match=r"optimizer.lr=0.003: the run in .* has 0.1; overwrite=true starts again"):
        start(tmp_path)
