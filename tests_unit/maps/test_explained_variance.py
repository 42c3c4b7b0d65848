"""Explained variance: what it must score, and what must not change it."""

from __future__ import annotations

import functools
import itertools
import math
import operator

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from polyrot.maps.checks import BadActivations
from polyrot.maps.explained_variance import EVSums, explained_variance, explained_variance_grand

seeds = st.integers(0, 2**31 - 1)
widths = st.integers(1, 8)
quick = settings(max_examples=30, deadline=None)


def rows(seed: int, tokens: int, d: int, offset: float = 3.0) -> tuple[Tensor, Tensor]:
    """x and a poor reconstruction of it, float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, d, generator=generator, dtype=torch.float64)
    x = x * torch.rand(d, generator=generator, dtype=torch.float64).add(0.2) + offset
    return x, x + 0.4 * torch.randn(tokens, d, generator=generator, dtype=torch.float64)


@quick
@given(seed=seeds, d=widths, tokens=st.integers(2, 200), offset=st.floats(-1e3, 1e3))
def test_predicting_the_mean_scores_exactly_zero(
    seed: int, d: int, tokens: int, offset: float
) -> None:
    x, _ = rows(seed, tokens, d, offset)
    assert explained_variance(x, x.mean(0).expand_as(x)) == 0.0


def test_predicting_the_mean_of_single_precision_scores_zero() -> None:
    x = rows(0, 1000, 16)[0].float()
    assert explained_variance(x, x.double().mean(0).expand_as(x)) == 0.0
    assert abs(explained_variance(x, x.mean(0).expand_as(x))) < 1e-10


@quick
@given(seed=seeds, d=widths)
def test_perfect_is_one_and_worse_than_the_mean_is_negative(seed: int, d: int) -> None:
    x, _ = rows(seed, 50, d)
    assert explained_variance(x, x) == explained_variance_grand(x, x) == 1.0
    assert explained_variance(x, 2 * x.mean(0) - x) == pytest.approx(-3.0)
    assert explained_variance(x, torch.full_like(x, 1e4)) < -1


@quick
@given(seed=seeds, d=widths, tokens=st.integers(2, 60))
def test_against_the_definition(seed: int, d: int, tokens: int) -> None:
    x, x_hat = (t.numpy() for t in rows(seed, tokens, d))
    error = np.sum((x - x_hat) ** 2)
    total = sum(np.sum((row - x.mean(axis=0)) ** 2) for row in x)
    args = torch.from_numpy(x), torch.from_numpy(x_hat)
    assert explained_variance(*args) == pytest.approx(1 - error / total)
    grand = 1 - np.mean((x - x_hat) ** 2) / np.var(x)
    assert explained_variance_grand(*args) == pytest.approx(grand)


@quick
@given(seed=seeds, d=widths)
def test_invariant_to_rotation_translation_and_scale(seed: int, d: int) -> None:
    x, x_hat = rows(seed, 40, d)
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    score = explained_variance(x, x_hat)
    assert explained_variance(x @ q, x_hat @ q) == pytest.approx(score)
    assert explained_variance(x + 9, x_hat + 9) == pytest.approx(score)
    assert explained_variance(7 * x, 7 * x_hat) == pytest.approx(score)


@quick
@given(seed=seeds, cuts=st.lists(st.integers(1, 99), max_size=6), offset=st.floats(-1e4, 1e4))
def test_does_not_depend_on_batches(seed: int, cuts: list[int], offset: float) -> None:
    x, x_hat = rows(seed, 100, 5, offset)
    edges = itertools.pairwise([0, *sorted(set(cuts)), 100])
    parts = [EVSums.of(x[start:stop], x_hat[start:stop]) for start, stop in edges]
    streamed = functools.reduce(operator.add, parts)
    assert streamed.tokens == 100
    assert streamed.score == pytest.approx(explained_variance(x, x_hat), abs=1e-9)
    assert streamed.grand_score == pytest.approx(explained_variance_grand(x, x_hat), abs=1e-9)


def test_the_grand_score_flatters_unequal_means() -> None:
    x, x_hat = rows(1, 500, 4)
    mean = x.mean(0).expand_as(x)
    assert explained_variance_grand(x, mean) == pytest.approx(0, abs=0.01)
    spread = torch.tensor([0.0, 10.0, 20.0, 30.0], dtype=torch.float64)
    assert explained_variance(x + spread, mean + spread) == pytest.approx(0, abs=1e-9)
    assert explained_variance_grand(x + spread, mean + spread) > 0.95
    assert explained_variance_grand(x, x_hat) >= explained_variance(x, x_hat)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_dtypes_are_summed_in_double(dtype: torch.dtype) -> None:
    x, x_hat = rows(2, 30_000, 4, offset=50.0)
    got = explained_variance(x.to(dtype), x_hat.to(dtype))
    assert got == explained_variance(x.to(dtype).double(), x_hat.to(dtype).double())


def test_bad_input_is_named() -> None:
    x, x_hat = rows(0, 20, 3)
    with pytest.raises(BadActivations, match="20 tokens against 19"):
        explained_variance(x, x_hat[:19])
    with pytest.raises(BadActivations, match="2 dimensions where 3"):
        explained_variance(x, x_hat[:, :2])
    with pytest.raises(BadActivations, match=r"expected \[tokens, d\]"):
        explained_variance(x[0], x_hat[0])
    with pytest.raises(BadActivations, match="does not vary"):
        explained_variance(torch.ones(5, 2), torch.zeros(5, 2))
    x_hat[3, 1] = math.nan
    with pytest.raises(BadActivations, match="token 3, dimension 1"):
        explained_variance(x, x_hat)
