"""Fixed points, slow points and cycles of a network: what it does while its input says nothing new.

The input is held at x̄, and the state s (all states of the cell, concatenated) moves by the cell's own step, s ←
F(s, x̄). Points where it stands still, or nearly, are minima of the speed

    q(s) = ½ ‖F(s, x̄) − s‖²

found from many states that texts visit, by Levenberg and Marquardt's method: with r = F(s, x̄) − s and J = ∂r/∂s,

    δ = −(JᵀJ + μ I)⁻¹ Jᵀ r,   taken if it lowers q; μ falls after a step that was taken and grows after others

At a point, the eigenvalues λ of ∂F/∂s say what becomes of a small deviation: it grows where |λ| > 1, and shrinks to
1/e in −1/ln|λ| steps where |λ| < 1, the time constant. Source: Sussillo & Barak 2013 (from memory; they have
continuous time).

In discrete time a state may also end in a cycle, F^p(s) = s, whose eigenvalues are those of ∂F^p/∂s. Cycles are found
by running texts on under held input, so that only attracting ones are.

x̄ is the mean of the recurrence's inputs over the commonest kind of token (filler words, on keyword recall), or over
all tokens where the task has no kinds. The answer at a state is that after one more step with the mean input of the
last scored step: on keyword recall, the question. Answers that tell the class need not be right: a network that keeps
a word as the phase of a cycle names another word at each step, but another one for each word.

Points are searched from where texts lead, not everywhere: the list is never known to be complete.

Dimensions: T time steps, B texts, N numbers of state, S states, O output features, p the period of a cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jacrev, vmap

from rnnlstm.config.errors import ConfigError
from rnnlstm.config.schema import Config
from rnnlstm.instruments.analysed_network import AnalysedNetwork

TEXTS = 256
STARTS = 64  #: texts from which points are searched, from two states of each
HELD = 1000  #: steps of held input after which states count as having ended
PERIODS = 60  #: longest cycle that is looked for
ITERATIONS = 100
FIXED = 1e-9  #: ‖F(s) − s‖ of a fixed point at most, relative to 1 + ‖s‖
RETURNS = 1e-6  #: the same of ‖F^p(s) − s‖, for a state that has come to rest or into a cycle by itself
#: Points closer than this are one; unit: the spread, the root mean square distance of visited states from their mean.
SAME = 0.1
#: A slow point's state moves by at most this share of the spread in T steps.
SLOW = 0.1
AT_ONCE = 2**22  #: numbers of Jacobians that are computed together, unless one has more

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Orbit:
    """A fixed point, a slow point, or a cycle."""

    states: Tensor  #: (p, N); one of a point
    speed: float  #: ‖F^p(s) − s‖ at the first
    fixed: bool  #: or a cycle; not a slow point
    eigenvalues: Tensor  #: of ∂F^p/∂s, complex (N,), the largest first
    outputs: Tensor  #: (p, O), after the question
    starts: int  #: start states from which the search came here
    ends: int  #: texts whose state is here after `HELD` steps of held input
    distance: float  #: to the nearest visited state, in units of the spread

    @property
    def period(self) -> int:
        return len(self.states)

    @property
    def kind(self) -> str:
        return f"cycle of {self.period}" if self.period > 1 else "fixed point" if self.fixed else "slow point"

    @property
    def unstable(self) -> int:
        """Number of directions in which a deviation grows."""
        return int((self.eigenvalues.abs() > 1).sum())

    @property
    def attracts(self) -> bool:
        return self.fixed and self.unstable == 0

    @property
    def time_constants(self) -> Tensor:
        """In steps, the largest eigenvalue's first."""
        return self.period * time_constants(self.eigenvalues)

    def slow_directions(self, steps: float) -> int:
        """Number of directions that change by less than a factor e in that many steps."""
        return int((self.time_constants.abs() > steps).sum())


