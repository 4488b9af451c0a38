"""search=optuna: what is searched, what is best, and that a search resumes with the trials that it would have had."""

from __future__ import annotations

import json
import math
import signal
import sys

import pytest

import rnnlstm
from rnnlstm.config.compose import Composer
from rnnlstm.config.errors import ConfigError
from rnnlstm.config.schema import OptunaOptions
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.jobs.search import Interval, Search, Values, read_space, suggest
from rnnlstm.record.files import locked
from rnnlstm.train import main

from support.sweeping import FAULTY, OPTIONS, assert_same_runs, in_turn, running, sweep, wait_for
from support.training import SMALL_NUMBERS

pytest.importorskip("optuna", reason="needs rnnlstm[optuna]")
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
#: Ten updates a trial; TPE from the third one on.
#: Its first run waits at an update until there is a file `go`.
PACED = """
import os, time
from dataclasses import dataclass
import rnnlstm
from rnnlstm.tasks.adding import Adding

@rnnlstm.register_task("paced")
@dataclass(frozen=True, kw_only=True)
class Paced(Adding):
    def sample(self, seed, step, stream="train", batch_size=64):
        if stream == "train" and step == 2 and not os.path.exists("first"):
            open("first", "w").close()
            while not os.path.exists("go"): time.sleep(0.05)
        return super().sample(seed, step, stream, batch_size)
"""
OPTUNA = ("search=optuna", "search.trials=4", "search.startup=2", "task=adding", "train.steps=10", "probe=off")


def space_of(*overrides):
    with Composer().active() as composer:
        return read_space(composer.checked(overrides, intervals=True))


def trials(root):
    (path,) = root.glob(".search/*/trials.json")
    return json.loads(path.read_text())["trials"]


def test_spaces_are_hydras_own():
    space = space_of(
        "task=adding", LR, "model=rnn,lstm", "model.hidden_size=tag(log,int(interval(8,64)))", "clip.threshold=1",
        "train.batch_size=range(8,33,8)", "model.num_layers=choice(1,2)", "optimizer=glob(*m*)",
        "eval.lengths=[5],[6,7]", "model.zoneout=interval(0,0.5)",
    )  # fmt: skip
    assert space.dimensions == {
        "optimizer.lr": Interval(1e-4, 0.1, log=True),
        "model": Values(("rnn", "lstm"), ordered=False),
        "model.hidden_size": Interval(8, 64, log=True),
        "train.batch_size": Values(("8", "16", "24", "32"), ordered=True),
        "model.num_layers": Values(("1", "2"), ordered=False),
        "optimizer": Values(("adam", "rmsprop"), ordered=False),
        "eval.lengths": Values(("[5]", "[6,7]"), ordered=False),
        "model.zoneout": Interval(0.0, 0.5, log=False),
    }
    chosen = {key: dimension.ends[0] for key, dimension in space.dimensions.items()}
    assert space.overrides(chosen)[:5] == [
        "task=adding", "optimizer.lr=0.0001", "model=rnn", "model.hidden_size=8", "clip.threshold=1",
    ]  # fmt: skip


def test_suggestions_lie_in_the_space_and_are_read_back_as_they_were():
    space = space_of(
        LR, "model.hidden_size=tag(log,int(interval(8,64)))", "train.batch_size=range(8,33,8)", "model=rnn,gru"
    )
    found = []
    while len(found) < 60:
        found.append(suggest(space, OptunaOptions("optuna"), [], found))
    for values in found:
        for key, dimension in space.dimensions.items():
            assert dimension.text(dimension.value(values[key])) == values[key]
    assert {values["train.batch_size"] for values in found} == {"8", "16", "24", "32"}
    assert {values["model"] for values in found} == {"rnn", "gru"}
    sizes = [int(values["model.hidden_size"]) for values in found]
    assert set(sizes) <= set(range(8, 65))
    rates = [float(values["optimizer.lr"]) for values in found]
    assert 15 < sum(rate < 10**-2.5 for rate in rates) < 45  # half of it, in the logarithm
    assert 15 < sum(size < 22 for size in sizes) < 45
    with pytest.raises(ValueError, match="not within"):
        space.dimensions["optimizer.lr"].value("0.2")


