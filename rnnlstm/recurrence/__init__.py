"""Recurrences: a cell run over time and layers, by one of several backends."""

from rnnlstm.recurrence.modules import BACKENDS, GRU, LSTM, RNN, Recurrence, can_vmap, choose_backend
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
