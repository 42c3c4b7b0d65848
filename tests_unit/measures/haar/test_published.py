"""Distances, pooled statistics and halves of planted rotations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from polyrot.haar.orthogonal import FloatArray, sample_haar
from polyrot.haar.published import ks_of_phases, reference_phases
from polyrot.haar.spectrum import eigenphases
from polyrot.maps.procrustes import fit_rotation
from polyrot.measured import Measured
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits, fit_all
from polyrot.measures.haar import published as measured
from polyrot.measures.haar.rotations import LEVEL
from polyrot.runtime.seeding import numpy_generator
from tests_unit.measures.haar.planted import (
    SITES,
    D,
    PlantedCohort,
    alternative,
    fits,
    haar,
)

# ---- the published figures


def test_mean_ratio_is_one_for_haar_and_zero_for_the_identity() -> None:
    found = measured.mean_ratio(fits(haar(40)))
    assert found.values[0] == pytest.approx(1, abs=0.02)
    assert found.beside["percentile_10"] < found.values[0] < found.beside["percentile_90"]
    same = np.broadcast_to(np.eye(D), haar(40).shape).copy()
    assert measured.mean_ratio(fits(same)).values.tolist() == [0.0]


@pytest.mark.parametrize("statistic", [measured.pooled_mean_cosine, measured.nearest_permutation])
def test_haar_meets_the_pooled_statistics_and_near_permutations_do_not(
    statistic: Callable[[Fits, None], Measured],
) -> None:
    found = statistic(fits(haar(41)), None)
    assert found.values[0] >= LEVEL <= found.ceilings[0]
    assert not found.unmet
    near = alternative("permutation", 42)
    near[0] = np.eye(D)  # a trace of d, which permutations rarely have
    missed = statistic(fits(near), None)
    assert missed.values[0] < LEVEL
    assert missed.ceilings == found.ceilings, "the copies' figure, not the siblings'"
    assert "shuffled tokens" in statistic(fits(haar(41), noise=SITES), None).unmet
    assert not statistic(fits(haar(41), low=SITES), None).unmet, "other sites are kept"


def hanging_together(seed: int) -> FloatArray:
    """Each pair's sites share one Haar draw, but for a slight turn of each."""
    rs = haar(seed)
    return np.broadcast_to(rs[:, :1], rs.shape).copy()


def test_sites_that_hang_together_do_not_count_as_independent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measured, "EXCHANGES", 999)  # enough for a level of 0.1
    found = [
        (measured.pooled_mean_cosine(f, None), measured.nearest_permutation(f, None))
        for f in (fits(hanging_together(seed)) for seed in range(50, 66))
    ]
    for which in range(2):
        cautious = np.mean([row[which].values[0] < 0.1 for row in found])
        naive = np.mean(
            [float(row[which].beside["p_with_sites_independent"]) < 0.1 for row in found]
        )
        assert cautious <= 0.1 + 2.4 * (0.1 * 0.9 / 16) ** 0.5
        assert naive > cautious


def test_the_errors_of_p_values_are_of_their_draws() -> None:
    found = measured.nearest_permutation(fits(haar(44)), None)
    interval, p = found.interval(0), float(found.values[0])
    assert interval is not None
    assert interval.of == "Monte Carlo"
    assert interval.high - interval.low == pytest.approx(
        2 * 1.96 * (p * (1 - p) / 9_999) ** 0.5, rel=0.1
    )
    assert measured.pooled_mean_cosine(fits(haar(44)), None).interval(0) is None, "exact"


# ---- distances


def test_the_mean_distance_has_the_interval_of_its_pairs() -> None:
    rs = haar(45)
    found = measured.mean_ratio(fits(rs))
    by_pair = np.linalg.norm(rs - np.eye(D), axis=(2, 3)).mean(1) / (2 * D) ** 0.5
    interval = found.interval(0)
    assert interval is not None
    assert interval.of == "pairs"
    assert found.n == len(rs)
    half = 3.182 * by_pair.std(ddof=1) / 2
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.02)
    assert found.ceilings[0] == pytest.approx(1, abs=0.02)
    assert "shuffled tokens at pre_0" in measured.mean_ratio(fits(rs, noise=SITES[:1])).unmet


def noisy_copies(seed: int, sequences: int = 64, length: int = 8, d: int = 6) -> PlantedCohort:
    """A sibling turned by one and the same matrix, with noise that a sequence has in common."""
    generator = torch.Generator().manual_seed(seed)

    def rows(common: float) -> torch.Tensor:
        drawn = torch.randn(sequences, length, d, generator=generator, dtype=torch.float64)
        shared = torch.randn(sequences, 1, d, generator=generator, dtype=torch.float64)
        return (drawn + common * shared).flatten(0, 1)

    turn = torch.from_numpy(sample_haar(d, 1, np.random.default_rng(1))[0])
    anchor = rows(2.0)
    cohort = PlantedCohort({"s": torch.stack([anchor, anchor @ turn + 2.0 * rows(2.0)])})
    ids = torch.arange(sequences).repeat_interleave(length)
    cohort.sequences = lambda split: ids  # type: ignore[method-assign]
    return cohort