@dataclass(frozen=True)
class Dynamics:
    """A network under held input."""

    length: int  #: T
    orbits: list[Orbit]  #: those in which most texts end first
    starts: int
    lost: int  #: starts from which the search ended where the state still moves
    spread: float  #: root mean square distance of the visited states from their mean
    held: int  #: steps of held input
    right: Tensor  #: (held + 1,): after so many steps, share of texts whose answer is right; NaN for numbers
    told: Tensor  #: (held + 1,): share of texts whose class the best guess from the answer names; NaN for numbers
    at_rest: float  #: share of texts whose state stands still at the end
    cycling: float  #: share of texts whose state is in a cycle then
    on_the_way: Tensor  #: complex (B, N): eigenvalues at each text's last state before the question
    centre: Tensor  #: (N,), mean of the visited states
    axes: Tensor  #: (2, N): their principal components
    explained: list[float]  #: shares of the variance
    visited: Tensor  #: (T − 1, B, N), states before the question; NaN from it on where a text is shorter
    target: Tensor  #: (B,) or (B, O): the answer to each text
    classes: bool  #: whether answers are classes
    choices: int  #: O, the classes there are

    @property
    def after(self) -> list[int]:
        """Steps of held input after which numbers are quoted: 0, T, 10·T and all."""
        return sorted({0, *(steps for steps in (self.length, 10 * self.length) if steps < self.held), self.held})

    @property
    def named(self) -> set[int]:
        """The classes that attractors answer: fixed points, and cycles with the same answer at each phase. Empty
        where answers are numbers."""
        answers = [set(orbit.outputs.argmax(1).tolist()) for orbit in self.orbits if orbit.attracts]
        return {k for one in answers for k in one if len(one) == 1} if self.classes else set()

    def project(self, states: Tensor) -> Tensor:
        """(…, N) → (…, 2), on the principal components."""
        return (states - self.centre) @ self.axes.T

    @cached_property
    def slow_on_the_way(self) -> float:
        """Median over the texts, before the question: directions that change by less than a factor e in T steps."""
        slow = (time_constants(self.on_the_way).abs() > self.length).sum(1).double()
        return slow.median().item()

    def over(self, shares: Tensor, steps: int) -> float:
        """Mean of `right` or `told` over the last T steps up to that many of held input; at 0 that step alone."""
        return shares[max(steps - self.length + 1, 0) : steps + 1].mean().item() if steps else shares[0].item()


def answers(analysed: AnalysedNetwork, outputs: Tensor) -> list[str]:
    """The answer in the task's words for each of the outputs (S, O)."""
    one = analysed.at_last.sequence(0)
    return [analysed.task.answer(output.expand(len(one.mask), 1, -1), one, 0) for output in outputs]


def time_constants(eigenvalues: Tensor) -> Tensor:
    """−1/ln|λ| in steps: 0 for λ = 0, infinite for |λ| = 1, negative where deviations grow."""
    return 1 / (0 - eigenvalues.abs().log())  # of 1, +0: infinite


def require_dynamics(config: Config) -> None:
    """Raises: ConfigError for a network that has no dynamics of this kind."""
    if config.network.num_layers != 1:
        raise ConfigError(f"show=dynamics takes networks of one layer; this one has {config.network.num_layers}")
    if config.surgery.detach or config.surgery.freeze:
        key = "detach" if config.surgery.detach else "freeze"
        raise ConfigError(f"show=dynamics needs derivatives that surgery.{key} cuts off; leave it out")


def dynamics(analysed: AnalysedNetwork, held: int = HELD) -> Dynamics:
    """The points of a network of one layer, searched from a state that each text visits and from where each text ends
    after `held` steps of held input.

    Raises: ConfigError if a state is not finite.
    """
    step, asked = held_step(analysed), _asked(analysed)
    visited = torch.cat([analysed.path.states[0][name] for name in analysed.cell.state_names], -1)  # (T, B, N)
    batch, texts = analysed.at_last, torch.arange(analysed.batch.size)
    last = batch.mask.int().argmax(0)  # (B,), of the question
    T = int(last.max()) + 1
    there = torch.arange(max(T - 1, 1))[:, None] < last.clamp(min=1)  # before the question, which may come earlier
    visited = torch.where(there[:, :, None], visited[: len(there)], torch.nan)
    target = batch.targets[last, texts]
    classes = not target.is_floating_point()

    before = visited[(last - 1).clamp(min=0), texts]
    state, named = before, [_classes(asked(before))]
    for _ in range(held):
        state = step(state)
        named.append(_classes(asked(state)))
    ends, orbit = state, [state]
    for _ in range(PERIODS):
        orbit.append(step(orbit[-1]))
    onwards = torch.stack(orbit)  # (PERIODS + 1, B, N)

    flat = visited[there]
    if not flat.isfinite().all():
        raise ConfigError("show=dynamics needs finite states; this network's overflow before the question")
    centre, axes, explained = _principal_axes(flat)
    spread = (flat - centre).norm() / len(flat) ** 0.5
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.rand(len(texts), generator=generator) * last.clamp(min=1)).long()
    starts = torch.cat([visited[drawn, texts][:STARTS], ends[:STARTS]])
    starts = starts[starts.isfinite().all(1)]
    states, speeds = minimise(step, starts)
    fixed = _stands(states, speeds)
    kept = fixed | (speeds * T <= SLOW * spread)
    periods = _periods(onwards)
    points = _merged(states[kept], speeds[kept], fixed[kept], SAME * spread)
    at_end = _nearest(ends, torch.stack([p for p, *_ in points]) if points else flat[:0], SAME * spread)
    at_end[periods > 1] = -1
    found = [
        (point[None], speed, still, count, int((at_end == k).sum()))
        for k, (point, speed, still, count) in enumerate(points)
    ]
    found += _cycles(onwards, periods, SAME * spread)
    orbits = [
        Orbit(
            states=cycle, speed=speed, fixed=still, eigenvalues=_eigenvalues(_times(step, len(cycle)), cycle[:1])[0],
            outputs=asked(cycle), starts=count, ends=ending,
            distance=(torch.cdist(cycle, flat).min() / spread).item(),
        )
        for cycle, speed, still, count, ending in found
    ]  # fmt: skip
    unknown = torch.full((held + 1,), torch.nan, dtype=torch.float64)
    return Dynamics(
        length=T,
        orbits=sorted(orbits, key=lambda orbit: (-orbit.ends, -orbit.starts)),
        starts=len(starts),
        lost=int((~kept).sum()),
        spread=spread.item(),
        held=held,
        right=torch.stack([(a == target).double().mean() for a in named]) if classes else unknown,
        told=torch.stack([_told(a, target) for a in named]) if classes else unknown,
        at_rest=(periods == 1).double().mean().item(),
        cycling=(periods > 1).double().mean().item(),
        on_the_way=_eigenvalues(step, before),
        centre=centre,
        axes=axes,
        explained=explained,
        visited=visited,
        target=target,
        classes=classes,
        choices=analysed.task.output_size,
    )


