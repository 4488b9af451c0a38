"""How to reproduce it: the command of every configuration, versions, machine."""

from __future__ import annotations

import json
from typing import Any

from rnnlstm.record.environment import ENVIRONMENT
from rnnlstm.record.files import read_json
from rnnlstm.reporting.commands import train_commands
from rnnlstm.reporting.html.markup import element, render
from rnnlstm.reporting.html.parts import Numbers, Report, Section, table
from rnnlstm.reporting.runs import Run

MOST_COMMANDS = 60
#: What `environment.json` may say, in the words of the page.
FIELDS = {
    "rnnlstm": "rnnlstm", "commit": "commit", "torch": "PyTorch", "python": "Python", "numpy": "NumPy",
    "processor": "processor", "cores": "cores", "threads": "threads", "cpu": "vector instructions",
    "onednn": "oneDNN", "device": "device", "gpu": "GPU", "system": "system",
}  # fmt: skip


def section(report: Report) -> Section:
    shown = [s for group in report.groups for s in group.shown][:MOST_COMMANDS]
    titles = [group.title for group in report.groups for _ in group.shown]
    several = len(report.groups) > 1
    names = [f"{title}: {s.name}" if several else s.name for s, title in zip(shown, titles, strict=False)]
    commands = train_commands([s.run for s in shown])
    body = render(
        "reproduce.html", commands=list(zip(names, commands, strict=True)), left_out=len(report.runs) - len(shown),
        machines=_machines([s.run for s in shown], names), unknown=_unknown([s.run for s in shown]),
    )  # fmt: skip
    return Section("reproduce", "How to reproduce", body)


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
