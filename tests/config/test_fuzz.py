"""Random command lines: whatever is asked for, the answer is 0, or 2 and one line, and nothing on disk.

The whole entry point runs, up to the plan of what would be trained. Examples are the same at every run.
"""

from __future__ import annotations

import contextlib
import io
import os
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import rnnlstm.jobs.job
import rnnlstm.jobs.train
from rnnlstm.config import untrusted
from rnnlstm.config.compose import Composer
from rnnlstm.config.errors import ConfigError
from rnnlstm.config.untrusted import read_text
from rnnlstm.record.folders import flatten
from rnnlstm.train import main
from rnnlstm.training.plan import make_plan

pytestmark = pytest.mark.usefixtures("shared_composer")

KNOWN = [key for key, _ in flatten(rnnlstm.jobs.job.compose_tree([]))]
#: Their value may be right, and be a great many jobs, or training of matching sizes: not what is tried here.
SLOW = ("match", "plugins")
KEYS = [key for key in KNOWN if key not in SLOW] + [
    "task",
    "model",
    "optimizer",
    "clip",
    "probe",
    "experiment",
    "hydra",
]

ODD = "\0\x1b\n\r\t\x7f\x9b\u00a0\u200b\u202e\u2028\ud800\U0001f600é٣ａ"
MARKS = "[]{}()<>$:=,.'\"\\/@~+-*&!|%#?; "
characters = st.text(alphabet=string.ascii_letters + string.digits + MARKS + ODD, max_size=12)
names = st.sampled_from(["rnn", "lstm", "lstn", "copy", "adding", "adam", "norm", "none", "zoo/adding", "../x"])
numbers = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.integers(1, 6000).map("9".__mul__),
    st.sampled_from(["0", "-1", "1e99", "1e-400", "nan", "-inf", "0x1f", "1_0", "1e5000", "true", "null", "???", ""]),
)
references = st.builds(
    "{}{}{}".format,
    st.sampled_from(["${", "$${", "\\${", "x${", "${oc.env:", "${oc.decode:", "${hydra:", "${.", "${a:${", "${ "]),
    st.sampled_from([*KEYS, "HOME", "", "x", "a.b[0]"]),
    st.sampled_from(["}", "}}", "", "},1", "}x", " }"]),
)
functions = st.builds(
    "{}({},{})".format,
    st.sampled_from(["range", "choice", "interval", "glob", "sort", "shuffle", "int", "str", "float", "tag"]),
    numbers,
    st.one_of(numbers, names),
)
plain = st.one_of(characters, names, numbers, references, functions)
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda entries: f"[{','.join(entries)}]"),
        st.lists(st.tuples(characters, inner), max_size=2).map(lambda xs: "{" + ",".join(map(":".join, xs)) + "}"),
        st.lists(inner, max_size=3).map(",".join),
        inner.map("'{}'".format),
        inner.map('"{}"'.format),
    ),
    max_leaves=4,
)


@st.composite
def near_keys(draw: st.DrawFn) -> str:
    """A key, or one with a character lost, doubled or changed."""
    key = draw(st.sampled_from(KEYS))
    place = draw(st.integers(0, len(key)))
    change = draw(st.sampled_from(["", "", "", "lose", "add"]))
    if change == "lose":
        return key[:place] + key[place + 1 :]
    return key[:place] + draw(characters) + key[place:] if change == "add" else key