def test_suggestions_depend_on_earlier_trials_and_the_seed_alone_and_come_closer():
    space, options = space_of(LR), OptunaOptions("optuna")

    def searched(options, batch, count=40):
        history = []
        while len(history) < count:
            new = []
            while len(new) < batch:
                new.append(suggest(space, options, history, new))
            history += [(values, abs(math.log10(float(values["optimizer.lr"])) + 2)) for values in new]
        return history

    found = searched(options, 1)
    assert suggest(space, options, found[:25]) == found[25][0]
    assert searched(options, 4)[:4] == [
        (values, pytest.approx(loss)) for values, loss in found[:4]
    ]  # still at random
    assert searched(OptunaOptions("optuna", seed=1), 1, 3) != found[:3]
    later = [loss for _, loss in found[10:]]  # at random they would be 5/6 on average
    assert sum(later) / len(later) < 0.5
    lost = [(values, math.inf) for values, _ in found[:15]]
    assert suggest(space, options, lost, [found[0][0]])  # every trial so far has failed


def test_optuna_says_as_much_as_before():
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        suggest(space_of(LR), OptunaOptions("optuna"), [])
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "loss"), [
    ([("done", 0.3), ("done", 0.1), ("done", 0.2)], 0.2),
    ([("done", 0.3), ("diverged", 0.0), ("done", 0.2)], 0.3),
    ([("done", 0.3), ("failed", None), ("failed", 0.1)], math.inf),
    ([("done", 0.3), ("done", 0.1)], 0.2),
    ([("done", 0.3), ("interrupted", 0.1)], math.inf),
    ([("done", 0.3), ("done", math.nan), None], math.inf),
    ([("done", 0.25)], 0.25),
])  # fmt: skip
def test_a_trials_loss_is_the_median_over_its_seeds(seeds, loss, tmp_path):
    from rnnlstm.jobs.search import Trial

    (job,) = compose_jobs(["seed=4", f"seeds={len(seeds)}", f"runs_root={tmp_path}"])
    for number, ending in enumerate(seeds, start=4):
        if ending is not None:
            place = job.folder / f"seed_{number}"
            place.mkdir(parents=True)
            summary = {"status": ending[0], "seed": number, "loss": ending[1]}
            (place / "summary.json").write_text(json.dumps(summary))
    assert Trial(0, {}, job).loss == pytest.approx(loss)


@pytest.mark.slow
def test_a_killed_search_goes_on_with_the_trials_that_it_would_have_had(tmp_path, monkeypatch, capsys):
    search = (*OPTUNA, LR, "model.hidden_size=int(interval(4,16))", "seeds=2")
    process = running(tmp_path, *search)
    wait_for(tmp_path, "runs/*/*/seed_1/weights.pt", process, count=3)
    process.kill()
    process.communicate(timeout=60)
    code, out, err = sweep(tmp_path, *search)
    assert (code, err) == (0, "")
    assert out.count("finished already") >= 2
    code, out, err = sweep(tmp_path, *search, "runs_root=unbroken")
    assert (code, err, out.count("finished already")) == (0, "", 0)
    assert trials(tmp_path / "runs") == trials(tmp_path / "unbroken")
    assert_same_runs(tmp_path / "runs", tmp_path / "unbroken", seeds=8)

    lines = out.splitlines()
    at = lines.index("Best of 4 trials by the median over 2 seeds of the final loss")
    lines = lines[at : at + 8]
    losses = {}
    for path in tmp_path.glob("unbroken/*/*/seed_*/summary.json"):
        losses.setdefault(path.parents[1].name, []).append(json.loads(path.read_text())["loss"])
    ranked = sorted(losses, key=lambda name: sum(losses[name]))
    assert [line.rpartition("/")[2] for line in lines[-6:-2]] == ranked
    assert lines[-6].split()[0] == f"{sum(losses[ranked[0]]) / 2:.4g}"
    best = lines[-1].split()
    assert best[:3] == ["python", "-m", "rnnlstm.train"]
    assert best[-2:] == ["seed=2", "seeds=2"]
    monkeypatch.chdir(tmp_path)
    assert main([*best[3:-2], "seeds=2"]) == 0  # with the search's own seeds, its run
    out = capsys.readouterr().out
    assert (out.count("finished already"), out.splitlines()[0].rpartition("/")[2]) == (1, ranked[0])
    config = (tmp_path / "unbroken" / "adding_T12" / ranked[0] / "config.yaml").read_text()
    assert "search:\n  name: none" in config

    more = ("-m", *OPTIONS, *search, "search.trials=5", "runs_root=unbroken", "threads=1")
    assert len(rnnlstm.run(more)) == 10
    assert trials(tmp_path / "unbroken")[:4] == trials(tmp_path / "runs")


