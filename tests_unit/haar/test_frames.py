"""Anchors, whitened frames, split halves, permutations, and the published criteria."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from polyrot.haar import (
    ALTERNATIVES,
    calibrated_ks,
    common_rank,
    exchange_p_value,
    frobenius_distances,
    frobenius_ratio,
    haar_batteries,
    haar_battery,
    holm,
    mean_cosine_test,
    mean_permutation_test,
    nearest_permutation,
    nearest_signed_permutation,
    permutation_distances,
    polar,
    published_ks,
    relative_rotations,
    sample_haar,
    shuffled_rows,
    whitened_contrast,
    whitened_map,
)
from polyrot.maps.checks import BadActivations

DRAWS = 4_000
seeds = st.integers(0, 2**32 - 1)


def _activations(rng, tokens=3_000, d=24, shared=True):
    """Two sets [tokens, d], graded spectra, uncentred; `shared` or unrelated features."""
    scale = 10.0 ** -np.linspace(0, 1.5, d)
    x = rng.laplace(size=(tokens, d)) * scale
    y = x + 0.05 * scale * rng.standard_normal((tokens, d)) if shared else None
    if y is None:
        y = rng.laplace(size=(tokens, d)) * scale
    u, v = sample_haar(d, 2, rng)
    return x @ u + 3.0, y @ v - 5.0


def test_a_random_anchor_hides_structure_and_the_chain_shows_it():
    rng = np.random.default_rng(41)
    d, siblings = 32, 5
    anchor = sample_haar(d, 1, rng)[0]
    hidden = np.stack([ALTERNATIVES["block Haar x2"](d, rng) for _ in range(siblings)])
    to_anchor = hidden @ anchor.T
    alone = haar_batteries(to_anchor, draws=DRAWS)
    assert holm([b.p_value for b in alone]).min() > 0.01
    chain = relative_rotations(list(to_anchor))
    assert chain.shape == (siblings - 1, d, d)
    assert np.allclose(chain[0] @ to_anchor[1], to_anchor[0])
    assert all(b.rejected for b in haar_batteries(chain, draws=DRAWS))
    with pytest.raises(ValueError, match="at least two"):
        relative_rotations([np.eye(3)])


def test_polar_factor_of_noise_and_of_uncentred_shuffled_pairs_is_haar():
    rng = np.random.default_rng(42)
    d, n = 24, 150
    noise = polar(rng.standard_normal((n, d, d)))
    maps = []
    for _ in range(n):
        x, y = _activations(rng, tokens=600, d=d, shared=False)
        maps.append(whitened_map(x, y[rng.permutation(len(y))], rng, rank=d))
    for rs in (noise, np.stack(maps)):
        p = np.array([b.p_value for b in haar_batteries(rs, draws=DRAWS)])
        assert (p <= 0.05).sum() <= stats.binom.ppf(1 - 1e-5, n, 0.06)


def test_whitened_frames_show_shared_features_and_only_those():
    rng = np.random.default_rng(43)
    x, y = _activations(rng)
    result = whitened_contrast(x, y, rng, rank=20, draws=DRAWS)
    assert result.matched.rejected
    assert not result.shuffled.rejected
    assert result.rank == 20
    assert result.matched["S4"].p_value < 0.01
    unrelated = whitened_contrast(*_activations(rng, shared=False), rng, rank=20, draws=DRAWS)
    assert not unrelated.matched.rejected


def test_plain_procrustes_in_principal_frames_is_not_haar_even_on_noise():
    # why whitening is needed: the same unrelated activations, graded spectra left in
    rng = np.random.default_rng(44)
    d = 24
    scale = 10.0 ** -np.linspace(0, 1.5, d)
    x, y = (rng.standard_normal((600, d)) * scale for _ in range(2))
    assert haar_battery(polar(x.T @ y), draws=DRAWS).rejected


def test_whitened_map_does_not_depend_on_mean_scale_or_basis():
    x, y = _activations(np.random.default_rng(45))
    q = sample_haar(24, 1, np.random.default_rng(46))[0]
    here = whitened_map(x, y, np.random.default_rng(47), variance=0.9)
    there = whitened_map(
        torch.from_numpy(5 * x @ q + 100), y, np.random.default_rng(47), variance=0.9
    )
    assert here.shape == there.shape
    # principal directions have no sign of their own
    assert np.allclose(np.abs(here), np.abs(there), atol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "says"),
    [
        (np.ones((9, 2)), np.ones((8, 2)), {}, BadActivations, "9 tokens against 8"),
        (np.full((9, 2), np.nan), np.ones((9, 2)), {}, BadActivations, "NaN"),
        (np.ones(9), np.ones((9, 2)), {}, BadActivations, "tokens, d"),
        (np.ones((9, 2)), np.eye(9, 2), {}, ValueError, "constant"),
        (np.eye(9, 2), np.eye(9, 2), {"rank": 3}, ValueError, r"1\.\.2"),
        (np.eye(9, 6), np.eye(9, 6), {"rank": 5}, ValueError, "too few"),
        (np.eye(9, 2), np.eye(9, 2), {"variance": 0.0}, ValueError, "share"),
    ],
)
def test_activations_that_cannot_be_whitened_are_named(x, y, options, error, says):
    with pytest.raises(error, match=says):
        whitened_map(x, y, np.random.default_rng(0), **options)


def test_one_rank_for_many_sets():
    rng = np.random.default_rng(5)
    narrow, wide = (
        rng.standard_normal((500, 8)) * np.where(np.arange(8) < k, 1.0, 1e-3) for k in (3, 6)
    )
    assert common_rank([narrow, narrow], 0.999) == 3
    assert common_rank([narrow, wide, narrow], 0.999) == 6
    flat = wide.copy()
    flat[:, 4:] = 0.0  # no map of rank 6 from or to this one
    assert common_rank([narrow, wide, flat], 0.999) == 4
    with pytest.raises(ValueError, match="set 1: the activations are constant"):
        common_rank([narrow, np.ones((500, 8))])


def test_rows_are_shuffled_by_token_or_by_whole_sequences():
    rng = np.random.default_rng(48)
    labels = np.repeat([7, 3, 5], [4, 2, 3])
    rows = shuffled_rows(9, rng, labels, by="sequence")
    assert sorted(rows) == list(range(9))
    moved = labels[rows]
    assert len(list(itertools.groupby(moved))) == 3, "sequences stay whole"
    for label in (3, 5, 7):
        assert np.all(np.diff(rows[moved == label]) == 1), "and in order"
    assert sorted(shuffled_rows(9, rng)) == list(range(9))
    with pytest.raises(ValueError, match="needs the sequence"):
        shuffled_rows(9, rng, by="sequence")
    with pytest.raises(ValueError, match="expected shape"):
        shuffled_rows(8, rng, labels, by="sequence")


@given(st.integers(1, 5), seeds)
@settings(deadline=None, max_examples=30)
def test_nearest_permutations_are_those_of_exhaustive_search(d, seed):
    r = sample_haar(d, 1, np.random.default_rng(seed))[0]
    matrices = [np.eye(d)[list(p)] for p in itertools.permutations(range(d))]
    plain = min(np.linalg.norm(r - p) for p in matrices)
    signs = [np.diag(s) for s in itertools.product([1, -1], repeat=d)]
    signed = min(np.linalg.norm(r - s @ p) for p in matrices for s in signs)
    for found, best in ((nearest_permutation(r), plain), (nearest_signed_permutation(r), signed)):
        assert found.distance == pytest.approx(best, abs=1e-7)
        assert np.linalg.norm(r - found.matrix()) == pytest.approx(best, abs=1e-7)
    assert permutation_distances(r[None], signed=False)[0] == pytest.approx(plain, abs=1e-7)


def test_distance_of_haar_to_permutations_is_as_planned():
    r = sample_haar(64, 300, np.random.default_rng(50))
    signed, unsigned = permutation_distances(r), permutation_distances(r, signed=False)
    assert signed.mean() == pytest.approx(9.383, abs=0.008)
    assert unsigned.mean() == pytest.approx(9.623, abs=0.010)
    assert signed.std() == pytest.approx(0.035, abs=0.006)
    assert frobenius_distances(r).mean() == pytest.approx(11.3134, abs=0.02)


def test_the_published_test_accepts_what_is_not_haar_and_the_calibrated_does_not():
    rng = np.random.default_rng(51)
    d = 64
    shift = ALTERNATIVES["cyclic shift"](d, rng)
    permutations = np.stack([ALTERNATIVES["permutation"](d, rng) for _ in range(8)])
    published = published_ks(np.stack([shift, *permutations]), rng)
    assert published.n_reference == 10
    assert published.p_values[0] > 0.99
    assert published.smallest_p > 0.05
    assert published.pooled_statistic < published.statistics.max()
    too_even = calibrated_ks(shift, draws=DRAWS)
    assert too_even.p_values[0] == pytest.approx(2 / (DRAWS + 1))
    assert too_even.distances[0] < 0.0336, "below the range of Haar, not above"
    assert frobenius_ratio(shift)[0] == pytest.approx(1.0)


def test_calibrated_ks_has_its_size():
    p = calibrated_ks(sample_haar(15, 1_000, np.random.default_rng(52)), draws=DRAWS).p_values
    spread = 4.5 * np.sqrt(0.05 * 0.95 * (1 / 1_000 + 1 / DRAWS))
    assert abs(float((p <= 0.05).mean()) - 0.05) < spread


@pytest.mark.parametrize("d", [3, 8, 24])
def test_tests_of_means_keep_their_level_and_reject(d):
    rng = np.random.default_rng(53)
    trials, n, level = 60, 6, 0.1
    most = stats.binom.ppf(1 - 1e-5, trials, level)
    for test in (mean_cosine_test, mean_permutation_test):
        results = [
            test(sample_haar(d, n, rng), rng, draws=500, n_permutations=299) for _ in range(trials)
        ]
        assert sum(t.p_value <= level for t in results) <= most
        assert {t.n for t in results} == {n}
        assert {t.law for t in results} <= {"exchange", "normal"}
        near = np.stack([np.eye(d)] * n)
        assert test(near, rng, draws=500, n_permutations=299).p_value < 0.01


def test_exchange_takes_the_finite_table_into_account():
    # a table of 20 and a sample of 5: a comparison with the table's mean alone rejects too often
    rng = np.random.default_rng(54)
    draws = rng.standard_normal((200, 25))
    p = [exchange_p_value(x[:5], x[5:], rng, 199).p_value for x in draws]
    assert np.sum(np.array(p) <= 0.1) <= stats.binom.ppf(1 - 1e-5, 200, 0.1)
    assert stats.kstest(p, "uniform").pvalue > 1e-5
