"""Controls of section 5, on planted rotations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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
    assert found.beside["largest_p"] < 0.01
    assert not found.unmet
    assert not found.ceilings, "no statement of likeness"


def test_what_monte_carlo_error_leaves_open_makes_the_share_a_range(monkeypatch) -> None:
    cohort = anchors(1.0, 30)
    decided = measured.same_model_rejections(cohort, fit_all(cohort), None)
    assert decided.interval(0) is None
    monkeypatch.setattr(measured, "null_draws", lambda _: 700)  # p is 4 / 701 at the least
    found = measured.same_model_rejections(cohort, fit_all(cohort), None)
    assert found.values.tolist() == [1.0]
    assert found.interval(0) == (0.0, 1.0, "Monte Carlo")


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
