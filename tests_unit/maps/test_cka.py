"""Linear CKA: against dense Gram matrices, and on planted truths and falsehoods."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from polyrot.haar import sample_haar
from polyrot.maps.checks import BadActivations
from polyrot.maps.cka import CKAAccumulator, linear_cka

seeds = st.integers(0, 2**31 - 1)
quick = settings(max_examples=30, deadline=None)


def dense_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. 2012, equation 5, with Gram matrices [tokens, tokens] and their diagonals off."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    return float(
        np.trace(k @ m)
        + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (one @ k @ m @ one)
    ) / (n * (n - 3))


def dense_cka(a: np.ndarray, b: np.ndarray) -> float:
    k, m = a @ a.T, b @ b.T
    return dense_hsic(k, m) / math.sqrt(dense_hsic(k, k) * dense_hsic(m, m))


def related(seed: int, tokens: int, d_a: int, d_b: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that share some of what varies, of graded spectra, far from the origin."""
    rng = np.random.default_rng(seed)
    core = rng.laplace(size=(tokens, 3))
    a, b = (
        core @ rng.standard_normal((3, d))
        + rng.standard_normal((tokens, d)) * np.linspace(0.1, 1, d)
        + 3 * rng.standard_normal(d)
        for d in (d_a, d_b)
    )
    return a, b


@quick
@given(
    seed=seeds,
    tokens=st.integers(30, 80),
    d_a=st.integers(1, 6),
    d_b=st.integers(1, 6),
    chunk=st.integers(1, 90),
)
def test_against_dense_gram_matrices(
    seed: int, tokens: int, d_a: int, d_b: int, chunk: int
) -> None:
    a, b = related(seed, tokens, d_a, d_b)
    assert linear_cka(a, b, chunk=chunk) == pytest.approx(dense_cka(a, b), abs=1e-9)
    x, y = a - a.mean(0), b - b.mean(0)
    plain = np.sum((x.T @ y) ** 2) / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert linear_cka(a, b, debiased=False, chunk=chunk) == pytest.approx(plain, abs=1e-9)


@quick
@given(seed=seeds, scale=st.floats(0.1, 10), offset=st.floats(-100, 100))
def test_a_rotated_scaled_and_shifted_copy_scores_one(
    seed: int, scale: float, offset: float
) -> None:
    a, b = related(seed, 60, 5, 4)
    turn = sample_haar(5, 1, np.random.default_rng(seed))[0]
    assert linear_cka(a, scale * a @ turn + offset) == pytest.approx(1, abs=1e-7)
    assert linear_cka(scale * a @ turn + offset, b) == pytest.approx(linear_cka(a, b), abs=1e-7)
    assert linear_cka(b, a) == pytest.approx(linear_cka(a, b), abs=1e-12)


def test_unrelated_and_second_moments_alone_score_zero_where_the_plain_one_does_not() -> None:
    rng = np.random.default_rng(1)
    scores, plain = [], []
    for _ in range(40):
        a = rng.standard_normal((60, 30))
        # A copy whose tokens are shuffled has the same covariance, and nothing else.
        b = rng.permutation(a)
        scores.append(linear_cka(a, b))
        plain.append(linear_cka(a, b, debiased=False))
    error = np.std(scores) / math.sqrt(len(scores))
    assert abs(np.mean(scores)) < 4 * error
    assert error < 0.02
    assert np.mean(plain) > 0.25


def test_many_tokens_in_parts_far_from_the_origin() -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal((200_000, 4)).astype(np.float32)  # dense: 160 GB for each Gram matrix
    b = a + rng.standard_normal(a.shape).astype(np.float32)
    found = linear_cka(a, b)
    # a and b - a are white: covariances I, 2 I, cross I
    assert found == pytest.approx(0.5, abs=0.01)
    assert linear_cka(a + 1000, b - 1000) == pytest.approx(found, abs=1e-4)
    gathered = CKAAccumulator()
    for x, y in zip(np.array_split(a, 7), np.array_split(b, 7), strict=True):
        gathered.update(torch.from_numpy(x), torch.from_numpy(y))
    assert gathered.value() == pytest.approx(found, abs=1e-9)


def test_bad_input_is_named() -> None:
    a, b = related(0, 20, 3, 2)
    with pytest.raises(BadActivations, match="20 tokens against 19"):
        linear_cka(a, b[:19])
    with pytest.raises(BadActivations, match="at least 4"):
        linear_cka(a[:3], b[:3])
    with pytest.raises(BadActivations, match="second: 20 tokens are too few"):
        linear_cka(a, np.ones((20, 2)))
    b[7, 1] = np.nan
    with pytest.raises(BadActivations, match="token 7, dimension 1"):
        linear_cka(a, b)
