"""From a sweep to jobs: every arm in every setting, composed and checked before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnlstm.config.compose import Composer
from rnnlstm.config.schema import read_config
from rnnlstm.jobs.job import Job
from rnnlstm.record.folders import run_folder
from rnnlstm.studies.study import Arm, Setting, Study, Sweep


@dataclass(frozen=True)
class Cell:
    """One arm in one setting. `tree` is its configuration, `defaults` the same choice of groups unchanged."""

    setting: Setting
    arm: Arm
    tree: dict[str, Any]
    defaults: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        return self.setting.name, self.arm.name

    def job(self, rate: float, seeds: range, samples: int | None = None) -> Job:
        """Its run at a learning rate with these seeds, tested on so many sequences, or as many as it says itself."""
        optimizer, tested = {**self.tree["optimizer"], "lr": rate}, dict(self.tree["eval"])
        if samples is not None:
            tested["samples"] = samples
        tree = {**self.tree, "optimizer": optimizer, "eval": tested, "seed": seeds.start, "seeds": len(seeds)}
        return Job(read_config(tree), run_folder(tree, self.defaults))


def compose(study: Study, size: str, sweep: Sweep, folder: Path) -> list[Cell]:
    """Every cell of the sweep. Raises: ConfigError."""
    from rnnlstm.training.match import matched_hidden_size

    asked = [
        (setting, arm, study.resolved(size, (*sweep.common, *setting.overrides, *arm.overrides), folder))
        for setting in sweep.settings
        for arm in setting.arms
    ]
    cells = []
    with Composer().active() as composer:
        trees = {overrides: composer.compose(overrides) for _, _, overrides in asked}  # a quarter of a second each
        for setting, arm, overrides in asked:
            tree = trees[overrides] | {"runs_root": str(folder)}
            tree["train"] = {**tree["train"], "steps": setting.steps}
            config = read_config(tree)
            if config.match != "none":
                tree["model"] = {**tree["model"], "hidden_size": matched_hidden_size(config)}
            cells.append(Cell(setting, arm, tree, composer.defaults_of(tree)))
    return cells
