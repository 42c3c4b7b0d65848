"""Contrasts of language models: matched phrases, tokens of either library, planted directions."""

from __future__ import annotations

import argparse
import inspect
import textwrap
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from polyrot.language.directions import (
    PYTHIA,
    PYTHON,
    Contrast,
    Tokenised,
    difference_of_means,
    ids_of,
    known,
    tokenise,
)

ALL = [*PYTHIA, *PYTHON]
NAMES = ("sentiment", "names", "magnitude")


def trained(texts: list[str], size: int) -> Tokenizer:
    """A byte-level BPE tokenizer."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(texts, trainer)
    return made


@pytest.fixture(scope="module")
def of_python() -> Tokenizer:
    return trained([inspect.getsource(m) for m in (argparse, inspect, textwrap, pytest)], 1024)


@pytest.fixture(scope="module")
def of_bytes() -> Tokenizer:
    return trained([], 256)


@pytest.mark.parametrize("contrast", ALL, ids=lambda c: c.name)
def test_twenty_phrases_a_class_that_differ_in_one_place(contrast: Contrast) -> None:
    assert contrast.name in NAMES
    assert contrast.last_token_only == (contrast.name == "names")
    for phrases in (contrast.positive, contrast.negative):
        assert len(set(phrases)) == len(phrases) == 20
    assert not set(contrast.positive) & set(contrast.negative)
    assert not set(contrast.positive_tokens) & set(contrast.negative_tokens)
    for one, other in zip(contrast.positive, contrast.negative, strict=True):
        before, after = _shared(one, other), _shared(one[::-1], other[::-1])
        assert before >= 4  # the template up to the word
        assert one[len(one) - after :] == other[len(other) - after :]
        if contrast.last_token_only:
            assert not after or " " not in one[before:]  # the word at issue is the last


def _shared(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def test_both_sets_are_of_the_same_kinds() -> None:
    assert tuple(c.name for c in PYTHIA) == tuple(c.name for c in PYTHON) == NAMES


def test_both_libraries_give_the_same_ids(of_python: Tokenizer) -> None:
    wrapped = PreTrainedTokenizerFast(tokenizer_object=of_python)
    assert ids_of(of_python, "def f(self):") == tuple(of_python.encode("def f(self):").ids)
    assert tokenise(PYTHON, of_python) == tokenise(PYTHON, wrapped)


def test_the_python_contrasts_survive_a_small_vocabulary(of_python: Tokenizer) -> None:
    made = tokenise(PYTHON, of_python)
    assert tuple(made) == NAMES
    for contrast, plain in zip(made.values(), PYTHON, strict=True):
        assert len(contrast.positive) == len(contrast.negative) == 20
        assert [of_python.decode(list(p)) for p in contrast.positive] == list(plain.positive)


def test_the_english_contrasts_survive_a_large_vocabulary() -> None:
    words = [w for c in PYTHIA for w in (*c.positive_tokens, *c.negative_tokens)]
    made = tokenise(PYTHIA, trained([w for w in words for _ in range(50)], 2000))
    assert {len(c.positive_tokens) for c in made.values()} == {8, 5, 6}


def test_a_split_target_is_its_first_piece_and_must_tell_the_classes_apart(
    of_bytes: Tokenizer,
) -> None:
    one = Contrast("c", ("ab",), ("cd",), ("xyz", "xa"), ("yz",))
    found = tokenise([one], of_bytes)["c"]
    assert found.positive_tokens == ids_of(of_bytes, "x")  # once, though two words begin so
    assert found.negative_tokens == ids_of(of_bytes, "y")
    assert found.positive == (ids_of(of_bytes, "ab"),)
    with pytest.raises(ValueError, match=r"contrast sentiment: both classes aim at token \d+"):
        tokenise(PYTHON, of_bytes)  # " True" and " False" both begin with a space


def test_bad_contrasts_are_named() -> None:
    good = Tokenised("c", ((1, 2),), ((3,),), (4,), (5,))
    with pytest.raises(ValueError, match="contrast c: the negative class has 0 phrases"):
        replace(good, negative=())
    with pytest.raises(ValueError, match="the positive class has 1 phrases and 0 target tokens"):
        replace(good, positive_tokens=())
    with pytest.raises(ValueError, match="contrast c: positive phrase 1 has no token"):
        replace(good, positive=((1,), ()))
    with pytest.raises(KeyError, match="no contrast 'd'; have c"):
        known({"c": good}, "d")
    with pytest.raises(KeyError, match="the cohort was made without phrases"):
        known({}, "c")


def test_the_contrast_of_logits_is_a_difference_of_means() -> None:
    made = Tokenised("c", ((1,),), ((3,),), (4, 6), (0, 2, 5))
    logits = torch.arange(8.0) ** 2
    wanted = logits[[4, 6]].mean() - logits[[0, 2, 5]].mean()
    torch.testing.assert_close(logits @ made.weights(8), wanted)
    assert abs(float(made.weights(8).sum())) < 1e-6
    assert made.targets(torch.tensor([[1, 4, 5, 7]])).tolist() == [[False, True, True, False]]
    assert made.ids == (0, 1, 2, 3, 4, 5, 6)


LENGTHS = (3, 1, 4, 2)


def _activations(noise: float, planted: Tensor, last_only: bool) -> tuple[Tensor, Tensor]:
    """Two positive phrases, two negative; the planted vector at what is read, elsewhere noise."""
    generator = torch.Generator().manual_seed(0)
    inside = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    x = 1e3 * torch.randn(4, max(LENGTHS), len(planted), generator=generator)
    for i, n in enumerate(LENGTHS):
        read = slice(n - 1, n) if last_only else slice(0, n)
        x[i, read] = noise * torch.randn(x[i, read].shape, generator=generator)
        x[i, read] += planted if i < 2 else 0
    return x, inside


@pytest.mark.parametrize("last_only", [False, True])
def test_the_planted_direction_is_found(last_only: bool) -> None:
    planted = torch.tensor([3.0, -1.0, 0.5])
    contrast = Tokenised("c", ((1,) * 3, (1,)), ((1,) * 4, (1,) * 2), (4,), (5,), last_only)
    x, inside = _activations(0.0, planted, last_only)
    torch.testing.assert_close(difference_of_means(x, inside, contrast), planted)
    both = torch.stack([x, 2 * x])
    torch.testing.assert_close(
        difference_of_means(both, inside, contrast), torch.stack([planted, 2 * planted])
    )


def test_every_phrase_counts_alike() -> None:
    contrast = Tokenised("c", ((1,) * 3, (1,)), ((1,) * 4, (1,) * 2), (4,), (5,))
    x, inside = _activations(1.0, torch.zeros(3), False)
    by_phrase = [row[:n].mean(0) for row, n in zip(x, LENGTHS, strict=True)]
    wanted = (by_phrase[0] + by_phrase[1] - by_phrase[2] - by_phrase[3]) / 2
    torch.testing.assert_close(difference_of_means(x, inside, contrast), wanted)
