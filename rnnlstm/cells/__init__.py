"""Cells: one time step's equations each, to be held beside the paper. See `cell.py` for the contract."""

from rnnlstm.cells.cell import CELLS, Cell, State, Weights, make_cell, register_cell
from rnnlstm.cells.gru import GRUCell
from rnnlstm.cells.lstm import LSTMCell
from rnnlstm.cells.lstm_1997 import LSTM1997Cell
from rnnlstm.cells.rnn import RNNCell
from rnnlstm.cells.surgery import is_operated, operated

__all__ = [
    "CELLS",
    "Cell",
    "GRUCell",
    "LSTM1997Cell",
    "LSTMCell",
    "RNNCell",
    "State",
    "Weights",
    "is_operated",
    "make_cell",
    "operated",
    "register_cell",
]
