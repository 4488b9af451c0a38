"""The contract of a task, which owns all meaning: what is sampled, what is scored, and when it is solved.

A new task is one file with one class::

    @register_task("parity")
    @dataclass(frozen=True, kw_only=True)
    class Parity(Task):
        length: int = option(20, "time steps", at_least=2)
        ...

Its dataclass fields are its options (`task.length=30` on the command line), whose values are checked on construction.
Nothing outside the class asks which task it is.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnlstm.config.errors import ConfigError, OptionError, did_you_mean, show
from rnnlstm.config.options import Registry, check_options, field_names
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import RandomSource, RandomStream, RandomStreams

OVER = "·"  #: the word of a time step after its sequence's end
DRAWS = 32  #: of a replacement, until one differs

TASKS: Registry[type[Task]] = Registry("task", "task")
register_task = TASKS.register


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Makes data and scores answers.

    A subclass sets the class attributes, the size properties, `baseline`, and the methods marked abstract. The
    network's outputs are float (T, B, O), with T time steps, B sequences and O = `output_size`.
    """

    name: ClassVar[str]
    metric_name: ClassVar[str]  #: the headline metric
    metric_is_better: ClassVar[str] = "higher"  #: "higher" or "lower"
    kind_names: ClassVar[tuple[str, ...]] = ()  #: names of the numbers in `Batch.kinds`
    #: Whether `loss` and `metrics` also take the answers (scored, O), rows in the order of `batch.scored`. If so, the
    #: trainer computes those alone. `batch.answers` gives them from either form.
    takes_scored_answers: ClassVar[bool] = False
    #: Whether `generate` may draw several batches side by side as one. It says that the shape of each draw depends on
    #: the options and the number of sequences alone, and what becomes of a sequence on its own numbers alone.
    drawn_together: ClassVar[bool] = False
    #: Whether every input (T, B, I) has one 1 and else zeros: then the input's product is a row of a table.
    one_hot_inputs: ClassVar[bool] = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        # What a task says of its own methods need not hold for those of a subclass: that says so itself.
        drawing, scoring = {"generate", "sample"}, {"loss", "metrics"}
        flags = {"takes_scored_answers": scoring, "drawn_together": drawing, "one_hot_inputs": drawing}
        for flag, methods in flags.items():
            if methods & vars(cls).keys() and flag not in vars(cls):
                setattr(cls, flag, False)

    def __post_init__(self) -> None:
        check_options(self)

    def require_length(self, least: int, why: str) -> None:
        """Raises: OptionError if the option `length` is below `least`, which `why` explains."""
        if self.length < least:  # type: ignore[attr-defined]
            raise OptionError("length", self.length, f"must be at least {least:,}: {why}")  # type: ignore[attr-defined]

    # -- sizes, which the network is built from

    @property
    def sequence_length(self) -> int:
        """Time steps of a batch, T: the option `length` unless a task overrides it."""
        length: int = self.length  # type: ignore[attr-defined]
        return length

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Features of an answer: classes, or numbers."""

    @property
    def num_tokens(self) -> int | None:
        """Size of the vocabulary where inputs are token numbers, else None."""
        return None

    @property
    def input_size(self) -> int | None:
        """Features of an input where inputs are float, else None."""
        return None

    @property
    def solved_when(self) -> str:
        """The criterion of `solved` in words: "accuracy ≥ 0.99". Most tasks set it as a plain attribute."""
        raise NotImplementedError(f"the {self.name} task does not say when it is solved")

    # -- losses to compare with

    @property
    @abstractmethod
    def baseline(self) -> float:
        """Loss of the best predictor that knows the task's distribution and the position, but no input value. Unit:
        that of `loss`, nats or squared error."""

    @property
    def plateaus(self) -> Mapping[str, float]:
        """Losses at which training tends to stall, by what the network has learned there."""
        return {}

    # -- data

    @property
    def scored_alike(self) -> bool:
        """Whether every sequence is scored at the same steps, whatever is drawn. If so, the trainer computes them
        once. Else with `data=device` the CPU waits for the GPU at each update to learn them."""
        return False

    def sample(self, seed: int, step: int, stream: str = "train", batch_size: int = 64) -> Batch:
        """Batch number `step` of a replica's stream: a pure function of the arguments.

        Raises: ValueError for an unknown stream, or a negative seed or step.
        """
        return self._generate_here(RandomStream(seed, stream, step), batch_size)

    def sample_together(self, keys: Sequence[tuple[int, int]], stream: str, batch_size: int) -> list[Batch]:
        """What `sample` gives for each seed and step, all from one `generate` if the task is `drawn_together`."""
        if not self.drawn_together or len(keys) == 1:
            return [self.sample(seed, step, stream, batch_size) for seed, step in keys]
        random = RandomStreams([RandomStream(seed, stream, step) for seed, step in keys], batch_size)
        whole = self._generate_here(random, batch_size * len(keys))
        starts = range(0, whole.size, batch_size)
        return [whole.sequences(slice(start, start + batch_size)) for start in starts]

    def _generate_here(self, random: RandomSource, batch_size: int) -> Batch:
        """On the CPU, whatever PyTorch's default device is."""
        with nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu"):
            return self.generate(random, batch_size)

    @abstractmethod
    def generate(self, random: RandomSource, batch_size: int) -> Batch:
        """Draw `batch_size` sequences from `random`, and from nothing else.

        Every draw has the sequences as its last dimension. With `data=device` draws are on the GPU, and so is every
        tensor that is made without a device.
        """

    def decode(self, batch: Batch, b: int) -> str:
        """Sequence `b` of the batch and its right answer as text; unless overridden, as plain numbers."""
        sequence = batch.inputs[:, b].flatten(1) if batch.inputs.dim() == 3 else batch.inputs[:, b, None]
        steps = [",".join(f"{value:g}" for value in step) for step in sequence.tolist()]
        return f"{' '.join(steps)} → {_numbers(batch.targets[:, b][batch.mask[:, b]])}"

    def words(self, batch: Batch, b: int) -> list[str]:
        """A short word for each of the T time steps of sequence `b`; `OVER` after the sequence's end."""
        sequence = batch.inputs[:, b].flatten(1) if batch.inputs.dim() == 3 else batch.inputs[:, b, None]
        return [",".join(f"{value:.2g}" for value in step) for step in sequence.tolist()]

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        """The network's answer to sequence `b` as text; unless overridden, its classes or numbers at the scored
        steps."""
        scored = outputs[:, b][batch.mask[:, b]]  # (scored, O)
        if batch.targets.is_floating_point():
            return _numbers(scored)
        return _numbers(scored.argmax(-1))

    # -- scoring

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The training loss, a scalar: the mean over the scored positions of the cross-entropy in nats where targets
        are classes, of the squared error where they are numbers."""
        answers, targets = batch.answers(outputs), batch.at_scored(batch.targets)  # (scored, O)
        if targets.is_floating_point():
            return F.mse_loss(answers, targets.to(answers.dtype))
        # With the classes first, PyTorch computes many positions at once: four times as fast for ten classes.
        return F.cross_entropy(answers.T.unsqueeze(0), targets.unsqueeze(0))

    @abstractmethod
    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        """Scores by name, from outputs (T, B, O), or from the answers alone if the task takes them; a score that is
        not defined on this batch is left out."""

    def solved(self, metrics: Mapping[str, float]) -> bool:
        """Whether these metrics meet the task's criterion; unless overridden, the headline metric ≥ 0.99."""
        return metrics[self.metric_name] >= 0.99

    def right(self, outputs: Tensor, batch: Batch, b: int) -> bool | None:
        """Whether the answer to sequence `b` is right; unless overridden, whether the metrics of this sequence alone
        meet the criterion. None where one of them is not defined on a single sequence."""
        try:
            return bool(self.solved(self.metrics(outputs[:, b : b + 1], batch.sequence(b))))
        except KeyError:
            return None

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """Parts of the scored positions whose headline metric is reported by itself: names to bool (T, B)."""
        return {}

    # -- what would have been, for counterfactual influence

    def replacements(self, batch: Batch, steps: Tensor, pool: Batch, random: RandomSource) -> Mapping[str, Tensor]:
        """The batch's inputs with one token of each sequence replaced: at `steps` (B,), by another of its own kind.

        Keys name the ways in which a token is replaced, "" where there is one way. A sequence whose token can't be
        replaced stays as it is. Unless overridden, the other token is drawn from `pool`, further sequences of the
        task: uniformly among the tokens there that are of the same kind and differ.
        """
        columns, B = torch.arange(batch.size), batch.size
        inputs, present = batch.inputs.clone(), batch.inputs[steps, columns]  # (T, B, …), (B, …)
        kinds, pool_kinds = (torch.zeros(b.mask.shape) if b.kinds is None else b.kinds for b in (batch, pool))
        kind = kinds[steps, columns]
        for k in kind.unique().tolist():
            tokens = pool.inputs[pool_kinds == k]  # (N, …)
            if len(tokens):
                drawn = tokens[random.integers(0, len(tokens), (DRAWS, B))]  # (DRAWS, B, …)
                differs = (drawn != present).reshape(DRAWS, B, -1).any(-1)
                found = (kind == k) & differs.any(0)
                inputs[steps[found], columns[found]] = drawn[differs.int().argmax(0), columns][found]
        return {"": inputs}

    # -- variations, for evaluation with other options than those of training

    def encode(self, text: str) -> Batch:
        """A text of the user's own as a batch of one sequence, where the task has words.

        Raises: ConfigError.
        """
        raise ConfigError(f"the {self.name} task takes no sentence: its sequences hold no words")

    def vary(self, **options: Any) -> Self:
        """The same task with other options, such as `length` or `decoys`.

        Raises: ConfigError if the task has no such option, or the variation changes the network's sizes.
        """
        known = field_names(self)
        for key in options:
            if key not in known:
                raise ConfigError(f"the {self.name} task has no option {key}{did_you_mean(key, known)}")
        other = dataclasses.replace(self, **options)
        sizes = [(t.num_tokens, t.input_size, t.output_size) for t in (self, other)]
        if sizes[0] != sizes[1]:
            asked = ", ".join(f"{key}={show(value)}" for key, value in options.items())
            raise ConfigError(f"the {self.name} task with {asked} does not fit: it needs a network of other sizes")
        return other


def make_task(name: str, **options: Any) -> Task:
    """The task called `name`: `make_task("copy", length=100)`.

    Raises: OptionError naming key, value and rule.
    """
    task: Task = TASKS.make(name, **options)
    return task


def until_over(words: Iterable[str]) -> list[str]:
    """`words` without those after the sequence's end."""
    return [word for word in words if word != OVER]


def step_numbers(T: int, device: torch.device | None = None) -> Tensor:
    """0 … T−1, as (T, 1)."""
    return torch.arange(T, device=device)[:, None]


def share_right(outputs: Tensor, batch: Batch) -> float:
    """Share of the scored positions whose largest output is the target's."""
    return (batch.answers(outputs).argmax(-1) == batch.at_scored(batch.targets)).double().mean().item()


def right_sequences(right: Tensor, batch: Batch) -> Tensor:
    """bool (sequences,): which of the sequences with a scored position are `right`, bool (scored,), at all of
    them."""
    which = batch.scored_sequences
    whole = torch.ones(batch.size, dtype=torch.bool, device=right.device)
    whole[which[~right]] = False
    return whole[which.unique()]


def _numbers(values: Tensor) -> str:
    return " ".join(f"{value:.3g}" for value in values.flatten().tolist())
