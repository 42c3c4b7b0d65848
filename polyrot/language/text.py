"""Sequences of tokens to measure on, from a text file or from The Pile.

A text is cut into windows of `context` tokens; windows that occur twice are kept once, and are
dealt to the splits by a seed, so that no sequence is in two of them. No special token is put at
their beginning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from polyrot.cohorts.cohort import SPLITS, Split
from polyrot.language.loading import Unusable
from polyrot.runtime.seeding import torch_generator

CONTEXT = 256
TOKENS = 65_536
"""To fit maps on, and as many to score on: the paper's 256 sequences of 256."""
DICTIONARY_SHARE = 2
"""Times as many tokens are dictionaries trained on."""
DEAL_SEED = 20261124
PILE = "NeelNanda/pile-10k"
"""The first 10,000 documents of The Pile, as data alone: the hub's own copy is a script."""
INSTEAD = "or give a text of your own with --text FILE"
_CHARACTERS = 2**20


class TextTooShort(Unusable):
    """A text with too few different windows; the message has the numbers."""


class TextMissing(Unusable):
    """A text that is not there, or not text."""


def split_sizes(tokens: int = TOKENS, context: int = CONTEXT) -> dict[Split, int]:
    """Sequences of each split, for `tokens` to fit on and as many to score on."""
    if context < 2 or tokens < context:
        raise Unusable(
            f"{tokens} tokens in sequences of {context}: give a --context of 2 or more, and at "
            "least one sequence of --tokens"
        )
    n = math.ceil(tokens / context)
    return {"dictionary": DICTIONARY_SHARE * n, "fit": n, "score": n}


def split_sequences(
    pieces: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    sizes: Mapping[Split, int],
    where: str,
) -> dict[Split, Tensor]:
    """int64 [sequences, context] of each split, from the first windows of the joined `pieces`.

    No more pieces are taken than are needed. where: what the text is called in a message.
    Raises TextTooShort.
    """
    wanted = sum(sizes.values())
    found: dict[tuple[int, ...], None] = {}
    rest: list[int] = []
    for piece in pieces:
        rest += tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"]
        whole = len(rest) // context * context
        for start in range(0, whole, context):
            found.setdefault(tuple(rest[start : start + context]))
        rest = rest[whole:]
        if len(found) >= wanted:
            break
    if len(found) < wanted:
        asked = ", ".join(f"{split} {sizes[split]}" for split in SPLITS)
        raise TextTooShort(
            f"{where} gives {len(found)} different sequences of {context} tokens, of which "
            f"{wanted} are needed ({asked}): give a longer text, or lower --tokens or --context"
        )
    windows = torch.tensor(list(found)[:wanted])
    order = torch.randperm(wanted, generator=torch_generator(DEAL_SEED, "windows"))
    parts = windows[order].split([sizes[split] for split in SPLITS])
    return {split: part.clone() for split, part in zip(SPLITS, parts, strict=True)}


def sequences_from_text(
    path: Path | str,
    tokenizer: PreTrainedTokenizerBase,
    context: int = CONTEXT,
    sizes: Mapping[Split, int] | None = None,
) -> dict[Split, Tensor]:
    """The splits of a UTF-8 text file; see `split_sequences`. Raises TextMissing, TextTooShort."""
    sizes = split_sizes(context=context) if sizes is None else sizes
    try:
        return split_sequences(_pieces(Path(path)), tokenizer, context, sizes, str(path))
    except UnicodeDecodeError as error:
        raise TextMissing(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise TextMissing(f"{path} cannot be read: {error.strerror}") from error


def _pieces(path: Path) -> Iterator[str]:
    """About a million characters at a time, cut at ends of lines."""
    with path.open(encoding="utf-8") as file:
        while lines := file.readlines(_CHARACTERS):
            yield "".join(lines)


def check_there(path: Path | str) -> None:
    """Whether there is such a file, before much is done for it. Raises TextMissing."""
    if not Path(path).is_file():
        raise TextMissing(f"{path} cannot be read: it is no file")


def pile_sequences(
    tokenizer: PreTrainedTokenizerBase,
    context: int = CONTEXT,
    sizes: Mapping[Split, int] | None = None,
    name: str = PILE,
) -> dict[Split, Tensor]:
    """The splits of The Pile (Gao et al. 2020, arXiv 2101.00027), its documents joined by the
    end-of-text token where the tokenizer has one. Raises TextMissing, TextTooShort."""
    sizes = split_sizes(context=context) if sizes is None else sizes
    try:
        from datasets import load_dataset  # only here: an optional extra
    except ImportError as error:
        raise TextMissing(
            f"The Pile ({name}) is read through `datasets`, which is not installed: "
            f'`pip install -e ".[pile]"`, {INSTEAD}'
        ) from error
    try:
        documents = load_dataset(name, split="train")
    except Exception as error:  # datasets, the hub and the transport each have their own
        raise TextMissing(
            f"The Pile ({name}) is not to be had: {(str(error).splitlines() or [''])[0]}. Download "
            f"with `hf download --repo-type dataset {name}`, {INSTEAD}"
        ) from error
    end = tokenizer.eos_token or ""
    texts = (f"{document['text']}{end}" for document in documents)
    return split_sequences(texts, tokenizer, context, sizes, f"The Pile ({name})")
