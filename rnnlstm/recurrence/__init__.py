"""Recurrences: a cell run over time and layers, by one of several backends."""

from rnnlstm.recurrence.fused import at_places, fused_replicas, has_tape
from rnnlstm.recurrence.modules import BACKENDS, GRU, LSTM, RNN, Recurrence, can_vmap, choose_backend
from rnnlstm.recurrence.precision import products_in
from rnnlstm.recurrence.trace import GradientRecord, Trace, record_gradients, traced

__all__ = [
    "BACKENDS",
    "GRU",
    "LSTM",
    "RNN",
    "GradientRecord",
    "Recurrence",
    "Trace",
    "at_places",
    "can_vmap",
    "choose_backend",
    "fused_replicas",
    "has_tape",
    "products_in",
    "record_gradients",
    "traced",
]
