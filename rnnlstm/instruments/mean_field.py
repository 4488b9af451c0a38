"""Mean-field theory of the gradient at the start: E‖∂L/∂h_{T−k}‖² of wide random networks, without making one.

A unit's pre-activation is a sum over many random weights, so that it is Gaussian over the units, with variance
q_t = σ_w² E[h_{t−1}²] + σ_in² E‖x_t‖² + σ_b². The moments of the state follow from it step by step, and from them
those of the gradient on its way back. For the plain RNN

    q_t = σ_w² E[φ(√q_{t−1} z)²] + σ_in² E‖x‖² + σ_b²,   z ~ N(0, 1)
    E‖δ_{t−1}‖² = χ E‖δ_t‖²,   χ = σ_w² E[φ'(√q* z)²],   half-life = ln ½ / (½ ln χ) steps

Source (from memory): Chen, Pennington & Schoenholz 2018 for the plain RNN and a minimal gated one; Gilboa et al. 2019
for LSTM and GRU. Both take weights as drawn afresh at each step (`tied=False`). The recursions of the LSTM and the
GRU below are derived here from their equations. All cells have one form, in lags k = T − t:

    m_k = enter_k u_k + keep_k m_{k−1}                      the memory's gradient; of the LSTM δc, else δh
    u_k = Σ_gates W_gateᵀ(back_k m_{k−1}) + W_oᵀ(side_k u_{k−1})      what comes through the weights; of the LSTM δh

    RNN    m = u,            back = φ'(a)
    LSTM   enter = o·tanh'(c)   keep = f   back = (c f', g i', i g')   side = tanh(c) o'
    GRU    enter = 1            keep = z   back = ((h − n) z', (1 − z) n' r, (1 − z) n' n_h r'), n_h = W_hn h + b_hn

**The same weights at each step** (`tied=True`, derived here). The paths of k steps that use W_hh in j of them are
C(k, j). With fresh weights they are uncorrelated and their squares add up: E‖m_k‖² = (f² + σ²)^k for constant keep f
and σ = σ_w·enter·back. With the same W all of them hold the same Wʲ and the paths themselves add up:
Σ_j C(k, j)² f^{2(k−j)} σ^{2j}, which grows as (f + σ)^{2k}. So for a cell with a memory path the two differ at any
width; without one (f = 0) they are equal, and differ in real networks by terms that vanish with the width. Computed
from two-time moments: with U(k, l) = ⟨u_k u_l⟩, X(k, l) = ⟨m_k u_l⟩, P(k, l) = ⟨m_k m_l⟩, unit by unit, for l < k

    U(k, l) = σ_w² ⟨E[back_k] E[back_l] P(k−1, l−1)⟩_units       (fresh weights: 0)
    X(l, k) = E[enter_l] U(l, k) + E[keep_l] X(l−1, k)
    P(k, l) = E[enter_k] X(l, k) + E[keep_k] P(k−1, l)
    P(k, k) = E[enter_k²] U(k, k) + 2 E[enter_k] E[keep_k] X(k−1, k) + E[keep_k²] P(k−1, k−1)

Assumed: pre-activations of different steps, gates and units are independent, apart from the biases that a start sets
(`forget_bias`, `chrono`); c is Gaussian, of mean 0. A matrix `gain` times an orthogonal one counts as σ_w = gain.

Dimensions: H hidden units, K lags, N kinds of units (by their biases), Z nodes of the quadrature. All in float64; a
moment is a mean over the units, without unit for activations, in (loss per unit of state)² for gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from rnnlstm.cells import Cell
from rnnlstm.cells.gru import GRUCell
from rnnlstm.cells.lstm import LSTMCell
from rnnlstm.cells.rnn import LinearCell, RNNCell
from rnnlstm.tasks import Task

#: Nodes of the trapezoidal rule on ±9 standard deviations. It converges exponentially for smooth functions, also
#: where √q is large and φ' is a narrow peak between the nodes of Gauss & Hermite's rule. An even number: none is at
#: ReLU's step, so that its moments are exact by symmetry.
NODES = 800
Z = np.linspace(-9.0, 9.0, NODES)
WEIGHTS = np.exp(-(Z**2) / 2) / np.exp(-(Z**2) / 2).sum()
#: A coarser rule for the outer of two sums, over an activation of the GRU's reset gate.
OUTER = np.linspace(-8.0, 8.0, 48)
OUTER_WEIGHTS = np.exp(-(OUTER**2) / 2) / np.exp(-(OUTER**2) / 2).sum()
#: Kinds of units that stand for a spread of biases, and sequences that an input's size is measured on.
KINDS, SEQUENCES = 64, 1024
#: A stationary state has been reached if moments change by less, relatively; or after so many steps.
SETTLED, MOST_STEPS = 1e-12, 20_000

Function = Callable[[np.ndarray], np.ndarray]


def mean(f: Function, variance: float | np.ndarray, centre: float | np.ndarray = 0.0) -> np.ndarray:
    """E[f(a)], a ~ N(centre, variance), in the common shape of the two."""
    spread, middle = np.sqrt(np.asarray(variance, dtype=float)), np.asarray(centre, dtype=float)
    values: np.ndarray = f(middle[..., None] + spread[..., None] * Z) @ WEIGHTS
    return values


def tanh_slope(a: np.ndarray) -> np.ndarray:
    return 1 - np.tanh(a) ** 2


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(a / 2))


def sigmoid_slope(a: np.ndarray) -> np.ndarray:
    return sigmoid(a) * sigmoid(-a)


#: φ and φ' of the plain RNN.
PHI: dict[str, tuple[Function, Function]] = {
    "tanh": (np.tanh, tanh_slope),
    "relu": (lambda a: np.maximum(a, 0.0), lambda a: (a > 0).astype(float)),
    "identity": (lambda a: a, np.ones_like),
}


def squared(f: Function) -> Function:
    return lambda a: f(a) ** 2


@dataclass(frozen=True)
class Start:
    """What the theory needs to know of a start: variances over the units, and biases by kind of unit, (N,)."""

    kind: str  #: `rnn`, `lstm` or `gru`
    recurrent: float  #: σ_w²: variance of an entry of W_hh, times H
    driven: float  #: σ_in² E‖x‖²: the input's share of a pre-activation's variance
    bias: float  #: variance of one of the two biases
    nonlinearity: str = "tanh"  #: of `rnn`
    forget: np.ndarray | None = None  #: biases of the LSTM's forget gate, of the GRU's update gate; None: random
    input: np.ndarray | None = None  #: biases of the LSTM's input gate

    @property
    def kinds(self) -> int:
        return max(len(b) if b is not None else 1 for b in (self.forget, self.input))


def start_of(cell: Cell, hidden_size: int, input_power: float, max_lag: int) -> Start:
    """The start of a cell with H units: its weights uniform on ±1/√H, of variance 1/(3H), unless its `init` says
    otherwise. `input_power` is E‖x_t‖²; `max_lag` is the longest lag of `init=chrono`, in steps.

    Raises: ValueError for a cell or a start that the theory does not cover.
    """
    uniform = 1 / (3 * hidden_size)
    init = getattr(cell, "init", "default")
    gain = getattr(cell, "gain", 1.0)
    recurrent = gain**2 if init == "orthogonal" else 1 / 3
    start = Start("rnn", recurrent, uniform * input_power, uniform)
    if isinstance(cell, LinearCell):
        return replace(start, nonlinearity="identity")
    if isinstance(cell, RNNCell) and cell.nonlinearity in PHI and init != "identity":
        return replace(start, nonlinearity=cell.nonlinearity)
    places = (np.arange(KINDS) + 0.5) / KINDS
    chrono = np.log(1 + ((getattr(cell, "max_lag", None) or max_lag) - 2) * places)
    if type(cell) is GRUCell:
        return replace(start, kind="gru", forget=chrono if init == "chrono" else None)
    if type(cell) is LSTMCell and cell.input_bias is None:
        start = replace(start, kind="lstm")
        if init == "forget_bias":
            return replace(start, forget=np.array([cell.forget_bias]))
        return replace(start, forget=chrono, input=-chrono) if init == "chrono" else start
    raise ValueError(
        f"the theory covers rnn (tanh, relu, identity; not init=identity), linear, lstm and gru, not {cell}"
    )


def input_power(task: Task, embedding_size: int) -> float:
    """E‖x_t‖² over steps and sequences: of tokens the embedding's size, whose entries are N(0, 1); of numbers the
    mean of a sample."""
    if task.num_tokens is not None:
        return float(embedding_size)
    return task.sample(0, 0, "probe", SEQUENCES).inputs.double().square().sum(-1).mean().item()


@dataclass(frozen=True)
class Step:
    """First and second moments of one step's factors, by kind of unit, (N,) each; names as above."""

    keep: np.ndarray
    keep2: np.ndarray
    enter: np.ndarray
    enter2: np.ndarray
    back: np.ndarray  #: of the one gate whose factor has a mean; the others' is 0
    back2: np.ndarray  #: of all gates
    side2: np.ndarray


