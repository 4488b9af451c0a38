"""The project's training step against scripts of the same network, task, batch size, optimiser and clipping.

- fair script, the yardstick: what a good engineer writes by hand in PyTorch for just this network: PyTorch's module,
  readout at the scored steps alone, `clip_grad_norm_`, fused Adam.
- plain script: the same with a readout at every step and PyTorch's default Adam.
- JAX script: as its users write it (`jax_update`); its first call, which compiles, does not count. It runs in a
  process of its own, held to as many cores as PyTorch has threads; with one thread XLA's flags say so, too
  (`hold_jax_to`).
- compiled script: the fair one's network and loss under `torch.compile`, as far as it compiles them; PyTorch's
  modules are a graph break unless `allow_rnn` unrolls them over time, which is compiled whole. Each takes part if it
  is done within a limit. The optimiser and clipping stay as they are.

On a GPU PyTorch's module is cuDNN's. All contenders draw their data on the CPU from the same task and begin with the
same weights. Several seeds are as many scripts in turn. Every call is timed until the device has done its work.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnlstm.benchmarks.timing import Apart, NotReadyError, Several, Timing, in_turn, interrupts_blocked
from rnnlstm.config.errors import OptionError
from rnnlstm.config.schema import SECTIONS, default_section, default_top, read_config
from rnnlstm.config.untrusted import config_folder, read_yaml
from rnnlstm.training.batches import MOST_STEPS
from rnnlstm.training.plan import Plan, make_plan
from rnnlstm.training.step import Trainer

#: Tasks that training is timed on, each with `task.length=100`.
TASKS = ("keyword", "adding", "copy")
MODELS = ("rnn", "lstm", "gru")
LOCKSTEP, FAIR, PLAIN, JAX = "lockstep", "fair script", "plain script", "JAX script"
COMPILED, COMPILED_WHOLE = "compiled script", "compiled whole"
JAX_SECONDS = {"cpu": 300.0, "gpu": 60.0}  #: that JAX may take to start and to compile


class ScriptNetwork(nn.Module):
    """Embedding of tokens, one layer of PyTorch's recurrence, readout; its weights have the project's names."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        options, task = plan.config.network, plan.task
        self.embedding: nn.Module = nn.Identity()
        if task.num_tokens is not None:
            self.embedding = nn.Embedding(task.num_tokens, options.embedding_size)
        features = task.input_size or options.embedding_size
        self.recurrence = getattr(nn, plan.cell.name.upper())(features, options.hidden_size)
        self.readout = nn.Linear(options.hidden_size, task.output_size)

    def every_answer(self, inputs: Tensor) -> Tensor:
        """(T, B, O)"""
        answers: Tensor = self.readout(self.recurrence(self.embedding(inputs))[0])
        return answers

    def loss(self, inputs: Tensor, scored: Tensor, targets: Tensor) -> Tensor:
        """From the scored rows alone: `scored` (scored,), as `Batch` has it, `targets` (scored,) or (scored, O)."""
        hidden = self.recurrence(self.embedding(inputs))[0]
        return task_loss(self.readout(hidden.flatten(0, 1)[scored]), targets)


def task_loss(answers: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(answers, targets) if targets.is_floating_point() else F.cross_entropy(answers, targets)


class Script:
    """A script in PyTorch: a call is an update, and returns its loss."""

    def __init__(self, plan: Plan, seed: int, fair: bool = True) -> None:
        self.plan, self.seed, self.fair, self.step = plan, seed, fair, 0
        self.network = ScriptNetwork(plan)
        self.network.load_state_dict(plan.network(seed).state_dict())
        self.network.to(plan.device)
        self.loss = self.network.loss
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=plan.config.optimizer.lr, fused=True if fair else None
        )

    def __call__(self) -> Tensor:
        self.step += 1
        config = self.plan.config
        batch = self.plan.task.sample(self.seed, self.step, batch_size=config.train.batch_size).to(self.plan.device)
        targets = batch.at_scored(batch.targets)
        if self.fair:
            loss = self.loss(batch.inputs, batch.scored, targets)
        else:
            loss = task_loss(batch.at_scored(self.network.every_answer(batch.inputs)), targets)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip.threshold or 1.0)
        self.optimizer.step()
        return loss.detach()


