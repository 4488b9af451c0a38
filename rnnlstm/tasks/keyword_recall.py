"""First keyword recall: a dish is named at the start of a long text and has to be named again at its end.

    token 0        1 … T−2                                                        T−1
    braised ribs   the cook chops the onion . the … (like spicy chicken) … so     which dish came first?
    keyword        filler, and now and then a decoy                               trigger → braised ribs

One token, the keyword, is one of K dishes, uniform. Every filler place after it is, with probability
`decoys`, a dish drawn uniformly from all K, independently of everything else, so that decoys tell nothing
about the keyword; other places hold filler words. The last token asks, and the answer at that step is
scored by cross-entropy. With `shortest` each text has a length of its own, uniform from there to `length`. Ancestor:
the long time lag tasks 2a–2c of Hochreiter & Schmidhuber 1997 (`task=long_lag`).

The filler is a small grammar of kitchen sentences (`Grammar`), or a text file of the user's own (`TextFile`).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rnnlstm.config.errors import ConfigError, OptionError, did_you_mean, show
from rnnlstm.config.options import option
from rnnlstm.config.untrusted import read_regular
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import LookupTable, RandomSource
from rnnlstm.tasks.task import OVER, Task, register_task, step_numbers

DISHES = (
    "braised ribs", "spicy chicken", "fried rice", "steamed dumplings", "hot pot", "roast duck", "beef noodles",
    "sweet and sour pork", "mapo tofu", "wonton soup", "scallion pancakes", "spring rolls", "tea eggs",
    "crispy tofu", "lamb skewers", "rice porridge", "fish stew", "chicken curry", "egg tart", "prawn toast",
    "sesame balls", "turnip cake", "clay pot rice", "lotus salad", "pickled cucumber", "pork buns",
    "walnut shrimp", "garlic aubergine", "stir-fried greens", "crab soup", "almond jelly", "mango pudding",
)  # fmt: skip

#: Words of the grammar that may stand in each slot.
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
#: Templates that end a text: two for one or two words, which no sentence fits, and the sentences. There is one for
#: every number of words up to the longest sentence.
CLOSINGS = ("so", "and so", *SENTENCES)


class Filler(Protocol):
    """Filler text for keyword recall: a vocabulary, and texts of exactly the lengths asked for."""

    @property
    def words(self) -> Sequence[str]:
        """The vocabulary."""
        ...

    def fill(self, random: RandomSource, counts: Tensor, longest: int) -> Tensor:
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
        self.length = LookupTable(lengths)
        # Row by row in one: the slots of each template, then what is never read.
        slots = [slot for t in templates for slot in t + [0] * (self.longest_sentence - len(t))]
        # closing[r] is a template of length r, for every r up to the longest sentence.
        self.closing = LookupTable([0, *(lengths.index(r) for r in self.lengths_needed())])
        sizes = np.array([len(entry) for entry in lists])
        # How many words fit each slot, which multiply random numbers of that precision, and the first of them.
        self.slot_size = LookupTable(sizes.astype(np.float32)[slots])
        self.slot_start = LookupTable((sizes.cumsum() - sizes)[slots])

    def lengths_needed(self) -> range:
        return range(1, self.longest_sentence + 1)

    def fill(self, random: RandomSource, counts: Tensor, longest: int) -> Tensor:
        if longest == 0:
            return torch.zeros(0, len(counts), dtype=torch.int64, device=counts.device)
        device, most = counts.device, longest // self.shortest_sentence + 1
        length, closing = self.length.on(device), self.closing.on(device)
        template = random.integers(self.first_sentence, len(length), (most, len(counts)))
        long = length.take(template)
        start = long.cumsum(0) - long  # (most, B)
        # The sentence that holds the last place gives way to a closing if it would not end there.
        last = ((start < counts).sum(0, keepdim=True) - 1).clamp(min=0)  # (1, B)
        left, ending = (counts - start.gather(0, last)).clamp(min=0), template.gather(0, last)
        template.scatter_(0, last, torch.where(length.take(ending) == left, ending, closing.take(left)))
        # From place to place one slot on, or from the last slot of a sentence to the first of the next: sums of such
        # steps are cheaper than to look up each place's sentence. Sentences past the end of all places write to a
        # row of their own, and slots past the end of a text are never read.
        first = template * self.longest_sentence
        steps = torch.cat([first[:1], first[1:] - (first + long - 1)[:-1]])
        slot = counts.new_ones(longest + 1, len(counts)).scatter_(0, start.clamp(max=longest), steps)
        slot = slot[:longest].cumsum(0)  # (longest, B)
        # 24 random bits over lists of a dozen words: the bias is below one in a million.
        draw = random.uniform((longest, len(counts))).mul_(self.slot_size.at(slot)).long()
        return draw.add_(self.slot_start.at(slot))


def text_file(path: str) -> TextFile:
    """The text in a file; the file is read again only after it has changed, so that tasks of many lengths share it.

    Raises: OptionError if it can't be read or is no text.
    """
    try:
        status = Path(path).expanduser().stat()
        stamp = (status.st_mtime_ns, status.st_size)
    except (OSError, ValueError, RuntimeError):
        stamp = (0, 0)  # `_read` raises the error
    return _read(path, stamp)


@functools.lru_cache(maxsize=4)
def _read(path: str, stamp: tuple[int, int]) -> TextFile:
    return TextFile(path)


class TextFile:
    """Passages of a UTF-8 text file, each starting at a random word; words and marks are lower-cased."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with read_regular(Path(path).expanduser(), links=True) as file:
                text = file.read().decode()
        except UnicodeDecodeError:
            raise OptionError("filler", path, "is not a UTF-8 text file") from None
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: there is no such ~user
            reason = getattr(error, "strerror", None) or str(error)
            raise OptionError("filler", path, f"can't be read ({reason})") from None
        if "\0" in text:
            raise OptionError("filler", path, "is not a text file (it holds NUL bytes)")
        words = re.findall(r"\w+(?:['’-]\w+)*|[.,;:!?]", text.lower())
        if not words:
            raise OptionError("filler", path, "holds no words")
        self.words = sorted(set(words))
        index = {word: k for k, word in enumerate(self.words)}
        self.text = LookupTable([index[word] for word in words])

    def require(self, longest: int) -> None:
        """Raises: OptionError if the file is shorter than a passage of `longest` words."""
        if len(self.text) < longest:
            raise OptionError("filler", self.path, f"has {len(self.text)} words, too short: {longest} are needed")

    def fill(self, random: RandomSource, counts: Tensor, longest: int) -> Tensor:
        start = random.integers(0, len(self.text) - longest + 1, (len(counts),))
        places = start + torch.arange(longest, device=start.device)[:, None]
        return self.text.on(start.device)[places]  # (longest, B)


