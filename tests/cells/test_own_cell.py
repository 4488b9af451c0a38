"""A cell of the user's own: README's cell with two gates, and what is said if its declarations don't fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import rnnlstm
from rnnlstm.cells import CELLS, check_cell, make_cell, operated
from rnnlstm.config.errors import OptionError
from rnnlstm.config.schema import Surgery

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
(TEXT,) = re.findall(r"```python\n# my_cell\.py\n(.*?)```", README, flags=re.DOTALL)


def own_cell(*replaced: str):
    """README's cell, with pairs of texts replaced, and registered no longer than that."""
    text = TEXT
    for before, after in zip(replaced[::2], replaced[1::2], strict=True):
        assert before in text
        text = text.replace(before, after)
    names: dict[str, object] = {"__name__": "my_cell"}
    exec(compile(text, "my_cell.py", "exec", dont_inherit=True), names)
    del CELLS._classes["two_gates"]
    return names["TwoGatesCell"]()


def test_readmes_cell_fits_and_surgery_reaches_both_gates():
    cell = own_cell()
    check_cell(cell)
    w = {name: torch.zeros(shape) for name, shape in cell.parameter_shapes(1, 2, True).items()}
    (h,), gates = operated(cell, Surgery(open=["forget"], shut=["input"])).step(
        torch.ones(1, 6), (torch.full((1, 2), 3.0),), w
    )
    assert h.tolist() == [[3.0, 3.0]]
    assert (gates["forget"].unique().item(), gates["input"].unique().item()) == (1, 0)
    assert cell.retention(gates) is gates["forget"]


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        (["    blocks = 3 ", "    # "], ["gate_blocks=(0, 1)", "blocks=1"]),
        (["    blocks = 3 ", "    # ", "    gate_blocks = (0, 1) ", "    # "], ["step fails with blocks=1"]),
        (["blocks = 3 ", "blocks = 4 "], ["step", "blocks=4"]),
        (["torch.tanh(candidate)", "torch.tanhh(candidate)"], ["AttributeError", "(my_cell.py, line "]),
        (["@dataclass(frozen=True, kw_only=True)\n", ""], ["TwoGatesCell: is no dataclass, so its option bias"]),
        (['    gate_names = ("forget", "input") ', "    # "], ["gate_blocks=(0, 1)", "gate_names=()"]),
        (
            ['    gate_names = ("forget", "input") ', "    # ", "    gate_blocks = (0, 1) ", "    # "],
            ["step returns the gates ('forget', 'input')", "gate_names=()"],
        ),
        (["gate_blocks = (0, 1)", "gate_blocks = (0,)"], ["gate_blocks=(0,)", "('forget', 'input')"]),
        (['self.gate("input", torch.sigmoid(i))', "torch.sigmoid(i)"], ["self.gate('input', …)"]),
        (['return gates["forget"]', 'return gates["forget"].mean(-1)'], ["retention returns (1, 2)"]),
        (["(f * h + i * torch.tanh(candidate),)", "(f * h, h)"], ["2 states", "state_names=('hidden',)"]),
        (
            ["(f * h + i * torch.tanh(candidate),)", "f * h + i * torch.tanh(candidate)"],
            ["step must return its states and gates, (hidden,), {'forget': …, 'input': …}; not Tensor, dict"],
        ),
        (
            [', {"forget": f, "input": i}', ""],
            ["step must return its states and gates", "not Tensor"],
        ),
        (["f * h + i * torch.tanh(candidate)", "projected"], ["the state hidden as (2, 15)", "blocks=3"]),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(replaced, words):
    with pytest.raises(OptionError) as error:
        check_cell(own_cell(*replaced))
    line = str(error.value)
    assert line.startswith("model=two_gates: TwoGatesCell: ")
    assert "\n" not in line
    for word in words:
        assert word in line


@pytest.mark.parametrize("name", sorted(set(CELLS) - {"lru"}))  # the LRU's state is complex, twice as wide
def test_the_projects_cells_fit(name):
    check_cell(make_cell(name))


def test_chrono_without_max_lag_says_what_to_give():
    with pytest.raises(OptionError, match=r"max_lag=null: init=chrono needs it.*max_lag=100"):
        rnnlstm.LSTM(3, 4, init="chrono")
    assert rnnlstm.LSTM(3, 4, init="chrono", max_lag=100).cell.max_lag == 100
