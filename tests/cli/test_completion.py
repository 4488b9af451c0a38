"""Tab completion, asked as bash asks it."""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
import subprocess
import sys

import pytest

from rnnlstm.train import main

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")]


@functools.cache
def script():
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main(["--completion=bash"]) == 0
    return output.getvalue()


def offered(line, function="_rnnlstm_train"):
    """What bash would offer at the end of `line`: it replaces what stands after the last =, if any."""
    ask = f"{script()}\ncompopt() {{ :; }}\nCOMP_LINE={line!r}\nCOMP_POINT={len(line)}\n{function}\n"
    ask += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(("line", "words"), [
    ("rnnlstm-train model.hid", ["model.hidden_size="]),
    ("rnnlstm-train task=adding model=lstm_no_output_g", ["lstm_no_output_gate"]),
    ("rnnlstm-train clip.thr", ["clip.threshold="]),
    ("rnnlstm-train seed", ["seed=", "seeds="]),
    ("rnnlstm-train resume=", ["auto", "never"]),
    ("rnnlstm-train overwrite=t", ["true"]),
    ("rnnlstm-train task.keyword_w", ["task.keyword_window="]),
    ("rnnlstm-train experiment=demo_r", ["demo_rnn"]),
    ("rnnlstm-train --mu", ["--multirun"]),
    ("rnnlstm-train no.such", []),
])  # fmt: skip
def test_keys_and_choices(line, words):
    assert offered(line) == words


def test_the_other_commands():
    assert offered("rnnlstm-gradflow show=", "_rnnlstm_gradflow") == [
        "flow",
        "surgery",
        "activations",
        "map",
        "influence",
        "dynamics",
    ]
    assert offered("rnnlstm-compare runs --c", "_rnnlstm_compare") == ["--csv"]


def test_the_script_comes_without_torch():
    ask = "import sys; from rnnlstm.train import main; main(['--completion=bash']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout == script()
