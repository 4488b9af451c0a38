"""The shape of the project: rooms, their floors, and imports that go down only.

A room is a folder of rnnlstm/ or a module at its root. It stands one floor above the highest room that it imports;
imports inside functions and under TYPE_CHECKING count. `python tests/test_arrows.py` prints the floors.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rnnlstm"

#: Every room, from the ground up. A room may import from rooms on lower floors only.
FLOORS = (
    {"config"},
    {"tasks", "cells", "record"},
    {"recurrence"},
    {"models"},
    {"instruments"},
    {"training"},
    {"jobs", "reporting"},
    {"cli", "api", "studies", "benchmarks"},
    {"compare", "gradflow", "reproduce", "benchmark", "events", "export", "__init__", "__main__"},
    {"train"},  # `train --completion` asks the other commands for their flags
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS, start=1) for room in rooms}
MOST_FLOORS = 10
#: The most modules at the root: a command each, `api`, `__init__` and `__main__`.
MOST_AT_THE_ROOT = 10
#: Outside packages that only some modules may import.
ONLY = {
    "hydra": {"config.compose"},
    "omegaconf": {"config.compose"},
    "tensorboard": {"record.tensorboard"},
    "PIL": {"record.heatmap"},
    "jinja2": {"reporting.html.parts"},
    "jax": {"benchmarks.training"},
    "matplotlib": {"reporting.figures", "reporting.gradflow_figures", "studies.figure"},
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    return module.split(".")[0]


def imports(path: Path, at_load_time: bool = False):
    """Whole names of what a file imports; `at_load_time`: only what is imported when the file is."""
    nodes = ast.parse(path.read_text()).body if at_load_time else ast.walk(ast.parse(path.read_text()))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_named(target: str) -> str | None:
    """The module of ours that a whole name is, or is in."""
    parts = target.split(".")
    if parts[0] != "rnnlstm":
        return None
    for end in range(len(parts), 0, -1):
        inside = ".".join(parts[1:end])
        for name in (inside, f"{inside}.__init__".removeprefix(".")):
            if name in MODULES:
                return name
    raise AssertionError(f"no module for {target}")


@cache
def arrows(at_load_time: bool = False) -> dict[str, set[str]]:
    """By module: the modules it imports."""
    found = {}
    for module, path in MODULES.items():
        targets = {module_named(target) for target in imports(path, at_load_time)}
        found[module] = {target for target in targets if target is not None and target != module}
    return found


def floors_of_rooms() -> dict[str, int]:
    """Each room's floor as the code has it. Raises: AssertionError for a circle among rooms."""
    below = defaultdict(set)
    for module, targets in arrows().items():
        below[room_of(module)] |= {room_of(target) for target in targets} - {room_of(module)}
    floors: dict[str, int] = {}

    def floor(room: str, above: tuple[str, ...] = ()) -> int:
        assert room not in above, f"a circle: {' → '.join([*above, room])}"
        if room not in floors:
            floors[room] = 1 + max((floor(other, (*above, room)) for other in below[room]), default=0)
        return floors[room]

    for room in sorted({room_of(module) for module in MODULES}):
        floor(room)
    return floors


def test_rooms_stand_on_their_floors():
    """No circle, at most ten floors, and each room where the list above has it."""
    floors = floors_of_rooms()
    assert max(floors.values()) <= MOST_FLOORS
    assert floors.keys() == LEVEL.keys()
    assert not {room: (floor, LEVEL[room]) for room, floor in floors.items() if floor > LEVEL[room]}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    for target in arrows()[module]:
        here, there = room_of(module), room_of(target)
        assert here == there or LEVEL[there] < LEVEL[here], f"{module} imports {target}"
    for target in imports(MODULES[module]):
        outside = target.partition(".")[0]
        assert outside not in ONLY or module in ONLY[outside], f"{module} imports {outside}"


@pytest.mark.parametrize("at_load_time", [True, False], ids=["when loaded", "inside functions too"])
def test_no_file_imports_itself_by_way_of_others(at_load_time):
    done: set[str] = set()

    def follow(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"a circle: {' → '.join([*above[above.index(module) :], module])}"
        if module not in done:
            for target in arrows(at_load_time)[module]:
                follow(target, (*above, module))
            done.add(module)

    for module in MODULES:
        follow(module, ())


def test_the_root_holds_the_commands():
    assert len([module for module in MODULES if "." not in module]) <= MOST_AT_THE_ROOT


def test_the_top_level_holds_what_it_should():
    names = {path.name for path in ROOT.iterdir()}
    assert {"configs", "rnnlstm", "scripts", "tests", "pyproject.toml", "README.md"} <= names


def test_every_folder_says_what_it_is_for():
    for module, path in MODULES.items():
        if module.endswith(".__init__"):
            assert ast.get_docstring(ast.parse(path.read_text())), path


if __name__ == "__main__":
    found = floors_of_rooms()
    for level in range(max(found.values()), 0, -1):
        print(f"{level:>2}  {', '.join(sorted(room for room, floor in found.items() if floor == level))}")
