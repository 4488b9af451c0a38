"""The fused backend: hand-derived backpropagation through time, without a graph of single steps."""

from rnnlstm.recurrence.fused.layer import Tape, fused_layer, has_fused

__all__ = ["Tape", "fused_layer", "has_fused"]
