"""A configuration is data: nothing in it runs code, reads the environment, or leads outside its folders."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import time
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from omegaconf.basecontainer import BaseContainer

import rnnlstm
from rnnlstm import compare, gradflow
from rnnlstm.cli.exits import fail
from rnnlstm.config import untrusted
from rnnlstm.config.compose import Composer
from rnnlstm.config.errors import ConfigError, OptionError, show
from rnnlstm.config.untrusted import LARGEST_FILE, MOST_FILES, check_folder
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.train import main

pytestmark = pytest.mark.usefixtures("shared_composer")

PACKAGE = Path(rnnlstm.__file__).parent
ESC = "\x1b[31m"
HEAD = "# @package _global_\n"

#: A command line of the trainer, and words its one line must hold.
CASES = [
    # Hydra's own keys, flags and packages
    (["+hydra.searchpath=[/tmp]"], ["hydra.searchpath", "Hydra's own"]),
    (["hydra/launcher=basic"], ["hydra/launcher", "Hydra's own"]),
    (["+hydra/sweeper=basic"], ["hydra/sweeper", "Hydra's own"]),
    (["++hydra.job_logging.handlers.x.class=os.system"], ["job_logging", "Hydra's own"]),
    (["~hydra"], ["~hydra", "Hydra's own"]),
    (["hydra={run: {dir: x}}"], ["hydra=", "Hydra's own"]),
    (["+model@hydra.run=rnn"], ["model@hydra.run", "elsewhere"]),
    (["+experiment@seed=../../../tmp/x"], ["experiment@seed", "elsewhere"]),
    (["task@_global_=copy"], ["task@_global_", "elsewhere"]),
    (["--config-path=/tmp"], ["--config-path"]),
    (["--config-name", "x"], ["--config-name"]),
    (["--info"], ["--info"]),
    (["--shell-completion"], ["--shell-completion"]),
    (["--run"], ["--run"]),
    (["-p", "hydra"], ["-p"]),
    # code by name
    (["_target_=os.system"], ["_target_=os.system", "unknown key"]),
    (["+model._target_=os.system"], ["model._target_", "unknown key"]),
    (["++task._target_=os.system", "+task._args_=[x]"], ["task._target_", "unknown key"]),
    (["+train._recursive_=true"], ["train._recursive_", "unknown key"]),
    (["+defaults=[x]"], ["defaults=[x]", "unknown key"]),
    (["plugins=[../x]"], ["plugins=../x", "no module"]),
    (["plugins=[/tmp/x.py]"], ["plugins=/tmp/x.py", "no module"]),
    (["plugins=['os;x']"], ["plugins=os;x", "no module"]),
    (["plugins=[1]"], ["plugins=[1]", "list of modules"]),
    (["plugins=${name}"], ["plugins=${name}", "list of modules"]),
    (["-m", "plugins=[a],[b]"], ["plugins=[a],[b]", "list of modules"]),
    # interpolations
    (["name=${oc.env:HOME}"], ["name=${oc.env:HOME}", "references"]),
    (["name=$\\{oc.env\\:HOME\\}"], ["name=${oc.env:HOME}", "references"]),
    (["name='${oc.decode:${name}}'"], ["oc.decode", "references"]),
    (["surgery.open=['${oc.env:HOME}']"], ["surgery.open", "references"]),
    (["+task={x: '${oc.env:HOME}'}"], ["task", "references"]),
    (["-m", "seed=1,${oc.env:HOME}"], ["seed", "references"]),
    (["seed=${.seeds}"], ["seed=${.seeds}", "references"]),
    (["seed=${eval.lengths[0]}"], ["seed=", "references"]),
    (["seed=${${name}}"], ["seed=${${name}}", "can't read"]),
    (["seed=${seeds}", "seeds=${seed}"], ["seed", "recursive"]),
    (["seed=${model}"], ["seed=${model}", "no single value"]),
    (["seed=${eval.lengths}"], ["seed=${eval.lengths}", "no single value"]),
    (["seed=${nowhere.at.all}"], ["seed=${nowhere.at.all}", "no key nowhere.at.all"]),
    # names and places
    (["task.name=../../x"], ["task.name=../../x", "must be one of"]),
    (["model.name=lstn"], ["model.name=lstn", "did you mean lstm?"]),
    (["optimizer.name=../adam"], ["optimizer.name=../adam", "must be one of"]),
    (["clip.name=/norm"], ["clip.name=/norm", "must be one of"]),
    (["task.variant=../../x"], ["task.variant=../../x", "must be one of"]),
    (["model=../model/lstm"], ["model=../model/lstm", "must be one of"]),
    (["experiment=../train"], ["experiment=../train", "must be one of"]),
    (["name=.."], ["name=..", "letters"]),
    (["name='a b'"], ["name=a b", "letters"]),
    (["name='ａ'"], ["name=ａ", "letters"]),
    ([f"runs_root={'a' * 300}"], ["runs_root=aaa", "File name too long"]),
    ([f"runs_root={'a/' * 3000}a"], ["runs_root=a/a", "File name too long"]),
    (["runs_root=/dev/null/x"], ["runs_root=/dev/null/x", "not a folder"]),
    (["runs_root='~nobody_at_all/x'"], ["runs_root=~nobody_at_all/x", "home"]),
    ([f"task.length={'9' * 300}"], ["task.length=999", "at most"]),
    ([f"task.length={'a' * 300}"], ["task.length=aaa", "whole number"]),
    # characters that a terminal acts on
    ([f"name='{ESC}x'"], ["name='\\x1b[31mx'", "printed"]),
    ([f"{ESC}=1"], ["\\x1b[31m=1", "printed"]),
    (["name=a\nb"], ["printed"]),
    (["name='a\0b'"], ["printed"]),
    (["name=a\u202eb"], ["\\u202e", "printed"]),
    (["name=a\u200bb"], ["\\u200b", "printed"]),
    (["name=\udcff"], ["\\udcff", "printed"]),
    (["--\x1b[2J"], ["\\x1b[2J"]),
    (["--cfg", "\x1b[2J"], ["\\x1b[2J"]),
    (["--config-dir", "\x1b[2J"], ["\\x1b[2J", "not a folder"]),
    (["--config-dir"], ["--config-dir", "needs a folder"]),
    (["--config-dir", "a" * 300], ["--config-dir aaa", "File name too long"]),
    (["--config-dir", "a\0b"], ["--config-dir a\\x00b"]),
    # numbers and sizes
    ([f"seed={'9' * 5000}"], ["seed=999", "can't read"]),
    ([f"clip.threshold={'9' * 400}"], ["clip.threshold=999", "finite"]),
    ([f"optimizer.lr=-{'9' * 400}"], ["optimizer.lr=-999", "finite"]),
    (["clip.threshold=inf"], ["clip.threshold=inf", "finite"]),
    (["eval.decoys=[.1,nan]"], ["eval.decoys=nan", "finite"]),
    ([f"surgery.truncate={'9' * 400}"], ["surgery.truncate=999", "at most"]),
    (["seed=" + "[" * 3000 + "]" * 3000], ["seed=[[[", "brackets"]),
    (["seed=" + "{a:" * 3000 + "1" + "}" * 3000], ["seed={a:", "brackets"]),
    (["name=" + "x" * 30_000], ["name=xxx", "up to 60"]),
    (["device=cuda:99999999999999999999"], ["device=cuda:999", "must be"]),
    (["device='cuda:٣'"], ["device=cuda:٣", "must be"]),
    (["device=cuda:01"], ["device=cuda:01", "must be"]),
    (["-m", "seed=shuffle(range(1,1e9))"], ["seed=shuffle", "10,000"]),
    (["-m", "seed=sort(range(1,1e300))"], ["seed=sort", "10,000"]),
    (["-m", "seed=range(1,10,0)"], ["seed=range(1,10,0)", "step"]),
    (["-m", "seed=interval(0,1)"], ["seed=interval(0,1)", "interval"]),
    (["-m", "seed=range(5,1)"], ["seed=range(5,1)", "empty sweep"]),
    (["-m", "seed=1,1"], ["two jobs", "same run"]),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "words"), CASES, ids=[ascii(" ".join(case[0]))[:50] for case in CASES])
def test_one_line_exit_2_and_nothing_on_disk(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    started = time.process_time()
    assert main(arguments) == 2
    assert time.process_time() - started < 10
    refused(capsys.readouterr().err, words)
    assert list(tmp_path.iterdir()) == []


def refused(message: str, words: list[str]) -> None:
    assert message.endswith("\n")
    assert message[:-1].isprintable()
    for word in words:
        assert word in message


def test_no_resolver_is_asked(monkeypatch, tmp_path):
    """Every one that is registered, Hydra's and a plugin's own included, with each kind of quoting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(BaseContainer._resolvers, "own", lambda *_: pytest.fail("a resolver was asked"))
    with Composer().active():
        names = sorted(BaseContainer._resolvers)
    assert {"oc.env", "oc.decode", "oc.create", "oc.select", "oc.dict.values", "hydra", "now", "own"} <= set(names)
    for name in names:
        for text in (f"${{{name}:HOME}}", f"'${{{name}:HOME}}'", f"x${{{name}:}}", f"$\\{{{name}\\:a\\}}"):
            with pytest.raises(OptionError, match="only references"):
                compose_jobs([f"task.filler={text}"])


