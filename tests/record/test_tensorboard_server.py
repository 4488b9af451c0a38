"""TensorBoard started for real over a small sweep, asked through its HTTP API."""

from __future__ import annotations

import functools
import json
import re
import urllib.parse
import urllib.request

import pytest

from support.tensorboard_page import served

pytestmark = pytest.mark.server


@pytest.fixture
def ask(train, tmp_path):
    """`ask(path, query)` → parsed JSON (or bytes) of a TensorBoard over two configurations of two seeds."""
    options = ("train.steps=8", "eval.every=4", "probe.every=4", "seeds=2", "log.every=2")
    for model in ("rnn", "lstm"):
        train(*options, f"model={model}")
    with served(tmp_path, runs=6) as address:
        yield functools.partial(get, address)


def get(address: str, path: str, body: dict | None = None, **query: str):
    url = f"{address}{path}?{urllib.parse.urlencode(query)}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        content = answer.read()
        return json.loads(content) if answer.headers["Content-Type"].startswith("application/json") else content


def test_what_the_page_is_served(ask):
    runs = ask("data/runs")
    seeds = [run for run in runs if "/seed_" in run]
    assert len(seeds) == 4
    assert sorted(run.rsplit("/", 1)[1] for run in runs) == ["aggregate"] * 2 + [
        "seed_0",
        "seed_0",
        "seed_1",
        "seed_1",
    ]
    assert all(run.startswith(("keyword_T12/rnn_", "keyword_T12/lstm_")) for run in runs), "no stray runs"

    scalars = ask("data/plugin/scalars/tags")
    lstm = next(run for run in seeds if "lstm" in run and run.endswith("seed_0"))
    for tag in ("train/loss", "eval/accuracy", "baseline/loss", "clip/rate", "flow/half_life", "gate/forget_mean"):
        assert tag in scalars[lstm]
    assert "share of all updates" in scalars[lstm]["clip/rate"]["description"]
    points = ask("data/plugin/scalars/scalars", run=lstm, tag="eval/accuracy")
    assert [point[1] for point in points] == [0, 4, 8]

    images = ask("data/plugin/images/tags")
    assert set(images[lstm]) == {"flow/hidden", "flow/cell"}
    assert "white as strong" in images[lstm]["flow/cell"]["description"]
    (first, *_) = ask("data/plugin/images/images", run=lstm, tag="flow/hidden", sample="0")
    assert ask(f"data/plugin/images/individualImage?{first['query']}&").startswith(b"\x89PNG")

    texts = ask("data/plugin/text/text", run=lstm, tag="samples")
    assert [entry["step"] for entry in texts] == [0, 4, 8]
    assert "which dish came first?" in texts[0]["text"]

    layout = ask("data/plugin/custom_scalars/layout")
    category, clipping = layout["category"]
    assert category["title"] == "keyword_T12: median and band over seeds"
    charts = {chart["title"]: chart for chart in category["chart"]}
    assert len(charts) == len(category["chart"]) == 9, "the layouts of two runs are one"
    (accuracy,) = charts["eval/accuracy"]["margin"]["series"]
    tags = {
        end: f"keyword_T12/eval/accuracy/{name}"
        for end, name in zip(accuracy, ("median", "low", "high"), strict=True)
    }
    assert accuracy == tags
    aggregate = next(run for run in runs if run.endswith("aggregate") and "lstm" in run)
    drawn = {
        tag
        for chart in charts.values()
        for band in chart.get("margin", {}).get("series", [])
        for tag in band.values()
    }
    assert drawn <= set(scalars[aggregate])
    (pattern,) = charts["eval/loss beside its baseline"]["multiline"]["tag"]
    found = {tag for run in runs for tag in scalars[run] if re.match(pattern, tag)}
    assert found == {"keyword_T12/eval/loss/median", "keyword_T12/baseline/loss"}
    assert clipping["title"] == "clipping, seed by seed"
    (norms,) = [chart for chart in clipping["chart"] if chart["title"].startswith("gradient norm before and after")]
    (pattern,) = norms["multiline"]["tag"]
    drawn = {run: {tag for tag in scalars[run] if re.match(pattern, tag)} for run in seeds}
    assert all(tags == {"grad/norm_before_clip", "grad/norm_after_clip", "clip/threshold"} for tags in drawn.values())

    body = {
        "experimentName": "", "allowedStatuses": ["STATUS_SUCCESS"], "colParams": [], "startIndex": 0, "sliceSize": 9,
    }  # fmt: skip
    experiment = ask("data/plugin/hparams/experiment", body={"experimentName": ""})
    infos = {info["name"]: info.get("differs", False) for info in experiment["hparamInfos"]}
    assert {"optimizer.lr", "clip.threshold", "model.zoneout", "model.nonlinearity"} <= infos.keys()
    assert infos["model.name"], "what tells the runs apart is ticked"
    body["colParams"] = [{"metric": info["name"]} for info in experiment["metricInfos"]]
    groups = ask("data/plugin/hparams/session_groups", body=body)["sessionGroups"]
    assert len(groups) == 2, "a row per configuration, not per seed"
    for group in groups:
        assert len(group["sessions"]) == 2
        values = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        each = [
            value["value"]
            for session in group["sessions"]
            for value in session["metricValues"]
            if value["name"]["tag"] == "eval/loss"
        ]
        assert values["eval/loss"] == pytest.approx(sum(each) / 2)
