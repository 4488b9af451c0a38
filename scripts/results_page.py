"""A page of results for each study, and an overview, made from the files that the studies wrote."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import DiskError
from rnnlstm.record.files import write_whole
from rnnlstm.studies import studies
from rnnlstm.studies.results import OVERVIEW, markdown, read, text_table
from rnnlstm.studies.study import ABOVE, FIRST, FIRST_TUNING, GRID, Row, Study

from results_overview import save_overview

HEADINGS = {
    "standard": "Standard",
    "quick": "Quick: smaller networks, shorter sequences, a criterion of its own",
    "long": "Long",
}
READING = "reading"  #: folder of the texts beside the results
FOLDED = 20  #: rows above which a table is folded
ANSWERS = "answers"  #: of the texts: a line `name: answer` for each study
OPENING = """# Results

Each study is one command, `python -m rnnlstm.reproduce NAME`. It holds if every sentence of its criterion does, which
is in the code (`rnnlstm/studies/`) and was committed before the final runs. What was missed is said, and explained on
the study's own page. "Not run" means that nothing is claimed. [demo](#demo) holds README's demo against twenty seeds.
"""
INTRODUCTION = """## How it was measured

*Fair to all.* The learning rate of each network in each setting is chosen from the same grid,
{grid}, with the same budget, on three tuning seeds (from {first} on) that no verdict uses: most seeds solved, then
fewest updates, then the lowest held-out loss. If the top of the grid is chosen, {above} is tried, too; a rate is
given up if at a third of the budget no tuning seed has a loss below 0.9 of the baseline. Final networks are scored
on 4,096 sequences that nothing else sees. (The first ten studies had two tuning seeds and the rates {earlier}, and
were scored by their last evaluation.) Verdicts come from all of the fresh seeds (0, 1, …), never the best.
Numbers are medians over the seeds, with the range of up to five and, from six on, the 95 % bootstrap interval of the
median. Shares have Wilson's interval. A sentence that compares two rows holds only if its p is below 0.05: Fisher's
exact test for solved shares, Mann & Whitney's for updates to solve and for metrics, both two-sided, with Holm's
correction over the comparing sentences of one study. One without a p describes, or was judged before that rule.
"Updates to solve" is the median over all seeds, with the first and last; a seed that does not solve the task counts
as more than the budget. "Solved" is the task's own criterion, asked at each evaluation. The quick studies take
their rates from a part of the grid.
"""


def overview(out: Path, beside: Path) -> str:
    """The overview as Markdown; links are relative to `beside`, the folder that it will lie in."""
    place = os.path.relpath(out, beside)
    grid = ", ".join(f"{rate:g}" for rate in GRID)
    earlier = ", ".join(f"{rate:g}" for rate in FIRST["grid"])
    parts = [OPENING.strip(), _table(_results(out), _answers(out))]
    if (out / OVERVIEW).is_file():
        parts += [f"![Three of the studies in one picture]({place}/{OVERVIEW})", _reading("overview", out)]
    parts.append(INTRODUCTION.format(grid=grid, first=FIRST_TUNING, above=f"{ABOVE:g}", earlier=earlier).strip())
    return _linked(parts, f"{place}/")


def study_page(study: Study, out: Path) -> str:
    """A study's page, which lies in `out`. One that was not run says so."""
    results, reading = _results(out), _reading(study.name, out)
    about = f" Claims {', '.join(study.claims)}." if study.claims else ""
    parts = [
        f"# {study.title}",
        f"{study.question}{about}",
        f"*Published*: {study.reference}",
        f"*Different here*: {study.deviations}",
        reading,
    ]
    there = [size for size in ("standard", "long", "quick") if (study.name, size) in results]
    parts += [_size(study, size, results[study.name, size]) for size in there] or ["Not run."]
    return _linked(parts, "")


