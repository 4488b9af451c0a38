"""What a release says of itself, in each place that says it; and what the built package holds."""

from __future__ import annotations

import importlib
import re
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import rnnlstm
from rnnlstm.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]


def test_every_place_names_the_same_release_and_repository():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert rnnlstm.__version__ == citation["version"] == released[1]
    assert str(citation["date-released"]) == released[2]
    assert citation["repository-code"] == REPOSITORY
    assert all(url.startswith(REPOSITORY) for url in PROJECT["urls"].values())
    assert citation["license"] == PROJECT["license"]


@pytest.mark.parametrize("command", ["__main__", *COMMANDS])
def test_every_command_says_the_version(command, capsys):
    main = importlib.import_module(f"rnnlstm.{command}").main
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rnnlstm {rnnlstm.__version__}\n"


def test_hooks_check_with_the_pinned_ruff_and_need_no_environment():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    pins = set((ROOT / "constraints.txt").read_text().split())
    assert local["repo"] == "local"
    for hook in local["hooks"]:
        assert hook["language"] == "python"
        assert set(hook["additional_dependencies"]) <= pins


def test_the_workflow_runs_the_projects_own_scripts():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    runs = {step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step}
    assert runs == {"scripts/test", "scripts/test --all", "scripts/faults", "scripts/setup dev,notebook"}
    pythons = workflow["jobs"]["quick"]["strategy"]["matrix"]["python"]
    named = {line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    assert set(pythons) <= named
    assert PROJECT["requires-python"] == f">={min(pythons)}"


def test_only_pytorchs_index_is_named():
    """What users are told has to work elsewhere, with whatever index they have."""
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "constraints.txt", "pyproject.toml")]
    pages += [*(ROOT / "docs").glob("*.md"), *(ROOT / "scripts").iterdir(), *(ROOT / ".github").rglob("*.yml")]
    for page in (page for page in pages if page.is_file()):
        text = page.read_text(encoding="utf-8")
        for index in re.findall(r"(?:index[-_]url|INDEX_URL)[=: ]+(\S+)", text, re.IGNORECASE):
            assert index.strip("`") == "https://download.pytorch.org/whl/cpu", page


def test_constraints_are_for_development_alone():
    """They would undo a user's own PyTorch, and name none."""
    assert not re.search(r"^torch\b", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    told = [page for page in (ROOT / "docs").rglob("*.md") if page.name != "decisions.md"]
    for page in [*told, *(ROOT / "rnnlstm").rglob("*.py")]:
        assert "-c constraints.txt" not in page.read_text(encoding="utf-8"), page


def test_the_built_package_shows_its_pictures_and_holds_its_types(tmp_path):
    """Built in this process, as `pip install .` does it in one of its own."""
    pytest.importorskip("hatchling")
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        read = Parser().parsestr(archive.read(metadata).decode())
    assert {"rnnlstm/py.typed", "rnnlstm/configs/train.yaml", "rnnlstm/configs/model/lstm.yaml"} <= set(names)
    assert not [name for name in names if name.split("/")[0] not in ("rnnlstm", metadata.split("/")[0])]
    assert read["Version"] == rnnlstm.__version__
    readme, shown = (ROOT / "README.md").read_text(encoding="utf-8"), read.get_payload()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme)
    for picture in pictures:
        assert (ROOT / picture).is_file()
        assert f"({REPOSITORY}/raw/v{rnnlstm.__version__}/{picture})" in shown
    assert pictures
    for target in re.findall(r"\]\(([^)\s]+)\)", shown):
        assert target.startswith(("https://", "http://localhost", "#")), target