@pytest.mark.slow
def test_beside_each_other_each_place_is_filled_again_and_the_same_command_finds_the_same(tmp_path):
    (tmp_path / "paced.py").write_text(PACED)
    paced = ("plugins=[paced]", "task=paced", LR)
    random = ("search.trials=5", "search.startup=5")  # what TPE suggests depends on which trials have ended
    search = (*OPTUNA, *paced, *random, "search.at_once=2")
    process = running(tmp_path, *search, "launcher=local", "launcher.workers=2")
    wait_for(tmp_path, "runs/*/*/seed_0/weights.pt", process, count=4)  # one of the first two waits for the file
    (tmp_path / "go").touch()
    assert process.communicate(timeout=120)[1] == ""
    found = json.loads(next(tmp_path.glob("runs/.search/*/trials.json")).read_text())
    assert found["ended"][-1] in (0, 1)
    assert sorted(found["ended"]) == [0, 1, 2, 3, 4]
    code, out, err = sweep(tmp_path, *search, "launcher=serial")
    assert (code, err, out.count("finished already")) == (0, "", 5)
    assert trials(tmp_path / "runs") == found["trials"]
    in_turn(tmp_path, *search, "runs_root=alone")
    assert_same_runs(tmp_path / "runs", tmp_path / "alone", seeds=5)


@pytest.mark.slow
def test_a_search_survives_its_trials_and_tries_those_that_failed_again(tmp_path):
    (tmp_path / "faulty.py").write_text(FAULTY)
    search = (*OPTUNA, "plugins=[faulty]", "task=faulty", "task.fault=none,raise", LR, "search.startup=4")
    code, out, err = sweep(tmp_path, *search)
    assert code == 1, err
    tried = trials(tmp_path / "runs")
    failed = [values for values in tried if values["task.fault"] != "none"]
    assert 0 < len(failed) < len(tried) == 4
    assert f"Best of 4 trials by the final loss, {len(failed)} without one" in out
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == len(failed)
    (tmp_path / "mended").touch()
    code, out, err = sweep(tmp_path, *search)
    assert (code, out.count("finished already")) == (0, 4 - len(failed)), err
    assert "without one" not in out
    assert trials(tmp_path / "runs") == tried


@pytest.mark.slow
def test_a_signal_saves_the_trial_and_ends_the_search(tmp_path):
    search = (*OPTUNA, LR, "train.steps=1000000", "checkpoint.every=20", "train.stop_when_solved=false")
    process = running(tmp_path, *search)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "stopped by SIGINT; what was reached is saved, the same command resumes\n"
    assert len(list(tmp_path.glob("runs/*/*/seed_0"))) == 1
    assert "Best" not in out
    assert not (tmp_path / "runs" / ".search").exists()  # the same trial will be suggested again


@pytest.mark.slow
def test_equal_trials_are_one_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = rnnlstm.run(["-m", *OPTUNA, *SMALL_NUMBERS, "model.hidden_size=4,8", "search.at_once=4"])
    assert len(found) == 4
    assert len({summary["folder"] for summary in found}) == 2
    path = next(tmp_path.glob("runs/.search/*/trials.json"))
    path.write_text('{"trials": [{"model.hidden_size": "5"}]}')  # no value of the space
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/seed_0/weights.pt")}
    assert main(["-m", *OPTUNA, *SMALL_NUMBERS, "model.hidden_size=4,8", "search.at_once=4"]) == 0
    assert capsys.readouterr().out.count("finished already") == 4
    assert all(path.stat().st_mtime_ns == before for path, before in written.items())
    assert len(written) == 2
    assert len(trials(tmp_path / "runs")) == 4


