"""Signs of determinants, of planted rotations and of directions that hardly vary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polyrot.haar.orthogonal import FloatArray, sample_haar
from polyrot.maps.moments import pair_moments
from polyrot.measures.fits import Fits, fit_all
from polyrot.measures.haar import determinants as measured, published
from tests_unit.measures.haar.planted import SITES, PlantedCohort, fits

TOKENS = 320


class Sequences(PlantedCohort):
    """Ten tokens are a sequence."""

    def sequences(self, split: str) -> torch.Tensor:
        return torch.arange(TOKENS) // 10


def turned(rs: FloatArray) -> PlantedCohort:
    """An anchor, and siblings of which rs [pairs, sites, d, d] lead exactly to it."""
    generator = torch.Generator().manual_seed(3)
    d, drawn = rs.shape[-1], {}
    for j, site in enumerate(SITES):
        anchor = torch.randn(TOKENS, d, generator=generator, dtype=torch.float64)
        drawn[site] = torch.stack([anchor, *(anchor @ torch.from_numpy(r).T for r in rs[:, j])])
    return Sequences(drawn)


def planted(rs: FloatArray, low: tuple[str, ...] = ()) -> tuple[PlantedCohort, Fits]:
    return turned(rs), fits(rs, low=low)


def test_special_fraction_counts_determinants() -> None:
    rng = np.random.default_rng(29)
    proper = sample_haar(8, 8, rng, 1).reshape(4, 2, 8, 8)
    found = measured.special_fraction(*planted(proper))
    assert found.values.tolist() == [1.0]
    assert found.interval(0) is None
    proper[0, 1] = sample_haar(8, 1, rng, -1)[0]
    found = measured.special_fraction(*planted(proper))
    assert found.values.tolist() == [7 / 8]
    assert found.interval(0) is None, "every sign is decided"
    assert found.beside["undecided"] == 0
    assert found.beside["det_0-1 post_0"] == -1
    assert found.beside["det_0-1 pre_0"] == 1


def test_determinants_are_judged_at_identified_sites() -> None:
    rng = np.random.default_rng(30)
    rs = sample_haar(8, 8, rng, 1).reshape(4, 2, 8, 8)
    rs[1, 0] = sample_haar(8, 1, rng, -1)[0]
    found = measured.special_fraction(*planted(rs, low=SITES[:1]))
    assert found.values.tolist() == [1.0]
    assert found.ceilings == (1.0,)
    assert found.beside["at_all_sites"] == 7 / 8
    assert found.beside["sites_not_identified"] == 1
    nowhere = measured.special_fraction(*planted(rs, low=SITES))
    assert nowhere.unmet.startswith("no site")


def by_a_hair(seed: int) -> PlantedCohort:
    """Exact copies at the first site; at the second the last direction is noise in every model,
    whose correlation is made to be of one sign in one half of the tokens, of the other in the
    other, and nearly nothing in all."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for site in SITES:
        anchor = torch.randn(TOKENS, 4, generator=generator, dtype=torch.float64)
        siblings = [anchor.clone(), anchor.clone()]
        if site == SITES[1]:
            against = torch.where(torch.arange(TOKENS) % 20 < 10, 1.0, -1.0).double()
            for sibling in siblings:
                sibling[:, 3] = 1e-3 * anchor[:, 3] * against
                uneven = sibling[:, 3] @ (anchor[:, 3] - anchor[:, 3].mean())
                sibling[:, 3] -= 0.999 * uneven * anchor[:, 3] / anchor[:, 3].square().sum()
        drawn[site] = torch.stack([anchor, *siblings])
    return Sequences(drawn)


@pytest.mark.parametrize("seed", [4, 5])
def test_a_sign_that_other_sequences_would_change_is_undecided(seed: int) -> None:
    cohort = by_a_hair(seed)
    found = measured.special_fraction(cohort, fit_all(cohort))
    interval = found.interval(0)
    assert interval is not None
    assert interval.of == "sequences"
    assert (interval.low, interval.high) == (0.5, 1.0), "the first site's are decided"
    assert found.beside["undecided"] == 2
    assert found.n == TOKENS // 10


def test_a_sign_that_no_single_block_decides_is_open_where_a_sample_would_change_it() -> None:
    """The last direction's covariance is a tenth of its standard error: of one sign however one
    block is left out, and of either in another sample."""
    generator = torch.Generator().manual_seed(6)
    drawn = {}
    block = torch.arange(TOKENS) * 16 // TOKENS
    against = torch.where(block % 2 == 0, 1.0, -1.0).double()
    for site in SITES:
        anchor = torch.randn(TOKENS, 4, generator=generator, dtype=torch.float64)
        siblings = [anchor.clone(), anchor.clone()]
        if site == SITES[1]:
            for sibling in siblings:
                sibling[:, 3] = 1e-3 * (against + 0.1) * anchor[:, 3]
        drawn[site] = torch.stack([anchor, *siblings])
    cohort = Sequences(drawn)
    found = measured.special_fraction(cohort, fit_all(cohort))
    assert found.beside["undecided"] == 2


def test_crosses_of_resampled_blocks_are_those_of_the_tokens() -> None:
    generator = torch.Generator().manual_seed(7)
    a, b = torch.randn(2, 60, 3, generator=generator, dtype=torch.float64)
    parts = [slice(0, 20), slice(20, 35), slice(35, 60)]
    blocks = [pair_moments([a[part]], b[part], where="a block")[0] for part in parts]
    weights = torch.tensor([[1, 1, 1], [2, 0, 1]])
    found = measured._weighted_cross(blocks, weights)
    for row, cross in zip(weights, found, strict=True):
        each = zip(parts, row.tolist(), strict=True)
        order = torch.cat([torch.arange(60)[part].repeat(n) for part, n in each])
        x, y = a[order] - a[order].mean(0), b[order] - b[order].mean(0)
        torch.testing.assert_close(cross, x.T @ y / len(order))


class FitAlone(Sequences):
    """Of which no other split may be looked at."""

    def activations(self, split: str, site: str) -> torch.Tensor:
        assert split == "fit", "R is not scored on what it was not fitted on"
        return super().activations(split, site)


def test_signs_and_distances_are_of_the_sequences_that_r_was_fitted_on() -> None:
    rs = sample_haar(8, 8, np.random.default_rng(31), 1).reshape(4, 2, 8, 8)
    cohort = FitAlone(turned(rs)._activations)
    assert measured.special_fraction(cohort, fits(rs)).values.tolist() == [1.0]
    assert published.distance_errors(cohort, fits(rs)).shape == (4, 2)
