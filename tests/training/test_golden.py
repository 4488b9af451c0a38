"""Golden runs: fifty seeded steps whose losses and gradient norms are committed text.

A change that is not meant to change results leaves these numbers alone. One that is rewrites them:
`python tests/training/test_golden.py`, and says why in its commit.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rnnlstm.training.step import Trainer

from support.training import plan_for

FOLDER = Path(__file__).parents[1] / "golden"
RUNS = {
    "rnn_adding": ("task=adding", "task.length=20", "model=rnn", "optimizer.lr=1e-2", "clip.threshold=0.5"),
    "lstm_keyword": ("task=keyword", "task.length=20", "model=lstm", "optimizer.lr=1e-2", "clip.threshold=0.5"),
}


def run(name: str) -> list[tuple[int, float, float]]:
    trainer = Trainer(plan_for(*RUNS[name], "model.hidden_size=16", "train.batch_size=8", "dtype=float64"), [0])
    updates = [trainer.step(step) for step in range(1, 51)]
    return [(u.step, u.losses[0], u.clips[0].norm_before) for u in updates]


@pytest.mark.parametrize("name", RUNS)
def test_fifty_steps_are_as_committed(name):
    lines = [line.split() for line in (FOLDER / f"{name}.txt").read_text().splitlines() if not line.startswith("#")]
    committed = [(int(step), float(loss), float(norm)) for step, loss, norm in lines]
    assert len(committed) == 50
    for (step, loss, norm), (step_, loss_, norm_) in zip(run(name), committed, strict=True):
        assert step == step_
        assert loss == pytest.approx(loss_, rel=1e-9, abs=0)
        assert norm == pytest.approx(norm_, rel=1e-9, abs=0)


if __name__ == "__main__":
    for name in RUNS:
        rows = "".join(f"{step} {loss!r} {norm!r}\n" for step, loss, norm in run(name))
        header = f"# {' '.join(RUNS[name])}: step, loss, gradient norm before clipping\n"
        (FOLDER / f"{name}.txt").write_text(header + rows)
