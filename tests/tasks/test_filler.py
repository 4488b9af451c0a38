"""Filler text: whole sentences of exactly the length asked for, evenly drawn; and text files of one's own."""

from __future__ import annotations

import math
import re

import pytest
import torch

from rnnlstm.config.errors import OptionError
from rnnlstm.tasks import make_task
from rnnlstm.tasks.keyword_recall import CLOSINGS, SENTENCES, SLOTS, Grammar, TextFile
from rnnlstm.tasks.random_streams import RandomStream

GRAMMAR = Grammar()


def pattern(template):
    """A regular expression for what a template can say."""
    return " ".join(
        f"(?:{'|'.join(SLOTS[word].split())})" if word in SLOTS else re.escape(word) for word in template.split()
    )


SENTENCE = "|".join(map(pattern, SENTENCES))
LAST = "|".join(pattern(text) for text in CLOSINGS if text not in SENTENCES)
TEXT = re.compile(rf"(?:(?:{SENTENCE}) )*(?:{SENTENCE}|{LAST})")


def said(filler, column):
    return " ".join(filler.words[k] for k in column.tolist())


def is_whole(text):
    return TEXT.fullmatch(text) is not None


def test_the_parser_knows_whole_texts_from_cut_ones():
    assert is_whole("guests laugh . the cook waits . and so")
    assert is_whole("so")
    assert is_whole("the tall cook peels the onion and the leek now .")
    for cut in ("", "guests laugh", "laugh .", "so guests laugh .", "the cook waits . the", "the onion waits ."):
        assert not is_whole(cut)


def test_every_length_from_0_to_60_is_a_text_of_whole_sentences():
    counts = torch.arange(61).repeat_interleave(20)
    texts = GRAMMAR.fill(RandomStream(0), counts, 60)
    assert (texts.dtype, texts.shape) == (torch.int64, (60, 61 * 20))
    assert 0 <= texts.min() <= texts.max() < len(GRAMMAR.words)
    for b, count in enumerate(counts.tolist()):
        text = said(GRAMMAR, texts[:count, b])
        assert len(text.split()) == count
        assert is_whole(text) or count == 0, text


@pytest.mark.parametrize("longest", [*range(61), 500])
def test_texts_of_the_longest_length_are_whole(longest):
    counts = torch.full((20,), longest)
    texts = GRAMMAR.fill(RandomStream(1), counts, longest)
    assert texts.shape == (longest, 20)
    assert all(is_whole(said(GRAMMAR, text)) for text in texts.T) or longest == 0


@pytest.mark.parametrize("length", [2, 3, 4, 5, 13, 60])
@pytest.mark.parametrize(("window", "decoys"), [(1, 0.0), (1, 0.05), (1, 0.6), (1, 1.0), (2, 0.3), (8, 0.3)])
def test_keyword_recall_puts_keyword_and_decoys_between_the_words_of_a_whole_text(length, window, decoys):
    task = make_task("keyword", length=length, decoys=decoys, keyword_window=min(window, length - 1))
    batch = task.sample(0, 0, batch_size=60)
    for tokens, kinds in zip(batch.inputs.T, batch.kinds.T, strict=True):
        text = said(task.filler_text, tokens[kinds == 1] - 9)
        assert is_whole(text) or not text, text


def test_words_are_lower_case_and_those_of_the_lists():
    lists = {word for words in SLOTS.values() for word in words.split()}
    fixed = {word for text in CLOSINGS for word in text.split() if word not in SLOTS}
    assert set(GRAMMAR.words) == lists | fixed
    assert fixed == {"the", "and", "is", "so", "."}
    assert all(re.fullmatch(r"[a-z]+|\.", word) for word in GRAMMAR.words)
    for words in SLOTS.values():
        assert len(set(words.split())) == len(words.split()) > 1


def even(counts):
    """χ² of counts against equal shares, in standard errors from its mean."""
    counts = torch.tensor(counts).double()
    freedom, expected = len(counts) - 1, counts.mean()
    return (((counts - expected).square() / expected).sum().item() - freedom) / math.sqrt(2 * freedom)