class InTurn:
    """An update of each of several scripts, one after another."""

    def __init__(self, plan: Plan, seeds: Sequence[int], fair: bool = True) -> None:
        self.scripts = [Script(plan, seed, fair) for seed in seeds]

    def __call__(self) -> list[Tensor]:
        return [script() for script in self.scripts]


def against_scripts(
    model: str,
    seeds: int,
    rounds: int,
    overrides: Sequence[str] = (),
    others: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Timing]:
    """Milliseconds on the CPU for an update of `seeds` replicas in lockstep, and of as many scripts of each kind, at
    the default configuration with these overrides; and of `others`."""
    plan = default_plan(model, "device=cpu", *overrides)
    trainer = Trainer(plan, range(seeds))
    steps = iter(range(1, 1_000_000_000))

    contenders: dict[str, Callable[[], object]] = {
        LOCKSTEP: Several(lambda: trainer.step(next(steps)), MOST_STEPS),  # some draw the batches of the next ones
        FAIR: InTurn(plan, range(seeds)),
        PLAIN: InTurn(plan, range(seeds), fair=False),
        **(others or {}),
    }
    return in_turn(contenders, rounds, twice=True)


def jax_update(plan: Plan) -> Callable[..., Any]:
    """An update of one seed in JAX, to be compiled: (weights, means of gradients, means of their squares, number of
    the update, inputs, scored, targets) → (the first three anew, loss).

    The inputs' product comes before the `lax.scan` over time. Weights are named as the project names them.
    """
    import jax
    import jax.numpy as jnp

    config, (sigmoid, tanh) = plan.config, (jax.nn.sigmoid, jnp.tanh)
    B, H = config.train.batch_size, config.network.hidden_size
    lr, threshold = config.optimizer.lr, config.clip.threshold or 1.0

    def rnn(state: Any, x: Any, h_product: Any) -> Any:
        return (tanh(x + h_product),)

    def gru(state: Any, x: Any, h_product: Any) -> Any:
        (r_x, z_x, n_x), (r_h, z_h, n_h) = jnp.split(x, 3, -1), jnp.split(h_product, 3, -1)
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        return ((1 - z) * tanh(n_x + r * n_h) + z * state[0],)

    def lstm(state: Any, x: Any, h_product: Any) -> Any:
        i, f, g, o = jnp.split(x + h_product, 4, -1)
        c = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    cell = {"rnn": rnn, "gru": gru, "lstm": lstm}[plan.cell.name]

    def loss_of(weights: Any, inputs: Any, scored: Any, targets: Any) -> Any:
        w = {name.rpartition(".")[2]: weight for name, weight in weights.items() if "recurrence" in name}
        features = weights["embedding.weight"][inputs] if "embedding.weight" in weights else inputs
        x = features @ w["weight_ih_l0"].T + w["bias_ih_l0"]

        def step(state: Any, x_t: Any) -> Any:
            state = cell(state, x_t, state[0] @ w["weight_hh_l0"].T + w["bias_hh_l0"])
            return state, state[0]

        start = tuple(jnp.zeros((B, H)) for _ in plan.cell.state_names)
        hidden = jax.lax.scan(step, start, x)[1].reshape(-1, H)[scored]
        answers = hidden @ weights["readout.weight"].T + weights["readout.bias"]
        if jnp.issubdtype(targets.dtype, jnp.floating):
            return ((answers - targets) ** 2).mean()
        return -jnp.take_along_axis(jax.nn.log_softmax(answers), targets[:, None], 1).mean()

    def update(weights: Any, mean: Any, square: Any, number: Any, *batch: Any) -> Any:
        loss, gradient = jax.value_and_grad(loss_of)(weights, *batch)
        norm = jnp.sqrt(sum((g * g).sum() for g in gradient.values()))
        gradient = {name: g * jnp.minimum(1, threshold / (norm + 1e-6)) for name, g in gradient.items()}
        mean = {name: 0.9 * mean[name] + 0.1 * g for name, g in gradient.items()}
        square = {name: 0.999 * square[name] + 0.001 * g * g for name, g in gradient.items()}
        scale, root = lr / (1 - 0.9**number), jnp.sqrt(1 - 0.999**number)
        weights = {
            name: w - scale * mean[name] / (jnp.sqrt(square[name]) / root + 1e-8) for name, w in weights.items()
        }
        return weights, mean, square, loss

    return update


