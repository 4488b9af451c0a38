"""R networks of one shape as a single stacked model, trained in lockstep.

Each weight is one leaf tensor (R, …), so that one optimiser step serves all replicas and a backward pass
through the summed losses gives each its own gradient. Cells that the fused kernel knows compute all replicas as one
leading dimension; others are mapped over them by `torch.func.vmap` (source: PyTorch's model ensembling).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils.rnn import pad_sequence

from rnnlstm.models.network import Network
from rnnlstm.recurrence import Trace, at_places, can_vmap, fused_replicas, has_tape, products_in, traced

Noise = Sequence[Mapping[str, Tensor]]


class Replicas:
    """A stack of networks. `parameters` maps names to leaves of shape (R, …)."""

    def __init__(
        self,
        networks: Sequence[Network],
        device: torch.device | str = "cpu",
        precision: str = "full",
        one_hot: bool = False,
    ) -> None:
        """`one_hot`: inputs are numbers (T, B, I), of each row one is 1 and the others are 0."""
        self.count, self.precision, self.one_hot = len(networks), precision, one_hot
        stacked, _ = stack_module_state(list(networks))
        self.parameters: dict[str, Tensor] = {
            name: weight.detach().to(device).requires_grad_() for name, weight in stacked.items()
        }
        # Only the shell's forward pass is used; its own weights are on no device.
        self.shell = networks[0].to("meta")
        recurrence = self.shell.recurrence
        # One replica needs no vmap, and is quicker without.
        self.maps = self.count > 1 and can_vmap(recurrence.backend)
        # Elsewhere than on the CPU the embedding of all tokens at once is quicker than a table.
        self.stacks = (
            recurrence.backend == "fused"
            and has_tape(recurrence.cell)
            and precision == "full"
            and torch.device(device).type == "cpu"
        )

    def __call__(
        self, inputs: Sequence[Tensor], noise: Noise | None = None, scored: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """inputs (T, B) or (T, B, I) of each replica → outputs (T, B, O) of each; with `scored` (N,), places in
        (T·B), those alone, (N, O). `noise`: the masks of a noisy cell, for each. Replicas with inputs of one shape
        are computed together."""
        if len({each.shape for each in inputs}) > 1 or not (self.maps or self.stacks):
            rows = scored or repeat(None)
            masks_of = noise or repeat(None)
            return [self.one(r, *each) for r, each in enumerate(zip(inputs, rows, masks_of, strict=False))]
        together = _together(inputs)
        places = None if scored is None else _together(scored)
        if self.stacks:
            outputs = self._stacked(self.parameters, together, places)
        else:
            masks = {name: torch.stack([each[name] for each in noise]) for name in noise[0]} if noise else {}
            dims = (0, 0, 0, None if places is None else 0)
            outputs = vmap(self._call, dims)(self.parameters, together, masks, places)
        if scored is None:
            return list(outputs.unbind(0))
        return [each[: len(rows)] for each, rows in zip(outputs, scored, strict=True)]

    def one(
        self,
        replica: int,
        inputs: Tensor,
        scored: Tensor | None = None,
        noise: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """One replica's outputs; without `noise`, as in evaluation."""
        if not self.stacks:
            return self._call(self.weights(replica), inputs, noise, scored)
        weights = {name: weight[replica : replica + 1] for name, weight in self.parameters.items()}
        return self._stacked(weights, inputs.unsqueeze(0), None if scored is None else scored.unsqueeze(0))[0]

    def watched(self, replica: int, inputs: Tensor, trace: Trace) -> Tensor:
        """One replica's outputs, with its recurrence recorded by `trace`. Gradients reach the trace and no weight."""
        weights = {name: weight.detach() for name, weight in self.weights(replica).items()}
        with torch.enable_grad(), traced(self.shell.recurrence, trace):
            return self._call(weights, inputs)

    def apart(self, replica: int, inputs: Tensor, precision: str) -> tuple[dict[str, Tensor], Tensor]:
        """Detached weights of one replica, for gradients of their own, and its outputs at `precision`."""
        weights = {name: weight.detach().requires_grad_() for name, weight in self.weights(replica).items()}
        return weights, self._call(weights, inputs, precision=precision)

    def _stacked(self, weights: Mapping[str, Tensor], inputs: Tensor, scored: Tensor | None) -> Tensor:
        """Outputs (R, T, B, O), or (R, N, O), of all replicas as one leading dimension."""
        recurrence, R = self.shell.recurrence, len(inputs)
        layers = [
            {name: weights[f"recurrence.{full}"] for name, full in recurrence.weight_names(k).items()}
            for k in range(recurrence.num_layers)
        ]
        dense = scored is None or 2 * scored.shape[1] > inputs.shape[1] * inputs.shape[2]
        x, embedding = inputs, weights.get("embedding.weight")
        if inputs.dim() == 4:
            x = inputs.to(weights["readout.weight"].dtype)
            if self.one_hot:  # the product with a row of the input weights' table is that row
                I = inputs.shape[-1]  # noqa: E741
                x = (x @ torch.arange(I, dtype=x.dtype)).long()
                embedding = torch.eye(I, dtype=weights["readout.weight"].dtype).expand(R, I, I)
        hidden = fused_replicas(recurrence.cell, layers, x, embedding, None if dense else scored)
        read = hidden if hidden.dim() == 3 else hidden.flatten(1, 2)
        answers: Tensor = _Readout.apply(read, weights["readout.weight"], weights["readout.bias"])
        if not dense:
            return answers
        if scored is not None and torch.equal(scored, torch.arange(read.shape[1]).expand(len(scored), -1)):
            return answers  # all are scored
        answers = answers.unflatten(1, inputs.shape[1:3])
        return answers if scored is None else at_places(answers, scored)

    def _call(
        self,
        weights: dict[str, Tensor],
        inputs: Tensor,
        noise: Mapping[str, Tensor] | None = None,
        scored: Tensor | None = None,
        precision: str | None = None,
    ) -> Tensor:
        with products_in(precision or self.precision):
            return functional_call(self.shell, weights, (inputs, noise, scored))

    def weights(self, replica: int) -> dict[str, Tensor]:
        """One replica's weights, as views of the stack, under the names of its network's `state_dict`."""
        return {name: weight[replica] for name, weight in self.parameters.items()}

    @property
    def parameters_each(self) -> int:
        """Number of trained numbers in one replica."""
        return sum(weight[0].numel() for weight in self.parameters.values())


class _Readout(Function):
    """h (R, N, H), W (R, O, H), b (R, O) → h Wᵀ + b. Autograd's own gradient for W, (hᵀ dy)ᵀ, is several times slower
    than dyᵀ h."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(h, w)
        return torch.baddbmm(b.unsqueeze(1), h, w.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, w = ctx.saved_tensors
        return dy.bmm(w), dy.mT.bmm(h), dy.sum(1)


def _together(each: Sequence[Tensor]) -> Tensor:
    """(R, …); where some have fewer rows than others, with -1 after the last."""
    if len(each) == 1:
        return each[0].unsqueeze(0)
    if len({len(rows) for rows in each}) > 1:
        return pad_sequence(list(each), batch_first=True, padding_value=-1)
    return torch.stack(list(each))
