"""The contrasts that language models are steered by: twenty phrases a class, and what they aim at.

The paper (protocol, section 7) takes sentiment, names and the magnitude of numbers, 20 phrases a
class, and does not print them; those here are written for this project. `PYTHIA` is English,
`PYTHON` says the same three things as nearly as the language of a model allows that has only read
Python source. The phrases of a class differ from those of the other in the word at issue and in
nothing else, so that the difference of means holds little but the contrast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import torch
from torch import Tensor


class Encoder(Protocol):
    """What is asked of a tokenizer; those of `tokenizers` and of `transformers` both offer it."""

    def encode(self, text: str, /) -> Any:
        """Token ids of `text`."""
        ...


@dataclass(frozen=True)
class Contrast:
    """Two classes of phrases, and tokens that either class makes more likely.

    The direction is the mean over `positive` minus the mean over `negative`; adding it is meant to
    raise the logits of `positive_tokens` over those of `negative_tokens`. last_token_only: means
    are taken at each phrase's last token, else over all of its tokens.
    """

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    positive_tokens: tuple[str, ...]
    negative_tokens: tuple[str, ...]
    last_token_only: bool = False


@dataclass(frozen=True)
class Tokenised:
    """A `Contrast` as token ids: a sequence of them for each phrase, the targets sorted.

    Raises ValueError naming the contrast: a class without phrases or tokens, an empty phrase, a
    token that both classes claim.
    """

    name: str
    positive: tuple[tuple[int, ...], ...]
    negative: tuple[tuple[int, ...], ...]
    positive_tokens: tuple[int, ...]
    negative_tokens: tuple[int, ...]
    last_token_only: bool = False

    def __post_init__(self) -> None:
        for side in ("positive", "negative"):
            phrases = getattr(self, side)
            if not phrases or not getattr(self, f"{side}_tokens"):
                raise ValueError(
                    f"contrast {self.name}: the {side} class has {len(phrases)} phrases and "
                    f"{len(getattr(self, f'{side}_tokens'))} target tokens; it needs both"
                )
            empty = [i for i, phrase in enumerate(phrases) if not phrase]
            if empty:
                raise ValueError(f"contrast {self.name}: {side} phrase {empty[0]} has no token")
        shared = set(self.positive_tokens) & set(self.negative_tokens)
        if shared:
            raise ValueError(
                f"contrast {self.name}: both classes aim at token {min(shared)}; with this "
                "tokenizer their words begin with the same piece: choose other target tokens"
            )

    @property
    def phrases(self) -> tuple[tuple[int, ...], ...]:
        """Those of both classes, the positive first."""
        return self.positive + self.negative

    @property
    def ids(self) -> tuple[int, ...]:
        """Every token id of the contrast, sorted."""
        all_of_them = (*self.phrases, self.positive_tokens, self.negative_tokens)
        return tuple(sorted({i for ids in all_of_them for i in ids}))

    def weights(self, vocabulary: int) -> Tensor:
        """[vocabulary]: logits times these are the contrast, a difference of two means."""
        out = torch.zeros(vocabulary)
        out[list(self.positive_tokens)] = 1 / len(self.positive_tokens)
        out[list(self.negative_tokens)] = -1 / len(self.negative_tokens)
        return out

    def targets(self, tokens: Tensor) -> Tensor:
        """bool, the shape of `tokens`: whether each is a target of either class."""
        wanted = [*self.positive_tokens, *self.negative_tokens]
        return torch.isin(tokens, torch.tensor(wanted, device=tokens.device))


def ids_of(tokenizer: Encoder, text: str) -> tuple[int, ...]:
    """Token ids of a text, by a tokenizer of either library."""
    found = tokenizer.encode(text)
    return tuple(getattr(found, "ids", found))


def tokenise(contrasts: Sequence[Contrast], tokenizer: Encoder) -> dict[str, Tokenised]:
    """Name -> the contrast as ids. A target that the tokenizer splits stands for its first piece.

    Raises ValueError as `Tokenised` does.
    """

    def pieces(words: Sequence[str]) -> tuple[int, ...]:
        return tuple(sorted({i for word in words for i in ids_of(tokenizer, word)[:1]}))

    return {
        c.name: Tokenised(
            c.name,
            tuple(ids_of(tokenizer, phrase) for phrase in c.positive),
            tuple(ids_of(tokenizer, phrase) for phrase in c.negative),
            pieces(c.positive_tokens),
            pieces(c.negative_tokens),
            c.last_token_only,
        )
        for c in contrasts
    }


def known(contrasts: Mapping[str, Tokenised], name: str) -> Tokenised:
    """The contrast of that name. Raises KeyError naming those there are."""
    if name not in contrasts:
        have = ", ".join(contrasts) or "none: the cohort was made without phrases"
        raise KeyError(f"no contrast {name!r}; have {have}")
    return contrasts[name]


def difference_of_means(x: Tensor, of_phrases: Tensor, contrast: Tokenised) -> Tensor:
    """[..., width] from x [..., phrases, position, width], positive phrases first.

    of_phrases: bool [phrases, position], False at padding. A phrase counts by its mean over tokens
    (or its last token), so that a long one weighs no more than a short one.
    """
    used = of_phrases
    if contrast.last_token_only:
        used = used & ~torch.cat([used[:, 1:], torch.zeros_like(used[:, :1])], dim=1)
    share = used.to(x) / used.sum(1, keepdim=True)
    by_phrase = torch.einsum("...ptd,pt->...pd", x, share)
    n = len(contrast.positive)
    return by_phrase[..., :n, :].mean(-2) - by_phrase[..., n:, :].mean(-2)


def _filled(templates: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    """Every template with every word."""
    return tuple(template.format(word) for template, word in product(templates, words))


_REVIEWS = (
    "The film we saw last night was {}",
    "I have to say that the food was {}",
    "Everyone who read the book found it {}",
    "All in all, the service at this hotel is {}",
)
_MEETINGS = (
    "Yesterday I had lunch with {}",
    "The letter was written by {}",
    "She asked whether anyone had seen {}",
    "The last person to leave was {}",
    "We went to the station to meet {}",
    "The teacher gave the book to {}",
    "Nobody in the room knew {}",
    "The house on the corner belongs to {}",
    "They were waiting for {}",
    "The doctor wanted to speak with {}",
    "My neighbour is called {}",
    "The prize was won by {}",
    "There was a message from {}",
    "I went to school with {}",
    "The children were playing with {}",
    "The manager introduced us to {}",
    "The story is about {}",
    "Dinner was cooked by {}",
    "The dog ran back to {}",
    "In the photograph you can see {}",
)
_QUANTITIES = (
    "The number of people who live there is {}",
    "They counted them all and found {}",
    "The total came to {}",
    "By the end of the year there were {}",
)

PYTHIA = (
    Contrast(
        "sentiment",
        _filled(_REVIEWS, ("wonderful", "excellent", "delightful", "brilliant", "beautiful")),
        _filled(_REVIEWS, ("terrible", "awful", "dreadful", "horrible", "disgusting")),
        (" good", " great", " best", " better", " love", " happy", " nice", " beautiful"),
        (" bad", " terrible", " worst", " worse", " hate", " sad", " poor", " ugly"),
    ),
    Contrast(
        "names",
        _filled(_MEETINGS, ("John",)),
        _filled(_MEETINGS, ("Mary",)),
        # The names are rare in running text; that pronouns follow them is the same contrast.
        (" John", " he", " his", " him", " He"),
        (" Mary", " she", " her", " She", " Her"),
        last_token_only=True,
    ),
    Contrast(
        "magnitude",
        _filled(_QUANTITIES, ("eight million", "95,000", "three billion", "700,000", "1,200,000")),
        _filled(_QUANTITIES, ("eight", "9", "three", "7", "1")),
        (" million", " billion", " thousand", " hundred", " thousands", " millions"),
        (" one", " two", " three", " four", " five", " single"),
    ),
)
"""For models of English: what the paper steered Pythia by."""

_OUTCOMES = (
    "        return {}\n",
    "    result = {}\n",
    "        self.state = {}\n",
    "    status = {}\n",
)
_ATTRIBUTES = ("name", "value", "data", "path", "size")
_METHODS = ("get", "read", "update", "close")
_LITERALS = (
    "    size = {}\n",
    "    limit = {}\n",
    "        self.count = {}\n",
    "DEFAULT = {}\n",
)

PYTHON = (
    Contrast(
        "sentiment",
        _filled(_OUTCOMES, ("True", "success", "valid", "passed", "'ok'")),
        _filled(_OUTCOMES, ("False", "failure", "invalid", "failed", "'error'")),
        # The outcome itself, and how a function reports it.
        (" True", " return"),
        (" False", " raise", "Error"),
    ),
    Contrast(
        "names",
        tuple(f"    def {m}_{a}(self" for m, a in product(_METHODS, _ATTRIBUTES)),
        tuple(f"    def {m}_{a}(cls" for m, a in product(_METHODS, _ATTRIBUTES)),
        ("self", " self"),
        ("cls",),
        last_token_only=True,
    ),
    Contrast(
        "magnitude",
        _filled(_LITERALS, ("1000000", "65536", "500000", "99999", "86400")),
        _filled(_LITERALS, ("1", "6", "5", "9", "8")),
        # A number grows by the digits that follow its first.
        ("00", "000", "50", "64", "99"),
        (" 0", " 1", " 2"),
    ),
)
"""For models that have read nothing but Python source: the same kinds of contrast."""
