"""The shape of the project: imports between modules go one way, and the top level holds what it should."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rnnlstm"

#: Rooms from the ground up: a module may import from its own room and from rooms below it.
ROOMS = (
    {"options", "exits"},
    {"guard"},
    {"sections", "launcher_options", "plain_yaml"},
    {"schema", "batch", "random_stream", "counter_stream", "registry", "arguments"},
    {"keys"},
    {"objections"},
    {"composition"},
    {"cells", "tasks", "record"},
    {"recurrence"},
    {"models"},
    {"probes"},
    {"analysis"},
    {"training"},
    {"reporting"},
    {"plugins", "help"},
    {"jobs"},
    {"failures"},
    {"job_process"},
    {"launchers"},
    {"launch"},
    {"search"},
    {"python_api"},
    {"measure"},
    {"results"},
    {"requeue", "sweep_progress"},
    {"compare", "benchmark", "gradflow", "events", "reproduce"},
    {"completion"},
    {"train", "__main__"},
)
LEVEL = {name: level for level, names in enumerate(ROOMS) for name in names}
#: Of one level, but strangers to each other.
STRANGERS = [{"cells", "tasks", "record"}]
#: Outside packages that only some modules may import.
ONLY = {
    "hydra": {"composition", "objections", "launchers.bridge"},
    "omegaconf": {"composition", "objections", "launchers.bridge"},
    "tensorboard": {"record.tensorboard", "record.tensorboard_plugins"},
    "PIL": {"record.heatmap"},
    "jinja2": {"reporting.html.markup"},
    "matplotlib": {
        "reporting.figures",
        "reporting.survival_figure",
        "reporting.reach_figure",
        "reporting.pictures",
        "reporting.speed_figure",
        "reporting.flow_figures",
        "reporting.sentence_figures",
        "reporting.activation_figures",
        "reporting.gradflow",
        "results.figure",
        "results.overview",
    },
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            yield pytest.param(name, path, id=name)


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_imports_go_one_way(name, path):
    room = name.split(".")[0]
    for target in imports(path):
        outside, _, inside = target.partition(".")
        if outside in ONLY:
            assert name in ONLY[outside], f"{name} imports {outside}"
        if outside == "rnnlstm" and inside:
            other = inside.split(".")[0]
            assert LEVEL[other] <= LEVEL[room], f"{name} imports {inside}"
            for group in STRANGERS:
                assert not ({room, other} <= group and room != other), f"{name} imports {inside}"


def test_the_top_level_holds_what_it_should():
    names = {path.name for path in ROOT.iterdir()}
    assert {"configs", "rnnlstm", "scripts", "tests", "pyproject.toml", "README.md"} <= names


def test_most_files_are_short():
    lengths = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert sum(length > 200 for length in lengths.values()) <= len(lengths) // 20
    assert max(lengths.values()) <= 300