def forward(start: Start) -> Iterator[Step]:
    """The moments of steps 1, 2, … from a state of zeros, without end."""
    return {"rnn": _rnn, "lstm": _lstm, "gru": _gru}[start.kind](start)


def _rnn(start: Start) -> Iterator[Step]:
    phi, slope = PHI[start.nonlinearity]
    one, none = np.ones(1), np.zeros(1)
    power = 0.0  # E[h²]
    while True:
        q = np.array([start.recurrent * power + start.driven + 2 * start.bias])
        yield Step(none, none, one, one, mean(slope, q), mean(squared(slope), q), none)
        power = mean(squared(phi), q).item()


def _lstm(start: Start) -> Iterator[Step]:
    N = start.kinds
    c2, power = np.zeros(N), 0.0  # E[c²] by kind, E[h²]
    while True:
        drive = np.full(N, start.recurrent * power + start.driven)
        q = drive + 2 * start.bias  # of a gate whose biases are random
        f_gate = (q, np.zeros(N)) if start.forget is None else (drive, start.forget)
        i_gate = (q, np.zeros(N)) if start.input is None else (drive, start.input)
        f, f2, f_slope2 = (mean(each, *f_gate) for each in (sigmoid, squared(sigmoid), squared(sigmoid_slope)))
        i, i2, i_slope2 = (mean(each, *i_gate) for each in (sigmoid, squared(sigmoid), squared(sigmoid_slope)))
        o, o2, o_slope2 = (mean(each, q) for each in (sigmoid, squared(sigmoid), squared(sigmoid_slope)))
        g2, g_slope, g_slope2 = (mean(each, q) for each in (squared(np.tanh), tanh_slope, squared(tanh_slope)))
        before, c2 = c2, f2 * c2 + i2 * g2
        seen2 = mean(squared(np.tanh), c2)
        yield Step(
            keep=f,
            keep2=f2,
            enter=o * mean(tanh_slope, c2),
            enter2=o2 * mean(squared(tanh_slope), c2),
            back=i * g_slope,
            back2=before * f_slope2 + g2 * i_slope2 + i2 * g_slope2,
            side2=seen2 * o_slope2,
        )
        power = float((o2 * seen2).mean())


