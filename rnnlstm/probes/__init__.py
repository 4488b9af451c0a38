"""Probes: they look at gradients and gates on a sample of their own, and never change training."""

from rnnlstm.probes.flow import flow_by_lag, half_life, last_scored
from rnnlstm.probes.probe import Observation, Probe

__all__ = ["Observation", "Probe", "flow_by_lag", "half_life", "last_scored"]
