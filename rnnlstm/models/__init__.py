"""Models: the network of embedding, recurrence and readout, and stacks of it for replicas."""

from rnnlstm.models.network import Cost, Network, Sizes, network_cost
from rnnlstm.models.replicas import Replicas

__all__ = ["Cost", "Network", "Replicas", "Sizes", "network_cost"]
