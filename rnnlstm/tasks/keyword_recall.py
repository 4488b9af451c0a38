"""First keyword recall: a dish is named at the start of a long text and has to be named again at its end.

    token 0        1 … T−2                                                        T−1
    braised ribs   the cook chops the onion . the … (like spicy chicken) … so     which dish came first?
    keyword        filler, and now and then a decoy                               trigger → braised ribs

One token, the keyword, is one of K dishes, uniform. Every filler place after it is, with probability
`decoys`, a dish drawn uniformly from all K, independently of everything else, so that decoys tell nothing
about the keyword; other places hold filler words. The last token asks, and the answer at that step is
scored by cross-entropy. With `shortest` each text has a length of its own, uniform from there to `length`. Ancestor:
the long time lag tasks 2a–2c of Hochreiter & Schmidhuber 1997 (`task=long_lag`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rnnlstm.batch import Batch
from rnnlstm.options import OptionError, option
from rnnlstm.random_stream import Draws
from rnnlstm.tasks.filler import GRAMMAR, Filler, TextFile, text_file
from rnnlstm.tasks.task import OVER, Task, register_task, step_numbers

DISHES = (
    "braised ribs", "spicy chicken", "fried rice", "steamed dumplings", "hot pot", "roast duck", "beef noodles",
    "sweet and sour pork", "mapo tofu", "wonton soup", "scallion pancakes", "spring rolls", "tea eggs",
    "crispy tofu", "lamb skewers", "rice porridge", "fish stew", "chicken curry", "egg tart", "prawn toast",
    "sesame balls", "turnip cake", "clay pot rice", "lotus salad", "pickled cucumber", "pork buns",
    "walnut shrimp", "garlic aubergine", "stir-fried greens", "crab soup", "almond jelly", "mango pudding",
)  # fmt: skip


@register_task("keyword")
@dataclass(frozen=True, kw_only=True)
class KeywordRecall(Task):
    metric_name = "accuracy"
    solved_when = "accuracy ≥ 0.99"
    kind_names = ("keyword", "filler", "decoy", "trigger", "padding")

    length: int = option(100, "tokens in the whole text, T", at_least=2, at_most=1_000_000)
    shortest: int | None = option(None, "tokens in the shortest text; null: all have T", at_least=2)
    variant: str = option("standard", "protocol: standard", choices=("standard",))
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

    def generate(self, random: Draws, batch_size: int) -> Batch:
        T, B, K = self.length, batch_size, self.num_keywords
        keyword = random.integers(0, K, (B,))
        position = random.integers(0, self.keyword_window, (B,))
        # Lengths are drawn only where asked for, so that the same seed gives the same texts without.
        last = T - 1 if self.shortest is None else random.integers(self.shortest, T + 1, (B,)) - 1
        step = step_numbers(T)
        is_keyword = step == position
        is_trigger = (step == last).expand(T, B)
        is_decoy = (random.uniform((T, B)) < self.decoys) & (step > position) & (step < last)
        is_word = ~(is_keyword | is_decoy) & (step < last)

        # Decoys are put between the words of an unbroken text, so that the sentences stay whole.
        text = self.filler_text.fill(random, is_word.sum(0), max(T - 2, 0))
        tokens = random.integers(0, K, (T, B))  # what each decoy would be
        if len(text):
            words = text.gather(0, (is_word.cumsum(0) - 1).clamp(min=0, max=len(text) - 1))
            tokens = torch.where(is_word, words + K + 1, tokens)
        tokens = torch.where(is_keyword, keyword, tokens)
        tokens = torch.where(step >= last, K, tokens)  # also where the text is over

        kinds = torch.where(is_decoy, 2, 1).to(torch.int8)
        kinds = kinds.masked_fill(is_keyword, 0).masked_fill(step >= last, 4).masked_fill(is_trigger, 3)
        targets = torch.where(is_trigger, keyword, 0)
        return Batch(tokens, targets, is_trigger.clone(), kinds)

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

    def words(self, batch: Batch, b: int) -> list[str]:
        assert batch.kinds is not None
        K = self.num_keywords
        names = [*DISHES[:K], "?", *self.filler_text.words]
        pairs = zip(batch.inputs[:, b].tolist(), batch.kinds[:, b].tolist(), strict=True)
        return [OVER if kind == 4 else names[token] for token, kind in pairs]

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        return DISHES[int(outputs[:, b][batch.mask[:, b]].argmax())]

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        """Accuracy, and recency error: among samples whose latest decoy differs from the keyword, the share
        answered with that decoy (chance 1/K)."""
        assert batch.kinds is not None
        t, b = batch.mask.nonzero(as_tuple=True)  # one scored step in each sequence
        answer, target = outputs[t, b].argmax(-1), batch.targets[t, b]
        scores = {"accuracy": (answer == target).double().mean().item()}
        steps = torch.arange(1, len(batch.kinds) + 1, device=batch.kinds.device)[:, None]
        latest = (steps * (batch.kinds == 2)).amax(0)[b]  # 1 + its step, 0 without a decoy
        decoy = batch.inputs[(latest - 1).clamp(min=0), b]
        counted = (latest > 0) & (decoy != target)
        if counted.any():
            scores["recency_error"] = (answer == decoy)[counted].double().mean().item()
        return scores

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """Texts that name no other dish, and texts that do; with `shortest` also short and long texts."""
        assert batch.kinds is not None
        keyword = batch.targets.gather(0, batch.mask.int().argmax(0)[None])
        misled = ((batch.kinds == 2) & (batch.inputs != keyword)).any(0).expand_as(batch.mask)
        found = {"no_other_dish": batch.mask & ~misled, "other_dishes": batch.mask & misled}
        if self.shortest is not None:
            long = step_numbers(len(batch.mask), batch.mask.device) >= (self.shortest + self.length) / 2
            found |= {"short_texts": batch.mask & ~long, "long_texts": batch.mask & long}
        return found
