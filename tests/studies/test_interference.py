"""The texts and the scores of the study `interference`, with networks whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnlstm import make_task
from rnnlstm.reporting.statistics import wilson
from rnnlstm.studies import studies
from rnnlstm.studies.interference import PLACES, SHARE, above_chance, answers, one_decoy, recency, scores_of, turned
from rnnlstm.studies.study import Row


class Namer:
    """A network that names the first, second, or latest dish that it reads, with one-hot vectors of the tokens."""

    def __init__(self, task, which):
        self.tokens, self.dishes, self.which = task.num_tokens, task.num_keywords, which

    def embed(self, inputs):
        return F.one_hot(inputs, self.tokens).float()

    def answer(self, x, scored):
        T, B, _ = x.shape
        token = x.argmax(-1)
        order = torch.arange(T)[:, None].expand(T, B)
        is_dish = token < self.dishes
        first = torch.where(is_dish, order, T).amin(0)
        if self.which == "first":
            step = first
        elif self.which == "second":
            step = torch.where(is_dish & (order > first), order, T).amin(0)
            step = torch.where(step == T, first, step)
        else:
            step = torch.where(is_dish, order, -1).amax(0)
        named = F.one_hot(token.gather(0, step[None])[0], self.dishes)
        return named[scored % B]


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 40), st.integers(1, 3), st.integers(2, 8), st.sampled_from(PLACES), st.integers(0, 99))
def test_a_text_has_exactly_one_decoy_in_its_tenth(length, window, dishes, place, seed):
    task = make_task("keyword", length=length, keyword_window=min(window, length - 3), num_keywords=dishes)
    batch = one_decoy(task, seed, place, 32)
    assert batch.inputs.shape == batch.kinds.shape == batch.mask.shape == (length, 32)
    assert ((batch.kinds == 2).sum(0) == 1).all()
    assert ((batch.kinds == 0).sum(0) == 1).all()
    assert (batch.kinds[-1] == 3).all()
    assert (batch.mask == (batch.kinds == 3)).all()
    keyword, (decoy, there) = batch.targets[-1], task.decoy(batch)
    assert there.all()
    assert (decoy != keyword).all()
    assert (batch.inputs[batch.kinds == 2] < dishes).all()
    assert (batch.inputs[batch.kinds == 1] > dishes).all()
    start, step = (batch.kinds == 0).int().argmax(0) + 1, (batch.kinds == 2).int().argmax(0)
    free = length - 1 - start
    share = (step - start + 0.5) / free
    low, high = {"early": (0, 0.1), "middle": (0.45, 0.55), "last": (0.9, 1)}[place]
    slack = 1 / free  # a tenth is at least one place, whole
    assert (share >= low - slack).all()
    assert (share <= high + slack).all()


def test_the_three_places_are_those_of_one_text():
    task = make_task("keyword", length=20, keyword_window=4)
    rest = []
    for place in PLACES:
        batch = one_decoy(task, 3, place, 16)
        rest.append([batch.inputs[:, b][batch.kinds[:, b] != 2].tolist() for b in range(16)])
        rest[-1] += task.decoy(batch)[0].tolist()
    assert rest[0] == rest[1] == rest[2]


@given(st.floats(-0.99, 0.99), st.integers(0, 999))
def test_a_turned_vector_has_its_length_and_the_cosine(cosine, seed):
    vector, to = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    other = turned(vector, to, cosine)
    assert other.norm(dim=-1).tolist() == pytest.approx(vector.norm(dim=-1).tolist())
    assert F.cosine_similarity(other, to, dim=-1).tolist() == pytest.approx([cosine] * 5)
    plane = torch.stack([vector, to, other], 1)  # (5, 3, 8): three vectors of one plane
    assert torch.linalg.svdvals(plane)[:, 2].max() < 1e-9


def test_answers_keep_their_order_and_look_alikes_are_taken_for_the_keyword():
    task = make_task("keyword", length=12, num_keywords=4)
    batch = one_decoy(task, 0, "last", 1500)  # in two parts
    keyword, decoy = batch.targets[-1], task.decoy(batch)[0]
    assert torch.equal(answers(Namer(task, "first"), batch), keyword)
    assert torch.equal(answers(Namer(task, "latest"), batch), decoy)
    assert torch.equal(answers(Namer(task, "latest"), batch, 0.5), decoy)
    assert torch.equal(answers(Namer(task, "latest"), batch, 0.9), keyword)


def test_scores_of_networks_that_name_the_first_second_or_latest_dish():
    task = make_task("keyword", length=20)
    found = {which: scores_of(task, Namer(task, which), 0, 512) for which in ("first", "second", "latest")}
    assert [found[which]["accuracy_at_0%"] for which in found] == [1, 1, 1]
    for rate in ("5%", "15%", "30%"):
        for which, dishes in {"first": (1, 0, 0), "second": (0, 1, 0), "latest": (0, 0, 1)}.items():
            scores = found[which]
            assert tuple(scores[f"{dish}_dish_at_{rate}"] for dish in ("first", "second", "last")) == dishes
    assert found["first"]["errors_at_30%"] == 0
    assert f"{SHARE}_at_30%" not in found["first"]
    latest = found["latest"]
    assert latest[f"{SHARE}_at_15%"] == 1
    assert (latest["low_at_15%"], latest["high_at_15%"]) == wilson(*[latest["errors_at_15%"]] * 2)
    for place in PLACES:
        assert [latest[f"named_{place}{how}"] for how in ("", "_at_cosine_0.5", "_at_cosine_0.9")] == [1, 1, 0]


def test_recency_counts_errors_in_the_texts_that_count():
    keyword, decoy = torch.zeros(100, dtype=torch.int64), torch.ones(100, dtype=torch.int64)
    answer = torch.tensor([0] * 40 + [1] * 20 + [2] * 40)
    counted = torch.arange(100) < 90
    low, high = wilson(20, 50)
    assert recency(answer, keyword, decoy, counted, "x") == {
        "errors_x": 50.0, f"{SHARE}_x": 0.4, "low_x": low, "high_x": high,
    }  # fmt: skip
    assert recency(answer, keyword, decoy, torch.arange(100) < 69, "x") == {"errors_x": 29.0}


def test_chance_is_beaten_by_most_of_at_least_five_networks():
    def row(*lows):
        return Row("A", "x", scores={"low_t": list(lows), f"{SHARE}_t": [0.5] * len(lows)})

    assert above_chance(row(0.2, 0.2, 0.2, 0.1, 0.1), "t", 1 / 7)[0]
    assert not above_chance(row(0.2, 0.2, 0.1, 0.1, 0.1), "t", 1 / 7)[0]
    assert not above_chance(row(0.2, 0.2, 0.2, 0.2, None), "t", 1 / 7)[0]
    holds, told = above_chance(row(), "t", 1 / 7)
    assert (holds, told) == (False, "in 0 of 0 networks with 30 errors; median share nan")
    assert math.isnan(row().median("low_t"))


def standard_table(good):
    """Ten seeds of each network; good: as each sentence says."""

    def row(window, rate, arm, **scores):
        spread = {name: [value + k / 1000 for k in range(10)] for name, value in scores.items()}
        return Row(f"window {window}, {rate} % decoys", arm, seeds=list(range(10)), scores=spread)

    low, high = (0.2, 0.5) if good else (0.5, 0.2)
    return [
        row(1, 5, "tanh RNN", **{f"{SHARE}_at_15%": high, "low_at_15%": 0.16 if good else 0.1}),
        row(1, 5, "LSTM, chrono", **{f"{SHARE}_at_15%": low, "low_at_15%": 0.16 if good else 0.1}),
        row(10, 5, "LSTM, chrono", **{f"{SHARE}_at_15%": high}),
        *(row(1, rate, "tanh RNN", **{"last_dish_at_30%": value}) for rate, value in ((0, high), (30, low))),
        row(1, 30, "LSTM, chrono", **{"last_dish_at_30%": low}),
        row(1, 0, "LSTM, chrono", **{
            "last_dish_at_30%": high, "named_early": high, "named_last": low, "named_early_at_cosine_0.9": low,
            "second_dish_at_15%": high, "last_dish_at_15%": low,
        }),
    ]  # fmt: skip


def test_the_standard_criterion_passes_and_misses():
    good, bad = (studies()["interference"].findings("standard", standard_table(good)) for good in (True, False))
    assert len(good) == 9
    assert [finding.text for finding in good if not finding.passed] == []
    assert [finding.text for finding in bad if finding.passed] == []
    assert sum(finding.p is not None for finding in good) == 7
    without = [Row(r.setting, r.arm, seeds=r.seeds) for r in standard_table(True)]
    assert not any(finding.passed for finding in studies()["interference"].findings("standard", without))
