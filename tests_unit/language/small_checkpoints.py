"""Checkpoints of tiny GPT-NeoX models with a tokenizer, as a user has them on disk, and a text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast

from polyrot.language.directions import PYTHIA
from polyrot.runtime.seeding import numpy_generator
from tests_unit.language.tiny_language import tiny

CONTEXT = 16


@cache
def words() -> tuple[str, ...]:
    """Those of the paper's contrasts, so that steering has what it aims at."""
    found = {
        word
        for contrast in PYTHIA
        for text in (
            *contrast.positive,
            *contrast.negative,
            *contrast.positive_tokens,
            *contrast.negative_tokens,
        )
        for word in text.split()
    }
    return tuple(sorted(found))


@cache
def _trained(variant: str) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    chosen = words() if variant == "" else words()[::2]
    tokenizer.train_from_iterator([f" {word} {word}" for word in chosen for _ in range(3)], trainer)
    return tokenizer.to_str()


def tokenizer(variant: str = "") -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every one of `words` is one token, but for numbers with commas; any
    `variant` is another."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(variant)), eos_token="<|endoftext|>"
    )


def vocabulary() -> int:
    return len(tokenizer())


def model(seed: int, layers: int = 3, **options: object) -> GPTNeoXForCausalLM:
    """As `tiny`, with the tokenizer's vocabulary."""
    return tiny(seed, layers, **{"vocab_size": vocabulary(), **options})


def save(folder: Path, checkpoint: nn.Module, variant: str = "") -> Path:
    """As a user saves it: weights, configuration, tokenizer."""
    checkpoint.save_pretrained(folder)  # type: ignore[operator]
    tokenizer(variant).save_pretrained(folder)
    return folder


def write_text(path: Path, n_words: int, seed: int = 0) -> Path:
    """Random sentences of `words`."""
    rng = numpy_generator(seed, "small text")
    drawn = rng.choice(words(), size=n_words)
    lines = (" ".join(drawn[i : i + 12]) for i in range(0, n_words, 12))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
