"""Cells: one time step's equations each, to be held beside the paper; `cell.py` is the contract.

Every module of this folder is imported, which registers its cells.
"""

import importlib
import pkgutil

from rnnlstm.cells.cell import CELLS, Cell, State, Weights, check_cell, make_cell, register_cell
from rnnlstm.cells.gru import GRUCell
from rnnlstm.cells.lstm import LSTMCell
from rnnlstm.cells.lstm_1997 import LSTM1997Cell
from rnnlstm.cells.noise import MASKS, draw_masks, is_noisy, noisy
from rnnlstm.cells.rnn import LinearCell, RNNCell
from rnnlstm.cells.surgery import is_operated, operated

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "CELLS",
    "MASKS",
    "Cell",
    "GRUCell",
    "LSTM1997Cell",
    "LSTMCell",
    "LinearCell",
    "RNNCell",
    "State",
    "Weights",
    "check_cell",
    "draw_masks",
    "is_noisy",
    "is_operated",
    "make_cell",
    "noisy",
    "operated",
    "register_cell",
]