def _linked(parts: Sequence[str], place: str) -> str:
    """The parts as one text, with links to studies, `[copy](#copy)`, as links to their pages in `place`."""
    text = "\n\n".join(part for part in parts if part) + "\n"
    return re.sub(r"\]\(#(\w+)\)", rf"]({place}\1.md)", text)


def write_pages(file: Path, out: Path) -> None:
    """The overview in `file`, the studies' pages in `out`. Raises: DiskError."""
    pages = {file: overview(out, file.parent)}
    pages |= {out / f"{study.name}.md": study_page(study, out) for study in studies().values()}
    for path, text in pages.items():
        try:
            write_whole(path, text.encode())
        except OSError as error:
            raise DiskError(f"can't write {path}: {error.strerror or error}") from None


Results = Mapping[tuple[str, str], Mapping[str, Any]]


def _results(out: Path) -> Results:
    return {
        (study.name, size): data
        for study in studies().values()
        for size in study.sizes
        if (data := read(study.name, size, out)) is not None
    }


def _answers(out: Path) -> dict[str, str]:
    """The answers, by study, written by hand after the runs."""
    lines = [line.partition(": ") for line in _reading(ANSWERS, out).splitlines()]
    return {name: answer for name, _, answer in lines}


def _table(results: Results, answers: Mapping[str, str]) -> str:
    sizes = [size for size in ("standard", "quick", "long") if any(there == size for _, there in results)]
    lines = [["study", "question", "answer", *sizes]]
    for study in studies().values():
        cells = []
        for size in sizes:
            data = results.get((study.name, size))
            cells.append("–" if size not in study.sizes else "not run" if data is None else _verdict(data))
        lines.append([f"[{study.name}](#{study.name})", study.question, answers.get(study.name, "–"), *cells])
    return markdown(lines)


def _verdict(data: Mapping[str, Any]) -> str:
    if not data["checks"]:
        return data["verdict"]
    passed = sum(check["passed"] for check in data["checks"])
    word = {"pass": "holds", "miss": "holds in part" if passed else "does not hold"}.get(
        data["verdict"], data["verdict"]
    )
    return f"**{word}** ({passed} of {len(data['checks'])})"


def _reading(name: str, out: Path) -> str:
    """The text that discusses a study's results, written by hand after the run; empty if there is none."""
    path = out / READING / f"{name}.md"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _size(study: Study, size: str, data: Mapping[str, Any]) -> str:
    rows = [Row.from_data(row) for row in data["rows"]]
    flag = "" if size == "standard" else f" --{size}"
    machine = data["machine"]
    checks = [["", "criterion", "measured"]]
    checks += [["", "not all settings were run", ""]] if data["verdict"] == "unfinished" else []
    checks += [["pass" if c["passed"] else "**miss**", c["text"], c["measured"]] for c in data["checks"]]
    threads = f"{machine['threads']} thread" + ("s" if machine["threads"] > 1 else "")
    made = (
        f"`python -m rnnlstm.reproduce {study.name}{flag}`: {duration(data['seconds'])} on {machine['processor']}, "
        f"{threads}, torch {machine['torch']}, commit {machine['commit']}, {data['written']}. Data: "
        f"[{study.name}.csv]({size}/{study.name}.csv), [{study.name}.json]({size}/{study.name}.json)."
    )
    table = markdown(text_table(rows, study.columns))
    if len(rows) > FOLDED:
        table = f"<details><summary>Table, {len(rows)} rows</summary>\n\n{table}\n\n</details>"
    return "\n\n".join(
        [
            f"## {HEADINGS[size]}: {_verdict(data).replace('*', '')}",
            f"![{study.title}]({size}/{study.name}.png)",
            f"*{study.caption}*",
            markdown(checks),
            table,
            made,
        ]
    )


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    results, file = Path(sys.argv[1]), Path(sys.argv[2])
    save_overview(results)
    write_pages(file, results)
    print(f"Written: {file} and a page a study in {results}")
