"""State tracking: which networks can follow a running product of permutations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rnnlstm.studies.common import DEFAULT, GRU, LRU, TANH, common, each, solved
from rnnlstm.studies.study import Arm, Check, Minutes, Rows, Setting, Study, Sweep, register_study

#: minGRU and minLSTM have no matrix between their units, and get the second layer that their paper gives them.
MINIMAL = tuple(
    Arm(f"{name}, 2 layers", (f"model={model}", "model.num_layers=2", "model.backend=reference"))
    for name, model in (("minGRU", "min_gru"), ("minLSTM", "min_lstm"))
)
LINEAR = Arm("linear, orthogonal", ("model=linear",))
ARMS = (TANH, DEFAULT, GRU, *MINIMAL, LRU, LINEAR)
LENGTHS = {"quick": (8, 16, 32), "standard": (32, 64, 128)}  #: of the test; the first is that of training
SWAPS = "S5, swaps"


@register_study("state_tracking")
class StateTracking(Study):
    title = "State tracking by permutations"
    question = "Which networks can name the running product of permutations, and which only up to a length?"
    reference = (
        "Merrill, Petty & Sabharwal 2024 (abstract, introduction and data code seen): S4, Mamba and related "
        "state-space models can't compose permutations, simple RNNs can. Grazzi et al. 2024 (abstract seen): linear "
        "RNNs whose transitions have positive eigenvalues alone can't solve parity; nonlinear ones such as the LSTM "
        "handle it"
    )
    deviations = (
        "One answer at every step, T = 32 (quick: 8), 5,000 updates of 32 sequences, 64 units, Adam; rates tuned on "
        "S3 alone. The papers' theorems are about all lengths, this study about 32 and four times that. All elements "
        "of a group are tokens, as in the papers; of S5 also only swaps of neighbours and the identity, which "
        "generate it."
    )
    caption = (
        "What to see: accuracy over all steps at four times the training length. Chance is 1/2 on parity, 1/6 on S3 "
        "and 1/120 on S5."
    )
    minutes = Minutes(quick=1.0, standard=85)
    columns = tuple(f"{what}_{T}" for what in ("at", "end") for T in (8, 16, 32, 64, 128))
    figure = ("at_128", "at_32")  # the longest

    def sweep(self, size: str) -> Sweep:
        T = LENGTHS[size][0]
        task = ("task=state_tracking", f"task.length={T}")
        s3, parity = (*task, "task.variant=s3"), (*task, "task.variant=parity")
        whole = (*common(size), "train.stop_when_solved=false")
        if size == "quick":
            arms = (TANH, DEFAULT, MINIMAL[0])
            few = (Setting("S3", s3, arms, 400), Setting("parity", parity, arms, 400, rates_of="S3"))
            return Sweep(few, grid=(1e-2,), tuning_seeds=1, common=whole)
        s5 = (*task, "task.variant=s5")
        settings = (
            Setting("S3", s3, ARMS, 5000),
            Setting("parity", parity, ARMS, 5000, rates_of="S3"),
            Setting(SWAPS, (*s5, "task.elements=swaps"), ARMS, 5000, rates_of="S3"),
            Setting("S5, all", s5, (TANH, DEFAULT, GRU, MINIMAL[0]), 5000, rates_of="S3"),
        )
        return Sweep(settings, common=(*whole, "eval.every=100"))

    def after(self, size: str, folder: Path, seed: int) -> dict[str, float]:
        """At each length of the test the accuracy over all steps, `at_…`, and at the last step, `end_…`."""
        from rnnlstm.studies.common import network_of, scores

        plan, network = network_of(folder, seed)
        samples = 256 if size == "quick" else 1024
        found = {T: scores(plan.task.vary(length=T), network, seed, samples) for T in LENGTHS[size]}
        return {f"at_{T}": found[T]["accuracy"] for T in found} | {f"end_{T}": found[T]["at_end"] for T in found}

    def checks(self, size: str) -> list[Check]:
        longest = LENGTHS[size][-1]
        positive = [arm.name for arm in MINIMAL[: 1 if size == "quick" else 2]]
        checks = [
            Check(
                "parity: at least 4 of 5 seeds of the tanh RNN and of the LSTM solve it",
                lambda t: _solve(t, "parity", (TANH.name, DEFAULT.name)),
            ),
            Check(
                "S3: at least 4 of 5 seeds of the LSTM solve it",
                lambda t: _solve(t, "S3", (DEFAULT.name,)),
            ),
            Check(
                "parity: networks whose gates are positive and see the input alone do not solve it (no seed)",
                lambda t: _fail(t, "parity", positive),
            ),
        ]
        if size == "quick":
            return checks
        return [
            *checks,
            Check(
                "S5 by swaps: at least 4 of 5 seeds of the LSTM solve it",
                lambda t: _solve(t, SWAPS, (DEFAULT.name,)),
            ),
            Check(
                "S5 by swaps: at least 4 of 5 seeds of the tanh RNN solve it",
                lambda t: _solve(t, SWAPS, (TANH.name,)),
            ),
            Check(
                "S3: at least 4 of 5 seeds of the tanh RNN solve it",
                lambda t: _solve(t, "S3", (TANH.name,)),
            ),
            Check(
                "S5 by swaps: networks that are linear from step to step do not solve it (no seed)",
                lambda t: _fail(t, SWAPS, [*positive, LRU.name, LINEAR.name]),
            ),
            Check(
                "S5 with all elements as tokens: at least 4 of 5 seeds of the LSTM solve it",
                lambda t: _solve(t, "S5, all", (DEFAULT.name,)),
            ),
            Check(
                f"the LSTM follows the product beyond its training: on S5 by swaps the median accuracy at "
                f"T={longest} is above 0.9",
                lambda t: (
                    t(SWAPS, DEFAULT.name).median(f"at_{longest}") > 0.9,
                    each(t.of(SWAPS), f"at_{longest}"),
                ),
            ),
        ]


def _solve(t: Rows, setting: str, arms: Sequence[str]) -> tuple[bool, str]:
    """Whether at least four seeds in five of each arm solve the setting."""
    rows = [t(setting, arm) for arm in arms]
    return all(5 * row.solved_count >= 4 * row.n for row in rows), solved(rows)


def _fail(t: Rows, setting: str, arms: Sequence[str]) -> tuple[bool, str]:
    """Whether no seed of these arms solves the setting, the best seed of each told."""
    rows = [t(setting, arm) for arm in arms]
    best = ", ".join(f"{row.arm} at most {max(row.values('metric'), default=0):.3g}" for row in rows)
    return not any(row.solved_count for row in rows), f"{solved(rows)}; accuracy: {best}"
