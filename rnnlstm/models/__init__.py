"""Models: the network of embedding, recurrence and readout, and its stacking over replicas."""

from rnnlstm.models.network import Network
from rnnlstm.models.replicas import Replicas

__all__ = ["Network", "Replicas"]
