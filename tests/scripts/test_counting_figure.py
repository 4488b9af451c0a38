"""The picture of what counting networks keep: the unit that counts, wrong steps, one line where there are no runs."""

from __future__ import annotations

import torch

from rnnlstm.cli.exits import guarded
from rnnlstm.tasks import make_task
from rnnlstm.training.weights import load_network

from counting_figure import following, main, memory, networks


def test_the_unit_that_counts_is_found_whatever_its_scale_and_sign():
    batch = make_task("counting", length=9).strings(torch.tensor([9]))
    count = ((batch.inputs == 1).double() - (batch.inputs == 2).double()).cumsum(0)
    rising = torch.arange(19, dtype=torch.float64)[:, None]
    states = torch.cat([rising, torch.zeros_like(rising), 3 - 0.01 * count + 1e-4 * rising, count.sign()], 1)
    assert following(states, batch.inputs[:, 0]) == 2


def test_the_picture_of_a_run(train, tmp_path):
    trained = train("task=counting", "optimizer.lr=3e-3", "train.steps=1", "model=lstm", "model.hidden_size=8",
                    "surgery.open=[input,forget]", "task.length=5")  # fmt: skip
    assert list(networks(str(trained.folder))) == ["LSTM, chrono,\ninput and forget open"]
    assert main([str(trained.folder), str(tmp_path / "counting.png")]) == 0
    assert (tmp_path / "counting.png").stat().st_size > 5_000
    kept = memory(load_network(str(trained.folder / "seed_0")), (2, 4))
    assert kept.state == "cell"
    assert [values.shape for values in kept.values] == [(5, 8), (9, 8)]
    assert all(set(wrong) <= {0, *range(n + 1, 2 * n + 1)} for n, wrong in zip((2, 4), kept.wrong, strict=True))


def test_a_folder_without_such_runs_is_one_line(train, tmp_path, capsys):
    trained = train("task=counting", "optimizer.lr=1e-3", "train.steps=1", "model.hidden_size=8", "task.length=5")
    capsys.readouterr()
    for arguments in (
        [str(trained.folder), str(tmp_path / "a.png")],
        [str(tmp_path / "none"), str(tmp_path / "a.png")],
        [],
    ):
        assert guarded(lambda arguments=arguments: main(arguments)) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))