def test_a_reference_to_a_key_is_taken():
    (job,) = compose_jobs(
        ["model.hidden_size=${task.length}", "name='${task.name}_${seed}'", "task.length=${seed}", "seed=17"]
    )
    assert (job.config.network.hidden_size, job.config.name) == (17, "keyword_17")


def test_references_are_looked_up_once_each():
    tree = {"x0": "a" * 10} | {f"x{i}": f"${{x{i - 1}}}${{x{i - 1}}}" for i in range(1, 60)}
    with pytest.raises(OptionError, match="becomes longer"):
        untrusted.resolve(tree)
    with pytest.raises(OptionError, match="no single value"):
        untrusted.resolve({"a": {"x": "${b}", "y": "${b}"}, "b": {"x": 1}})
    with pytest.raises(OptionError, match="recursive"):
        untrusted.resolve({"a": "${b}", "b": "x${a}"})
    with pytest.raises(OptionError, match="too large"):
        untrusted.resolve({"a": 1 << 20_000})


#: Each line is ten times as large as the one before, once its aliases are replaced: 10^15 entries.
LAUGHS = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefghijklmnop"))
#: A file of the user's own, and words the one line must hold.
FILES = {
    "python": (HEAD + "name: !!python/object/apply:os.system ['touch pwned']\n", "tags"),
    "python_name": (HEAD + "name: !!python/name:os.system\n", "tags"),
    "own_tag": ("%TAG ! tag:x,2000:\n---\nname: !foo 1\n", "tags"),
    "binary": (HEAD + "name: !!binary aGk=\n", "tags"),
    "laughs": (HEAD + "a: &a [x, x]\n" + LAUGHS, "aliases (*) replaced"),
    "merged": (HEAD + "a: &a {k: x}\n" + LAUGHS.replace("[", "{<<: [").replace("]", "]}"), "aliases (*) replaced"),
    "laughs_text": (HEAD + f"a: &a {'x' * 9000}\nb: [{', '.join(['*a'] * 8)}]\n", "aliases (*) replaced"),
    "itself": (HEAD + "model: &a {x: *a}\n", "*a stands within what it names"),
    "deep_alias": (HEAD + "a: &a [[[[[[x]]]]]]\nb: [[[[[[*a]]]]]]\n", "within each other"),
    "no_anchor": (HEAD + "seed: *a\n", "undefined alias"),
    "nested": (HEAD + "a: " + "[" * 20_000 + "]" * 20_000, "within each other"),
    "nested_blocks": ("\n".join(" " * i + "a:" for i in range(100)), "within each other"),
    "large": ("#" * (LARGEST_FILE + 1), "larger than"),
    "latin": ((HEAD + "name: é\n").encode("latin-1"), "no UTF-8"),
    "utf16": ((HEAD + "seed: 1\n").encode("utf-16"), "no UTF-8"),
    "marked": (b"\xef\xbb\xbfseed: 1\n", "byte order mark"),
    "nul": (HEAD + "name: a\0b\n", "control characters"),
    "escape": (HEAD + 'name: "\\e[31mx"\n', "name=\\x1b[31mx"),
    "escape_root": (HEAD + 'runs_root: "\\e[31mx"\n', "runs_root=\\x1b[31mx"),
    "escape_key": (HEAD + '"\\e[2J": 1\n', "\\x1b[2J=1"),
    "newline": (HEAD + 'runs_root: "a\\nb"\n', "runs_root=a b"),
    "climbs": (HEAD + "name: ../../x\n", "name=../../x"),
    "climbs_task": (HEAD + "task: {name: ../../x}\n", "task.name=../../x"),
    "environment": (HEAD + "name: ${oc.env:HOME}\n", "only references"),
    "nested_environment": (HEAD + "task: {x: [{y: '${oc.env:HOME}'}]}\n", "only references"),
    "default_environment": (HEAD + "defaults: ['override /model: ${oc.env:HOME}']\n", "only references"),
    "hydra_job": (HEAD + "hydra: {job: {name: x}}\n", "can't be set: hydra.job.name: write name=x"),
    "hydra": (HEAD + "hydra: {callbacks: {x: {_target_: os.system}}}\n", "Hydra's own"),
    "hydra_package": ("# @package hydra.run\ndir: x\n", "Hydra's own"),
    "hydra_launcher": (HEAD + "defaults:\n  - override /hydra/launcher: basic\n", "no choice"),
    "upwards": (HEAD + "defaults: [../../../../tmp/x]\n", "no choice"),
    "upwards_choice": (HEAD + "defaults: [{/model: ../../x}]\n", "no choice"),
    "moved": (HEAD + "defaults: [/model@task: rnn]\n", "no choice"),
    "no_list": (HEAD + "defaults: 3\n", "defaults must be a list"),
    "list_in_list": (HEAD + "defaults: [[x]]\n", "no choice"),
    "itself_again": (HEAD + "defaults: [itself_again]\n", "ecursi"),
    "nowhere": (HEAD + "defaults: [not_there]\n", "not_there"),
    "target": (HEAD + "model: {_target_: os.system}\n", "model._target_=os.system: unknown key"),
    "plugins": (HEAD + "plugins: [os]\n", "command line only"),
    "long_number": (HEAD + f"seed: {'9' * 6000}\n", "a number of thousands of digits"),
    "long_hexadecimal": (HEAD + f"task: {{length: 0x{'f' * 50_000}}}\n", "can't be read"),
    "large_number": (HEAD + f"task: {{length: 0x{'f' * 3200}}}\n", "too large"),
    "twice": (HEAD + "seed: 1\nseed: 2\n", "duplicate key seed"),
    "two_documents": ("a: 1\n---\nb: 2\n", "found another document"),
    "a_list": ("- 1\n", "holds no keys"),
    "number_key": (HEAD + "1: 2\n", "keys must be texts"),
    "null_key": (HEAD + "null: 2\n", "keys must be texts"),
    "deep_number_key": (HEAD + "task: {1: 2, a: 3}\n", "task.1=2: unknown key"),
    "list_key": (HEAD + "? [a]\n: 2\n", "unhashable key"),
    "no_date": (HEAD + "name: 2020-99-99\n", "can't be read"),
    "unclosed": (HEAD + "seed: [1\n", "line 3"),
    "no_section": (HEAD + "train: [1]\n", "no_section': ConfigTypeError"),
    "list_as_name": (HEAD + "optimizer: {name: [x]}\n", "optimizer.name"),
    "header": ("# @package\nseed: 1\n", "header"),
    "doubling": (HEAD + "task:\n  x0: aaaaaaaaaa\n" + "".join(
        f"  x{i}: ${{task.x{i - 1}}}${{task.x{i - 1}}}\n" for i in range(1, 60)), "becomes longer"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_hostile_files_are_refused(name, tmp_path, monkeypatch, capsys):
    content, words = FILES[name]
    folder, elsewhere = tmp_path / "own folder" / "experiment", tmp_path / "elsewhere"
    folder.mkdir(parents=True)
    elsewhere.mkdir()
    (folder / f"{name}.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(elsewhere)
    started = time.process_time()
    assert main(["--config-dir", str(folder.parent), f"experiment={name}"]) == 2
    assert time.process_time() - started < 10
    refused(capsys.readouterr().err, [words])
    assert list(elsewhere.iterdir()) == []
    assert len(list(tmp_path.rglob("*"))) == 4


def test_folders_that_are_too_much(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "round").symlink_to(tmp_path)  # a way that never ends
    for number in range(MOST_FILES):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(ConfigError, match="more than 1,000 files"):
        check_folder(tmp_path)
    os.mkfifo(tmp_path / "a" / "pipe.yaml")
    (tmp_path / "a" / "round").unlink()
    for path in tmp_path.glob("*.txt"):
        path.unlink()
    with pytest.raises(ConfigError, match="is no file"):
        check_folder(tmp_path)
    (tmp_path / "a" / "pipe.yaml").unlink()
    for number in range(20):
        (tmp_path / f"{number}.yaml").write_text("#" * LARGEST_FILE)
    with pytest.raises(ConfigError, match="together"):
        check_folder(tmp_path)


def test_a_folder_of_ones_own_still_works(tmp_path):
    (tmp_path / "own, [odd] name" / "experiment").mkdir(parents=True)
    (tmp_path / "own, [odd] name" / "experiment" / "mine.yaml").write_text(
        HEAD + "defaults:\n  - override /model: rnn\n  - override /task: adding\n  - _self_\nmodel: {num_layers: 2}\n"
    )
    (job,) = compose_jobs(["experiment=mine"], config_dir=str(tmp_path / "own, [odd] name"))
    assert job.config.network.num_layers == 2
    assert job.config.task["name"] == "adding"


def test_an_experiment_may_use_anchors(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "task: {length: &long 30}\neval: {lengths: [*long, 60]}\ntrain: {<<: &short {steps: 7}, batch_size: 3}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(HEAD + text)
    (job,) = compose_jobs(["experiment=mine"], config_dir=str(tmp_path))
    assert (job.config.task["length"], job.config.eval.lengths) == (30, [30, 60])
    assert (job.config.train.steps, job.config.train.batch_size) == (7, 3)


def test_an_experiment_without_its_package_is_named(tmp_path):
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    for text in ("seeds: 2\n", "# My own\n# @package _global_\nseeds: 2\n", "seeds: 2\n# @package _global_\n"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"experiment/mine.yaml .*# @package _global_"):
            untrusted.own_folder(str(tmp_path))
    for text in ("", "defaults:\n  - override /task: adding\n", "\n#   @package  _global_\n# My own\nseeds: 2\n"):
        file.write_text(text)
        untrusted.own_folder(str(tmp_path))


@pytest.mark.parametrize(("text", "said"), [
    ("train.steps: 5", r"train\.steps: a file has sections: train: {steps: 5}"),
    ("task: adding", "task is chosen in its defaults list: - override /task: adding"),
    ("model: {name: gru, hidden_size: 3}", "model is chosen in its defaults list: - override /model: gru"),
])  # fmt: skip
def test_habits_of_the_command_line_in_a_file_are_answered(tmp_path, text, said):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"{HEAD}{text}\n")
    with pytest.raises(ConfigError, match=rf"experiment/mine\.yaml can't be read: {said}"):
        compose_jobs(["experiment=mine"], config_dir=str(tmp_path))


def test_a_choice_of_ones_own_begins_with_one_of_the_projects(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "part.yaml").write_text("name: lstm\nhidden_size: 16\n")
    (tmp_path / "model" / "small.yaml").write_text("defaults: [lstm]\nhidden_size: 16\n")
    with pytest.raises(
        ConfigError, match=r"missing key model.*in a file of your own, defaults: \[CHOICE\] brings them"
    ):
        compose_jobs(["model=part"], config_dir=str(tmp_path))
    (job,) = compose_jobs(["model=small"], config_dir=str(tmp_path))
    assert (job.config.cell["name"], job.config.network.hidden_size) == ("lstm", 16)


@pytest.mark.parametrize(("entry", "said"), [
    ("override /task: addin", "task=addin: must be one of adding, .*did you mean adding"),
    ("override /tsk: adding", "there is no group tsk; did you mean task"),
    ("task: adding", "write override /task: adding"),
    ("/task: adding", "write override /task: adding"),
    ("their", "there is no experiment their"),
])  # fmt: skip
def test_a_defaults_list_that_asks_for_nothing_there_is_named(tmp_path, entry, said):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "elsewhere").write_text(HEAD + f"defaults:\n  - {entry}\n")
    (tmp_path / "experiment" / "mine.yaml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=rf"experiment/mine\.yaml: defaults: {said}"):
        compose_jobs(["experiment=mine"], config_dir=str(tmp_path))


def test_a_copy_of_the_projects_folder_works_until_a_file_differs(tmp_path):
    own = tmp_path / "configs"
    shutil.copytree(untrusted.config_folder(), own)
    (job,) = compose_jobs(["experiment=demo_rnn"], config_dir=str(own))
    (projects,) = compose_jobs(["experiment=demo_rnn"])
    assert job == projects
    changed = own / "model" / "rnn.yaml"
    changed.write_text(changed.read_text().replace("hidden_size: 64", "hidden_size: 32"))
    with pytest.raises(ConfigError, match="differs from the project's model/rnn\\.yaml, which counts"):
        untrusted.own_folder(str(own))
    (own / "model" / "rnn.yaml").rename(own / "model" / "small_rnn.yaml")
    with Composer(str(own)).active() as composer:
        assert composer.compose(["model=small_rnn"])["model"]["hidden_size"] == 32


class Touch:
    """What a hostile pickle holds."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def weights(compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("weights/data.pkl", pickle.dumps(Touch(), 2))
        archive.writestr("weights/version", "3\n" + "\0" * 10**6)
    return file.getvalue()


@pytest.mark.parametrize(("config", "content", "words"), [
    (b"task: !!python/object/apply:os.system ['touch pwned']\n", b"", "tags"),
    (b"task: &a {x: *a}\n", b"", "stands within what it names"),
    (b"task: {}\n", b"", "holds no weights"),
    (b"task: {}\n", pickle.dumps(Touch()), "holds no weights"),
    (b"task: {}\n", weights(), "can't be read"),
    (b"task: {}\n", weights(zipfile.ZIP_DEFLATED), "compressed"),
])  # fmt: skip
def test_hostile_runs_are_refused(config, content, words, tmp_path, monkeypatch, capsys):
    seed = tmp_path / "run" / "seed_0"
    seed.mkdir(parents=True)
    (seed.parent / "config.yaml").write_bytes(config)
    (seed / "weights.pt").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for place in ("run", "run/seed_0"):
        assert gradflow.main([f"weights={place}"]) == 2
        refused(capsys.readouterr().err, [f"weights={place}", words])
    assert compare.main(["run"]) == 2
    refused(capsys.readouterr().err, ["no runs in run"])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


OTHERS = [
    (gradflow, ["hydra.run.dir=x"], "Hydra's own"),
    (gradflow, ["name=${oc.env:HOME}"], "only references"),
    (gradflow, ["model=rnn", "--", f"model={ESC}"], "\\x1b[31m"),
    (gradflow, [f"--{ESC}"], "\\x1b[31m"),
    (gradflow, ["weights="], "needs a run folder"),
    (gradflow, ["weights=nowhere"], "weights=nowhere"),
    (gradflow, [f"weights={'a' * 300}"], "too long"),
    (gradflow, ["weights=x", "model.init=&a [*a]"], "stands within what it names"),
    (gradflow, ["weights=x", "model.init=!!python/name:os.system"], "tags"),
    (gradflow, [f"sequences={'9' * 5000}"], "4,096"),
    (gradflow, ["show=flw"], "did you mean flow?"),
    (gradflow, ["seed=range(1,1000)"], "sweep"),
    (gradflow, ["device=cuda:9"], "CUDA"),
    (compare, [], "RUNS"),
    (compare, ["nowhere"], "no such folder"),
    (compare, [ESC], "\\x1b[31m"),
    (compare, ["a" * 300], "too long"),
    (compare, ["~nobody_at_all/x"], "home"),
    (compare, [".", "--csv"], "--csv"),
    (compare, [".", f"--{ESC}"], "\\x1b[31m"),
    (compare, ["."], "no runs in .; train some first: python -m rnnlstm.train"),
]


@pytest.mark.parametrize(("command", "arguments", "words"), OTHERS)
def test_the_other_commands(command, arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 2
    refused(capsys.readouterr().err, [words])
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_made_the_disk_has_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["runs_root=/proc/nowhere", "model.hidden_size=2", "task.length=5", "train.steps=1"]) == 74
    refused(capsys.readouterr().err, ["can't write", "/proc/nowhere"])


def test_messages_hold_nothing_that_a_terminal_acts_on(capsys):
    assert show("a\x1b[2J\r\nb\u202e\udcff\x9b") == "a\\x1b[2J b\\u202e\\udcff\\x9b"
    assert show(1 << 20_000) == "a number of thousands of digits"
    assert str(ConfigError("x\n\x1b")) == "x \\x1b"
    fail("\x1b\n\u2028", 2)
    assert capsys.readouterr().err == "error: \\x1b\n"


def test_folders_stay_under_runs_root(tmp_path):
    """Whatever the keys hold, a folder has two components below its root, each one that a file system takes."""
    long = ["model.init=default", "train.steps=123456", "train.batch_size=77", "eval.every=77", "eval.samples=777"]
    long += ["log.every=77", "optimizer.lr=0.0123456", "clip.threshold=0.123456", "surgery.truncate=77"]
    long += ["eval.lengths=[" + ",".join(map(str, range(100, 300))) + "]", f"name={'n' * 60}"]
    for overrides in (long, ["task.variant=../../x"], ["task.length='../../x'"], ["model.init='../../x'"]):
        (job,) = compose_jobs([*overrides, f"runs_root={tmp_path}"])
        inside = job.folder.relative_to(tmp_path).parts
        assert len(inside) == 2
        assert all(re.fullmatch(r"[A-Za-z0-9.,+_~-]{1,200}", part) and part.strip(".") for part in inside)


def test_the_source_loads_nothing_unsafely():
    unsafe = r"\b(eval|exec)\(|\bpickle\.loads?\(|yaml\.(unsafe_|full_)load|os\.system|shell=True"
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert not re.search(unsafe, text), path
        for call in re.findall(r"torch\.load\([^\n]*", text):
            assert "weights_only=True" in call, path
        for loader in re.findall(r"yaml\.load\(([^\n]*)\)", text):
            assert loader.endswith("Loader"), path
    assert torch.load.__kwdefaults__["weights_only"] is None  # so the argument is needed