def _gru(start: Start) -> Iterator[Step]:
    N = start.kinds
    one, none = np.ones(N), np.zeros(N)
    h2, power = np.zeros(N), 0.0  # E[h²] by kind, and of all
    while True:
        drive = start.recurrent * power + start.driven
        q = drive + 2 * start.bias
        z_gate = (np.full(N, q), none) if start.forget is None else (np.full(N, drive), start.forget)
        z, z2, z_slope2 = (mean(each, *z_gate) for each in (sigmoid, squared(sigmoid), squared(sigmoid_slope)))
        # The candidate's pre-activation is a = n_x + r n_h. Given r it is Gaussian, and n_h given a has the mean βa
        # and the variance v. Expectations over r are sums over the nodes of its gate.
        q_x, q_h = start.driven + start.bias, start.recurrent * power + start.bias
        r, r_slope = sigmoid(np.sqrt(q) * OUTER), sigmoid_slope(np.sqrt(q) * OUTER)
        q_a = q_x + r**2 * q_h
        beta = np.divide(r * q_h, q_a, out=np.zeros_like(q_a), where=q_a > 0)
        v = q_h - beta * r * q_h
        n2 = mean(squared(np.tanh), q_a) @ OUTER_WEIGHTS
        n_slope2 = mean(squared(tanh_slope), q_a)  # given r
        n_slope2_a2 = mean(lambda a: tanh_slope(a) ** 2 * a**2, q_a)
        through_r = (n_slope2 * v + n_slope2_a2 * beta**2) * r_slope**2
        shut2 = 1 - 2 * z + z2  # E[(1 − z)²]
        yield Step(
            keep=z,
            keep2=z2,
            enter=one,
            enter2=one,
            back=(1 - z) * float((mean(tanh_slope, q_a) * r) @ OUTER_WEIGHTS),
            back2=(h2 + n2) * z_slope2 + shut2 * float((n_slope2 * r**2 + through_r) @ OUTER_WEIGHTS),
            side2=none,
        )
        h2 = shut2 * n2 + z2 * h2
        power = float(h2.mean())


