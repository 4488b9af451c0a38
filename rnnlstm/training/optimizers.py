"""Optimisers of stacked replicas: Adam, RMSprop and SGD, each one or a few calls of PyTorch for all weights.

Weight decay is PyTorch's for these three: g ← g + λw before anything else, an L2 penalty (not AdamW's).
They work entry by entry, so the rows of stacked replicas do not mix. Equal bit for bit to PyTorch's classes of these
names, whose first step imports its compiler, which takes longer than a short run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from rnnlstm.config.schema import AdamOptions, OptimizerOptions, RMSpropOptions, SGDOptions


class Optimizer:
    """`state` holds what is kept of a weight, by its number and an entry's name, from its first step on."""

    def __init__(self, weights: Iterable[Tensor], **settings: Any) -> None:
        self.weights, self.settings = list(weights), settings
        self.state: dict[int, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Move each weight that has a gradient."""
        moving = [number for number, weight in enumerate(self.weights) if weight.grad is not None]
        new = [number for number in moving if number not in self.state]
        for numbers, first in ((new, True), ([number for number in moving if number in self.state], False)):
            if numbers:
                self.state |= {number: self.new_state(self.weights[number]) for number in numbers if first}
                weights, states = [self.weights[n] for n in numbers], [self.state[n] for n in numbers]
                kept = {name: [state[name] for state in states] for name in states[0]}
                self.move(weights, [weight.grad for weight in weights], kept, first)  # type: ignore[misc]

    def new_state(self, weight: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def move(
        self, weights: list[Tensor], gradients: list[Tensor], kept: Mapping[str, list[Tensor]], first: bool
    ) -> None:
        """Change `weights` and what is `kept` of them in place."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        for weight in self.weights:
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """As PyTorch's optimisers have it."""
        groups = [{**self.settings, "params": list(range(len(self.weights)))}]
        return {"state": {number: dict(entries) for number, entries in self.state.items()}, "param_groups": groups}

    def load_state(self, state: Mapping[int, Mapping[str, Tensor | None]]) -> None:
        for number, entries in state.items():
            kept = {name: value for name, value in entries.items() if value is not None}
            device = self.weights[number].device
            self.state[number] = {name: value.to(device, copy=True) for name, value in kept.items()}


class Adam(Optimizer):
    """m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², w ← w − lr · m̂/(√v̂ + ε), m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ).

    Kingma & Ba 2015.
    """

    def __init__(self, weights: Iterable[Tensor], lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(weights, lr=lr, betas=betas, eps=1e-8, weight_decay=weight_decay)

    def new_state(self, weight: Tensor) -> dict[str, Tensor]:
        step = torch.zeros((), dtype=torch.float32, device=weight.device)
        return {"step": step, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}

    def move(
        self, weights: list[Tensor], gradients: list[Tensor], kept: Mapping[str, list[Tensor]], first: bool
    ) -> None:
        torch._foreach_add_(kept["step"], 1)
        (beta1, beta2), lr, eps = self.settings["betas"], self.settings["lr"], self.settings["eps"]
        torch._fused_adam_(
            weights, gradients, kept["exp_avg"], kept["exp_avg_sq"], [], kept["step"],
            lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=self.settings["weight_decay"],
            amsgrad=False, maximize=False,
        )  # fmt: skip


class RMSprop(Optimizer):
    """v ← αv + (1−α)g², w ← w − lr · g/(√v + ε): Hinton 2012, lecture 6e."""

    def __init__(self, weights: Iterable[Tensor], lr: float, alpha: float, weight_decay: float) -> None:
        super().__init__(weights, lr=lr, alpha=alpha, eps=1e-8, weight_decay=weight_decay)

    def new_state(self, weight: Tensor) -> dict[str, Tensor]:
        return {"step": torch.zeros((), dtype=torch.float32), "square_avg": torch.zeros_like(weight)}

    def move(
        self, weights: list[Tensor], gradients: list[Tensor], kept: Mapping[str, list[Tensor]], first: bool
    ) -> None:
        torch._foreach_add_(kept["step"], 1)
        alpha, decay = self.settings["alpha"], self.settings["weight_decay"]
        if decay:
            gradients = [g.add(w, alpha=decay) for g, w in zip(gradients, weights, strict=True)]
        for weight, gradient, average in zip(weights, gradients, kept["square_avg"], strict=True):
            average.mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
            weight.addcdiv_(gradient, average.sqrt().add_(self.settings["eps"]), value=-self.settings["lr"])


class SGD(Optimizer):
    """b ← momentum · b + g (at first g), w ← w − lr · b; without momentum w ← w − lr · g."""

    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(weights, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def new_state(self, weight: Tensor) -> dict[str, Tensor]:
        return {"momentum_buffer": torch.zeros_like(weight)} if self.settings["momentum"] else {}

    def move(
        self, weights: list[Tensor], gradients: list[Tensor], kept: Mapping[str, list[Tensor]], first: bool
    ) -> None:
        torch._fused_sgd_(
            weights, gradients, kept.get("momentum_buffer", []), weight_decay=self.settings["weight_decay"],
            momentum=self.settings["momentum"], lr=self.settings["lr"], dampening=0.0, nesterov=False, maximize=False,
            is_first_step=first,
        )  # fmt: skip


def make_optimizer(options: OptimizerOptions, parameters: Iterable[Tensor]) -> Optimizer:
    if isinstance(options, RMSpropOptions):
        return RMSprop(parameters, options.lr, options.alpha, options.weight_decay)
    if isinstance(options, SGDOptions):
        return SGD(parameters, options.lr, options.momentum, options.weight_decay)
    assert isinstance(options, AdamOptions)
    beta1, beta2 = options.betas
    return Adam(parameters, options.lr, (beta1, beta2), options.weight_decay)