def test_sentences_and_the_words_of_a_slot_are_equally_frequent():
    # Texts long enough that a first sentence is never a closing.
    texts = GRAMMAR.fill(RandomStream(2), torch.full((20_000,), 12), 12)
    used = dict.fromkeys(range(len(SENTENCES)), 0)
    slots = {name: dict.fromkeys(words.split(), 0) for name, words in SLOTS.items()}
    templates = {re.compile(pattern(text)): k for k, text in enumerate(SENTENCES)}
    for text in texts.T:
        sentence = said(GRAMMAR, text).split(" .")[0] + " ."
        (number,) = [k for template, k in templates.items() if template.fullmatch(sentence)]
        used[number] += 1
        for slot, word in zip(SENTENCES[number].split(), sentence.split(), strict=True):
            if slot in SLOTS:
                slots[slot][word] += 1
    # Within 4 standard errors, above and below: draws that are too even are no draws either.
    assert abs(even(list(used.values()))) < 4
    for name, words in slots.items():
        assert min(words.values()) > 100
        assert abs(even(list(words.values()))) < 4, name


def test_texts_are_a_function_of_the_stream():
    counts = torch.arange(31)
    a, b, c = (GRAMMAR.fill(RandomStream(seed), counts, 30) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


# -- a text file of one's own


@pytest.fixture
def write(tmp_path):
    """`write("text")` or bytes: the path of a file that holds it."""

    def start(content):
        path = tmp_path / "filler.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return start


def test_a_text_file_gives_its_own_words_and_marks_in_lower_case(write):
    path = write("The Émigré's\nmother-in-law  cooks; “Why?” (she SAID, twice).\n")
    filler = TextFile(path)
    expected = "the émigré's mother-in-law cooks ; why ? she said , twice ."
    assert said(filler, filler.text.on(torch.device("cpu"))) == expected
    assert filler.words == sorted(set(expected.split()))
    task = make_task("keyword", length=14, decoys=0, filler=path)
    assert task.num_tokens == 8 + 1 + len(filler.words)
    batch = task.sample(0, 0)
    assert expected.replace(" ;", ";").replace(" ?", "?").replace(" ,", ",").replace(" .", ".") in task.decode(
        batch, 0
    )


def test_passages_are_consecutive_and_start_anywhere(write):
    words = [f"w{k:02d}" for k in range(30)]
    filler = TextFile(write(" ".join(words)))
    texts = filler.fill(RandomStream(0), torch.full((4000,), 11), 11)
    assert texts.shape == (11, 4000)
    starts = [0] * 20
    for text in texts.T:
        passage = said(filler, text).split()
        starts[words.index(passage[0])] += 1
        assert passage == words[words.index(passage[0]) :][:11]
    assert abs(even(starts)) < 4


@pytest.mark.parametrize(("content", "message"), [
    ("one two three four", "has 4 words, too short: 5 are needed"),
    ("", "holds no words"),
    (" \n — …", "holds no words"),
    (b"caf\xe9 \xff\xfe", "is not a UTF-8 text file"),
    (b"one\0two", "is not a text file"),
])  # fmt: skip
def test_a_file_that_will_not_do_is_refused_by_name(write, content, message):
    path = write(content)
    with pytest.raises(OptionError, match=message) as caught:
        make_task("keyword", length=7, filler=path)
    assert (caught.value.key, caught.value.value) == ("filler", path)
    assert str(caught.value).startswith("filler=")
    assert "\n" not in str(caught.value)


def test_a_file_of_just_enough_words_will_do(write):
    task = make_task("keyword", length=6, decoys=0, filler=write("one two three four"))
    assert "one two three four" in task.decode(task.sample(0, 0), 0)
    with pytest.raises(OptionError, match="too short: 5 are needed"):
        task.vary(length=7)


@pytest.mark.parametrize("path", ["missing.txt", ".", "a\0b", ""])
def test_a_path_that_cannot_be_read_is_refused_by_name(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="can't be read") as caught:
        make_task("keyword", filler=path)
    assert caught.value.key == "filler"


def test_a_decoded_text_can_be_typed_back():
    task = make_task("keyword", length=30, decoys=0.3)
    batch = task.sample(0, 1)
    for b in range(8):
        again = task.encode(task.decode(batch, b))
        kept = batch.kinds[:, b] < 4
        assert again.inputs[:, 0].tolist() == batch.inputs[kept, b].tolist()
        assert again.kinds[:, 0].tolist() == batch.kinds[kept, b].tolist()
        assert again.targets[-1, 0] == batch.targets[:, b][batch.mask[:, b]]