def test_one_command_for_a_search(tmp_path, capsys):
    overrides = [*OPTUNA, *SMALL_NUMBERS, LR, f"runs_root={tmp_path}"]
    with locked(Search(overrides).folder):
        assert main(["-m", *overrides]) == 73
    assert "is in use by process" in capsys.readouterr().err


BAD = {
    "search=optuna": "nothing to choose: give a key a space",
    "search=optuna optimizer.lr=interval(1,0.1)": "optimizer.lr=interval(1,0.1): an interval needs a lower and a",
    "search=optuna optimizer.lr=interval(0.1,inf)": "both finite",
    "search=optuna optimizer.lr=tag(log,interval(0,1))": "a logarithmic interval begins above 0",
    "search=optuna optimizer.lr=tag(ln,interval(0.1,1))": "the one tag that is known is log",
    "search=optuna optimizer.lr=interval(-1,1)": "optimizer.lr=-1.0: must be above 0",
    "search=optuna model.hidden_size=interval(8,16)": "model.hidden_size=8.0: must be a whole number",
    "search=optuna model=rnn,lsm": "did you mean lstm?",
    "search=optuna model=interval(0,1)": "model=interval(0,1): must be one of",
    "search=optuna model=rnn,lstm model.forget_bias=interval(0,1)": "model.forget_bias=0.0: unknown key",
    "search=optuna model=indrnn model.backend=reference,torch": "model.backend=torch: PyTorch has no indrnn cell",
    "search=optuna model=shuffle(rnn,lstm)": "leave out shuffle",
    "search=optuna model=rnn,lstm model=gru,rnn": "has a space already",
    "search=optuna optimizer.lr=interval(0.1,1) optimizer.lr=0.2": "optimizer.lr=0.2: has a space already",
    "search=optuna seed=0,1": "every trial has the same seeds",
    "search=optuna launcher=serial,local": "changes no result",
    "search=optuna model=rnn,lstm resume=never": "a search resumes with the runs that are there",
    "search=optuna search.trials=0 model=rnn,lstm": "search.trials=0: must be at least 1",
    "search=optuna search.trial=3 model=rnn,lstm": "did you mean search.trials?",
    "search=optuna model=rnn,lstm launcher=slurm launcher.wait=false": "a search has to wait for results",
    "search=none,optuna model=rnn,lstm": "a search is started on the command line, with -m search=optuna",
    "search=ax model=rnn,lstm": "search=ax: must be one of none, optuna",
    "optimizer.lr=interval(0.1,1)": "an interval has no values to go through; -m search=optuna chooses from it",
}


@pytest.mark.usefixtures("shared_composer")
@pytest.mark.parametrize("words", BAD)
def test_a_mistake_is_one_line_and_leaves_nothing(words, tmp_path, capsys):
    assert main(["-m", *words.split(), f"runs_root={tmp_path / 'runs'}"]) == 2
    err = capsys.readouterr().err
    assert BAD[words] in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_without_m_and_without_optuna(tmp_path, capsys, monkeypatch):
    assert main(["search=optuna", f"runs_root={tmp_path / 'runs'}"]) == 2
    assert "with -m search=optuna" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["-m", "search=optuna", LR, f"runs_root={tmp_path / 'runs'}"]) == 2
    assert capsys.readouterr().err == "error: search=optuna needs pip install 'rnnlstm[optuna]'\n"
    with pytest.raises(ConfigError):
        rnnlstm.run(["search=optuna"])
    assert not list(tmp_path.iterdir())


def test_a_search_changes_nothing_of_a_run():
    plain, searched = ([job.folder for job in compose_jobs([*o], to_train=False)] for o in ([], OPTUNA[:3]))
    assert plain == searched
