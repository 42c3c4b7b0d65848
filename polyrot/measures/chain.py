"""Do rotations compose? From sibling to sibling directly, and by way of the anchor.

With b @ R_b ~ anchor and c @ R_c ~ anchor, b @ (R_b R_c^T) ~ c, if what the siblings share with the
anchor is all that they share with each other. The direct rotation is fitted on b and c themselves.
Fitted on the fit split, scored on the score split: EV of c's activations as predicted from b's,
both maps centring on b's mean and adding c's. The chain is that of
`polyrot.haar.frames.relative_rotations`: each sibling and the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, NotOffered
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.procrustes import Rotation, fit_from_moments, pair_moments
from polyrot.measured import Measured, PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits, seeds_used
from polyrot.measures.transfer import COPIES, ExactCopies
from polyrot.runtime.seeding import derive, torch_generator


@dataclass(frozen=True)
class Chain:
    """Pointwise EV of each next sibling by the one before, by link and site: through the rotation
    fitted on the two, and by way of the anchor. Ceilings: a chain of exact copies of the anchor."""

    direct_ev: PairSite
    composed_ev: PairSite

    def __post_init__(self) -> None:
        """Say what kind of number they are, which kept tables do not."""
        for each in fields(self):
            object.__setattr__(self, each.name, replace(getattr(self, each.name), unit="ev"))

    def lost_by_way_of_the_anchor(self, sites: Sequence[str]) -> Measured:
        """Direct less composed EV by site, mean over the links; both, lowest site, beside."""
        direct, composed = self.direct_ev.at(sites), self.composed_ev.at(sites)
        return (
            (direct - composed)
            .also(
                lowest_direct_ev=float(direct.values.mean(0).min()),
                lowest_composed_ev=float(composed.values.mean(0).min()),
            )
            .mean_over_pairs()
        )


def measure_chain(
    cohort: Cohort,
    fits: Fits,
    sites: Sequence[str],
    seed: int = NULL_DRAWS_SEED,
    *,
    copies: int = COPIES,
) -> Chain:
    """Both maps of every link at `sites`. seed: draws the exact copies, and what activations do not
    determine. Raises NotOffered for a cohort with a single sibling."""
    others = cohort.seeds[1:]
    if len(others) < 2:
        raise NotOffered("a chain of siblings needs two, beside the anchor")
    perfect = ExactCopies(cohort, sites, copies, derive(seed, "exact copies"))
    direct: dict[str, list[Rotation]] = {}
    exact: dict[str, tuple[list[Rotation], list[Rotation]]] = {}
    for site in sites:
        x = cohort.activations("fit", site)
        where = f"{cohort.scale}, {site}"
        direct[site] = _direct(x[1:], where, seed, site)
        turned = perfect.beside(x[0], site)[1:]
        moments = pair_moments(list(turned), x[0], where=perfect.scale)
        null = [torch_generator(seed, "chain of copies", site, i) for i in range(copies)]
        exact[site] = (
            fit_from_moments(moments, generators=null),
            _direct(turned, perfect.scale, seed, site, "copies"),
        )
    found = np.zeros((2, len(others) - 1, len(sites)))
    best = np.zeros((2, len(sites)))
    for j, site in enumerate(sites):
        x = cohort.activations("score", site)
        found[:, :, j] = _scores(x[1:], fits.matched[site], direct[site])
        best[:, j] = _scores(perfect.beside(x[0], site)[1:], *exact[site]).mean(1)
    links = tuple(f"{b}-{c}" for b, c in pairwise(others))
    counts = {"tokens": len(cohort.sequences("score"))}
    made = [
        PairSite(
            values, links, tuple(sites), seeds=seeds_used(cohort, seed), counts=counts, ceiling=top
        )
        for values, top in zip(found, best, strict=True)
    ]
    return Chain(*made)


def _direct(siblings: Tensor, where: str, seed: int, *fitted: str) -> list[Rotation]:
    """The rotation of each sibling to the next, fitted on the two."""
    found = []
    for i, (b, c) in enumerate(pairwise(siblings)):
        moments = pair_moments([b], c, where=f"{where}, sibling {i + 1} to {i + 2}")
        null = [torch_generator(seed, "chain", *fitted, i)]
        found += fit_from_moments(moments, generators=null)
    return found


def _scores(
    siblings: Tensor, to_anchor: Sequence[Rotation], direct: Sequence[Rotation]
) -> np.ndarray:
    """[2, links]: EV of each next sibling by the one before, directly and by way of the anchor."""
    links = zip(pairwise(siblings), pairwise(to_anchor), direct, strict=True)
    found = []
    for (b, c), (of_b, of_c), straight in links:
        around = replace(straight, r=of_b.r @ of_c.r.T)
        found.append([explained_variance(c, each.apply(b)) for each in (straight, around)])
    return np.array(found).T
