"""What a run leaves on disk: files, tags, clip events, and TensorBoard's events as their view."""

from __future__ import annotations

import json
import math
import statistics

import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rnnlstm.record import seed_view
from rnnlstm.record.files import LineWriter, read_lines
from rnnlstm.record.glossary import FIRST, GLOSSARY, explain
from rnnlstm.record.seed_view import SeedView
from rnnlstm.record.summary import FIELDS
from rnnlstm.record.tensorboard import description
from rnnlstm.training.replica import Subsample

from support.training import SMALL, compose

SUMMARY_FIELDS = {
    "status", "seed", "steps", "solved", "steps_to_solve", "metric_name", "metric", "loss", "baseline", "parameters",
    "clip_rate", "median_norm_before_clip", "steps_per_second",
}  # fmt: skip
CLIP_FIELDS = [
    "step", "kind", "threshold", "norm_before", "norm_after", "coefficient", "clipped_share", "largest_parameter",
]  # fmt: skip


@pytest.fixture
def outcome(train):
    options = ("train.steps=15", "log.every=1", "eval.every=5", "train.stop_when_solved=false", "clip.threshold=0.45")
    return train(*options, "seeds=2", "eval.lengths=[20]", "eval.decoys=[0.2]")


def test_the_run_folder_holds_what_is_promised(outcome):
    config = yaml.safe_load((outcome.folder / "config.yaml").read_text())
    assert "seed" not in config
    assert "seeds" not in config
    assert config["model"]["hidden_size"] == 8
    for seed in (0, 1):
        folder = outcome.folder / f"seed_{seed}"
        names = sorted(path.name.partition(".tfevents")[0] for path in folder.iterdir())
        records = ["clip_events.jsonl", "events.out", "flow.jsonl", "metrics.jsonl", "samples.jsonl"]
        assert names == [*records, "summary.json", "weights.pt", "weights_best.pt"]
        summary = json.loads((folder / "summary.json").read_text())
        assert set(summary) >= SUMMARY_FIELDS
        assert set(summary) == set(FIELDS)  # what is written is what is declared
        assert summary["seed"] == seed


def test_every_fired_update_is_a_clip_event_and_agrees_with_the_metrics(outcome):
    lines = [line for line in read_lines(outcome.folder / "seed_0/metrics.jsonl") if "clip/fired" in line]
    events = list(read_lines(outcome.folder / "seed_0/clip_events.jsonl"))
    fired = [line for line in lines if line["clip/fired"]]
    assert 0 < len(fired) < len(lines)
    assert [line["step"] for line in lines] == list(range(1, 16))
    for line, event in zip(fired, events, strict=True):
        assert list(event) == CLIP_FIELDS
        assert event["step"] == line["step"]
        assert event["kind"] == "norm"
        assert event["norm_before"] == line["grad/norm_before_clip"] > event["threshold"]
        assert event["norm_after"] == line["grad/norm_after_clip"] == pytest.approx(event["threshold"], rel=1e-12)
        assert event["coefficient"] == line["clip/coefficient"]
        by_parameter = {k.removeprefix("grad_param/"): v for k, v in line.items() if k.startswith("grad_param/")}
        assert event["largest_parameter"] == max(by_parameter, key=by_parameter.get)
        assert math.hypot(*by_parameter.values()) == pytest.approx(event["norm_before"], rel=1e-12)
    for k, line in enumerate(lines, start=1):
        assert line["clip/rate"] == pytest.approx(sum(entry["clip/fired"] for entry in lines[:k]) / k)
    summary = json.loads((outcome.folder / "seed_0/summary.json").read_text())
    assert summary["clip_rate"] == pytest.approx(len(fired) / len(lines))
    median = statistics.median(line["grad/norm_before_clip"] for line in lines)
    assert summary["median_norm_before_clip"] == pytest.approx(median, rel=1e-12)


def test_a_clip_event_holds_the_norm_that_is_limited_and_tags_hold_euclidean_ones(train):
    clip = ("clip.norm_type=inf", "clip.threshold=0.02")
    outcome = train("train.steps=6", "log.every=1", *clip, "eval.every=2", "probe=full")
    assert "norm_type-inf" in outcome.folder.name
    fired = list(read_lines(outcome.folder / "seed_0/clip_events.jsonl"))
    lines = {line["step"]: line for line in read_lines(outcome.folder / "seed_0/metrics.jsonl")}
    assert len(fired) > 2
    for event in fired:
        line = lines[event["step"]]
        assert list(event) == [*CLIP_FIELDS[:3], "norm_type", *CLIP_FIELDS[3:]]
        assert event["norm_type"] == "inf"
        assert event["norm_before"] > event["threshold"] == pytest.approx(event["norm_after"], rel=1e-12)
        assert line["grad/norm_before_clip"] > event["norm_before"]  # over all entries, not of the largest alone
        by_parameter = [v for k, v in line.items() if k.startswith("grad_param/")]
        assert math.hypot(*by_parameter) == pytest.approx(line["grad/norm_before_clip"], rel=1e-12)
        scaled = line["grad/norm_before_clip"] * event["coefficient"]
        assert line["grad/norm_after_clip"] == pytest.approx(scaled, rel=1e-12)
    norms = [line["grad/norm_before_clip"] for step, line in lines.items() if step]
    assert outcome.summaries[0]["median_norm_before_clip"] == pytest.approx(statistics.median(norms), rel=1e-12)
    assert "clip/norm_before_q50" in lines[6]
    assert lines[6]["clip/threshold_norm_inf"] == 0.02
    assert "clip/threshold" not in lines[6], "in a chart of Euclidean norms"


