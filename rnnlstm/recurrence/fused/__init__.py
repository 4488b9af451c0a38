"""The fused backend: hand-derived backpropagation through time, without a graph of single steps."""

from rnnlstm.recurrence.fused.layer import (
    FusedPass,
    Tape,
    at_places,
    fused_layer,
    fused_pass,
    fused_replicas,
    has_fused,
    has_tape,
)

__all__ = ["FusedPass", "Tape", "at_places", "fused_layer", "fused_pass", "fused_replicas", "has_fused", "has_tape"]
