"""Every key of every choice changes the weights, the record or the place of a run, or is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from rnnlstm.cells import CELLS
from rnnlstm.config.errors import ConfigError
from rnnlstm.config.schema import (
    SECTIONS,
    TOP,
    VARIANTS,
    Config,
    NetworkOptions,
    choices_of_sections,
)
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.record.folders import CLIP_EVENTS, FLOW, METRICS, SAMPLES
from rnnlstm.tasks import TASKS
from rnnlstm.training.loop import train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress
from rnnlstm.training.step import Trainer

pytestmark = pytest.mark.usefixtures("shared_composer")

#: A run of some milliseconds.
SHORT = (
    "task.length=24", "model.hidden_size=4", "train.batch_size=4", "train.steps=4", "eval.samples=6", "eval.every=2",
    "log.every=2", "threads=1", "device=cpu",
)  # fmt: skip
#: Keys that say how a run is computed and kept, not what: they may change nothing.
HOW = {
    "from_run", "from_weights",  # where a run came from: tests/training/test_from_run.py
    "model.backend", "threads", "device", "overwrite", "resume", "job_timeout", "plugins",
    "checkpoint.every", "checkpoint.seconds",
    *(f"launcher.{f.name}" for cls in VARIANTS["launcher"].values() for f in dataclasses.fields(cls)),
    *(f"search.{f.name}" for cls in VARIANTS["search"].values() for f in dataclasses.fields(cls)),
}  # fmt: skip
EASY = (
    "task.length=8 task.num_keywords=2 task.decoys=0 model.hidden_size=16 train.batch_size=32 train.steps=40 "
    "optimizer.lr=0.02 eval.every=5"
)
#: Keys that act when the data or the weights meet a condition, or beside other keys: a value that changes nothing in
#: the short run, then one that acts in the run with these overrides.
UNDER_A_CONDITION = {
    "train.stop_when_solved": ("false", "false", EASY + " task.length=2"),
    "curriculum.factor": ("3", "3", EASY + " curriculum=growing curriculum.start=2"),
    "clip.threshold": ("1e6", "1e-3", ""),  # a threshold above every norm
    "clip.norm_type": ("inf", "inf", "clip.threshold=0.01"),  # where nothing is clipped, this norm doesn't, either
    "match": ("units", "parameters", "model=rnn"),
}
#: Values that act, where half of the default or one more than it does not, or does not exist.
VALUES = {
    "task.shortest": "12", "task.decoys": "0.6", "task.keyword_window": "5", "task.alphabet": "26",
    "task.symbols": "5", "model.max_lag": "4", "model.largest": "0.95", "model.recurrent_dropout": "0.4",
    "model.zoneout": "0.4", "eval.lengths": "[20]", "eval.decoys": "[0.5]", "surgery.open": "[forget]",
    "surgery.shut": "[forget]", "surgery.freeze": "[forget]", "surgery.round": "[forget]",
    "surgery.cut": "[forget]", "surgery.truncate": "3", "name": "mine",
    "runs_root": None, "task.filler": None, "clip.threshold": "1e-3", "optimizer.momentum": "0.9",
    "curriculum.start": "8", "eval.every": "1", "log.every": "1", "probe.every": "2", "train.steps": "3",
    "model.input_bias": "-3.0", "optimizer.weight_decay": "0.1", "optimizer.betas": "[0.5,0.9]",
    "clip.norm_type": "inf",
}  # fmt: skip


def options_of(section, choice):
    """The fields of a section, or of a task or model."""
    if section == "task":
        return dataclasses.fields(TASKS[choice])
    if section == "model":
        return (*dataclasses.fields(NetworkOptions), *dataclasses.fields(CELLS[choice]))
    return [
        f for f in dataclasses.fields(VARIANTS.get(section, {}).get(choice, SECTIONS[section])) if f.name != "name"
    ]


def other_value(key, field, value, tmp_path):
    """Another value of the key, as text; None if it can have no other."""
    if key == "task.filler":
        path = tmp_path / "text.txt"
        path.write_text("a river runs by the old mill and the road goes on over the hill . " * 40)
        return str(path)
    if key == "runs_root":
        return str(tmp_path / "elsewhere")
    if key in VALUES:
        return VALUES[key]
    if field.metadata["choices"]:
        return next((choice for choice in field.metadata["choices"] if choice != value), None)
    if isinstance(value, bool):
        return str(not value).lower()
    return str(value + 1 if isinstance(value, int) else value / 2)


def length_of(task):
    return ("task.length=66",) if task == "digits" else ()


def trained(*overrides):
    """What two updates make of the weights, without a record: for keys of tasks and models. A refusal is its text."""
    try:
        (job,) = compose_jobs([*SHORT, *overrides])
        trainer = Trainer(make_plan(job.config), [job.config.seed])
    except ConfigError as error:
        return str(error)
    for step in (1, 2):
        trainer.step(step)
    return {name: weight.detach().tolist() for name, weight in trainer.model.parameters.items()}


def recorded(root, *overrides):
    """Everything that a run leaves but times, and where. A refusal is its text."""
    try:
        (job,) = compose_jobs([*SHORT, f"runs_root={root}", *overrides])
    except ConfigError as error:
        return str(error)
    train_run(make_plan(job.config), job.folder, Progress())
    left = {"place": (str(job.folder.parents[1]), job.config.name)}
    for path in sorted(job.folder.glob("seed_*/*")):
        name = f"{path.parent.name}/{path.name}"
        if path.name in (METRICS, CLIP_EVENTS, FLOW, SAMPLES):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            # The threshold itself is logged, which is no effect of it.
            kept = [{k: v for k, v in line.items() if not k.startswith("clip/threshold")} for line in lines]
            left[name] = [{k: str(v) for k, v in line.items() if not k.startswith("time/")} for line in kept]
        elif path.suffix == ".pt":
            left[name] = path.read_bytes()
    shutil.rmtree(job.folder)  # one place for all runs: the composer parses it once
    return left


def walk(section, choice, base, tmp_path, left_out=()):
    """For each key of a task or model: another value, and what it does: `acts`, `nothing` or a refusal."""
    (job,) = compose_jobs([*SHORT, *base])
    before = trained(*base)
    for field in options_of(section, choice):
        key = f"{section}.{field.name}"
        if key in HOW or field.name in ("init", *left_out):
            continue
        value = other_value(key, field, job.config.tree[section][field.name], tmp_path)
        if value is None:
            continue
        after = trained(*base, f"{key}={value}")
        yield key, value, after if isinstance(after, str) else "nothing" if after == before else "acts"


def starts(model):
    init = next((f for f in dataclasses.fields(CELLS[model]) if f.name == "init"), None)
    return init.metadata["choices"] if init else ()


MODELS = [(model, start) for model in CELLS for start in starts(model)]
PROTOCOLS = [
    (task, variant)
    for task in TASKS
    for variant in next((f.metadata["choices"] for f in dataclasses.fields(TASKS[task]) if f.name == "variant"), [""])
]
QUICK_MODELS = [("lstm", "chrono"), ("lstm", "forget_bias")]


def check_models(pairs, tmp_path):
    acting, all_keys = set(), set()
    for model, start in pairs:
        again = any(name == model for name, _ in all_keys)  # keys of every network don't depend on the start
        left_out = [f.name for f in dataclasses.fields(NetworkOptions)] if again else []
        base = (f"model={model}", f"model.init={start}")
        for key, value, found in walk("model", model, base, tmp_path, left_out):
            all_keys.add((model, key))
            if found == "acts":
                acting.add((model, key))
            else:
                assert "has no effect with init=" in found or "it would change nothing" in found, (
                    model,
                    start,
                    key,
                    value,
                    found,
                )
    return acting, all_keys


def test_keys_of_some_models_act_or_are_refused(tmp_path):
    acting, _ = check_models(QUICK_MODELS, tmp_path)
    assert {("lstm", "model.forget_bias"), ("lstm", "model.max_lag"), ("lstm", "model.input_bias")} <= acting


@pytest.mark.slow
def test_every_key_of_every_model_acts_or_is_refused(tmp_path):
    acting, all_keys = check_models(MODELS, tmp_path)
    never = {key for key in all_keys - acting if key[1] != "model.recurrent_dropout"}
    assert not never, "refused with every start"


def check_tasks(pairs, tmp_path):
    acting = set()
    for task, variant in pairs:
        base = (f"task={task}", *length_of(task), *([f"task.variant={variant}"] if variant else []))
        for key, value, found in walk("task", task, base, tmp_path):
            assert found == "acts" or "2a shows" in found or "parity has" in found, (task, variant, key, value, found)
            acting.add((task, key))
        numbers = make_plan(compose_jobs([*SHORT, *base])[0].config).task.num_tokens is None
        other = trained(*base, "model.embedding_size=9")
        assert isinstance(other, str) is numbers
        if numbers:
            assert other.startswith(f"model.embedding_size=9: has no effect with task={task}")
        else:
            assert other != trained(*base)
    return acting


def test_keys_of_some_tasks_act(tmp_path):
    assert ("keyword", "task.keyword_window") in check_tasks(
        [("keyword", "standard"), ("adding", "standard")], tmp_path
    )


@pytest.mark.slow
def test_every_key_of_every_task_acts(tmp_path):
    pytest.importorskip("sklearn")
    check_tasks(PROTOCOLS, tmp_path)


SECTION_CHOICES = [
    *(
        (group, choice)
        for group, choices in choices_of_sections()
        if group not in ("launcher", "search")
        for choice in choices
    ),
    *((section, "") for section in SECTIONS if section not in dict(choices_of_sections())),
]


@pytest.mark.slow
def test_every_key_of_every_group_and_section_acts_or_is_refused(tmp_path):
    """Also the keys in no section."""
    acting = set()
    for section, choice in [*SECTION_CHOICES, ("", "")]:
        base = ("task.length=12", *([f"{section}={choice}"] if choice else []))
        if section != "probe":
            base += ("probe=off",)
        elif choice != "off":
            base += ("probe.every=4",)
        before = recorded(tmp_path, *base)
        same = {**before, "place": None}
        fields = options_of(section, choice) if section else [f for f in dataclasses.fields(Config) if f.name in TOP]
        (job,) = compose_jobs([*SHORT, *base])
        for field in fields:
            key = f"{section}.{field.name}" if section else field.name
            if key in HOW:
                continue
            held = job.config.tree[section][field.name] if section else job.config.tree[field.name]
            harmless, value, case = UNDER_A_CONDITION.get(key, (None, None, ""))
            value = value or other_value(key, field, held, tmp_path)
            first = recorded(tmp_path, *base, f"{key}={harmless or value}")
            if isinstance(first, str):
                assert "has no effect with" in first, (base, key, value, first)
                continue
            if key in ("name", "runs_root"):
                assert {**first, "place": None} == same
                assert first["place"] != before["place"]
            elif harmless is not None or (section, choice) == ("clip", "none"):
                assert {**first, "place": None} == same, (base, key, harmless)
            else:
                assert {**first, "place": None} != same, (base, key, value)
            if harmless is not None and choice != "none":
                words = (*base, *case.split())
                plain, other = (recorded(tmp_path, *words, *more) for more in ([], [f"{key}={value}"]))
                assert {**plain, "place": None} != {**other, "place": None}, (base, key, value)
            acting.add(key)
    sections = {f"{s}.{f.name}" for s, c in SECTION_CHOICES for f in options_of(s, c)}
    assert acting == (sections | set(TOP)) - HOW
