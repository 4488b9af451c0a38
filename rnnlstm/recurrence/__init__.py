"""Recurrences: a cell run over time. `modules.py` holds the drop-ins, `backends.py` how a layer is computed."""

from rnnlstm.recurrence.backends import BACKENDS, can_vmap, choose_backend
from rnnlstm.recurrence.modules import GRU, LSTM, RNN, Recurrence
from rnnlstm.recurrence.precision import PRECISIONS, products_in
from rnnlstm.recurrence.trace import GradientRecord, Trace, record_gradients, traced

__all__ = [
    "BACKENDS",
    "GRU",
    "LSTM",
    "PRECISIONS",
    "RNN",
    "GradientRecord",
    "Recurrence",
    "Trace",
    "can_vmap",
    "choose_backend",
    "products_in",
    "record_gradients",
    "traced",
]
