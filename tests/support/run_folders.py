"""Run folders made by hand, and very many made from one."""

from __future__ import annotations

import json
import shutil

import yaml


def make_run(folder, *, seeds=3, status="done", solved=(), metrics=None, summaries=(), **config):
    """A run folder written by hand: a config, summaries, and a short record for each seed. `summaries` are fields of
    the first seeds that differ from that, `config` keys as `model__init="default"`."""
    tree = {
        "task": {"name": "keyword", "length": 50},
        "model": {"name": "lstm", "init": "chrono", "input_bias": None, "hidden_size": 8},
    }
    for key, value in config.items():
        section, _, name = key.partition("__")
        if name:
            tree.setdefault(section, {})[name] = value
        else:
            tree[section] = value
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    for seed in range(seeds):
        place = folder / f"seed_{seed}"
        place.mkdir()
        metric = metrics[seed] if metrics else 0.5 + seed / 10
        summary = {
            "status": status, "seed": seed, "steps": 100, "solved": seed in solved, "metric_name": "accuracy",
            "steps_to_solve": 50 + seed if seed in solved else None, "metric": metric, "loss": 1.0, "baseline": 2.0,
            "parameters": 10, "clip_rate": 0.1 * seed, "median_norm_before_clip": 1.0, "steps_per_second": 9.0,
            "backend": "reference",
        }  # fmt: skip
        summary |= summaries[seed] if seed < len(summaries) else {}
        (place / "summary.json").write_text(json.dumps(summary))
        lines = [
            {"step": k, "eval/accuracy": k * (seed + 1) / 10, "eval/loss": 2.0, "baseline/loss": 2.0}
            for k in range(3)
        ]
        (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def multiply(folder, root, count):
    """`count` runs below `root`, copies of the one in `folder` that differ in learning rate and hidden size. What
    is copied is what a comparison reads."""
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    seeds = [path for path in folder.glob("seed_*") if (path / "summary.json").exists()]
    for k in range(count):
        place = root / f"run_{k}"
        place.mkdir(parents=True)
        tree["optimizer"] = {"name": "adam", **tree.get("optimizer", {}), "lr": round(1e-4 * (1 + k // 5), 6)}
        tree["model"]["hidden_size"] = 8 + k % 5
        (place / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        for seed in seeds:
            (place / seed.name).mkdir()
            for name in ("summary.json", "metrics.jsonl", "flow.jsonl"):
                if (seed / name).exists():
                    shutil.copy(seed / name, place / seed.name / name)
