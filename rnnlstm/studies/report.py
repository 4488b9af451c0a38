"""What a study leaves: `<out>/<size>/<name>.json` with everything, `.csv` with the table, `.png` with the figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import DiskError
from rnnlstm.record.environment import _here as here
from rnnlstm.record.files import read_json, write_json, write_whole
from rnnlstm.studies.rows import Row
from rnnlstm.studies.study import Finding, Study
from rnnlstm.studies.table import csv_text

OVERVIEW = "overview.png"  #: beside the folders of the sizes: three studies in one picture


def verdict(findings: Sequence[Finding]) -> str:
    """`pass` where every check holds, `miss` where one does not."""
    return "pass" if findings and all(finding.passed for finding in findings) else "miss"


def result(study: Study, size: str, rows: Sequence[Row], seconds: float) -> dict[str, Any]:
    """Everything that the page tells of a study, as plain data."""
    import torch

    findings = study.findings(size, rows)
    return {
        "study": study.name,
        "size": size,
        "verdict": verdict(findings),
        "reference": study.reference,
        "checks": [dataclasses.asdict(finding) for finding in findings],
        "seconds": round(seconds, 1),
        "written": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {**here(), "torch": torch.__version__, "threads": torch.get_num_threads()},
        "rows": [row.as_data() for row in rows],
    }


def write(study: Study, data: Mapping[str, Any], out: Path) -> list[Path]:
    """Raises: DiskError."""
    from rnnlstm.studies.figure import save_figure

    rows = [Row.from_data(row) for row in data["rows"]]
    folder = out / data["size"]
    paths = [folder / f"{study.name}{end}" for end in (".json", ".csv", ".png")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(paths[0], data)
        write_whole(paths[1], csv_text(rows, study.columns).encode())
        save_figure(study, rows, paths[2])
    except OSError as error:
        raise DiskError(f"can't write results in {folder}: {error.strerror or error}") from None
    return paths


def read(study: str, size: str, out: Path) -> dict[str, Any] | None:
    """What was written; None if it wasn't, or isn't whole."""
    data = read_json(out / size / f"{study}.json")
    return data if data is not None and {"verdict", "checks", "rows", "machine"} <= data.keys() else None
