"""Bad input: one line that names key, value and rule, exit code 2, and nothing on disk."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

from rnnlstm.config.errors import ConfigError
from rnnlstm.tasks.digits import _images
from rnnlstm.train import main

from support.training import COMPOSER

pytestmark = pytest.mark.usefixtures("shared_composer")

#: A command line, and words its one line must hold.
CASES = [
    (["model.hiden_size=3"], ["model.hiden_size=3", "unknown key; did you mean model.hidden_size?"]),
    (["steps=500"], ["steps=500: unknown key; did you mean train.steps?"]),
    (["lr=1e-3"], ["did you mean optimizer.lr?"]),
    (["length=50"], ["did you mean task.length?"]),
    (["hidden_size=50"], ["did you mean model.hidden_size?"]),
    (["hiden_size=50"], ["did you mean model.hidden_size?"]),
    (["model.lr=1e-3"], ["did you mean optimizer.lr?"]),
    (["optimiser.lr=1e-3"], ["did you mean optimizer.lr?"]),
    (["threads_=1"], ["did you mean threads?"]),
    (["n_jobs=4"], ["did you mean launcher.workers?"]),
    (["trainer.max_epochs=4"], ["did you mean train.steps?"]),
    (["optimizer.learning_rate=4"], ["did you mean optimizer.lr?"]),
    (["log_dir=x"], ["did you mean runs_root?"]),
    (["--steps", "5"], ["--steps: options are written key=value: train.steps=5; --help lists them"]),
    (["--batch-size=5"], ["options are written key=value: train.batch_size=5; --help lists them"]),
    (["--mutlirun"], ["--mutlirun; did you mean --multirun?"]),
    (["model", "=", "lstm"], ["can't read model", "key=value, no spaces around ="]),
    (["model=", "lstm"], ["can't read lstm", "key=value, no spaces around ="]),
    (["+model.hiden=3"], ["model.hiden=3", "unknown key"]),
    (["++optimizer.rate=3"], ["optimizer.rate=3", "unknown key"]),
    (["foo=1"], ["foo=1", "unknown key"]),
    (["~optimizer.lr"], ["optimizer.lr", "not removed"]),
    (["~model.init"], ["model.init", "not removed"]),
    (["~task"], ["task", "not removed"]),
    (["model=lstn"], ["model=lstn", "gru, indrnn, janet", "did you mean lstm?"]),
    (["optimizer=adm"], ["optimizer=adm", "did you mean adam?"]),
    (["model=rnn,lstm"], ["model=rnn,lstm", "-m"]),
    (["task=null"], ["task=null", "must be one of"]),
    (["train.steps=abc"], ["train.steps=abc", "whole number"]),
    (["train.steps=0"], ["train.steps=0", "at least 1"]),
    (["train.steps=1.5"], ["train.steps=1.5", "whole number"]),
    (["train.steps=1e99"], ["train.steps=1e+99", "whole number"]),
    (["optimizer.lr=nan"], ["optimizer.lr=nan", "finite"]),
    (["optimizer.lr=inf"], ["optimizer.lr=inf", "finite"]),
    (["optimizer.lr=0"], ["optimizer.lr=0", "above 0"]),
    (["clip.threshold=-1"], ["clip.threshold=-1", "above 0"]),
    (["clip.threshold=null"], ["clip.threshold=null", "needs one"]),
    (["clip.norm_type=3"], ["clip.norm_type=3: must be one of 1, 2, inf"]),
    (["clip.norm_type=-inf"], ["clip.norm_type=-inf: must be"]),
    (["clip=value", "clip.norm_type=1"], ["clip.norm_type=1: has no effect with clip=value"]),
    (["optimizer.weight_decay=-1"], ["optimizer.weight_decay=-1", "at least 0"]),
    (["optimizer.betas=[0.9]"], ["optimizer.betas=[0.9]: must be two numbers: [0.9,0.999]"]),
    (["optimizer.betas=[0.9,1.0]"], ["optimizer.betas=1.0: must be below 1"]),
    (["optimizer=sgd", "optimizer.betas=[0.5,0.9]"], ["optimizer.betas=[0.5,0.9]: unknown key"]),
    (["task.length=1"], ["task.length=1", "at least 2"]),
    (["task=copy", "task.decoys=0.1"], ["task.decoys=0.1", "unknown key"]),
    (["task.decoys=1.5"], ["task.decoys=1.5", "at most 1"]),
    (["task.keyword_window=100"], ["length=100", "at least 101"]),
    (["task.filler=/nowhere.txt"], ["task.filler=/nowhere.txt", "can't be read"]),
    (["task.filler=/"], ["task.filler=/", "can't be read"]),
    (["model.hidden_size=["], ["model.hidden_size=[", "key=value"]),
    (["model.hidden_size=1000000"], ["model.hidden_size=1000000", "at most"]),
    (["model.hidden_size=${model.hidden_size}"], ["model.hidden_size", "ecursive"]),
    (["model.hidden_size=${nowhere}"], ["model.hidden_size", "nowhere"]),
    (["model.init=chron"], ["model.init=chron", "did you mean chrono?"]),
    (["model.backend=torhc"], ["model.backend=torhc", "reference, fused, torch"]),
    (["model=rnn", "model.nonlinearity=sigmoid", "model.backend=torch"], ["model.backend=torch", "sigmoid"]),
    (["surgery.open=[gate]"], ["surgery.open=gate", "its gates are input, forget, output"]),
    (["surgery.open=forget"], ["surgery.open=forget", "list"]),
    (["surgery.truncate=0"], ["surgery.truncate=0", "at least 1"]),
    (["model=gru", "surgery.detach=true"], ["surgery.detach=true", "no memory beside h"]),
    (["surgery.open=[forget]", "model.backend=torch"], ["model.backend=torch", "reference"]),
    (["model.zoneout=1.0"], ["model.zoneout=1.0", "below 1"]),
    (["model.recurrent_dropout=-0.1"], ["model.recurrent_dropout=-0.1", "at least 0"]),
    (["model=min_gru", "model.recurrent_dropout=0.1"], ["model.recurrent_dropout=0.1", "min_gru", "nothing"]),
    (["model.zoneout=0.1", "model.backend=fused"], ["model.backend=fused", "zoneout need the reference backend"]),
    (["match=size"], ["match=size", "parameters, units, state, step_time"]),
    (["match=state", "model.hidden_size=1", "model.num_layers=50"], ["match=state", "one unit"]),
    (["probe=fully"], ["probe=fully", "did you mean full?"]),
    (["seed=-1"], ["seed=-1", "at least 0"]),
    (["seeds=0"], ["seeds=0", "at least 1"]),
    (["seeds=true"], ["seeds=true", "whole number"]),
    (["name=../../x"], ["name=../../x", "letters"]),
    ([f"name={'a' * 300}"], ["name=aaa", "up to 60"]),
    (["runs_root="], ["runs_root", "folder"]),
    (["runs_root=/dev/null"], ["runs_root=/dev/null", "not a folder"]),
    (["device=tpu"], ["device=tpu", "must be"]),
    (["device=cuda:99"], ["device=cuda:99", "CUDA"]),
    (["dtype=float16"], ["dtype=float16", "float32"]),
    (["eval.lengths=5"], ["eval.lengths=5", "list"]),
    (["eval.lengths=[1]"], ["eval.lengths=[1]", "at least 2"]),
    (["task=adding", "eval.decoys=[0.1]"], ["eval.decoys=[0.1]", "no option decoys"]),
    (["task=long_lag", "eval.lengths=[20]"], ["eval.lengths=[20]", "length=20 does not fit", "other sizes"]),
    (["task.length=1"], ["task.length=1", "at least 2"]),
    (["task=copy", "task.length=0"], ["task.length=0", "at least 1"]),
    (["task=adding", "task.variant=hochreiter", "task.length=10"], ["task.length=10", "at least 11"]),
    (["task=temporal_order", "task.length=5"], ["task.length=5", "at least 10"]),
    (["task=long_lag", "task.alphabet=1"], ["task.alphabet=1", "at least 2"]),
    (["task=embedded_reber", "task.length=5"], ["task.length=5", "at least 9"]),
    (["task=selective_copy", "task.length=5"], ["task.length=5", "at least 10: a place for each symbol"]),
    (["task=selective_copy", "task.alphabet=1"], ["task.alphabet=1", "at least 2"]),
    (["task=associative_recall", "task.length=5"], ["task.length=5", "at least 10: 4 pairs"]),
    (["task=digits", "task.length=8"], ["task.length=8", "at least 64"]),
    (["task=copy", "task.variant=standrad"], ["task.variant=standrad", "did you mean standard?"]),
    (["curriculum=growing", "curriculum.start=101"], ["curriculum.start=101", "at most task.length=100"]),
    (["curriculum=uniform", "curriculum.start=1"], ["curriculum.start=1", "as a length must be at least 2"]),
    (["task=long_lag", "curriculum=growing"], ["curriculum.start=10", "other sizes"]),
    (["curriculum.factor=1"], ["curriculum.factor=1", "above 1"]),
    (["curriculum=shrinking"], ["curriculum=shrinking", "fixed, growing, uniform"]),
    (["train=3"], ["train=3", "section"]),
    (["key"], ["key", "key=value"]),
    (["=3"], ["=3", "key=value"]),
    (["-m", "model=rnn,rnn"], ["two jobs", "same run"]),
    (["-m", "train.steps=1,0"], ["train.steps=0", "at least 1"]),
    (["model=LSTM"], ["did you mean lstm?"]),
    (["probe=none"], ["did you mean off?"]),
    (["-m", "optimizer.lr=[1e-3,1e-2]"], ["a single value", "-m KEY=a,b"]),
    (
        ["-m", "model=rnn,lstm", "model.init=chrono"],
        ["model.init=chrono", "so with model=rnn", "-- model=… model.init=…"],
    ),
    (["-m", "model=rnn,lstn"], ["model=lstn", "did you mean lstm?"]),
    (["-m", "seed=range(1,100000000)"], ["sweep", "jobs"]),
    (["plugins=[nowhere_at_all]"], ["plugins=nowhere_at_all", "can't be imported"]),
    (["plugins=nowhere"], ["plugins=nowhere", "list"]),
    (["hydra.run.dir=/tmp"], ["hydra.run.dir=/tmp", "Hydra"]),
    (["hydra.callbacks.x._target_=os.system"], ["hydra.callbacks", "Hydra"]),
    (["--experimental-rerun", "x"], ["--experimental-rerun"]),
    (["--cfg", "hydra"], ["--cfg hydra"]),
    (["--config-dir", "/nowhere/at/all"], ["--config-dir", "/nowhere/at/all"]),
]
#: Those that are tried as a command, too, by their number in `CASES`.
AS_A_COMMAND = range(0, len(CASES), 20)


@pytest.mark.parametrize(("arguments", "words"), CASES, ids=[" ".join(case[0])[:50] for case in CASES])
def test_one_line_exit_2_and_nothing_on_disk(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    check(capsys.readouterr().err, words, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", AS_A_COMMAND)
def test_the_same_from_the_shell(number, tmp_path):
    arguments, words = CASES[number]
    line = [sys.executable, "-m", "rnnlstm.train", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 2
    assert done.stdout == ""
    check(done.stderr, words, tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("name=é", "é"),
        ("name=a#b", "a#b"),
        ("runs_root=~user/runs", "~user/runs"),
        ("name=a=b", "a=b"),
        ("name=it's", "it's"),
        ('name=a"é', 'a"é'),
        ("name=run(é)", "run(é)"),
        ("task.filler=[é,b, c d]", ["é", "b", "c d"]),
        ("task={a:é}", {"a": "é"}),
    ],
)
def test_a_value_that_hydra_does_not_take_is_shown_with_quotes(text, value):
    """The shown words, as a shell splits them, are an override with the value that was meant."""
    with COMPOSER.active() as composer:
        with pytest.raises(ConfigError, match="with quotes for Hydra and for the shell: ") as caught:
            composer.parse([text])
        (override,) = composer.parse(shlex.split(str(caught.value).partition("shell: ")[2]))
    assert override.key_or_group == text.partition("=")[0]
    assert override.value() == value


def test_values_of_a_sweep_are_quoted_one_by_one():
    with COMPOSER.active() as composer:
        with pytest.raises(ConfigError) as caught:
            composer.parse(["name=é,b"])
        assert composer.sweep(shlex.split(str(caught.value).partition("shell: ")[2])) == [['name="é"'], ["name=b"]]


@pytest.mark.parametrize(
    "text", ["é=3", "name =é", "name=[é", "name=${task.length}é", "name=" + "#" * 300, "name=é\\"]
)
def test_where_quotes_do_not_help_none_are_shown(text):
    with COMPOSER.active() as composer, pytest.raises(ConfigError, match="is written key=value"):
        composer.parse([text])


def test_a_key_of_another_task_has_no_false_friend(tmp_path, capsys):
    assert main(["task=copy", "task.decoys=0.1"]) == 2
    assert capsys.readouterr().err == "error: task.decoys=0.1: unknown key here; it belongs to task=keyword\n"


def check(message: str, words: list[str], folder):
    (line,) = message.splitlines()
    for word in words:
        assert word in line
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("content", "words"), [
    (None, "can't be read (No such file or directory)"),
    (b"", "holds no words"),
    (b" \n ... \n", "has 3 words, too short: 98 are needed"),
    (b"too short a text", "has 4 words, too short: 98 are needed"),
    (bytes(range(256)), "is not a UTF-8 text file"),
    (b"word\0word", "is not a text file (it holds NUL bytes)"),
])  # fmt: skip
def test_a_filler_that_is_no_text(content, words, tmp_path, monkeypatch, capsys):
    file, elsewhere = tmp_path / "filler.txt", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    if content is not None:
        file.write_bytes(content)
    assert main([f"task.filler={file}"]) == 2
    check(capsys.readouterr().err, ["task.filler=", words], elsewhere)


def test_digits_without_scikit_learn(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    _images.cache_clear()
    monkeypatch.chdir(tmp_path)
    assert main(["task=digits"]) == 2
    check(
        capsys.readouterr().err,
        ["task=digits needs scikit-learn", "pip install 'rnnlstm[digits]'"],
        tmp_path,
    )
    _images.cache_clear()