def test_the_error_of_one_distance_is_over_sequences() -> None:
    found = []
    for seed in range(40):
        cohort = noisy_copies(seed)
        each = measured.distance_of_each(cohort, fit_all(cohort))
        interval = each.interval(0)
        assert interval is not None
        assert interval.of == "sequences"
        error = measured.distance_errors(cohort, fit_all(cohort))[0, 0]
        found.append((float(each.values[0]), float(error), interval))
    spread = np.std([value for value, *_ in found], ddof=1)
    errors = np.array([error for _, error, _ in found])
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(spread, rel=0.3)
    # tokens taken as independent would give half of that or less
    cohort = noisy_copies(0)
    del cohort.sequences
    assert measured.distance_errors(cohort, fit_all(cohort))[0, 0] < 0.75 * errors[0]


def test_a_distance_is_that_of_a_copy_where_nothing_is_wrong() -> None:
    cohort = noisy_copies(1)
    fits_of_it = fit_all(cohort)
    found = measured.distance_of_each(cohort, fits_of_it)
    each = [measured.distances(copies).values.ravel() for copies in fits_of_it.copies]
    assert found.ceilings == pytest.approx(np.median(each, axis=0))
    assert found.labels == ("0-1 s",)
    assert not found.unmet


def test_what_is_not_determined_is_not_in_the_error() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    into = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    turned = into @ torch.from_numpy(sample_haar(6, 1, np.random.default_rng(2))[0])
    cohort = PlantedCohort({"s": torch.stack([codes @ into, codes @ turned])})
    found = fit_all(cohort)
    assert found.matched["s"][0].rank == 2
    assert measured.distance_errors(cohort, found)[0, 0] < 1e-6, "only the solver differs"


# ---- the published spectrum


def test_the_published_test_has_the_ceiling_of_haar_spectra() -> None:
    (ceiling,) = measured.spectrum_as_published(fits(haar(46))).ceilings
    assert 0.5 < ceiling < 0.99, "at this width Haar matrices miss p = 0.99"
    assert measured._smallest_p_of_haar(9, 128) > 0.99
    reference = reference_phases(D, numpy_generator(NULL_DRAWS_SEED, "published reference"))
    rng = np.random.default_rng(0)
    dense = [
        ks_of_phases(eigenphases(sample_haar(D, 8, rng, "SO")), reference).smallest_p
        for _ in range(60)
    ]
    assert 0.15 < np.mean(np.array(dense) <= ceiling) < 0.85


# ---- halves


def apart(seed: int, low: bool = False) -> PlantedCohort:
    """Two siblings, the second of much noise; at the first site of rank 3 of 6 where `low`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for j, site in enumerate(SITES):
        x = torch.randn(3, 500, 6, generator=generator, dtype=torch.float64)
        x = torch.stack([x[0], x[0] + 0.1 * x[1], x[0] + 3.0 * x[2]])
        if low and not j:
            x = x[..., :3] @ torch.randn(3, 6, generator=generator, dtype=torch.float64)
        drawn[site] = x
    return PlantedCohort(drawn)


def test_halves_are_compared_at_identified_sites() -> None:
    for low in (False, True):
        found = fit_all(apart(0, low))
        value = measured.identifiable(found)
        judged = SITES[1:] if low else SITES
        assert value.labels == judged
        wanted = measured.half_gap(found.at(judged)).values
        np.testing.assert_allclose(value.values, wanted.mean(0))
        assert (wanted[1] > 3 * wanted[0]).all(), "noise shows"
        assert max(value.ceilings) < 1e-6
        interval = value.interval(0)
        assert interval is not None
        assert interval.of == "pairs"
        assert interval.low > 0
        assert (f"gap_{SITES[0]}" in value.beside) == low
        assert not value.unmet
    nowhere = fit_all(apart(1, True)).at(SITES[:1])
    assert measured.identifiable(nowhere).unmet.startswith("no site at which R is determined")


def test_a_fit_on_other_tokens_moves_the_halves() -> None:
    cohort = apart(2)
    x = cohort.activations("fit", SITES[1])
    wanted = [fit_rotation(part[1], part[0]).r for part in (x[:, :250], x[:, 250:])]
    gap = float((wanted[0] - wanted[1]).norm()) / 12**0.5
    assert measured.half_gap(fit_all(cohort)).values[0, 1] == pytest.approx(gap)
