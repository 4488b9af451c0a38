"""What a search came to: its best trials, and the command that trains the best with seeds that had no part in it."""

from __future__ import annotations

import math
import os
import shlex

from rnnlstm.search.search import Search, plain

SHOWN = 10  # trials


def ranking(search: Search, config_dir: str | None = None) -> list[str]:
    """Lines of text; none if no trial has ended."""
    if not search.trials:
        return []
    found = sorted(((trial.loss, trial.number, trial) for trial in search.trials), key=lambda entry: entry[:2])
    seeds = search.trials[0].job.config.seed_numbers
    what = "final loss" if len(seeds) == 1 else f"median over {len(seeds)} seeds of the final loss"
    without = sum(math.isinf(loss) for loss, _, _ in found)
    lines = [f"Best of {len(found):,} trials by the {what}{f', {without:,} without one' if without else ''}"]
    rows = [["loss", "trial", "values", "run folder"]]
    for loss, number, trial in found[:SHOWN]:
        values = " ".join(f"{key}={_short(text)}" for key, text in trial.values.items())
        rows.append([f"{loss:.4g}", f"{number + 1}", values, os.fspath(trial.job.folder)])
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines += [f"  {a:>{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}" for a, b, c, d in rows]
    loss, _, best = found[0]
    if math.isfinite(loss):
        words = plain(search.space.overrides(best.values))
        words = [word for word in words if word.partition("=")[0] not in ("seed", "seeds", "overwrite")]
        words += [f"seed={seeds.stop}", f"seeds={len(seeds)}"]
        where = ["--config-dir", config_dir] if config_dir else []
        lines.append("Train the best with seeds that had no part in choosing it:")
        lines.append(f"  {shlex.join(['python', '-m', 'rnnlstm.train', *where, *words])}")
    return lines


def _short(text: str) -> str:
    """A number in few digits; the run folder and the command have all of them."""
    try:
        return f"{float(text):.4g}" if "." in text or "e" in text else text
    except ValueError:
        return text
