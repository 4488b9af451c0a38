"""Within an application of Hydra's, this project leaves Hydra as it was, and neither sees the other's entries."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase
from omegaconf import OmegaConf

import rnnlstm
from rnnlstm.config.compose import Composer

SHORT = ["threads=1", "task=adding", "task.length=8", "model=rnn", "model.hidden_size=4", "train.steps=2"]
SHORT += ["eval.samples=4", "probe=off"]


@pytest.fixture
def application(tmp_path):
    """A folder with the configuration of an application, and entries in the ConfigStore with this project's names."""
    (tmp_path / "app.yaml").write_text("defaults: [optimizer: adam, model: mine, _self_]\nlr: 0.5\nat: ${now:%Y}\n")
    store = ConfigStore.instance()
    before = dict(store.repo)
    store.store(group="optimizer", name="adam", node={"mine": True})
    store.store(group="model", name="mine", node={"layers": 3})
    store.store(name="every_other_key", node={"mine": True})
    yield tmp_path
    store.repo.clear()
    store.repo.update(before)


def entries(repo, path=""):
    """Every entry of the store, by its path."""
    found = {}
    for name, entry in repo.items():
        found |= entries(entry, f"{path}{name}/") if isinstance(entry, dict) else {f"{path}{name}": entry}
    return found


def test_a_run_leaves_an_initialised_hydra_as_it_was(application):
    OmegaConf.register_new_resolver("now", lambda _: "never", replace=True)
    try:
        with initialize_config_dir(str(application), job_name="theirs", version_base="1.2"):
            OmegaConf.register_new_resolver("now", lambda _: "never", replace=True)
            first = compose("app", overrides=["lr=0.1"])
            state, kept = (GlobalHydra.instance(), GlobalHydra.instance().hydra), entries(ConfigStore.instance().repo)
            summaries = rnnlstm.run([*SHORT, f"runs_root={application}"])
            assert (GlobalHydra.instance(), GlobalHydra.instance().hydra) == state
            found = entries(ConfigStore.instance().repo)
            assert found.keys() == kept.keys()
            assert all(found[path] is kept[path] for path in kept)
            assert str(VersionBase.instance().getbase()) == "1.2"
            assert JobRuntime.instance().get("name") == "theirs"
            second = compose("app", overrides=["lr=0.1"])
            assert second == first
            assert (second.optimizer.mine, second.model.layers, second.at) == (True, 3, "never")
        assert summaries[0]["status"] == "done"
        assert not GlobalHydra.instance().is_initialized()
    finally:
        OmegaConf.clear_resolver("now")


def test_without_hydra_before_there_is_none_afterwards():
    OmegaConf.clear_resolver("now")
    kept = entries(ConfigStore.instance().repo)
    with Composer().active() as composer:
        composer.compose(["task=adding"])
    assert not GlobalHydra.instance().is_initialized()
    assert not OmegaConf.has_resolver("now")
    assert entries(ConfigStore.instance().repo).keys() == kept.keys()


def test_the_callers_entries_are_no_choices_here(application):
    with Composer().active() as composer:
        tree = composer.compose(["optimizer=adam"])
        assert tree["optimizer"]["name"] == "adam"
        assert "mine" not in tree
        with pytest.raises(rnnlstm.ConfigError, match=r"^model=mine: must be one of"):
            composer.compose(["model=mine"])


def test_after_an_error_too(application):
    with initialize_config_dir(str(application), version_base="1.3"):
        state = GlobalHydra.instance().hydra
        with pytest.raises(rnnlstm.ConfigError):
            rnnlstm.run(["task=nothing"])
        assert GlobalHydra.instance().hydra is state
        assert compose("app").model.layers == 3


APPLICATION = """
import sys
import hydra, rnnlstm
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig

ConfigStore.instance().store(name="app", node={"lr": 0.1, "steps": 2, "job": "${hydra:job.name}"})

@hydra.main(config_path=None, config_name="app", version_base="1.3")
def main(cfg):
    summaries = rnnlstm.run([*SHORT, f"train.steps={cfg.steps}", f"optimizer.lr={cfg.lr}", "runs_root=runs"])
    now = HydraConfig.get()
    print("ran", now.job.num, cfg.lr, cfg.job, now.job.name, summaries[0]["status"])

main()
"""


@pytest.mark.slow
def test_every_job_of_an_applications_sweep_can_train(tmp_path):
    (tmp_path / "theirs.py").write_text(APPLICATION.replace("main()\n'''", "").replace("*SHORT", f"*{SHORT!r}"))
    line = [sys.executable, "theirs.py", "-m", "lr=0.1,0.01,0.001"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("ran ")]
    assert said == [f"ran {n} {lr} theirs theirs done" for n, lr in enumerate((0.1, 0.01, 0.001))]
    assert len(list(tmp_path.glob("runs/*/*/seed_0/weights.pt"))) == 3