def test_every_evaluated_task_has_a_baseline_of_its_own(outcome, train):
    line = next(iter(read_lines(outcome.folder / "seed_0/metrics.jsonl")))
    task = compose("task.length=12").config.task
    assert task["name"] == "keyword"  # whose baseline is ln K at every length
    assert line["baseline/loss"] == line["baseline_T20/loss"] == line["baseline_decoys0.2/loss"] == math.log(8)
    copy = train("task=copy", "train.steps=1", "eval.lengths=[20,40]", "curriculum=growing", "curriculum.start=5")
    seed = next(iter(read_lines(copy.folder / "seed_0/metrics.jsonl")))
    events = EventAccumulator(str(copy.folder / "aggregate")).Reload()
    losses = {"baseline/loss": 12, "baseline_T20/loss": 20, "baseline_T40/loss": 40, "baseline_current/loss": 5}
    for tag, length in losses.items():
        assert seed[tag] == pytest.approx(10 * math.log(8) / (length + 20))
        shown = f"copy_T12/{tag}{'/median' if 'current' in tag else ''}"
        assert events.Scalars(shown)[0].value == pytest.approx(seed[tag])


@pytest.mark.parametrize("kind", ["norm", "value", "none"])
def test_tags_of_each_kind_of_clipping(train, kind):
    outcome = train("train.steps=2", "log.every=1", f"clip={kind}", "clip.threshold=0.01", "eval.every=1")
    line = list(read_lines(outcome.folder / "seed_0/metrics.jsonl"))[-1]
    assert ("clip/coefficient" in line) == (kind != "value")
    assert ("clip/clipped_share" in line) == (kind == "value")
    if kind == "none":
        assert line["clip/coefficient"] == 1.0


def test_tensorboard_shows_the_record(outcome):
    for seed in (0, 1):
        folder = outcome.folder / f"seed_{seed}"
        lines = list(read_lines(folder / "metrics.jsonl"))
        fired = list(read_lines(folder / "clip_events.jsonl"))
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        tags = {tag for line in lines for tag in line if tag != "step"}
        assert set(events.Tags()["scalars"]) == tags | {"clip/event_norm", "clip/event_coefficient"}
        for tag in tags:
            shown = [(event.step, event.value) for event in events.Scalars(tag)]
            written = [(line["step"], pytest.approx(line[tag], rel=1e-6)) for line in lines if tag in line]
            assert shown == written
        for tag, name in (("clip/event_norm", "norm_before"), ("clip/event_coefficient", "coefficient")):
            shown = [(event.step, event.value) for event in events.Scalars(tag)]
            assert shown == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in fired]
        described = events.SummaryMetadata("clip/rate").summary_description
        assert described == ("" if seed else f"{explain('clip/rate').meaning} [share]"), "once for a configuration"


def test_clipping_between_two_lines_is_not_lost(train):
    """With a line every tenth update, what the lines and the events say is what a line an update says."""
    options = ("train.steps=25", "eval.every=10", "train.stop_when_solved=false", "clip.threshold=0.45", "probe=off")
    each = {
        line["step"]: line
        for line in read_lines(train(*options, "log.every=1").folder / "seed_0/metrics.jsonl")
        if "clip/fired" in line
    }
    folder = train(*options, "log.every=10").folder / "seed_0"
    lines = [line for line in read_lines(folder / "metrics.jsonl") if "clip/fired" in line]
    assert [line["step"] for line in lines] == [1, 10, 20, 25]
    last = 0
    for line in lines:
        window = [each[step] for step in range(last + 1, line["step"] + 1)]
        last = line["step"]
        assert line["clip/window_rate"] == sum(update["clip/fired"] for update in window) / len(window)
        assert line["grad/window_max_norm"] == max(update["grad/norm_before_clip"] for update in window)
        assert line["clip/window_min_coefficient"] == min(update["clip/coefficient"] for update in window)
        assert line["clip/threshold"] == 0.45
        assert {tag: each[last][tag] for tag in ("clip/fired", "clip/rate", "clip/coefficient")} == {
            tag: line[tag] for tag in ("clip/fired", "clip/rate", "clip/coefficient")
        }
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    fired = [step for step, line in each.items() if line["clip/fired"]]
    assert not {1, 10, 20, 25} >= set(fired), "some fired between the lines"
    assert [event.step for event in events.Scalars("clip/event_norm")] == fired


