"""Each protocol position by position: what its definition says of every step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from rnnlstm.tasks import make_task
from rnnlstm.tasks.digits import ORDER
from rnnlstm.tasks.embedded_reber import AUTOMATON, SYMBOLS


def test_copy_position_by_position():
    batch = make_task("copy", length=6).sample(0, 0, batch_size=50)
    tokens = batch.inputs.argmax(-1)
    assert torch.equal(batch.inputs.sum(-1), torch.ones(26, 50))
    assert ((tokens[:10] >= 1) & (tokens[:10] <= 8)).all()
    assert (tokens[10:15] == 0).all()  # T−1 blanks
    assert (tokens[15] == 9).all()
    assert (tokens[16:] == 0).all()
    assert (batch.targets[:16] == 0).all()
    assert torch.equal(batch.targets[16:], tokens[:10])
    assert batch.mask.all()


@pytest.mark.parametrize("length", [2, 3, 10, 31])
def test_adding_position_by_position(length):
    batch = make_task("adding", length=length).sample(0, 0, batch_size=50)
    values, markers = batch.inputs.unbind(-1)
    assert ((values >= 0) & (values < 1)).all()
    assert (markers[: length // 2].sum(0) == 1).all()
    assert (markers[length // 2 :].sum(0) == 1).all()
    torch.testing.assert_close(batch.targets[-1, :, 0], (values * markers).sum(0))
    assert batch.mask[-1].all()
    assert not batch.mask[:-1].any()


@pytest.mark.parametrize(("length", "window", "decoys"), [(2, 1, 0.5), (3, 1, 0.0), (40, 5, 0.3), (100, 1, 0.05)])
def test_keyword_position_by_position(length, window, decoys):
    task = make_task("keyword", length=length, keyword_window=window, decoys=decoys)
    batch = task.sample(0, 0, batch_size=200)
    keyword, filler, decoy, trigger = (batch.kinds == k for k in range(4))
    assert (keyword.sum(0) == 1).all()
    assert keyword[:window].any(0).all()
    assert (trigger == batch.mask).all()
    assert batch.mask[-1].all()
    assert not batch.mask[:-1].any()
    assert not (decoy & (keyword.cumsum(0) == 0)).any()
    assert (batch.inputs[filler] > 8).all()
    assert (batch.inputs[decoy] < 8).all()
    assert (batch.inputs[-1] == 8).all()
    assert torch.equal(batch.inputs.T[keyword.T], batch.targets[-1])
    places = ((filler | decoy) & (keyword.cumsum(0) > 0)).sum().item()
    if places:
        share = decoy.sum().item() / places
        assert abs(share - decoys) < 4 * (decoys * (1 - decoys) / places) ** 0.5 + 1e-9


def strings(name, **options):
    """Inputs of 200 sequences as lists of words without padding, their batch and task."""
    task = make_task(name, **options)
    batch = task.sample(0, 0, batch_size=200)
    return [[w for w in task.words(batch, b) if w != "·"] for b in range(200)], batch, task


def test_copy_in_numbers_is_copy_with_delimiters_in_numbers():
    numbers, one_hot = (make_task("copy", length=6, variant=v) for v in ("scalar", "delimiters"))
    a, b = (task.sample(3, 1, batch_size=20) for task in (numbers, one_hot))
    assert a.inputs.shape == (26, 20, numbers.input_size) == (26, 20, 1)
    assert torch.equal(a.inputs[..., 0].long(), b.inputs.argmax(-1))
    assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("targets", "mask", "kinds"))
    assert numbers.decode(a, 4) == one_hot.decode(b, 4)


@pytest.mark.parametrize("length", [2, 3, 12])
@pytest.mark.parametrize("name", ["adding", "multiplication"])
def test_marks_anywhere_position_by_position(name, length):
    batch = make_task(name, length=length, variant="anywhere").sample(0, 0, batch_size=4000)
    values, markers = batch.inputs.unbind(-1)
    assert ((values >= 0) & (values < 1)).all()
    assert (markers.sum(0) == 2).all()
    first, second = (markers == 1).nonzero()[:, 1].new_tensor([m.nonzero()[:, 0].tolist() for m in markers.T]).T
    x, y = (values.gather(0, place[None])[0] for place in (first, second))
    torch.testing.assert_close(batch.targets[-1, :, 0], x + y if name == "adding" else x * y)
    assert batch.mask[-1].all()
    assert not batch.mask[:-1].any()
    pairs = length * (length - 1) // 2
    counts = torch.bincount(first * length + second, minlength=length * length).view(length, length)
    assert (counts > 0).sum() == pairs  # neighbours, and two in one half, too
    expected = 4000 / pairs
    assert ((counts[counts > 0] - expected).abs() < 4.5 * expected**0.5 + 1e-9).all()


@pytest.mark.parametrize("variant", ["delimiters", "on_marker", "recall_only", "variable"])
def test_copy_variants_position_by_position(variant):
    T = 6
    sequences, batch, task = strings("copy", length=T, variant=variant)
    delays = set()
    for b, words in enumerate(sequences):
        text, symbols = "".join(words), "".join(words[:10])
        first = text.index(":")
        delay = first - 9 if variant == "variable" else T
        delays.add(delay)
        assert set(symbols) <= set("abcdefgh")
        rest = {
            "delimiters": "_" * (T - 1) + ":" * 11,
            "on_marker": "_" * T + ":" + "_" * 9,
            "recall_only": "_" * T + ":" * 10,
            "variable": "_" * (delay - 1) + ":" + "_" * 10,
        }
        assert text == symbols + rest[variant]
        recall = 10 + delay  # the first step that is asked for a symbol
        targets = batch.targets[:, b].tolist()
        assert "".join("_abcdefgh"[k] for k in targets[recall : recall + 10]) == symbols
        assert targets[:recall] == [0] * recall
        scored = [t >= recall if variant == "recall_only" else True for t in range(recall + 10)]
        assert batch.mask[:, b].tolist() == scored + [False] * (task.sequence_length - recall - 10)
    assert delays == (set(range(1, T + 1)) if variant == "variable" else {T})


@pytest.mark.parametrize("length", [11, 20, 37])
@pytest.mark.parametrize("name", ["adding", "multiplication"])
def test_marked_numbers_of_1997_position_by_position(name, length):
    task = make_task(name, length=length, variant="hochreiter")
    batch = task.sample(0, 0, batch_size=3000)
    values, markers = batch.inputs.unbind(-1)
    neutral, lowest = (0, -1) if name == "adding" else (1, 0)
    seen = set()
    for b in range(3000):
        end = int(batch.mask[:, b].nonzero())
        assert length <= end + 1 <= length + length // 10
        assert markers[0, b] == markers[end, b] == -1
        assert not batch.inputs[end + 1 :, b].any()
        marked = markers[:, b].eq(1).nonzero()[:, 0].tolist()
        inside = values[: end + 1, b]
        assert ((inside >= lowest) & (inside <= 1)).all()
        if len(marked) == 1:
            assert values[0, b] == neutral  # the other mark was on the first step
            numbers = [neutral, values[marked[0], b].item()]
        else:
            numbers = [values[t, b].item() for t in marked]
        assert marked[0] < max(10, length // 2)
        assert marked[-1] < max(10, length // 2)
        seen |= set(marked)
        wanted = 0.5 + sum(numbers) / 4 if name == "adding" else numbers[0] * numbers[1]
        assert batch.targets[end, b, 0].item() == pytest.approx(wanted, abs=1e-6)
    assert seen == set(range(1, max(10, length // 2)))
    alone = (markers == 1).sum(0) == 1
    # 1/10 by the first mark, and of the rest one in T/2−1 by the second: within 4.5 standard errors.
    chance = 0.1 + 0.9 / (length // 2 - 1)
    assert abs(alone.double().mean().item() - chance) < 4.5 * (chance * (1 - chance) / 3000) ** 0.5


@pytest.mark.parametrize("length", [10, 25, 60])
@pytest.mark.parametrize("name", ["adding", "multiplication"])
def test_marked_numbers_of_2013_position_by_position(name, length):
    batch = make_task(name, length=length, variant="pascanu").sample(0, 0, batch_size=2000)
    values, markers = batch.inputs.unbind(-1)
    lengths = set()
    for b in range(2000):
        end = int(batch.mask[:, b].nonzero())
        lengths.add(end + 1)
        first, second = markers[:, b].nonzero()[:, 0].tolist()
        tenth, half = (end + 1) // 10, (end + 1) // 10 + 4 * (end + 1) // 10
        assert first < tenth <= second < half
        x, y = values[first, b].item(), values[second, b].item()
        wanted = (x + y) / 2 if name == "adding" else x * y
        assert batch.targets[end, b, 0].item() == pytest.approx(wanted, abs=1e-6)
    assert lengths == set(range(length, length + max(length // 10, 1)))


@pytest.mark.parametrize("length", [10, 30, 100])
@pytest.mark.parametrize("variant", ["6a", "6b", "pascanu"])
def test_temporal_order_position_by_position(variant, length):
    sequences, batch, task = strings("temporal_order", length=length, variant=variant)
    own = variant == "pascanu"
    bounds = [(10, 20), (33, 43), (66, 76)] if variant == "6b" else [(10, 20), (50, 60)]
    for b, words in enumerate(sequences):
        end = len(words) - 1
        assert end + 1 == length if own else length <= end + 1 <= length + length // 10
        assert own or (words[0], words[-1]) == ("E", "B")
        marks = [t for t, word in enumerate(words) if word in "XY"]
        assert len(marks) == len(bounds)
        for t, (low, high) in zip(marks, bounds, strict=True):
            assert low * length // 100 <= t <= high * length // 100 - own
        others = [w for t, w in enumerate(words) if t not in marks][0 if own else 1 : None if own else -1]
        assert set(others) <= set("abcd")
        assert batch.mask[:, b].nonzero().tolist() == [[end]]
        order = "".join(words[t] for t in marks)
        assert task.decode(batch, b).endswith(f"→ {order}")
        assert batch.targets[end, b] == int(order.replace("X", "0").replace("Y", "1"), 2)


def test_long_lags_position_by_position():
    for variant in ("2a", "2b"):
        sequences, batch, task = strings("long_lag", length=9, variant=variant)
        assert {words[0] for words in sequences} == {"x", "y"}
        assert batch.mask.all()
        assert torch.equal(batch.targets[:-1], batch.inputs[1:])
        assert torch.equal(batch.targets[-1], batch.inputs[0])
        for words in sequences:
            if variant == "2a":
                assert words[1:] == [f"a{k}" for k in range(1, 9)]
        middle = {word for words in sequences for word in words[1:]}
        assert middle == {f"a{k}" for k in range(1, 9)}
        assert task.num_tokens == task.output_size == 10
    sequences, batch, task = strings("long_lag", length=9, variant="2c", alphabet=4)
    more = []
    for b, words in enumerate(sequences):
        assert (words[0], words[-1]) == ("b", "e")
        assert words[1] in "xy"
        assert set(words[2:-1]) <= {"a1", "a2", "a3", "a4"}
        more.append(len(words) - 3 - 9)
        assert batch.mask[:, b].nonzero().tolist() == [[len(words) - 1]]
        assert batch.targets[len(words) - 1, b] == "xy".index(words[1])
    assert min(more) >= 0
    lengths = [
        int(n) - 12 for step in range(20) for n in (task.sample(0, step, batch_size=500).kinds != 4).sum(0).tolist()
    ]
    # Geometric: mean 9 (less what is cut off), deviation √90; none at all in one of ten.
    assert abs(np.mean(lengths) - 9) < 4.5 * (90 / 10_000) ** 0.5 + 0.02
    assert abs(np.mean([n == 0 for n in lengths]) - 0.1) < 4.5 * (0.09 / 10_000) ** 0.5
    assert max(lengths) <= 60


def legal_by_hand(text):
    """What may follow each prefix of an embedded string: the grammar once more, as sets of ways to write a string."""
    ways = {0: "B1", 1: "T2P3", 2: "S2X4", 3: "T3V5", 4: "X3S6", 5: "P4V6", 6: "E7"}
    inner, state, found = text[2:], 0, ["TP", "B"]
    for symbol in inner:
        if state == 7:
            found.append("E")
            break
        options = dict(zip(ways[state][::2], ways[state][1::2], strict=True))
        state = int(options[symbol])
        found.append(text[1] if state == 7 else "".join(ways[state][::2]))
    return found


def test_embedded_reber_strings_are_strings_of_the_grammar():
    sequences, batch, task = strings("embedded_reber", length=30)
    legal = task.legal(batch)
    for b, words in enumerate(sequences):
        text = "".join(words) + "E"
        assert text[:2] in ("BT", "BP")
        assert text[-2] == text[1]
        assert batch.targets[len(words) - 1, b] == SYMBOLS.index("E")
        assert torch.equal(batch.targets[: len(words) - 1, b], batch.inputs[1 : len(words), b])
        assert batch.mask[:, b].tolist() == [t < len(words) for t in range(29)]
        shown = ["".join(s for s, may in zip(SYMBOLS, row, strict=True) if may) for row in legal[: len(words), b]]
        assert [set(s) for s in shown] == [set(s) for s in legal_by_hand(text[:-1])]
        assert task.kind_names[batch.kinds[len(words) - 2, b]] == "closing"
    assert {len(words) for words in sequences} >= set(range(8, 14)) - {9}


def test_reber_chances_add_up_and_short_strings_are_as_likely_as_drawn():
    chances = AUTOMATON.chances(9)  # of strings of nine symbols alone, all as likely: four of them
    assert chances.sum((1, 2)) == pytest.approx(np.ones(9))
    batch = make_task("embedded_reber", length=9).sample(0, 0, batch_size=2000)
    texts, counts = batch.inputs.unique(dim=1, return_counts=True)
    assert texts.shape[1] == 4
    assert (counts - 500).abs().max() < 4.5 * (2000 * 3 / 16) ** 0.5
    whole = AUTOMATON.chances(400).sum()
    assert whole == pytest.approx(12.0, abs=1e-6)  # mean length: 4 around, and 8 of the inner string
    assert whole - 1 == pytest.approx(make_task("embedded_reber", length=60).sample(0, 0, batch_size=20_000)
                                      .mask.sum(0).double().mean().item(), abs=0.12)  # fmt: skip


@pytest.mark.parametrize(("length", "symbols"), [(10, 10), (25, 4), (3, 1)])
def test_selective_copy_position_by_position(length, symbols):
    sequences, batch, task = strings("selective_copy", length=length, symbols=symbols)
    for b, words in enumerate(sequences):
        assert words[length:] == [":"] * symbols
        shown = "".join(words[:length]).replace("_", "")
        assert len(shown) == symbols
        assert task.decode(batch, b).endswith(f"→ {shown}")
        assert batch.mask[:, b].tolist() == [t >= length for t in range(length + symbols)]
    if length == 25:
        places = (batch.inputs[:length] > 0).double().mean(1)
        assert (places - symbols / length).abs().max() < 4.5 * (0.16 * 0.84 / 200) ** 0.5


def test_associative_recall_position_by_position():
    sequences, batch, task = strings("associative_recall", length=20)
    for b, words in enumerate(sequences):
        pairs = dict(zip(words[:8:2], words[1:8:2], strict=True))
        assert len(pairs) == 4
        assert set(pairs) <= set("abcdefghijklmnopqrstuvwxyz")
        assert set(pairs.values()) <= set("0123456789")
        assert words[8:19] == ["_"] * 10 + ["?"]
        assert task.decode(batch, b).endswith(f"→ {pairs[words[-1]]}")
        assert batch.mask[:, b].nonzero().tolist() == [[19]]
    sequences, batch, task = strings("associative_recall", length=20, variant="mqar")
    for b, words in enumerate(sequences):
        pairs = dict(zip(words[:8:2], words[1:8:2], strict=True))
        asked = [(t, word) for t, word in enumerate(words[8:], 8) if word != "_"]
        assert sorted(word for _, word in asked) == sorted(pairs)
        assert batch.mask[:, b].nonzero()[:, 0].tolist() == [t for t, _ in asked]
        assert [str(int(batch.targets[t, b])) for t, _ in asked] == [pairs[word] for _, word in asked]


def test_digits_are_the_images_and_held_out_ones_are_never_trained_on():
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = {
        tuple(row): label for row, label in zip((loaded.data / 16).astype("float32"), loaded.target, strict=True)
    }
    seen = {}
    for stream in ("train", "eval", "probe"):
        batches = [make_task("digits").sample(0, step, stream, 500) for step in range(20)]
        inputs = torch.cat([batch.inputs[:, :, 0].T for batch in batches]).numpy()
        labels = torch.cat([batch.targets[-1] for batch in batches]).tolist()
        assert all(images[tuple(row)] == label for row, label in zip(inputs, labels, strict=True))
        seen[stream] = {tuple(row) for row in inputs}
    assert not seen["train"] & (seen["eval"] | seen["probe"])
    assert len(seen["train"]) > 1400
    assert len(seen["eval"]) == 364
    ordered, permuted = (make_task("digits", variant=v).sample(0, 0) for v in ("in_order", "permuted"))
    assert torch.equal(ordered.inputs[ORDER], permuted.inputs)
    assert sorted(ORDER.tolist()) == list(range(64))
    longer = make_task("digits", length=80).sample(0, 0)
    assert torch.equal(longer.inputs[:64], ordered.inputs)
    assert not longer.inputs[64:].any()
    assert longer.mask.nonzero()[:, 0].unique().tolist() == [79]


def test_keyword_texts_of_their_own_length():
    task = make_task("keyword", length=20, shortest=8, decoys=0.3, keyword_window=3)
    batch = task.sample(0, 0, batch_size=1000)
    ends = batch.mask.int().argmax(0)
    assert batch.mask.sum(0).eq(1).all()
    counts = torch.bincount(ends, minlength=20)[7:]
    assert (counts - 1000 / 13).abs().max() < 4.5 * (1000 / 13) ** 0.5
    step = torch.arange(20)[:, None]
    assert torch.equal(batch.kinds == 4, step > ends)
    assert torch.equal(batch.kinds == 3, step == ends)
    assert (batch.inputs[step >= ends] == 8).all()
    assert (batch.inputs[batch.kinds == 1] > 8).all()
    keyword = batch.inputs.T[(batch.kinds == 0).T]
    assert torch.equal(batch.targets[ends, torch.arange(1000)], keyword)
    for b in range(50):
        assert task.decode(batch, b).count("which dish came first?") == 1


@pytest.mark.parametrize(("variant", "letters"), [("anbn", "ab"), ("anbncn", "abc")])
def test_counting_scores_what_the_language_determines(variant, letters):
    """By brute force: the symbols that follow each prefix in the language, with larger n than are drawn."""
    N = 7
    language = ["#" + "".join(letter * n for letter in letters) + "#" for n in range(1, 3 * N)]
    sequences, batch, task = strings("counting", length=N, variant=variant)
    assert {len(words) for words in sequences} == {len(letters) * n + 1 for n in range(1, N + 1)}
    for b, words in enumerate(sequences):
        text = "".join(words)
        assert text + "#" in language
        for t in range(len(text)):
            follows = {string[t + 1] for string in language if string[: t + 1] == text[: t + 1]}
            assert batch.mask[t, b] == (len(follows) == 1)
            assert "#abc"[batch.targets[t, b]] == (text + "#")[t + 1]
            assert task.kind_names[batch.kinds[t, b]] == ("start" if t == 0 else text[t])
        assert not batch.mask[len(text) :, b].any()
        n = text.count("a")
        assert task.decode(batch, b) == f"{text} → a{text[n + 2 :]}#"  # what follows `#`, and the first b and later


def test_counting_makes_the_strings_that_are_asked_for():
    task = make_task("counting", length=6, variant="anbncn")
    batch = task.strings(torch.tensor([6, 1, 2]))
    assert [task.decode(batch, b).partition(" ")[0] for b in range(3)] == [
        "#" + "a" * 6 + "b" * 6 + "c" * 6,
        "#abc",
        "#aabbcc",
    ]
    shares = torch.bincount(
        (make_task("counting", length=5).sample(0, 0, batch_size=5000).inputs == 1).sum(0), minlength=6
    )
    assert shares[0] == 0
    assert ((shares[1:] - 1000).abs() < 4.5 * (5000 * 4 / 25) ** 0.5).all()


@pytest.mark.parametrize(
    ("variant", "things", "elements"),
    [("parity", 2, "all"), ("s3", 3, "all"), ("s3", 3, "swaps"), ("s5", 5, "all"), ("s5", 5, "swaps")],
)
@pytest.mark.parametrize("length", [2, 3, 8, 19])
def test_state_tracking_names_the_composition_of_all_permutations_so_far(variant, things, length, elements):
    """Things are moved one by one, as in the names of the steps."""
    task = make_task("state_tracking", length=length, variant=variant, elements=elements)
    batch = task.sample(0, 0, batch_size=40)
    names = [dict(enumerate(p)) for p in itertools.permutations(range(things))]
    assert task.output_size == len(names)
    assert batch.mask.all()
    swaps = [{**names[0], k: k + 1, k + 1: k} for k in range(things - 1)]
    for b in range(40):
        where = names[0]
        for t, word in enumerate(task.words(batch, b)):
            moved = names[int(word)] if variant == "parity" else {k: int(d) - 1 for k, d in enumerate(word)}
            if elements == "swaps":
                assert moved in [names[0], *swaps]
            where = {thing: moved[place] for thing, place in where.items()}
            assert names[batch.targets[t, b]] == where
            crossed = sum(moved[i] > moved[j] for i, j in itertools.combinations(range(things), 2))
            assert task.kind_names[batch.kinds[t, b]] == ("odd" if crossed % 2 else "even")
    assert task.num_tokens == (len(names) if elements == "all" else things)


def test_the_groups_have_what_a_group_has():
    """One identity, an inverse for each, associativity; the product depends on the order in S3 and S5, not in S2.
    Parity is the sum of bits."""
    for variant, commutes in (("parity", True), ("s3", False), ("s5", False)):
        group = make_task("state_tracking", variant=variant).group
        n = group.size
        after = group.after.on(torch.device("cpu")).view(n, n)
        every = torch.arange(n)
        assert torch.equal(after[0], every)
        assert torch.equal(after[:, 0], every)
        for table in (after, after.T):
            assert torch.equal(table.sort(1).values, every.expand(n, n))
        a, b, c = np.random.default_rng(0).integers(0, n, (3, 500))
        assert torch.equal(after[after[a, b], c], after[a, after[b, c]])
        odd = group.odd.on(torch.device("cpu"))
        assert torch.equal(odd[after], (odd[:, None] + odd) % 2)
        assert torch.equal(after, after.T) == commutes
        reached = {0}  # the swaps generate all
        for _ in range(12):
            reached |= {int(after[s, e]) for s in group.swaps.on(torch.device("cpu")) for e in reached}
        assert len(reached) == n
    bits = make_task("state_tracking", length=50).sample(0, 0, batch_size=20)
    assert torch.equal(bits.targets, bits.inputs.cumsum(0) % 2)
