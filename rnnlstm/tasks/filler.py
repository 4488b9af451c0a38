"""Filler text for keyword recall: a small grammar of kitchen sentences, or a text file of the user's own.

A filler has `words`, its vocabulary, and `fill`, which writes texts of exactly the lengths asked for.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rnnlstm.options import OptionError
from rnnlstm.random_stream import Draws
from rnnlstm.tasks.table import Table

SLOTS: dict[str, str] = {
    "PERSON": "cook baker waiter grandmother neighbour guest fisherman gardener uncle butcher farmer child",
    "PEOPLE": "guests children neighbours farmers bakers cousins",
    "ARRIVE": "arrive laugh wait listen nod whisper",
    "WAITS": "waits laughs sings hurries nods yawns listens whispers",
    "CHOPS": "chops washes peels stirs tastes warms carries weighs slices cools buys drops",
    "ADJ": "fresh old green sweet small warm cold ripe heavy thin red dry round",
    "TRAIT": "kind young tall tired quiet cheerful busy hungry clever",
    "FOOD": "onion carrot potato lemon pepper cabbage apple mushroom radish pear turnip leek plum bean",
    "THING": "pan knife table stove bowl spoon plate basket kettle window lamp door",
    "PREP": "near under behind beside above below",
    "ADV": "slowly quietly carefully often gladly again rarely neatly",
    "WHEN": "today tonight later now soon early",
}

#: Sentences that the text is made of; a word in capitals is a slot, drawn uniformly from its list.
SENTENCES = (
    "PEOPLE ARRIVE .",
    "the PERSON WAITS .",
    "the PERSON WAITS ADV .",
    "the PERSON CHOPS the FOOD .",
    "the PERSON CHOPS the ADJ FOOD .",
    "the PERSON ADV CHOPS the ADJ FOOD .",
    "the ADJ FOOD is PREP the ADJ THING .",
    "the PERSON CHOPS the FOOD PREP the ADJ THING .",
    "the TRAIT PERSON CHOPS the FOOD and the FOOD WHEN .",
)
#: What the last one or two places say, where no sentence fits any more. With these and the sentences
#: there is a way to end a text after every number of words.
CLOSINGS = ("so", "and so", *SENTENCES)


class Filler(Protocol):
    """What keyword recall needs of a filler."""

    @property
    def words(self) -> Sequence[str]: ...

    def fill(self, random: Draws, counts: Tensor, longest: int) -> Tensor:
        """Texts of exactly `counts` (B) words, as indices into `words`: int64 (longest, B), of which
        column b is valid up to counts[b]."""
        ...


class Grammar:
    """Independent sentences, each drawn uniformly from `SENTENCES`, its slots drawn uniformly.

    A text that must end inside a sentence ends with the closing of exactly the right length instead.
    """

    def __init__(self) -> None:
        fixed = sorted({word for text in CLOSINGS for word in text.split() if word not in SLOTS})
        lists = [*(slot.split() for slot in SLOTS.values()), *([word] for word in fixed)]
        self.words = [word for entry in lists for word in entry]
        slot_index = {name: k for k, name in enumerate([*SLOTS, *fixed])}
        templates = [[slot_index[word] for word in text.split()] for text in CLOSINGS]
        lengths = [len(template) for template in templates]
        self.first_sentence = len(CLOSINGS) - len(SENTENCES)
        self.shortest_sentence, self.longest_sentence = min(lengths[self.first_sentence :]), max(lengths)
        self.length = Table(lengths)
        # Row by row in one: the slots of each template, then nothing.
        self.slots = Table([slot for t in templates for slot in t + [0] * (self.longest_sentence - len(t))])
        # closing[r] is a template of length r, for every r up to the longest sentence.
        self.closing = Table([0, *(lengths.index(r) for r in self.lengths_needed())])
        sizes = np.array([len(entry) for entry in lists])
        self.slot_size = Table(sizes.astype(np.float32))  # they multiply random numbers of that precision
        self.slot_start = Table(sizes.cumsum() - sizes)

    def lengths_needed(self) -> range:
        return range(1, self.longest_sentence + 1)

    def fill(self, random: Draws, counts: Tensor, longest: int) -> Tensor:
        if longest == 0:
            return torch.zeros(0, len(counts), dtype=torch.int64, device=counts.device)
        device, most = counts.device, longest // self.shortest_sentence + 1
        length, closing = self.length.on(device), self.closing.on(device)
        template = random.integers(self.first_sentence, len(length), (most, len(counts)))
        long = length.take(template)
        start = long.cumsum(0) - long  # (most, B)
        # Which sentence each place belongs to: mark where sentences start, and count the marks.
        marks = counts.new_zeros(longest + 1, len(counts)).scatter_(0, start.clamp(max=longest), 1)
        sentence = marks[:longest].cumsum(0) - 1  # (longest, B)
        # The sentence that holds the last place gives way to a closing if it would not end there.
        last = sentence.gather(0, (counts - 1).clamp(min=0)[None])  # (1, B)
        left, ending = (counts - start.gather(0, last)).clamp(min=0), template.gather(0, last)
        template.scatter_(0, last, torch.where(length.take(ending) == left, ending, closing.take(left)))
        # Places past the end of a text are never read; the minimum keeps their lookup inside the table.
        place = torch.arange(longest, device=device)[:, None] - start.gather(0, sentence)
        width = self.longest_sentence
        slot = self.slots.on(device).take(template.gather(0, sentence) * width + place.clamp(max=width - 1))
        # 24 random bits over lists of a dozen words: the bias is below one in a million.
        draw = (random.uniform((longest, len(counts))) * self.slot_size.on(device).take(slot)).long()
        return self.slot_start.on(device).take(slot) + draw


def text_file(path: str) -> TextFile:
    """The text in a file, read once for as long as it does not change: a task at many lengths has one text.

    Raises: OptionError if it can't be read or is no text.
    """
    try:
        found = Path(path).expanduser().stat()
        stamp = (found.st_mtime_ns, found.st_size)
    except (OSError, ValueError, RuntimeError):
        stamp = (0, 0)  # reading it says what is wrong
    return _read(path, stamp)


@functools.lru_cache(maxsize=4)
def _read(path: str, stamp: tuple[int, int]) -> TextFile:
    return TextFile(path)


class TextFile:
    """Passages of a UTF-8 text file, each starting at a random word; words and marks are lower-cased."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise OptionError("filler", path, "is not a UTF-8 text file") from None
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: there is no such ~user
            reason = getattr(error, "strerror", None) or str(error)
            raise OptionError("filler", path, f"can't be read ({reason})") from None
        if "\0" in text:
            raise OptionError("filler", path, "is not a text file (it holds NUL bytes)")
        found = re.findall(r"\w+(?:['’-]\w+)*|[.,;:!?]", text.lower())
        if not found:
            raise OptionError("filler", path, "holds no words")
        self.words = sorted(set(found))
        index = {word: k for k, word in enumerate(self.words)}
        self.text = Table([index[word] for word in found])

    def require(self, longest: int) -> None:
        """Raises: OptionError if the file is shorter than a passage of `longest` words."""
        if len(self.text) < longest:
            raise OptionError("filler", self.path, f"has {len(self.text)} words, too short: {longest} are needed")

    def fill(self, random: Draws, counts: Tensor, longest: int) -> Tensor:
        start = random.integers(0, len(self.text) - longest + 1, (len(counts),))
        places = start + torch.arange(longest, device=start.device)[:, None]
        return self.text.on(start.device)[places]  # (longest, B)


GRAMMAR = Grammar()