class JaxScript:
    """A script in JAX: a call is an update of each seed, and returns their losses. `vmap` maps over several seeds."""

    def __init__(self, plan: Plan, seeds: Sequence[int]) -> None:
        import jax
        import jax.numpy as jnp

        self.plan, self.seeds, self.number = plan, list(seeds), 0
        update = jax_update(plan)
        if len(self.seeds) > 1:
            update = jax.vmap(update, in_axes=(0, 0, 0, None, 0, 0, 0))
        self.update = jax.jit(update, donate_argnums=(0, 1, 2))
        networks = [plan.network(seed).state_dict() for seed in self.seeds]
        weights = {name: jnp.asarray(self._all([each[name] for each in networks])) for name in networks[0]}
        zeros = [{name: jnp.zeros_like(weight) for name, weight in weights.items()} for _ in range(2)]
        self.state = (weights, *zeros)

    def __call__(self) -> list[float]:
        self.number += 1
        size = self.plan.config.train.batch_size
        batches = [self.plan.task.sample(seed, self.number, batch_size=size) for seed in self.seeds]
        fields = [(batch.inputs, batch.scored, batch.at_scored(batch.targets)) for batch in batches]
        arrays = [self._all(each) for each in zip(*fields, strict=True)]
        arrays = [each if each.dtype == np.float32 else each.astype(np.int32) for each in arrays]
        *state, losses = self.update(*self.state, np.float32(self.number), *arrays)
        self.state = tuple(state)
        return np.atleast_1d(losses).tolist()  # waits for the update's end

    def _all(self, each: Sequence[Tensor]) -> np.ndarray:
        """The seeds' tensors as an array; of one seed, without a dimension for it."""
        return np.stack([tensor.numpy() for tensor in each]) if len(each) > 1 else each[0].numpy()