prefixes = st.sampled_from(["", "", "", "", "+", "++", "~", "-", "--", "@", " "])
overrides = st.builds(
    "{}{}{}{}".format, prefixes, near_keys(), st.sampled_from(["=", "=", "=", "=", "", "==", ":", "@x="]), values
)
flags = st.sampled_from(
    ["-m", "--multirun", "--cfg", "--cfg=job", "--config-dir", "-cd=.", "--help=", "-", "--", "--run"]
)
lines = st.lists(st.one_of(overrides, overrides, overrides, characters, flags), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """An empty folder to be in, with planning in the place of training."""
    folder, before = tmp_path_factory.mktemp("fuzz"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            rnnlstm.jobs.train, "train_jobs", lambda jobs, *_, **__: [make_plan(job.config) for job in jobs]
        )
        patch.setattr("rnnlstm.config.compose.MOST_JOBS", 4)
        patch.setattr(rnnlstm.jobs.job.compose_jobs, "__defaults__", (False, None, True, 4))
        os.chdir(folder)
        yield folder
        os.chdir(before)


def answer(arguments: Sequence[str]) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return code, err.getvalue()


def holds(arguments: Sequence[str], folder: Path) -> None:
    code, message = answer(arguments)
    assert code in (0, 2)
    assert list(folder.iterdir()) == []
    if code == 2:
        assert message.startswith("error: ")
        assert message.endswith("\n")
        assert message[:-1].isprintable()
    else:
        assert message == ""


REPEATABLE = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@settings(REPEATABLE, max_examples=200)
@given(lines)
@example(["-m", "seed=range(nan,1)"])
@example(["-m", "seed=range(1,inf)"])
@example(["seed=" + "9" * 5000])
@example(["seed=" + "(" * 9 + ")" * 9])
def test_a_random_command_line(place, arguments):
    holds(arguments, place)


@pytest.mark.slow
@settings(REPEATABLE, max_examples=40)
@given(st.sampled_from(KEYS), st.one_of(numbers, names, references, functions), st.booleans())
def test_a_key_with_a_random_value(place, key, value, sweep):
    """Keys that are there, so that what is read comes as far as the plan."""
    holds([*(["-m"] if sweep else []), f"{key}={value}"], place)


@settings(REPEATABLE, max_examples=300)
@given(st.one_of(values, st.text(max_size=40)))
def test_random_yaml_and_text(text):
    for read in (read_text, untrusted.check_override):
        with contextlib.suppress(ConfigError):
            read(text)


#: Keys, values of every kind that Hydra's grammar has, and choices: plain overrides, and those that Hydra composes.
OVERRIDES = st.one_of(
    st.builds("{}={}".format, st.sampled_from([*KNOWN, "train", "task.nothing", "a.b"]), st.one_of(
        st.integers(-10, 10_000).map(str), st.floats().map(str), st.lists(st.integers(-3, 3)).map(str),
        st.sampled_from(["null", "true", "False", "1e-3", ".5", "[]", "[1.5,null]", "[[1]]", "{a:1}", "abc", "'1'",
            '"x y"', "", "0x1f", "1_000", "${seed}", "'${task.length}'", "a${seeds}"]),
    )),
    st.sampled_from(["task=copy", "task=adding", "model=rnn", "model=gru", "optimizer=sgd", "probe=full", "clip=none",
        "experiment=demo_rnn", "experiment=null", "+seed=3", "++seeds=2", "~seed", "+a=1", "launcher=slurm"]),
)  # fmt: skip


@pytest.mark.slow
@settings(REPEATABLE, max_examples=60)
@given(st.lists(OVERRIDES, max_size=4))
@example(["task.length=7", "task=copy"])
@example(["optimizer.momentum=0.5", "optimizer=sgd", "optimizer.momentum=0.25"])
@example(["probe.every=3", "probe=full"])
@example(["seed=1", "seed=abc", "seed=2"])
@example(["name=1", "name=abc"])
@example(["train.steps=5", "train={steps:6}"])
@example(["seed=3", "++seed=4"])
def test_the_composer_sets_values_as_hydra_does(composer, overrides):
    """The same tree in the same order, or both refuse."""

    def answer_of(compose):
        try:
            return repr(compose(overrides))
        except ConfigError:
            return None

    assert answer_of(composer.compose) == answer_of(lambda each: by_hydra(composer, each))


def by_hydra(composer: Composer, overrides: Sequence[str]) -> dict[str, Any]:
    composer.checked(overrides)
    return untrusted.resolve(composer._hydra(overrides))


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with Composer().active() as composer:
        yield composer


trees = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        characters,
        st.sampled_from("abcd").map("${{{}}}".format),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)),
    max_leaves=8,
)


@settings(REPEATABLE, max_examples=300)
@given(st.dictionaries(st.sampled_from("abcd"), trees))
def test_references_of_random_trees(tree):
    """What is resolved holds no reference any more, and is resolved already."""
    with contextlib.suppress(ConfigError):
        resolved = untrusted.resolve(tree)
        assert "${" not in str(resolved)
        assert str(untrusted.resolve(resolved)) == str(resolved)
