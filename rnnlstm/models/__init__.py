"""Models: the network of embedding, recurrence and readout, and its stacking over replicas."""

from rnnlstm.models.cost import Cost, network_cost
from rnnlstm.models.network import Network
from rnnlstm.models.replicas import Replicas

__all__ = ["Cost", "Network", "Replicas", "network_cost"]
