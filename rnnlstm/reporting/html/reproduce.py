"""How to reproduce it: the command of every configuration, from its `config.yaml`; versions and machine."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rnnlstm.config.compose import Composer
from rnnlstm.config.errors import ConfigError, OptionError
from rnnlstm.config.untrusted import GROUPS, read_yaml
from rnnlstm.record.environment import ENVIRONMENT
from rnnlstm.record.files import read_json
from rnnlstm.record.folders import HOUSEKEEPING, flatten
from rnnlstm.reporting.html.parts import Numbers, Report, Section, element, render, table
from rnnlstm.reporting.runs import Run, labels

MOST_COMMANDS = 60
#: Entries of `environment.json`, and their names on the page.
FIELDS = {
    "rnnlstm": "rnnlstm", "commit": "commit", "torch": "PyTorch", "python": "Python", "numpy": "NumPy",
    "processor": "processor", "cores": "cores", "threads": "threads", "cpu": "vector instructions",
    "onednn": "oneDNN", "device": "device", "gpu": "GPU", "system": "system",
}  # fmt: skip


def reproduce(report: Report) -> Section:
    named = list(_named(report))
    runs, names = [run for run, _ in named[:MOST_COMMANDS]], [name for _, name in named[:MOST_COMMANDS]]
    commands = train_commands(runs)
    body = render(
        "reproduce.html", commands=list(zip(names, commands, strict=True)), report=_command(report),
        left_out=sum(len(row.members) for row in report.runs) - len(runs),
        machines=_machines(runs, names), unknown=_unknown(runs),
    )  # fmt: skip
    return Section("reproduce", "How to reproduce", body)


def _named(report: Report) -> Iterator[tuple[Run, str]]:
    """The configurations that the figures show, those of groups one by one."""
    for group in report.groups:
        runs = [run for s in group.shown for run in s.run.members]
        names = labels(runs) if report.comparison.by else [s.name for s in group.shown for _ in s.run.members]
        for run, name in zip(runs, names, strict=True):
            yield run, f"{group.title}: {name}" if len(report.groups) > 1 else name


def _command(report: Report) -> str:
    """The command that writes this page."""
    words = ["python", "-m", "rnnlstm.compare", "runs"]
    words += [word for condition in report.comparison.where for word in ("--where", condition)]
    given = {"--by": report.comparison.by, "--best": report.comparison.best, "--against": report.against}
    given["--best-from"] = [",".join(map(str, report.comparison.best_from))] if report.comparison.best_from else []
    for option, values in given.items():
        words += [option, *values] if values else []
    return shlex.join([*words, "--html", "report.html"])


def _machines(runs: list[Run], names: list[str]) -> Any:
    """A column for each environment in which something was trained, and what was trained there."""
    by_environment: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {}
    for run, name in zip(runs, names, strict=True):
        for entry in _trained(run):
            known = {key: entry[key] for key in FIELDS if isinstance(entry.get(key), str | int | float)}
            _, users, dates = by_environment.setdefault(json.dumps(known), (known, [], []))
            if name not in users:
                users.append(name)
            dates.append(str(entry.get("began") or ""))
    if not by_environment:
        return None
    environments = list(by_environment.values())
    rows = [(words, *(_value(known.get(key)) for known, _, _ in environments)) for key, words in FIELDS.items()]
    rows = [row for row in rows if any(value != "—" for value in row[1:])]
    rows.append(("training began", *(_period(dates) for _, _, dates in environments)))
    if len(environments) > 1:
        rows.append(
            ("trained there", *(element("span", _names(users), class_="several") for _, users, _ in environments))
        )
    heads = ("", *(f"environment {k}" for k in range(1, len(environments) + 1)))
    return table(Numbers("Versions and machine", heads, rows))


def _names(users: list[str]) -> str:
    return "; ".join(users[:8]) + (f" and {len(users) - 8} more" if len(users) > 8 else "")


def _unknown(runs: list[Run]) -> int:
    return sum(not _trained(run) for run in runs)


def _trained(run: Run) -> list[dict[str, Any]]:
    entries = (read_json(run.folder / ENVIRONMENT) or {}).get("trained")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _value(value: object) -> str:
    return "—" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _period(dates: list[str]) -> str:
    first, last = min(dates), max(dates)
    return first if first == last else f"{first} … {last}"


# Commands: what differs from the defaults.

#: Texts that Hydra reads as they are, without quotes.
BARE = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
WORDS = ("null", "true", "false", "nan", "inf", "yes", "no", "on", "off")
#: Choices that an override need not name.
USUAL = {"optimizer": "adam", "clip": "norm", "probe": "standard", "curriculum": "fixed"}


def train_commands(runs: Sequence[Run]) -> list[list[str]]:
    """For each run, a command for each stretch of consecutive seeds. None where its configuration can't be read."""
    with Composer().active() as composer:
        return [list(_commands(run, composer)) for run in runs]


def _commands(run: Run, composer: Composer) -> Iterator[str]:
    try:
        tree = read_yaml(run.folder / "config.yaml")
        words = list(overrides(tree, composer))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # written by hand, or by another version
        return
    numbers = sorted({seed["seed"] for seed in run.seeds if isinstance(seed.get("seed"), int)})
    for first, count in _stretches(numbers):
        seeds = [f"seed={first}"] * (first != 0) + [f"seeds={count}"] * (count != 1)
        yield shlex.join(["python", "-m", "rnnlstm.train", *words, *seeds])


def overrides(tree: Mapping[str, Any], composer: Composer) -> Iterator[str]:
    """The overrides that compose `tree`, without seeds and places, within the composer's context.

    A size that `match` chose is written out, with `match=none`: on another machine `match` might choose another.
    """
    tree = {**tree, "match": "none"}
    if tree.get("plugins"):
        yield f"plugins={override_value(tree['plugins'])}"
    for group in GROUPS:
        if USUAL.get(group) != tree[group]["name"]:
            yield f"{group}={override_value(tree[group]['name'])}"
    usual = dict(flatten(_defaults(tree, composer)))
    for key, value in flatten(tree):
        housekeeping = key.partition(".")[0] in HOUSEKEEPING and not (key == "name" and value)
        if housekeeping or key in {f"{group}.name" for group in GROUPS} or (key in usual and usual[key] == value):
            continue
        yield f"{key}={override_value(value)}"


def override_value(value: object) -> str:
    """A value in Hydra's grammar of overrides."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(override_value(entry) for entry in value)}]"
    if isinstance(value, str) and not (BARE.fullmatch(value) and value.lower() not in WORDS):
        # Within quotes a backslash counts only before a quote, or at the end.
        escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + (r"\'" if m[2] else ""), value)
        return f"'{escaped}'"
    return str(value)


def _defaults(tree: Mapping[str, Any], composer: Composer) -> dict[str, Any]:
    """The defaults of the tree's choices; a user's own class, which isn't imported here, has none."""
    chosen, unknown = dict(tree), []
    for _ in range(len(GROUPS) + 1):
        try:
            defaults = composer.defaults_of(chosen)
        except OptionError as error:
            group = error.key.removesuffix(".name")
            unknown.append(group)
            chosen[group] = {"name": {"task": "keyword", "model": "lstm"}.get(group, USUAL.get(group))}
        else:
            return {key: value for key, value in defaults.items() if key not in unknown}
    raise ConfigError("no defaults to hold the configuration against")


def _stretches(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and count of each stretch of consecutive numbers."""
    begin = 0
    for k in range(1, len(numbers) + 1):
        if k == len(numbers) or numbers[k] != numbers[k - 1] + 1:
            yield numbers[begin], k - begin
            begin = k