def stationary(start: Start) -> Step:
    """The moments once they no longer change."""
    steps = forward(start)
    step = next(steps)
    for _ in range(MOST_STEPS):
        before, step = step, next(steps)
        old, new = (np.concatenate([s.keep2, s.enter2, s.back2]) for s in (before, step))
        if not np.isfinite(new).all() or np.abs(new - old).max() <= SETTLED * np.abs(new).max():
            break
    return step


def chi(start: Start) -> float:
    """χ, the factor of E‖gradient‖² in one step back once forward moments no longer change, with fresh weights: the
    largest eigenvalue of the linear recursion of (E[u²], E[m²] of each kind of unit), which is 2×2 without a spread
    of biases. For the plain RNN σ_w² E[φ'²]."""
    s, N = stationary(start), start.kinds
    through = start.recurrent * np.concatenate([[s.side2.mean()], s.back2 / N])  # (1 + N,): the new E[u²]
    matrix = np.zeros((1 + N, 1 + N))
    matrix[0] = through
    matrix[1:] = np.outer(s.enter2, through)
    matrix[1:, 1:] += np.diag(s.keep2)
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def half_life_of(growth: float) -> float:
    """ln ½ / (½ ln χ) steps: how soon the gradient's norm halves; infinite for χ ≥ 1."""
    return float(np.log(0.5) / (0.5 * np.log(growth))) if 0 < growth < 1 else (0.0 if growth == 0 else np.inf)


@dataclass(frozen=True)
class Curve:
    """Root mean square of the gradient by lag, (K,), that of h at lag 0 being 1."""

    hidden: np.ndarray
    memory: np.ndarray  #: of the LSTM ∂L/∂c, else the same as `hidden`


def gradient_curve(start: Start, steps: int, tied: bool = True) -> Curve:
    """The gradient of a loss at step `steps` alone, by lag 0 … steps − 1, with forward moments from a state of zeros.

    A spread of biases gives a sum of many exponentials, so that the curve is predicted and no single rate.
    """
    ahead = forward(start)
    moments = [next(ahead) for _ in range(steps)][::-1]  # [k]: of time step T − k
    N, K = start.kinds, steps
    u2, m2 = np.zeros(K), np.zeros(K)
    P = np.zeros((K, N))  # P(k−1, l) by l, and P(k, l) after each round
    back = np.array([moment.back for moment in moments])  # (K, N), of step T − k: used from lag k to k + 1
    enter = np.array([moment.enter for moment in moments])
    keep = np.array([moment.keep for moment in moments])
    u2[0], P[0] = 1.0, moments[0].enter2
    m2[0] = P[0].mean()
    for k in range(1, K):
        here, later = moments[k], moments[k - 1]  # of steps T − k and T − k + 1
        u2[k] = start.recurrent * float((later.back2 * P[k - 1]).mean() + later.side2.mean() * u2[k - 1])
        x = np.zeros((k, N))  # X(l, k)
        if tied:
            among = np.zeros(k)  # U(l, k), 0 at l = 0: the loss's own gradient is no product of weights
            among[1:] = start.recurrent * (back[k - 1] * back[: k - 1] * P[: k - 1]).mean(1)
            x[0] = enter[0] * among[0]
            for lag in range(1, k):
                x[lag] = enter[lag] * among[lag] + keep[lag - 1] * x[lag - 1]
        own = here.enter2 * u2[k] + 2 * here.enter * later.keep * x[k - 1] + later.keep2 * P[k - 1]
        P[:k] = here.enter * x + later.keep * P[:k]
        P[k] = own
        m2[k] = own.mean()
    gated = start.kind == "lstm"
    hidden, memory = (np.sqrt(u2), np.sqrt(m2)) if gated else (np.sqrt(m2), np.sqrt(m2))
    return Curve(hidden, memory)


def border(drive: float) -> float:
    """The gain g of a tanh RNN at which χ = 1, given the variance `drive` that input and biases add: gradients vanish
    below it and explode above it.

    Both conditions hold there: g² E[φ'(√q z)²] = 1, and q = g² E[φ(√q z)²] + drive. With the first put into the
    second, q is found by bisection. Without a drive g = 1.
    """
    low, high = 0.0, 4.0 * (drive + 4.0)
    for _ in range(100):
        q = (low + high) / 2
        left = q - mean(squared(np.tanh), q) / mean(squared(tanh_slope), q)
        low, high = (q, high) if left < drive else (low, q)
    return float(1 / np.sqrt(mean(squared(tanh_slope), low)))
