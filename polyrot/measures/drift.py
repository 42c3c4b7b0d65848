"""How far one training run turns the basis: rotations between its own checkpoints.

A run's checkpoints are a cohort whose "seeds" are its steps, earliest first, so whatever is said of
siblings can be said of them. Throughout a is the earlier checkpoint and b the later, a @ r ~ b.
(arXiv 2605.24577, sections 7 and 11.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.cohorts.run import EARLY, nearest
from polyrot.dictionaries.sae import Dictionary
from polyrot.maps.bootstrap import SequenceSums, sequence_weights
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.moments import check_fit
from polyrot.maps.null_space import nearest_to_identity
from polyrot.maps.procrustes import (
    fit_from_moments,
    fit_rotation,
    frobenius_distance,
    pair_moments,
    principal_basis,
    restricted_distance,
)
from polyrot.measured import Interval, Measured, PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact

SHARE = 0.999
"""Of the variance, held by the directions that a restricted distance is taken on."""
DRAWS = 400
"""Of sequences, for the interval of an explained variance."""


@dataclass(frozen=True)
class Drift:
    """Distances between every two checkpoints of one run, by site.

    middle: the cohort's own. distance: [steps, steps, sites], ||r - I||_F, symmetric.
    restricted: the same on the principal directions of the earlier checkpoint that hold 99.9 % of
    its variance, per dimension. dimensions: [steps, sites], how many those are. closest: as
    `distance`, of the r nearest to the identity among all that fit as well, and rank: [steps,
    steps, sites], of the fit; where it is full the two distances are one.
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
    tokens: int

    def haar_share(self) -> Measured:
        """||r - I||_F / sqrt(2 d), early checkpoint to the last, middle site: 1 is expected of a
        Haar draw."""
        i, j = nearest(self.steps, EARLY), self.sites.index(self.middle)
        value = self.distance[i, -1, j] / (2 * self.width) ** 0.5
        span = self._distances(self.closest[i, -1, j], self.rank[i, -1, j])
        known = None if span is None else tuple(end / (2 * self.width) ** 0.5 for end in span)
        return self._measured(value, known, early_step=float(self.steps[i]))

    def toward_output(self, restricted: bool = False) -> Measured:
        """Spearman correlation of a site's depth with the distance from the half-way checkpoint to
        the last; `restricted`, with the distance per identifiable dimension. Where R is not
        determined at some sites, its interval is what any completion could give."""
        i = nearest(self.steps, 0.5)
        row = (self.restricted if restricted else self.distance)[i, -1]
        by_site = dict(zip(self.sites, row.tolist(), strict=True))
        if not restricted:
            closest = self.closest[i, -1]
            by_site["with_the_closest_fits"] = _spearman(np.arange(len(row)), closest)
            for site, d, r in zip(self.sites, closest, self.rank[i, -1], strict=True):
                by_site |= {f"closest_{site}": float(d), f"rank_{site}": float(r)}
        else:
            by_site |= {
                f"dimensions_{site}": float(n)
                for site, n in zip(self.sites, self.dimensions[i], strict=True)
            }
        value = _spearman(np.arange(len(row)), row)
        known = None if restricted else self._orders(row, self.closest[i, -1], self.rank[i, -1])
        return self._measured(value, known, half_way_step=float(self.steps[i]), **by_site)

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
        found = {site: _spearman(gaps, by_site[:, j]) for j, site in enumerate(self.sites)}
        last, middle = second == len(steps) - 1, self.sites.index(self.middle)
        readings = {
            "all_pairs": found[self.middle],
            "to_the_last_only": _spearman(gaps[last], by_site[last, middle]),
        }
        reading = max(readings, key=lambda name: readings[name])
        used = slice(None) if reading == "all_pairs" else last
        determined = self.rank[first, second, middle][used].min() == self.width
        known = None if determined else (-1.0, 1.0)
        return self._measured(readings[reading], known, **readings, **found).also(reading=reading)

    def _distances(self, closest: float, rank: int) -> tuple[float, float] | None:
        """From the least to the largest distance that R has with any block on its null space (2
        sqrt(d) bounds that of every orthogonal matrix); None where it has none."""
        return None if rank == self.width else (float(closest), 2 * self.width**0.5)

    def _orders(
        self, distance: np.ndarray, closest: np.ndarray, rank: np.ndarray
    ) -> tuple[float, float] | None:
        """Least and largest correlation with depth, each site's distance being any that some block
        on its null space gives; None where every R is determined. All by site. Of more than two
        sites that are not, nothing is worked out: it may be any."""
        spans = [self._distances(c, r) for c, r in zip(closest, rank, strict=True)]
        low = sum(span is not None for span in spans)
        if not low or low > 2:
            return (-1.0, 1.0) if low else None
        # Only the order counts: it is enough to try the ends, and a little beside every other site.
        beside = {x + step for x in distance for step in (-2e-9, -1e-9, 1e-9, 2e-9)}
        choices = [
            [x] if span is None else [*span, *(b for b in beside if span[0] < b < span[1])]
            for x, span in zip(distance.tolist(), spans, strict=True)
        ]
        depth = np.arange(len(distance))
        found = [_spearman(depth, np.array(tried)) for tried in product(*choices)]
        return min(found), max(found)

    def _measured(
        self, value: float, known: tuple[float, float] | None = None, **beside: float
    ) -> Measured:
        """known: between which ends the value lies, whatever R is where it is not determined."""
        counts = {"checkpoints": len(self.steps), "tokens": self.tokens}
        interval = None if known is None else Interval(*known, "Monte Carlo")
        return Measured(
            np.array([float(value)]),
            ("",),
            None,
            beside,
            {"steps": list(self.steps)},
            counts,
            () if interval is None else (interval,),
        )


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    # With five sites -0.9 is one of few possible values, and a bar: rounding must not decide it.
    return round(float(spearmanr(x, y).statistic), 12)


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
        tokens,
    )