def test_very_many_clip_events_are_thinned_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(seed_view, "MOST_EVENTS", 4)
    view = SeedView(tmp_path, strict=True)
    for step in range(1, 30):
        view.clip_event(step, {"norm_before": float(step), "coefficient": None, "clipped_share": 0.5})
    view.publish()
    view.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    shown = [event.step for event in events.Scalars("clip/event_norm")]
    assert shown == [1, 2, 3, 4, 5, 7, 9, 11, 13, 17, 21, 25, 29]
    assert [(event.step, event.value) for event in events.Scalars("clip/event_thinning")] == [
        (5, 2),
        (13, 4),
        (29, 8),
    ]
    assert set(events.Tags()["scalars"]) == {"clip/event_norm", "clip/event_clipped_share", "clip/event_thinning"}
    assert "one in so many" in events.SummaryMetadata("clip/event_thinning").summary_description


def test_the_glossary_explains_every_emitted_tag_and_nothing_else(outcome, train, monkeypatch):
    monkeypatch.setattr(seed_view, "MOST_EVENTS", 1)
    value = train("task=adding", "train.steps=2", "clip=value", "name=value", "model.num_layers=2")
    full = train(
        "train.steps=2", "probe=full", "probe.every=1", "name=full", "precision=bfloat16", "clip.threshold=0.01"
    )
    growing = train("train.steps=2", "curriculum=growing", "curriculum.start=5", "name=growing", "clip.norm_type=inf")
    tags = set()
    for run in (outcome, value, full, growing):
        for folder in (run.folder / "seed_0", run.folder / "aggregate"):
            events = EventAccumulator(str(folder)).Reload().Tags()
            tags |= {tag for kind in ("scalars", "images", "tensors") for tag in events[kind]}
    tags = {tag.removesuffix("/text_summary") for tag in tags if not tag.startswith(("_hparams_", "custom_scalars"))}
    assert [tag for tag in tags if explain(tag) is None] == []
    assert {entry.tag for entry in GLOSSARY} == {explain(tag).tag for tag in tags}
    assert explain("made/up") is None
    assert explain("eval/accuracy/median").tag == explain("copy_T5/eval/accuracy/median").tag == "eval/<metric>"
    assert explain("flow/hidden/layer_1").tag == "flow/<state>"
    assert len({entry.tag for entry in GLOSSARY}) == len(GLOSSARY)
    assert all(entry.unit and entry.meaning for entry in GLOSSARY)
    assert set(FIRST) <= {entry.tag for entry in GLOSSARY}
    assert description("clip/event_norm").endswith("Look here first.")


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = LineWriter(path)
    writer.write({"step": 1, "x": math.inf})
    writer.write({"step": 2})
    writer.close()
    whole = path.read_bytes()
    for cut in range(len(whole) - 9, len(whole)):
        path.write_bytes(whole[:cut])
        assert next(iter(read_lines(path))) == {"step": 1, "x": math.inf}
    assert list(read_lines(tmp_path / "absent")) == []


def test_quantiles_are_exact_while_there_is_room_and_close_beyond():
    exact, bounded = Subsample(most=10_000), Subsample(most=1_000)
    values = np.random.default_rng(0).lognormal(size=10_000)
    for value in values:
        exact.add(value), bounded.add(value)
    which = [0.05, 0.5, 0.95]
    np.testing.assert_allclose(exact.quantiles(which), np.quantile(values, which), rtol=1e-12)
    np.testing.assert_allclose(bounded.quantiles(which), np.quantile(values, which), rtol=0.2)
    assert 500 <= len(bounded.kept) <= 1_000
    assert Subsample().quantiles([0.5]) is None


def test_names_say_what_differs_and_only_that():
    def name(*overrides):
        job = compose(*overrides)
        return str(job.folder)

    default = name()
    assert default.startswith("runs/keyword_T100/lstm-")
    assert name("seed=5", "seeds=3", "optimizer.lr=3e-3", "clip.threshold=1", "overwrite=true") == default
    other = name("model=rnn", "optimizer.lr=1e-2", "clip=none", "name=try", "task=copy")
    assert other.startswith("runs/copy_T50/try_rnn_clip-none_lr-0.01-")
    folders = {
        name(option) for option in (*SMALL, "task.decoys=0.1", "model.init=default", "optimizer=sgd", "probe=off")
    }
    assert len(folders) == len(SMALL) + 4