def hold_jax_to(threads: int) -> None:
    """Hold this process to so many cores. To be called before JAX is imported, which then sees no more."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    torch.set_num_threads(threads)


def _jax_script(threads: int, model: str, seeds: int, overrides: Sequence[str], device: str) -> JaxScript:
    if device == "cpu":
        hold_jax_to(threads)
    else:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # it would take most of the GPU's memory
        os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"  # by default it rounds to TF32
    return JaxScript(default_plan(model, "device=cpu", *overrides), range(seeds))


class CompiledScript(Script):
    """The fair script with its network and loss compiled, `whole` or up to the graph breaks."""

    def __init__(self, plan: Plan, seed: int, whole: bool) -> None:
        import torch._dynamo.utils
        import torch._inductor.config

        super().__init__(plan, seed)
        torch._inductor.config.compile_threads = 1  # no processes, which would outlive this one
        torch._dynamo.config.allow_rnn = whole
        self.loss = torch.compile(self.network.loss, fullgraph=whole, dynamic=False)

    def __call__(self) -> Tensor:
        """Raises: RuntimeError if the first call has compiled nothing."""
        loss = super().__call__()
        if self.step == 1 and not torch._dynamo.utils.counters["stats"]["unique_graphs"]:
            raise RuntimeError(
                f"graph break at torch.nn.{type(self.network.recurrence).__name__}: nothing is compiled"
            )
        return loss


def _compiled_script(threads: int, model: str, whole: bool, overrides: Sequence[str]) -> CompiledScript:
    torch.set_num_threads(threads)
    return CompiledScript(default_plan(model, "device=cpu", *overrides), 0, whole)


def jax_installed() -> bool:
    return importlib.util.find_spec("jax") is not None


@contextmanager
def rivals(
    model: str, seeds: int, compile_limit: float | None, overrides: Sequence[str] = (), device: str = "cpu"
) -> Iterator[tuple[dict[str, Apart], dict[str, str]]]:
    """JAX's script, where JAX is installed, and for one seed the compiled ones, if there is a `compile_limit`, in
    seconds. Those that got ready, in processes of their own, and for the others the reason why not."""
    threads = torch.get_num_threads()
    wanted: dict[str, tuple[Any, ...]] = {}
    if jax_installed():
        limit = JAX_SECONDS["cpu" if device == "cpu" else "gpu"]
        wanted[JAX] = (limit, _jax_script, threads, model, seeds, overrides, device)
    if compile_limit is not None and seeds == 1:
        for name, whole in ((COMPILED, False), (COMPILED_WHOLE, True)):
            wanted[name] = (compile_limit, _compiled_script, threads, model, whole, overrides)
    ready, missing = {}, {}
    with ExitStack() as stack:
        for name, arguments in wanted.items():
            try:
                ready[name] = Apart(*arguments)
                stack.callback(ready[name].close)
            except NotReadyError as reason:
                missing[name] = str(reason)
        yield ready, missing


def default_plan(model: str, *overrides: str) -> Plan:
    """The plan of `train model=… …`, composed by hand: a machine that is lent for measuring may lack Hydra.

    `overrides` choose a task or set a key to a plain value. Raises: ConfigError.
    """
    changes = dict(override.split("=", 1) for override in overrides)
    chosen: dict[str, str] = {}
    for default in read_yaml(config_folder() / "train.yaml")["defaults"]:
        if isinstance(default, dict):
            chosen |= default
    chosen |= {"model": model, "task": changes.pop("task", chosen["task"])}
    tree: dict[str, Any] = {
        group: read_yaml(config_folder() / group / f"{chosen[group]}.yaml") for group in ("task", "model")
    }
    tree |= {section: default_section(section, chosen.get(section)) for section in SECTIONS} | default_top()
    for key, value in {"runs_root": "benchmark_writes_nothing", **changes}.items():
        *sections, name = key.split(".")
        section = tree[sections[0]] if sections else tree
        if name not in section:
            raise OptionError(key, value, "unknown key")
        section[name] = _plain(value)
    return make_plan(read_config(tree))


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def two_at_a_time(model: str, seeds: int, rounds: int) -> float:
    """Milliseconds for an update of each of `seeds` fair scripts, run by two processes of one thread each: the
    median of the rounds, each as long as its slower process."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_half, args=(model, list(range(seeds))[k::2], rounds, barrier, queue), daemon=True)
        for k in range(2)
    ]
    with interrupts_blocked():
        for worker in workers:
            worker.start()
    times = [queue.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    return statistics.median(max(pair) for pair in zip(*times, strict=True))


def _half(model: str, seeds: list[int], rounds: int, barrier: Any, queue: Any) -> None:
    torch.set_num_threads(1)
    plan = default_plan(model, "device=cpu")
    scripts = InTurn(plan, seeds)
    times = []
    for k in range(rounds + 2):
        barrier.wait(timeout=600)
        started = time.perf_counter()
        scripts()
        if k >= 2:
            times.append(1e3 * (time.perf_counter() - started))
    queue.put(times)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        cuda = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        return f"{torch.cuda.get_device_name(device)}, {cuda}"
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