def _covariance(x: Tensor) -> Tensor:
    centred = x.double() - x.double().mean(0)
    return centred.T @ centred / len(x)


@dataclass(frozen=True)
class Reconstructions:
    """Earlier checkpoints' dictionaries on later ones, explained variances on the score split.

    Each [steps, steps, sites], earlier by later; NaN where the first has no dictionary or is not
    earlier. naive: on the later as it is. rotated: centred, rotated back by what was fitted on the
    fit split, with the earlier's mean. own: [steps, sites], on the earlier itself. draws: "naive"
    and "rotated" -> [draws], of the early checkpoint's at the middle site on the last, on sequences
    drawn with replacement; empty in tables kept before they were taken, which have no interval.
    """

    steps: tuple[int, ...]
    sites: tuple[str, ...]
    middle: str
    own: np.ndarray
    naive: np.ndarray
    rotated: np.ndarray
    draws: Mapping[str, np.ndarray] = field(default_factory=dict)

    def to_artifact(self) -> Artifact:
        """Plain tensors and values, for the store."""
        tables = {"own": self.own, "naive": self.naive, "rotated": self.rotated}
        tables |= {f"draws.{name}": drawn for name, drawn in self.draws.items()}
        meta = {"steps": list(self.steps), "sites": list(self.sites)}
        return Artifact({n: torch.from_numpy(t) for n, t in tables.items()}, meta)

    @classmethod
    def from_artifact(cls, artifact: Artifact, middle: str) -> Reconstructions:
        """What `to_artifact` wrote."""
        found = {name: tensor.numpy() for name, tensor in artifact.tensors.items()}
        tables = {name: found[name] for name in ("own", "naive", "rotated")}
        draws = {name.removeprefix("draws."): x for name, x in found.items() if name not in tables}
        steps, sites = (tuple(artifact.meta[name]) for name in ("steps", "sites"))
        return cls(steps, sites, middle, **tables, draws=draws)

    def early(self, which: Literal["naive", "rotated"]) -> Measured:
        """The early checkpoint's dictionary on the last checkpoint, middle site. What it scores at
        home is the ceiling of what it scores rotated: a rotated copy of the early checkpoint is,
        rotated back, that checkpoint."""
        i, site = nearest(self.steps, EARLY), self.middle
        j = self.sites.index(site)
        beside: dict[str, float | str] = {
            "self_ev": float(self.own[i, j]),
            "naive_ev": float(self.naive[i, -1, j]),
            "rotated_ev": float(self.rotated[i, -1, j]),
            "early_step": float(self.steps[i]),
            "site": site,
        }
        value, drawn = getattr(self, which)[i, -1, j], self.draws.get(which)
        found = PairSite(
            np.array([[value]]),
            ("early to last",),
            (site,),
            beside,
            unit="ev",
            resamples=None if drawn is None else drawn[:, None, None],
        ).each()
        return found.below(float(self.own[i, j])) if which == "rotated" else found

    def half_way(self) -> dict[str, float]:
        """Scores of the half-way checkpoint's dictionaries on the last, by site."""
        i = nearest(self.steps, 0.5)
        return {
            f"{name}_ev_{site}": float(row[j])
            for name, row in (
                ("self", self.own[i]),
                ("naive", self.naive[i, -1]),
                ("rotated", self.rotated[i, -1]),
            )
            for j, site in enumerate(self.sites)
        }


def reconstruct(
    checkpoints: Cohort, dictionaries: Mapping[tuple[int, str], Dictionary]
) -> Reconstructions:
    """Score dictionaries, by checkpoint number and site, on their own and on later checkpoints."""
    steps, sites = tuple(checkpoints.seeds), tuple(checkpoints.sites)
    own = np.full((len(steps), len(sites)), np.nan)
    naive = np.full((len(steps), len(steps), len(sites)), np.nan)
    rotated, draws = naive.copy(), {}
    asked = nearest(steps, EARLY), len(steps) - 1, checkpoints.middle
    for (early, site), dictionary in dictionaries.items():
        j = sites.index(site)
        fit, score = (checkpoints.activations(split, site) for split in ("fit", "score"))
        own[early, j] = explained_variance(score[early], dictionary(score[early]))
        for late in range(early + 1, len(steps)):
            turned = fit_rotation(fit[late], fit[early]).apply(score[late])
            naive[early, late, j] = explained_variance(score[late], dictionary(score[late]))
            rotated[early, late, j] = explained_variance(turned, dictionary(turned))
            if (early, late, site) == asked:
                sequence = checkpoints.sequences("score")
                for name, x in (("naive", score[late]), ("rotated", turned)):
                    draws[name] = _drawn(x, dictionary(x), sequence)
    return Reconstructions(steps, sites, checkpoints.middle, own, naive, rotated, draws)


def _drawn(x: Tensor, x_hat: Tensor, sequence: Tensor) -> np.ndarray:
    """Explained variance of x by x_hat on sequences drawn with replacement, [DRAWS]."""
    sums = SequenceSums.of(x, x_hat, sequence)
    generator = torch_generator(NULL_DRAWS_SEED, "drift, sequences", device=x.device)
    drawn = sums.scores(sequence_weights(len(sums.tokens), DRAWS, generator))
    return np.asarray(drawn.cpu())
