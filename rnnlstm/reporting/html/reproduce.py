"""How to reproduce it: the command of every configuration, versions, machine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from rnnlstm.record.environment import ENVIRONMENT
from rnnlstm.record.files import read_json
from rnnlstm.reporting.commands import train_commands
from rnnlstm.reporting.html.markup import element, render
from rnnlstm.reporting.html.parts import Numbers, Report, Section, table
from rnnlstm.reporting.runs import Run, labels

MOST_COMMANDS = 60
#: What `environment.json` may say, in the words of the page.
FIELDS = {
    "rnnlstm": "rnnlstm", "commit": "commit", "torch": "PyTorch", "python": "Python", "numpy": "NumPy",
    "processor": "processor", "cores": "cores", "threads": "threads", "cpu": "vector instructions",
    "onednn": "oneDNN", "device": "device", "gpu": "GPU", "system": "system",
}  # fmt: skip


def section(report: Report) -> Section:
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
        names = labels(runs) if report.found.by else [s.name for s in group.shown]
        for run, name in zip(runs, names, strict=True):
            yield run, f"{group.title}: {name}" if len(report.groups) > 1 else name


def _command(report: Report) -> str:
    """The command that writes this page."""
    words = ["python", "-m", "rnnlstm.compare", "runs"]
    words += [word for condition in report.found.where for word in ("--where", condition)]
    for option, values in (("--by", report.found.by), ("--against", report.against)):
        words += [option, *values] if values else []
    return shlex.join([*words, "--html", "report.html"])


def _machines(runs: list[Run], names: list[str]) -> Any:
    """A column for each environment in which something was trained, and what was trained there."""
    found: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {}
    for run, name in zip(runs, names, strict=True):
        for entry in _trained(run):
            known = {key: entry[key] for key in FIELDS if isinstance(entry.get(key), str | int | float)}
            _, users, dates = found.setdefault(json.dumps(known), (known, [], []))
            if name not in users:
                users.append(name)
            dates.append(str(entry.get("began") or ""))
    if not found:
        return None
    environments = list(found.values())
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
