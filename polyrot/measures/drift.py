"""How far one training run turns the basis: rotations between its own checkpoints.

A run's checkpoints are a cohort whose "seeds" are its steps, earliest first, so whatever is said of
siblings can be said of them. Throughout a is the earlier checkpoint and b the later, a @ r ~ b.
(arXiv 2605.24577, sections 7 and 11.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.cohorts.run import EARLY, nearest
from polyrot.maps.correlation import pearson_rows, spearman
from polyrot.maps.moments import BLOCKS, blocks_of, check_fit, cross_without_each
from polyrot.maps.null_space import nearest_completion, nearest_to_identity
from polyrot.maps.procrustes import (
    fit_from_moments,
    frobenius_distance,
    pair_moments,
    principal_basis,
    restricted_distance,
)
from polyrot.measured import Interval, Measured, jackknifed
from polyrot.measures.fits import NULL_DRAWS_SEED
from polyrot.runtime.seeding import numpy_generator, torch_generator

SHARE = 0.999
"""Of the variance, held by the directions that a restricted distance is taken on."""
RECIPE_VERSION = 1  # raise when a change of code changes what is measured
DRAWS = 400
"""Of sequences, for the interval of a rank correlation."""


@dataclass(frozen=True)
class Drift:
    """Distances between every two checkpoints of one run, by site.

    middle: the cohort's own. distance: [steps, steps, sites], ||r - I||_F, symmetric.
    restricted: the same on the principal directions of the earlier checkpoint that hold 99.9 % of
    its variance, per dimension. dimensions: [steps, sites], how many those are. closest: as
    `distance`, of the r nearest to the identity among all that fit as well, and rank: [steps,
    steps, sites], of the fit; where it is full the two distances are one. distance_without,
    restricted_without: [blocks, steps, steps, sites], without one block of sequences in turn (no
    blocks of a single sequence); NaN for what is not asked, pairs without the last checkpoint at
    sites but the middle one.
    """

    steps: tuple[int, ...]
    sites: tuple[str, ...]
    middle: str
    width: int
    distance: np.ndarray
    restricted: np.ndarray
    dimensions: np.ndarray
    closest: np.ndarray
    rank: np.ndarray
    distance_without: np.ndarray
    restricted_without: np.ndarray
    tokens: int
    sequences: int

    def haar_share(self) -> Measured:
        """||r - I||_F / sqrt(2 d), early checkpoint to the last, middle site: 1 is expected of a
        Haar draw."""
        i, j = nearest(self.steps, EARLY), self.sites.index(self.middle)
        haar = (2 * self.width) ** 0.5
        value = self.distance[i, -1, j] / haar
        without = self.distance_without[:, i, -1, j] / haar
        span = self._span(self.closest[i, -1, j], self.rank[i, -1, j])
        ends = [] if span is None else [end / haar for end in span]
        if len(without):
            ends += jackknifed(value, without, "sequences", "positive")[:2]
        return self._measured(value, ends, early_step=float(self.steps[i]))

    def toward_output(self, restricted: bool = False) -> Measured:
        """Spearman correlation of a site's depth with the distance from the half-way checkpoint to
        the last; `restricted`, with the distance per identifiable dimension.

        Its interval is of sequences, and where R is not determined at some sites, also of any
        completion there.
        """
        i = nearest(self.steps, 0.5)
        table = self.restricted if restricted else self.distance
        without = self.restricted_without if restricted else self.distance_without
        row, closest, rank = table[i, -1], self.closest[i, -1], self.rank[i, -1]
        by_site = dict(zip(self.sites, row.tolist(), strict=True))
        if not restricted:
            by_site["with_the_closest_fits"] = spearman(np.arange(len(row)), closest)
            for site, d, r in zip(self.sites, closest, rank, strict=True):
                by_site |= {f"closest_{site}": float(d), f"rank_{site}": float(r)}
        else:
            by_site |= {
                f"dimensions_{site}": float(n)
                for site, n in zip(self.sites, self.dimensions[i], strict=True)
            }
        spans = [
            None if restricted else self._span(c, r) for c, r in zip(closest, rank, strict=True)
        ]
        drawn = drawn_about(row, without[:, i, -1])
        each = np.array([_orders(x, spans) for x in drawn])
        ends = [np.quantile(each[:, 0], 0.025), np.quantile(each[:, 1], 0.975)]
        if not len(without) and not any(spans):
            ends = []
        value = spearman(np.arange(len(row)), row)
        return self._measured(value, ends, half_way_step=float(self.steps[i]), **by_site)

    def monotone(self) -> Measured:
        """Spearman correlation of the step gap with the distance, middle site; favourable reading
        of all pairs of checkpoints and of distances to the last one, both recorded. (A rank
        correlation does not see the logarithm.) Where R is not determined there, it may be any.

        Raises ValueError for fewer than five checkpoints.
        """
        if len(self.steps) < 5:
            raise ValueError(f"a curve over step gaps needs 5 checkpoints, not {len(self.steps)}")
        first, second = np.triu_indices(len(self.steps), k=1)
        steps = np.array(self.steps)
        gaps = np.log(steps[second] - steps[first])
        by_site = self.distance[first, second]
        found = {site: spearman(gaps, by_site[:, j]) for j, site in enumerate(self.sites)}
        last, middle = second == len(steps) - 1, self.sites.index(self.middle)
        readings = {
            "all_pairs": found[self.middle],
            "to_the_last_only": spearman(gaps[last], by_site[last, middle]),
        }
        reading = max(readings, key=lambda name: readings[name])
        used = np.ones_like(last) if reading == "all_pairs" else last
        drawn = drawn_about(
            by_site[used, middle], self.distance_without[:, first, second, middle][:, used]
        )
        ends = np.quantile([spearman(gaps[used], x) for x in drawn], [0.025, 0.975]).tolist()
        if self.rank[first, second, middle][used].min() < self.width:
            ends = [-1.0, 1.0]
        elif not len(self.distance_without):
            ends = []
        return self._measured(readings[reading], ends, **readings, **found).also(reading=reading)

    def _span(self, closest: float, rank: int) -> tuple[float, float] | None:
        """From the least to the largest distance that R has with any block on its null space (2
        sqrt(d) bounds that of every orthogonal matrix); None where it has none."""
        return None if rank == self.width else (float(closest), 2 * self.width**0.5)

    def _measured(self, value: float, ends: Sequence[float], **beside: float) -> Measured:
        """ends: of the interval, among which the value itself counts; none of a single sequence
        where every R is determined."""
        known = [float(value), *map(float, ends)]
        interval = Interval(min(known), max(known), "sequences") if len(ends) else None
        return Measured(
            np.array([float(value)]),
            ("",),
            None,
            beside,
            {"steps": list(self.steps)},
            {"checkpoints": len(self.steps), "tokens": self.tokens, "sequences": self.sequences},
            (interval,),
        )


def drawn_about(values: np.ndarray, without: np.ndarray) -> np.ndarray:
    """[draws, n]: normal draws about `values` [n] with the jackknife's covariance, from what they
    are `without` [blocks, n] each block of sequences; of no blocks, the values themselves."""
    blocks = len(without)
    if not blocks:
        return values[None]
    z = numpy_generator(NULL_DRAWS_SEED, "drift, sequences").standard_normal((DRAWS, blocks))
    return values + (1 - 1 / blocks) ** 0.5 * z @ (without - without.mean(0))


def _orders(
    distance: np.ndarray, spans: Sequence[tuple[float, float] | None]
) -> tuple[float, float]:
    """Least and largest rank correlation of `distance` [sites] with depth, where the distance of a
    site with a span is any within it. Of more than two such sites nothing is worked out: -1, 1."""
    low = sum(span is not None for span in spans)
    if low > 2:
        return -1.0, 1.0
    # Only the order counts: it is enough to try the ends, and a little beside every other site.
    beside = {x + step for x in distance.tolist() for step in (-2e-9, -1e-9, 1e-9, 2e-9)}
    choices = [
        [x] if span is None else [*span, *(b for b in beside if span[0] < b < span[1])]
        for x, span in zip(distance.tolist(), spans, strict=True)
    ]
    tried = np.array(list(product(*choices)))
    depth = np.broadcast_to(np.arange(len(distance)), tried.shape)
    found = pearson_rows(rankdata(tried, axis=1), depth)
    return round(float(found.min()), 12), round(float(found.max()), 12)


def measure_drift(checkpoints: Cohort) -> Drift:
    """Fit every pair of checkpoints at every site, on the fit split.

    Raises ValueError: fewer than two checkpoints, steps not increasing; as `fit_from_moments`.
    """
    steps = tuple(checkpoints.seeds)
    if len(steps) < 2 or list(steps) != sorted(set(steps)):
        raise ValueError(f"drift is measured between two or more steps, increasing, not {steps}")
    sites = tuple(checkpoints.sites)
    distance = np.zeros((len(steps), len(steps), len(sites)))
    restricted, closest = np.zeros_like(distance), np.zeros_like(distance)
    sequence = checkpoints.sequences("fit")
    sequences = int(sequence.max()) + 1
    n_blocks = min(BLOCKS, sequences) if sequences > 1 else 0
    without = np.full((n_blocks, *distance.shape), np.nan)
    restricted_without = without.copy()
    rank, dimensions = np.zeros(distance.shape, int), np.zeros((len(steps), len(sites)), int)
    tokens = 0
    for j, site in enumerate(sites):
        x = checkpoints.activations("fit", site)
        tokens = x.shape[1]
        dimensions[-1, j] = principal_basis(_covariance(x[-1]), SHARE).shape[1]
        for late in range(1, len(steps)):
            moments = pair_moments(list(x[:late]), x[late], auto=True)
            for step, each in zip(steps, moments, strict=False):
                check_fit(each, f"drift at {site}", (f"step {step}", f"step {steps[late]}"))
            null = [
                torch_generator(NULL_DRAWS_SEED, "drift, null space", site, step, steps[late])
                for step in steps[:late]
            ]
            fits = fit_from_moments(moments, generators=null)
            asked = site == checkpoints.middle or late == len(steps) - 1
            blocks = [
                pair_moments(list(part[:late]), part[late], where=f"drift at {site}, a block")
                for part in (blocks_of(x, sequence) if asked else ())
            ]
            for early, (m, fit) in enumerate(zip(moments, fits, strict=True)):
                assert m.auto_a is not None
                basis = principal_basis(m.auto_a, SHARE)
                dimensions[early, j] = basis.shape[1]
                for table, value in (
                    (distance, frobenius_distance(fit.r)),
                    (restricted, restricted_distance(fit.r, basis)),
                    (closest, frobenius_distance(nearest_to_identity(m.cross, fit.rank))),
                    (rank, fit.rank),
                ):
                    table[early, late, j] = table[late, early, j] = value
                of_pair = [block[early] for block in blocks]
                for k, cross in enumerate(cross_without_each(of_pair) if asked else ()):
                    # What is not determined is not drawn anew: what is nearest to the whole R.
                    r = nearest_completion(cross, fit.rank, fit.r)
                    for tables, value in (
                        (without, frobenius_distance(r)),
                        (restricted_without, restricted_distance(r, basis)),
                    ):
                        tables[k, early, late, j] = tables[k, late, early, j] = value
    return Drift(
        steps,
        sites,
        checkpoints.middle,
        checkpoints.width,
        distance,
        restricted,
        dimensions,
        closest,
        rank,
        without,
        restricted_without,
        tokens,
        sequences,
    )


def _covariance(x: Tensor) -> Tensor:
    centred = x.double() - x.double().mean(0)
    return centred.T @ centred / len(x)