GRAMMAR = Grammar()
#: Fewer wrong answers than this say too little about what they name.
LEAST_ERRORS = 30


@register_task("keyword")
@dataclass(frozen=True, kw_only=True)
class KeywordRecall(Task):
    metric_name = "accuracy"
    solved_when = "accuracy ≥ 0.99"
    kind_names = ("keyword", "filler", "decoy", "trigger", "padding")
    takes_scored_answers = True
    drawn_together = True

    length: int = option(100, "tokens in the whole text, T", at_least=2, at_most=1_000_000)
    shortest: int | None = option(None, "tokens in the shortest text; null: all texts have T", at_least=2)
    variant: str = option("standard", "protocol: standard is the only one", choices=("standard",))
    num_keywords: int = option(8, "dishes to tell apart, K", at_least=2, at_most=len(DISHES))
    decoys: float = option(0.05, "chance that a filler place names another dish", at_least=0, at_most=1)
    keyword_window: int = option(1, "the keyword is one of this many first tokens", at_least=1)
    filler: str | None = option(None, "a text file to take the filler from; null: own grammar")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < self.keyword_window + 1:
            rule = f"must be at least {self.keyword_window + 1}: the keyword's window and the question"
            raise OptionError("length", self.length, rule)
        if self.shortest is not None and not self.keyword_window < self.shortest <= self.length:
            rule = f"must be between {self.keyword_window + 1} (window and question) and length={self.length}"
            raise OptionError("shortest", self.shortest, rule)
        if isinstance(self.filler_text, TextFile):
            self.filler_text.require(self.length - 2)

    @cached_property
    def filler_text(self) -> Filler:
        return GRAMMAR if self.filler is None else text_file(self.filler)

    @property
    def num_tokens(self) -> int:
        """The K dishes, the question, and the filler's words, in this order."""
        return self.num_keywords + 1 + len(self.filler_text.words)

    @property
    def output_size(self) -> int:
        return self.num_keywords

    @property
    def baseline(self) -> float:
        """Every dish is as likely: ln K."""
        return math.log(self.num_keywords)

    @property
    def scored_alike(self) -> bool:
        return self.shortest is None

    def generate(self, random: RandomSource, batch_size: int) -> Batch:
        T, B, K = self.length, batch_size, self.num_keywords
        keyword = random.integers(0, K, (B,))
        position = random.integers(0, self.keyword_window, (B,))
        # Lengths are drawn only where asked for, so that the same seed gives the same texts without.
        last = T - 1 if self.shortest is None else random.integers(self.shortest, T + 1, (B,)) - 1
        step = step_numbers(T)
        in_text = step < last
        is_decoy = (random.uniform((T, B)) < self.decoys) & (step > position) & in_text
        is_word = in_text & ~is_decoy & (step != position)

        # Decoys are put between the words of an unbroken text, so that the sentences stay whole.
        number = is_word.cumsum(0)  # (T, B): of words so far
        text = self.filler_text.fill(random, number[-1], max(T - 2, 0))
        tokens = random.integers(0, K, (T, B))  # what each decoy would be
        if len(text):
            words = text.gather(0, number.sub_(1).clamp_(min=0, max=len(text) - 1)).add_(K + 1)
            tokens = torch.where(is_word, words, tokens)
        tokens.scatter_(0, position[None], keyword[None])
        tokens.masked_fill_(~in_text, K)  # also where the text is over

        end = last[None] if isinstance(last, Tensor) else torch.full((1, B), last)
        kinds = is_decoy.to(torch.int8).add_(1).scatter_(0, position[None], 0)
        kinds.masked_fill_(~in_text, 4).scatter_(0, end, 3)
        targets = tokens.new_zeros(T, B).scatter_(0, end, keyword[None])
        return Batch(tokens, targets, is_word.new_zeros(T, B).scatter_(0, end, True), kinds)

    def decode(self, batch: Batch, b: int) -> str:
        K, text = self.num_keywords, ""
        assert batch.kinds is not None
        for token, kind in zip(batch.inputs[:, b].tolist(), batch.kinds[:, b].tolist(), strict=True):
            if kind == 0:
                text += f" [{DISHES[token]}]"
            elif kind == 2:
                text += f" (like {DISHES[token]})"
            elif kind == 3:
                text += " — which dish came first?"
            elif kind == 1:
                word = self.filler_text.words[token - K - 1]
                text += word if word in set(".,;:!?") else f" {word}"
        return f"{text.strip()} → {DISHES[int(batch.targets[:, b][batch.mask[:, b]])]}"

    def encode(self, text: str) -> Batch:
        """A sentence as a batch of one: words of the filler and dishes, in any case. The first dish is the keyword,
        every other one a decoy, and the question follows. Marks that the filler lacks are left out, and what `decode`
        adds: brackets, `like` before a decoy, the question with its answer.

        Raises: ConfigError for a word that the task doesn't have, or a sentence without a dish.
        """
        K = self.num_keywords
        numbers = {name: k for k, name in enumerate(DISHES[:K])}
        numbers |= {word: K + 1 + k for k, word in reversed(list(enumerate(self.filler_text.words)))}
        dishes = "|".join(re.escape(dish) for dish in sorted(DISHES[:K], key=len, reverse=True))
        plain = re.sub(r"\(like ([^)]*)\)", r"\1", text.lower()).partition("— which dish came first")[0]
        found = re.findall(rf"(?:{dishes})(?!\w)|\w+(?:['’-]\w+)*|[.,;:!?]", plain)
        words = [word for word in found if word in numbers or word not in set(".,;:!?")]
        for word in words:
            if word not in numbers:
                known = [*DISHES[:K], *self.filler_text.words]
                hint = did_you_mean(word, known)
                dishes = ", ".join(DISHES[:K])
                raise ConfigError(f"the keyword task has no word {show(word)}{hint}; its dishes: {dishes}")
        tokens = [numbers[word] for word in words]
        places = [t for t, token in enumerate(tokens) if token < K]
        if not places:
            raise ConfigError(f"the sentence names no dish; there are {', '.join(DISHES[:K])}")
        kinds = [2 if token < K else 1 for token in tokens]
        kinds[places[0]] = 0
        inputs = torch.tensor([*tokens, K])[:, None]
        mask = torch.zeros(len(inputs), 1, dtype=torch.bool)
        mask[-1] = True
        targets = torch.zeros_like(inputs)
        targets[-1] = tokens[places[0]]
        return Batch(inputs, targets, mask, torch.tensor([*kinds, 3], dtype=torch.int8)[:, None])

    def words(self, batch: Batch, b: int) -> list[str]:
        assert batch.kinds is not None
        K = self.num_keywords
        names = [*DISHES[:K], "?", *self.filler_text.words]
        pairs = zip(batch.inputs[:, b].tolist(), batch.kinds[:, b].tolist(), strict=True)
        return [OVER if kind == 4 else names[token] for token, kind in pairs]

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        return DISHES[int(outputs[:, b][batch.mask[:, b]].argmax())]

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        """Accuracy; and of the samples whose latest decoy differs from the keyword

        - recency error, the share answered with that decoy: 1/K for a network that guesses, less for one that is
          mostly right,
        - recency share of errors, the share of the wrong answers that name that decoy: 1/(K−1) if they fall on every
          other dish alike, however many there are. Left out under `LEAST_ERRORS` wrong answers.
        """
        answer, target = batch.answers(outputs).argmax(-1), batch.at_scored(batch.targets)
        scores = {"accuracy": (answer == target).double().mean().item()}
        decoy, there = self.decoy(batch)
        counted = there & (decoy != target)
        if counted.any():
            named = (answer == decoy)[counted]
            scores["recency_error"] = named.double().mean().item()
            wrong = (answer != target)[counted]
            if wrong.sum() >= LEAST_ERRORS:
                scores["recency_share_of_errors"] = named[wrong].double().mean().item()
        return scores

    def decoy(self, batch: Batch, which: str = "latest") -> tuple[Tensor, Tensor]:
        """The dish of the `latest` or `first` decoy of each scored sequence, int64 (scored,), and whether there is
        one, bool (scored,)."""
        assert batch.kinds is not None
        b = batch.scored_sequences  # each once: one step of a sequence is scored
        steps = torch.arange(1, len(batch.kinds) + 1, device=batch.kinds.device)[:, None]
        order = steps if which == "latest" else steps.flip(0)
        rank, step = (order * (batch.kinds == 2)).max(0)  # rank 0: without a decoy
        return batch.inputs[step[b], b], rank[b] > 0

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """Texts that name no other dish, and texts that do; with `shortest` also short and long texts."""
        assert batch.kinds is not None
        keyword = batch.targets.gather(0, batch.mask.int().argmax(0)[None])
        misled = ((batch.kinds == 2) & (batch.inputs != keyword)).any(0).expand_as(batch.mask)
        masks = {"no_other_dish": batch.mask & ~misled, "other_dishes": batch.mask & misled}
        if self.shortest is not None:
            long = step_numbers(len(batch.mask), batch.mask.device) >= (self.shortest + self.length) / 2
            masks |= {"short_texts": batch.mask & ~long, "long_texts": batch.mask & long}
        return masks