def held_step(analysed: AnalysedNetwork) -> Map:
    """s (…, N) → F(s, x̄), one step of the only layer."""
    x, kinds = _until_the_question(analysed)
    if kinds is not None:
        x = x[kinds == kinds.mode().values]
    return _step(analysed, x.mean(0))


def _asked(analysed: AnalysedNetwork) -> Map:
    """s (S, N) → the outputs (S, O) after one more step, with the mean input of the last scored step."""
    step = _step(analysed, analysed.path.inputs[0][analysed.at_last.mask].mean(0))
    readout, H = analysed.network.readout, analysed.network.readout.in_features

    def answer(states: Tensor) -> Tensor:
        with torch.no_grad():
            outputs: Tensor = readout(step(states)[:, :H])
            return outputs

    return answer


def _until_the_question(analysed: AnalysedNetwork) -> tuple[Tensor, Tensor | None]:
    """Inputs (…, I) and kinds of all tokens up to the last scored one of each text."""
    mask, kinds = analysed.at_last.mask, analysed.batch.kinds
    there = mask.flip(0).cumsum(0).flip(0) > 0
    return analysed.path.inputs[0][there], None if kinds is None else kinds[there].long()


def _step(analysed: AnalysedNetwork, x: Tensor) -> Map:
    cell = analysed.cell
    w, count = cell.prepare(analysed.weights(0)), len(cell.state_names)
    projected = cell.project(x[None], w)

    def step(states: Tensor) -> Tensor:
        rows = states.reshape(-1, states.shape[-1])
        after, _ = cell.step(projected.expand(len(rows), -1), rows.chunk(count, -1), w)
        return torch.cat(after, -1).reshape(states.shape)

    return step


