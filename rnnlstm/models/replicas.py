"""R networks of one shape as a single stacked model, trained in lockstep.

Each weight is one leaf tensor (R, …), so that one optimiser step serves all replicas and a backward pass
through the summed losses gives each its own gradient. Source of the method: PyTorch's model ensembling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from rnnlstm.models.network import Network
from rnnlstm.recurrence import Trace, can_vmap, products_in, traced


class Replicas:
    """A stack of networks. `parameters` maps names to leaves of shape (R, …)."""

    def __init__(
        self, networks: Sequence[Network], device: torch.device | str = "cpu", precision: str = "full"
    ) -> None:
        self.count, self.precision = len(networks), precision
        stacked, _ = stack_module_state(list(networks))
        self.parameters: dict[str, Tensor] = {
            name: weight.detach().to(device).requires_grad_() for name, weight in stacked.items()
        }
        # Only the shell's forward pass is used; its own weights are on no device.
        self.shell = networks[0].to("meta")
        # One replica needs no vmap, and is quicker without.
        self.maps = self.count > 1 and can_vmap(self.shell.recurrence.backend)

    def __call__(
        self, inputs: Sequence[Tensor] | Tensor, noise: Sequence[Mapping[str, Tensor]] | None = None
    ) -> list[Tensor]:
        """inputs (T, B) or (T, B, I) of each replica → outputs (T, B, O) of each. `noise`: the masks of a noisy cell,
        for each. Replicas with inputs of one shape are computed together."""
        noise = noise or [{}] * self.count
        if self.maps and len({each.shape for each in inputs}) == 1:
            masks = {name: torch.stack([each[name] for each in noise]) for name in noise[0]}
            return list(vmap(self._call)(self.parameters, torch.stack(list(inputs)), masks).unbind(0))
        return [self._call(self.weights(r), inputs[r], noise[r]) for r in range(self.count)]

    def one(self, replica: int, inputs: Tensor) -> Tensor:
        """One replica's outputs (T, B, O) for inputs (T, B) or (T, B, I), as in evaluation."""
        return self._call(self.weights(replica), inputs)

    def watched(self, replica: int, inputs: Tensor, trace: Trace) -> Tensor:
        """One replica's outputs, with its recurrence recorded by `trace`. Gradients reach the trace and no weight."""
        weights = {name: weight.detach() for name, weight in self.weights(replica).items()}
        with torch.enable_grad(), traced(self.shell.recurrence, trace):
            return self._call(weights, inputs)

    def apart(self, replica: int, inputs: Tensor, precision: str) -> tuple[dict[str, Tensor], Tensor]:
        """Detached weights of one replica, for gradients of their own, and its outputs at `precision`."""
        weights = {name: weight.detach().requires_grad_() for name, weight in self.weights(replica).items()}
        return weights, self._call(weights, inputs, precision=precision)

    def _call(
        self,
        weights: dict[str, Tensor],
        inputs: Tensor,
        noise: Mapping[str, Tensor] | None = None,
        precision: str | None = None,
    ) -> Tensor:
        with products_in(precision or self.precision):
            return functional_call(self.shell, weights, (inputs, noise))

    def weights(self, replica: int) -> dict[str, Tensor]:
        """One replica's weights, as views of the stack, under the names of its network's `state_dict`."""
        return {name: weight[replica] for name, weight in self.parameters.items()}

    @property
    def parameters_each(self) -> int:
        """Number of trained numbers in one replica."""
        return sum(weight[0].numel() for weight in self.parameters.values())
