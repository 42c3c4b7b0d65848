"""A rotation and one scalar: what the length of the residual stream, which a pre-norm network
leaves free, takes from a rotation alone.

The scalar is fitted with R on the fit split (`polyrot.maps.procrustes.scaled_from_moments`), and
everything is scored on the score split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries.sae import Dictionary
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.procrustes import Affine, fit_from_moments, pair_moments, scaled_from_moments
from polyrot.measured import Measured, PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits, seeds_used
from polyrot.measures.transfer import COPIES, ExactCopies
from polyrot.runtime.seeding import derive, torch_generator


@dataclass(frozen=True)
class Scaled:
    """By pair and site. rotated_ev: of the anchor's dictionary on the sibling, rotated and scaled.
    pointwise_ev: no dictionary, the anchor's activations predicted from the sibling's. Both have
    ceilings, what exact copies of the anchor give. variances: the sibling's total variance over the
    anchor's."""

    rotated_ev: PairSite
    pointwise_ev: PairSite
    variances: PairSite

    def __post_init__(self) -> None:
        """Say what kind of number they are, which kept tables do not."""
        for each, unit in zip(fields(self), ("ev", "ev", "positive"), strict=True):
            object.__setattr__(self, each.name, replace(getattr(self, each.name), unit=unit))

    def recovered(self, sites: Sequence[str]) -> PairSite:
        """Rotated EV, the range of the ratio of variances beside."""
        return self.rotated_ev.at(sites).also(**self._range(sites))

    def gained_by_affine(self, affine_ev: PairSite, sites: Sequence[str]) -> Measured:
        """How much more an unconstrained affine map predicts of the anchor, by site, mean over
        pairs; the ratio of total variances beside. affine_ev: the table of `Transfer`."""
        gain = affine_ev.at(sites) - self.pointwise_ev.at(sites)
        return gain.also(**self._range(sites)).mean_over_pairs()

    def _range(self, sites: Sequence[str]) -> dict[str, float]:
        found = self.variances.at(sites).values
        return {
            "lowest_ratio_of_variances": float(found.min()),
            "highest_ratio_of_variances": float(found.max()),
        }


def measure_scaled(
    cohort: Cohort,
    fits: Fits,
    saes: Mapping[str, Dictionary],
    seed: int = NULL_DRAWS_SEED,
    *,
    copies: int = COPIES,
) -> Scaled:
    """Through a rotation and one scalar, at the sites of `saes`. seed: draws the exact copies."""
    sites = tuple(saes)
    perfect = ExactCopies(cohort, sites, copies, derive(seed, "exact copies"))
    # The fit split is left before the score split is begun: a large cohort holds one at a time.
    exact = {site: _scaled_copies(perfect, cohort, site, seed) for site in sites}
    shape = len(fits.pairs), len(sites)
    rotated, pointwise, variances = (np.zeros(shape) for _ in range(3))
    best = np.zeros((2, len(sites)))
    for j, site in enumerate(sites):
        x, sae = cohort.activations("score", site), saes[site]
        anchor = x[0]
        rotated[:, j], pointwise[:, j] = _scores(fits.scaled[site], x[1:], anchor, sae)
        variances[:, j] = [_total_variance(a) / _total_variance(anchor) for a in x[1:]]
        turned = perfect.beside(anchor, site)[1:]
        best[:, j] = np.mean(_scores(exact[site], turned, anchor, sae), axis=1)
    sequence = cohort.sequences("score")
    counts = {"tokens": len(sequence), "sequences": int(sequence.max()) + 1}

    def table(values: np.ndarray, ceiling: np.ndarray | None = None) -> PairSite:
        seeds = seeds_used(cohort, seed)
        return PairSite(values, fits.pairs, sites, seeds=seeds, counts=counts, ceiling=ceiling)

    return Scaled(table(rotated, best[0]), table(pointwise, best[1]), table(variances))


def _scaled_copies(perfect: ExactCopies, cohort: Cohort, site: str, seed: int) -> list[Affine]:
    """Fitted on the fit split as siblings' are: of each copy its rotation and scalar."""
    anchor = cohort.activations("fit", site)[0]
    moments = pair_moments(list(perfect.beside(anchor, site)[1:]), anchor, where=perfect.scale)
    null = [
        torch_generator(seed, "null space, scaled copies", site, i) for i in range(len(moments))
    ]
    rotations = fit_from_moments(moments, generators=null)
    return [scaled_from_moments(r, m) for r, m in zip(rotations, moments, strict=True)]


def _scores(
    maps: Sequence[Affine], siblings: Tensor, anchor: Tensor, sae: Dictionary
) -> tuple[list[float], list[float]]:
    """EV of the dictionary on the carried siblings, and of the anchor by them."""
    carried = [each.apply(a) for each, a in zip(maps, siblings, strict=True)]
    return (
        [explained_variance(x, sae(x)) for x in carried],
        [explained_variance(anchor, x) for x in carried],
    )


def _total_variance(x: Tensor) -> float:
    return float(x.double().var(0, correction=0).sum())