def jacobians(step: Map, states: Tensor) -> Tensor:
    """∂F/∂s (S, N, N) at states (S, N), rows by the state after."""
    one = vmap(jacrev(step))
    chunks = states.split(max(1, AT_ONCE // states.shape[1] ** 2))
    return torch.cat([one(chunk) for chunk in chunks]).detach()


def minimise(step: Map, states: Tensor, iterations: int = ITERATIONS) -> tuple[Tensor, Tensor]:
    """Minima of q near the states (S, N) of float64, and ‖F(s) − s‖ there, (S,)."""
    states, N = states.clone(), states.shape[1]
    residual = step(states) - states
    damping = torch.full((len(states),), 1e-3, dtype=states.dtype)
    active = torch.arange(len(states))
    for _ in range(iterations):
        norms = residual[active].norm(dim=1)
        # Ten times below what counts as fixed; and where no step lowers q any more, it is a minimum.
        active = active[(norms > 0.1 * FIXED * (1 + states[active].norm(dim=1))) & (damping[active] < 1e12)]
        if not len(active):
            break
        J = jacobians(step, states[active]) - torch.eye(N, dtype=states.dtype)
        r, mu = residual[active], damping[active]
        matrix = J.mT @ J + mu[:, None, None] * torch.eye(N, dtype=states.dtype)
        delta, _ = torch.linalg.solve_ex(matrix, J.mT @ -r[:, :, None])  # of a singular matrix, a step that fails
        tried = states[active] + delta[:, :, 0]
        after = step(tried) - tried
        better = after.norm(dim=1) < r.norm(dim=1)
        states[active] = torch.where(better[:, None], tried, states[active])
        residual[active] = torch.where(better[:, None], after, r)
        damping[active] = torch.where(better, (mu / 5).clamp(min=1e-15), mu * 3)
    return states, residual.norm(dim=1)


def _stands(states: Tensor, speeds: Tensor) -> Tensor:
    return speeds <= FIXED * (1 + states.norm(dim=1))


def _merged(states: Tensor, speeds: Tensor, fixed: Tensor, radius: Tensor) -> list[tuple[Tensor, float, bool, int]]:
    """One point for all within the radius of it, the slowest first: state, speed, whether fixed, and how many."""
    points, left = [], speeds.argsort()
    while len(left):
        first = left[0]
        here = (states[left] - states[first]).norm(dim=1) <= radius
        points.append((states[first], speeds[first].item(), bool(fixed[first]), int(here.sum())))
        left = left[~here]
    return points


def _times(step: Map, count: int) -> Map:
    """F^count."""

    def steps(states: Tensor) -> Tensor:
        for _ in range(count):
            states = step(states)
        return states

    return steps


def _periods(onwards: Tensor) -> Tensor:
    """The period (B,) of states that run on (PERIODS + 1, B, N): 1 at rest, 0 if none does return."""
    first = onwards[0]
    returned = (onwards[1:] - first).norm(dim=2) <= RETURNS * (1 + first.norm(dim=1))
    found = returned.any(0) & onwards.isfinite().all(2).all(0)
    return torch.where(found, returned.int().argmax(0) + 1, 0)


def _cycles(onwards: Tensor, periods: Tensor, radius: Tensor) -> list[tuple[Tensor, float, bool, int, int]]:
    """Each cycle once, whatever the phase of the texts in it: states, speed, True, 0 starts, texts."""
    cycles, left = [], (periods > 1).nonzero()[:, 0]
    while len(left):
        first, p = left[0], int(periods[left[0]])
        cycle = onwards[:p, first]
        here = (torch.cdist(onwards[0, left], cycle).amin(1) <= radius) & (periods[left] == p)
        speed = (onwards[p, first] - cycle[0]).norm().item()
        cycles.append((cycle, speed, True, 0, int(here.sum())))
        left = left[~here]
    return cycles


def _nearest(states: Tensor, points: Tensor, radius: Tensor) -> Tensor:
    """The number of the nearest point to each state; −1 where none is within the radius."""
    if not len(points):
        return torch.full((len(states),), -1)
    distance, nearest = torch.cdist(states, points).min(1)
    return torch.where(distance <= radius, nearest, -1)


def _eigenvalues(step: Map, states: Tensor) -> Tensor:
    """Complex (S, N), the largest first."""
    if not len(states):
        return torch.zeros(states.shape, dtype=torch.complex128)
    values = torch.linalg.eigvals(jacobians(step, states))
    return values.gather(1, values.abs().argsort(1, descending=True))


def _principal_axes(states: Tensor) -> tuple[Tensor, Tensor, list[float]]:
    """Mean (N,), the two principal components (2, N), and their shares of the variance."""
    centre = states.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(states.T, correction=0).reshape(2 * centre.shape))
    shares = values.flip(0)[:2].clamp(min=0) / values.sum().clamp(min=1e-300)
    axes = torch.zeros(2, len(centre), dtype=states.dtype)
    axes[: len(shares)] = vectors.flip(1).T[:2]
    return centre, axes, [*shares.tolist(), 0.0][:2]


def _classes(outputs: Tensor) -> Tensor:
    """The class that is answered; −1 where an output is not finite."""
    return torch.where(outputs.isfinite().all(1), outputs.argmax(1), -1)


def _told(answers: Tensor, target: Tensor) -> Tensor:
    """Share of the texts whose class is guessed right from the answer by the best guess for each answer."""
    classes = int(max(answers.max(), target.max())) + 1
    counts = F.one_hot(answers + 1, classes + 1).double().T @ F.one_hot(target, classes).double()
    return counts.amax(1).sum() / len(target)
