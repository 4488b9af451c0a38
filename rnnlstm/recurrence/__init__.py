"""Recurrences: a cell run over time. `modules.py` holds the drop-ins, `backends.py` how a layer is computed."""

from rnnlstm.recurrence.backends import BACKENDS, can_vmap, choose_backend
from rnnlstm.recurrence.modules import LSTM, RNN, Recurrence

__all__ = ["BACKENDS", "LSTM", "RNN", "Recurrence", "can_vmap", "choose_backend"]
