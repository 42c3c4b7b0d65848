"""Controls and shared features, on planted rotations and planted features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polyrot.haar.battery import holm
from polyrot.haar.orthogonal import sample_haar
from polyrot.measures.fits import fit_all
from polyrot.measures.haar import controls as measured
from tests_unit.measures.haar.planted import (
    SITES,
    PlantedCohort,
    alternative,
    fits,
    haar,
)


def test_shuffled_failures_are_of_the_published_criteria() -> None:
    passing = alternative("cyclic shift", 0, 64)
    failing = np.broadcast_to(np.eye(64), passing.shape).copy()
    found = measured.shuffled_failures(fits(passing, failing))
    assert found.values.tolist() == [1.0]
    assert found.beside["fails_ks"] == found.beside["fails_frobenius"] == 1
    found = measured.shuffled_failures(fits(failing, passing))
    assert found.values.tolist() == [0.0]
    assert 0 < found.beside["haar_fails"] < 0.5


def test_shuffled_distances_are_held_against_the_published_range() -> None:
    inside = haar(2, 64)  # sqrt(128) is 11.3
    gone = np.broadcast_to(-np.eye(64), inside.shape).copy()  # 16 away from the identity
    near = alternative("half drift exp(tA)", 0, 64)
    assert np.linalg.norm(near - np.eye(64), axis=(2, 3)).max() < 9.0
    for shuffled, share in ((inside, 0.0), (gone, 1.0), (near, 1.0)):
        found = measured.shuffled_outside_range(fits(gone, shuffled))
        assert found.values.tolist() == [share]
        assert found.beside["haar_outside"] < 0.02
    mixed = np.concatenate([gone[:1], inside[1:]])
    found = measured.shuffled_outside_range(fits(inside, mixed))
    assert found.values.tolist() == [0.25]
    assert found.beside["largest"] == 16
    assert not found.ceilings


def anchors(loud: float, seed: int, d: int = 32) -> PlantedCohort:
    """Gaussian activations, 400 tokens: one direction as loud as `loud`, the others of size 1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(SITES), 3, 400, d, generator=generator, dtype=torch.float64)
    x[..., 0] *= loud
    return PlantedCohort(dict(zip(SITES, x, strict=True)))


def test_a_model_against_itself_with_noise_is_rejected() -> None:
    cohort = anchors(1.0, 30)
    found = measured.same_model_rejections(cohort, fit_all(cohort), None)
    assert found.values.tolist() == [1.0]
    assert found.beside["largest_p"] < measured.LEVEL
    assert not found.unmet
    assert not found.ceilings, "no statement of likeness"


def test_it_could_fail_where_noise_is_louder_than_most_directions() -> None:
    cohort = anchors(1e5, 31)
    found = measured.same_model_rejections(cohort, fit_all(cohort), None)
    assert found.values.tolist() == [0.0]
    assert found.beside["largest_p"] > 0.01


def test_the_noise_is_isotropic_and_a_tenth_of_the_variance() -> None:
    x = torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1.0, 2.0, 5.0]
    )
    noise = measured._noisy(x, "site") - x.double()
    torch.testing.assert_close(
        torch.cov(noise.T), torch.eye(3, dtype=torch.float64), atol=0.03, rtol=0
    )
    assert (noise - (measured._noisy(x, "other") - x.double())).norm() > 1


def test_only_identified_sites_are_looked_at_and_without_any_it_says_nothing() -> None:
    loud, even = (anchors(size, 32).activations("fit", SITES[0]) for size in (1e5, 1.0))
    cohort = PlantedCohort(dict(zip(SITES, (loud, even), strict=True)))
    for low, share in ((SITES[:1], 1.0), (SITES[1:], 0.0), ((), 0.5)):
        found = measured.same_model_rejections(cohort, fits(haar(1), low=low), None)
        assert found.values.tolist() == [share]
        assert found.beside["sites_not_identified"] == len(low)
        assert not found.unmet
    found = measured.same_model_rejections(cohort, fits(haar(1), low=SITES), None)
    assert found.unmet.startswith("no site at which R is determined")


def test_the_published_test_passes_its_alternatives_and_fails_a_gross_one(monkeypatch) -> None:
    found = measured.alternatives_that_fail(64, 2)
    assert set(found.beside) == set(measured.PUBLISHED_ALTERNATIVES)
    assert found.beside["cyclic shift"] == 0
    assert found.values[0] == pytest.approx(np.mean(list(found.beside.values())))
    monkeypatch.setattr(measured, "PUBLISHED_ALTERNATIVES", ("half drift exp(tA)",))
    assert measured.alternatives_that_fail(64, 2).values.tolist() == [1.0]


def test_permutation_figure_is_compared_with_the_signed_distance() -> None:
    near = measured.permutation_figure_gap(9.383, 64)
    assert near.values[0] < 0.05
    assert near.beside["haar_unsigned"] == pytest.approx(9.623, abs=0.05)
    assert measured.permutation_figure_gap(9.0, 64).values[0] == pytest.approx(0.383, abs=0.05)


def features(shared: bool, seed: int, d: int = 12, tokens: int = 2_000) -> PlantedCohort:
    """Models in bases of their own, with graded Gaussian features: the same, or each its own."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** -np.linspace(0, 1, d)
    drawn = {}
    for site in SITES:
        own = rng.standard_normal((3, tokens, d))
        common = rng.standard_normal((tokens, d)) + 0.05 * own if shared else own
        drawn[site] = torch.from_numpy(common * scale @ sample_haar(d, 3, rng) + 3.0)
    return PlantedCohort(drawn)


def test_shared_features_show_with_matched_tokens_only() -> None:
    found = measured.shared_features(features(True, 32), None, SITES, variance=1.0)
    assert found.values.tolist() == [1.0]
    assert found.beside["matched_rejected"] == 1
    assert found.beside["shuffled_rejected"] == 0
    assert found.beside["rank_pre_0"] == 12
    assert found.ceilings == (1.0,)


def test_unrelated_features_show_with_neither() -> None:
    found = measured.shared_features(features(False, 33), None, SITES, variance=1.0)
    assert found.values.tolist() == [0.0]
    assert found.beside["matched_rejected"] == found.beside["shuffled_rejected"] == 0
    assert found.ceilings == (1.0,), "the anchor's features are found in a copy of it"


def test_whitened_maps_are_those_of_shared_features() -> None:
    cohort = features(True, 34)
    found = measured.whitened_maps(cohort, None, SITES, variance=1.0)
    asked = measured.shared_features(cohort, None, SITES, variance=1.0)
    assert holm(found.p.values).max() == asked.beside["largest_matched_p"]
    assert measured.rejected(found.p.values).mean() == asked.beside["matched_rejected"] == 1
    assert found.rank.values.tolist() == [[12.0, 12.0]] * 2
    assert found.p.pairs == ("0-1", "0-2")


def test_untrained_siblings_are_counted_against_trained_ones() -> None:
    shared, unshared = (
        measured.whitened_maps(features(which, 35), None, SITES, variance=1.0)
        for which in (True, False)
    )
    for trained, untrained, wanted in ((shared, unshared, 1.0), (shared, shared, 0.0)):
        found = measured.rejected_beyond_untrained(trained, untrained)
        assert found.values.tolist() == [wanted]
        assert found.beside["trained_rejected"] == 1
        assert found.beside["untrained_rejected"] == 1 - wanted
        assert found.beside["rank_untrained_pre_0"] == 12
        assert not found.ceilings
    assert measured.rejected_beyond_untrained(unshared, shared).values.tolist() == [-1.0]
