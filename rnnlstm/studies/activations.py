"""Nonlinearities: slope against centring, dead units and explosion, at every rate of the grid."""

from __future__ import annotations

from pathlib import Path

from rnnlstm.studies.common import common, each, more_solve
from rnnlstm.studies.study import FIRST, Arm, Check, Minutes, Row, Rows, Setting, Study, Sweep, register_study

NAMES = {"tanh": "tanh", "sigmoid": "σ", "centred_sigmoid": "2σ−1", "steep_sigmoid": "σ(4x)", "relu": "ReLU"}
ARMS = tuple(Arm(shown, ("model=rnn", f"model.nonlinearity={name}")) for name, shown in NAMES.items())
RELU = tuple(
    Arm(f"{shown}, clip {clip}", ("model=rnn", "model.nonlinearity=relu", f"model.init={init}", f"clip={clip}"))
    for init, shown in (("default", "ReLU"), ("identity", "IRNN"))
    for clip in ("none", "norm")
)


@register_study("activations")
class Activations(Study):
    title = "Nonlinearities by learning rate"
    question = "What sets how fast one learns and forgets, slope or centring, and when do ReLU units die?"
    reference = (
        "LeCun et al. 1998 (Efficient BackProp, on centred activations), Glorot & Bengio 2010: zero-centred "
        "tanh learns faster than the "
        "sigmoid; σ' ≤ 1/4, tanh' ≤ 1. Le et al. 2015: the IRNN needs small rates and clipping. No table of "
        "these side by side"
    )
    deviations = "Every rate of the grid is reported with all seeds; there is nothing to choose, so nothing is tuned."
    claims = ("C6", "C7", "C9")
    caption = (
        "What to see: updates to solve, at some of the rates; where no dot is, no seed solved it. Slope 1 without "
        "centring, σ(4x), does not help."
    )
    minutes = Minutes(quick=0.4, standard=20)
    columns = ("half_life_at_start", "log10_gradient_kept", "dead_at_start", "dead", "saturated")
    figure = "steps"

    def sweep(self, size: str) -> Sweep:
        if size == "quick":
            easy = ("task=keyword", "task.length=10", "task.num_keywords=4")
            settings = tuple(Setting(_keyword(10, rate), easy, ARMS, 400, rate=rate) for rate in (3e-3, 1e-2))
            exploding = Setting("adding T=50, lr 0.01", ("task=adding", "task.length=50"), RELU, 150, rate=1e-2)
            return Sweep((*settings, exploding), common=common(size), **FIRST)
        word = ("task=keyword", "task.length=10")
        settings = tuple(Setting(_keyword(10, rate), word, ARMS, 2000, rate=rate) for rate in FIRST["grid"])
        sums = ("task=adding", "task.length=50")
        relu = tuple(Setting(f"adding T=50, lr {rate:g}", sums, RELU, 1500, rate=rate) for rate in FIRST["grid"])
        return Sweep((*settings, *relu), common=common(size), **FIRST)

    def after(self, size: str, folder: Path, seed: int) -> dict[str, float]:
        from rnnlstm.studies.common import flow_and_units, network_of

        plan, network = network_of(folder, seed)
        return flow_and_units(plan, network, seed)

    def checks(self, size: str) -> list[Check]:
        at = "lr 0.01"
        checks = [
            Check(
                "keyword T=10, each at its best rate: more seeds of tanh solve it than of σ",
                lambda t: more_solve(_best(t, "tanh"), _best(t, "σ")),
            ),
            Check(
                "centring counts: each at its best rate, more seeds of 2σ−1 (slope ½) solve it than of σ(4x) (slope "
                "1, not centred)",
                lambda t: more_solve(_best(t, "2σ−1"), _best(t, "σ(4x)")),
            ),
            Check(
                f"adding T=50, {at}: in the IRNN more units are dead at the end without clipping than by norm",
                lambda t: _dead(t, at),
            ),
            Check(
                "adding T=50: at no rate do more seeds diverge by norm than without clipping, of either start",
                _diverged,
            ),
        ]
        if size == "standard":
            checks.append(
                Check(
                    "keyword T=10 at the start: the half-life of the gradient is longest with tanh, shortest with σ",
                    _half_lives,
                )
            )
        return checks


def _keyword(length: int, rate: float) -> str:
    return f"keyword T={length}, lr {rate:g}"


def _best(t: Rows, arm: str) -> Row:
    """The row of keyword recall at the rate at which most seeds solve it, then in the fewest updates. Rates are
    chosen by the same seeds, for every network alike: one seed at two rates is not two."""
    return min(t.arm(arm), key=lambda row: (-row.solved_count, row.median_steps, row.rate))


def _dead(t: Rows, at: str) -> tuple[bool, str]:
    free, held = (t(f"adding T=50, {at}", arm.name) for arm in RELU[2:])
    told = (
        f"{free.arm} {free.median('dead'):.0%}, {held.arm} {held.median('dead'):.0%} (of seeds that did not diverge)"
    )
    return free.median("dead") > held.median("dead"), told


def _diverged(t: Rows) -> tuple[bool, str]:
    counts = {arm.name: [row.diverged_count for row in t.arm(arm.name)] for arm in RELU}
    pairs = [pair for k in (0, 2) for pair in zip(counts[RELU[k].name], counts[RELU[k + 1].name], strict=True)]
    told = ", ".join(f"{arm} {'/'.join(map(str, by_rate))}" for arm, by_rate in counts.items())
    return all(held <= free for free, held in pairs), f"by rate: {told}"


def _half_lives(t: Rows) -> tuple[bool, str]:
    """Of the sigmoid kinds and tanh; the same at every rate."""
    rows = t.of(_keyword(10, 1e-2))[:4]
    lives = [row.median("half_life_at_start") for row in rows]
    return lives[0] == max(lives) and lives[1] == min(lives), each(rows, "half_life_at_start")
