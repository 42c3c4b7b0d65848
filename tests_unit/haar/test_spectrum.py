"""Eigenphases and their exact law under Haar."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from scipy.linalg import block_diag

from polyrot.haar import (
    Coset,
    NotOrthogonalError,
    angles,
    as_orthogonal,
    class_statistics,
    determinant_sign,
    eigenphases,
    expected_count,
    fold,
    mean_cosine,
    sample_angles,
    sample_haar,
)

COSETS = [(d, det) for d in (1, 2, 3, 4, 5, 8, 9) for det in (1, -1)]
dims = st.integers(1, 24)
seeds = st.integers(0, 2**32 - 1)


def _rotation(theta: float) -> np.ndarray:
    return np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])


@given(dims, seeds)
@settings(deadline=None)
def test_eigenphases_are_those_of_the_general_eigensolver(d, seed):
    r = sample_haar(d, 2, np.random.default_rng(seed))
    expected = np.sort(np.abs(np.angle(np.linalg.eigvals(r))), axis=1)
    assert np.allclose(eigenphases(r), expected, atol=1e-6)
    assert np.allclose(eigenphases(r[0]), eigenphases(r)[0])


@given(dims, seeds, st.sampled_from([1, -1]))
@settings(deadline=None)
def test_the_determinant_forces_the_ends_and_the_rest_is_in_pairs(d, seed, det):
    r = sample_haar(d, 1, np.random.default_rng(seed), det)
    coset = Coset(d, det)
    assert determinant_sign(r)[0] == det
    free = angles(r)[0]
    assert len(free) == coset.n_angles
    phases = eigenphases(r[0])
    assert (phases == 0).sum() == coset.fixed_plus
    assert (phases == np.pi).sum() == coset.fixed_minus
    assert np.array_equal(phases, fold(free, coset))
    assert mean_cosine(r)[0] == pytest.approx(np.cos(phases).mean(), abs=1e-12)
    assert np.trace(r[0]) == pytest.approx(np.cos(phases).sum(), abs=1e-10)


@given(st.floats(-12, -1), st.floats(-12, -1), seeds, st.sampled_from(["", "+", "-", "+-"]))
@settings(deadline=None)
def test_phases_near_the_ends_keep_absolute_precision(low, high, seed, ends):
    planted = np.array([10.0**low, 1.0, np.pi - 10.0**high])
    blocks = [_rotation(t) for t in planted] + [np.full((1, 1), float(s + "1")) for s in ends]
    r = block_diag(*blocks)
    v = sample_haar(len(r), 1, np.random.default_rng(seed))[0]
    found = angles(v @ r @ v.T)[0]
    assert np.allclose(found, planted, rtol=0, atol=1e-12)
    # the plain arccos of the cosines would be off by some 1e-8 here


def test_repeated_eigenvalues_of_a_permutation_are_all_found():
    cycles = [1, 1, 1, 2, 3, 4]
    r = block_diag(*(np.roll(np.eye(k), 1, axis=0) for k in cycles))
    expected = np.sort(np.concatenate([2 * np.pi * np.arange(k) / k for k in cycles]))
    expected = np.sort(np.minimum(expected, 2 * np.pi - expected))
    assert np.allclose(eigenphases(r), expected, atol=1e-14)


@pytest.mark.parametrize(("d", "det"), COSETS)
def test_expected_count_is_the_mean_over_dense_draws_and_over_the_angle_ensemble(d, det):
    coset, n = Coset(d, det), 4_000
    rng = np.random.default_rng(11)
    grid = np.linspace(0.15, 3.0, 7)
    exact = expected_count(grid, coset)
    assert expected_count(0.0, coset) == pytest.approx(0.0, abs=1e-12)
    assert expected_count(np.pi, coset) == pytest.approx(coset.n_angles, abs=1e-9)
    dense = np.array(angles(sample_haar(d, n, rng, det), validate=False)).reshape(n, -1)
    for draws in (dense, sample_angles(coset, n, rng)):
        assert draws.shape == (n, coset.n_angles)
        counts = np.array([(draws < t).sum(axis=1) for t in grid])
        error = counts.std(axis=1) / np.sqrt(n) + 2e-4
        assert np.all(np.abs(counts.mean(axis=1) - exact) < 4.5 * error)


@pytest.mark.parametrize(("d", "det"), [(8, 1), (8, -1), (9, 1), (9, -1), (31, 1), (32, -1)])
def test_the_angle_ensemble_has_the_law_of_dense_matrices(d, det):
    rng, coset, n = np.random.default_rng(12), Coset(d, det), 3_000
    dense = np.stack(angles(sample_haar(d, n, rng, det), validate=False))
    fast = sample_angles(coset, n, rng)
    for a, b in zip(class_statistics(dense, coset).T, class_statistics(fast, coset).T, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-5
    # correlations of neighbours too, not only the density
    assert stats.ks_2samp(np.diff(dense).min(axis=1), np.diff(fast).min(axis=1)).pvalue > 1e-5


@given(st.integers(2, 16), seeds)
@settings(deadline=None)
def test_class_statistics_do_not_see_the_basis(d, seed):
    rng = np.random.default_rng(seed)
    r, v = sample_haar(d, 2, rng)
    coset = Coset(d, int(determinant_sign(r[None])[0]))
    here, there = (class_statistics(np.stack(angles(m)), coset) for m in (r, v @ r @ v.T))
    assert np.allclose(here, there, atol=1e-6, equal_nan=True)


def test_class_statistics_do_see_a_rotation_from_the_left():
    rng = np.random.default_rng(13)
    r, v = sample_haar(12, 2, rng, "SO")
    here, there = (class_statistics(np.stack(angles(m)), Coset(12, 1)) for m in (r, v @ r))
    assert np.all(np.abs(here - there) > 1e-3)


@pytest.mark.parametrize("group", ["O", "SO", "O-", 1, -1])
@pytest.mark.parametrize("d", [1, 2, 3, 8])
def test_samples_are_orthogonal_and_in_their_group(d, group):
    r = sample_haar(d, 50, np.random.default_rng(14), group)
    assert np.allclose(r @ r.transpose(0, 2, 1), np.eye(d), atol=1e-12)
    dets = set(determinant_sign(r).tolist())
    assert dets == {"O": {1, -1}, "SO": {1}, "O-": {-1}, 1: {1}, -1: {-1}}[group]
    again = sample_haar(d, 50, np.random.default_rng(14), group)
    assert np.array_equal(r, again)


def test_single_precision_is_polished():
    r = sample_haar(30, 1, np.random.default_rng(15))[0]
    polished = as_orthogonal(r.astype(np.float32))[0]
    assert np.abs(polished.T @ polished - np.eye(30)).max() < 1e-13
    assert np.allclose(eigenphases(r.astype(np.float32)), eigenphases(r), atol=1e-5)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.ones((3, 4)), r"square.*\(3, 4\)"),
        (np.ones(4), "square"),
        (np.full((2, 2), np.nan), "4 of 4 entries NaN"),
        (np.eye(3) * 2, r"not orthogonal.*3.*singular values span 2 to 2"),
        (np.stack([np.eye(3), np.ones((3, 3))]), "matrix 1 of 2 is not orthogonal"),
        (np.zeros((0, 3, 3)), "at least one"),
        (np.eye(2) * 1j, "complex"),
        ([["a"]], "numbers"),
    ],
)
def test_what_is_not_orthogonal_is_named(bad, says):
    with pytest.raises(NotOrthogonalError, match=says):
        eigenphases(bad)


@pytest.mark.parametrize(
    "call",
    [
        lambda rng: sample_haar(0, 1, rng),
        lambda rng: sample_haar(3, 0, rng),
        lambda rng: sample_haar(3, 1, rng, "U"),
        lambda rng: Coset(3, 0),
    ],
)
def test_senseless_requests_are_refused(call):
    with pytest.raises(ValueError, match=r"expected|unknown group"):
        call(np.random.default_rng(0))
