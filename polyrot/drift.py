"""How far one training run turns the basis: rotations between its own checkpoints.

A run's checkpoints are a cohort whose "seeds" are its steps, earliest first, so whatever is said of
siblings can be said of them. Throughout a is the earlier checkpoint and b the later, a @ r ~ b.
(arXiv 2605.24577, sections 7 and 11.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr
from torch import Tensor

from polyrot.cohort import Cohort
from polyrot.dictionaries.sae import Dictionary
from polyrot.explained_variance import explained_variance
from polyrot.measured import Measured
from polyrot.procrustes import (
    Rotation,
    fit_from_moments,
    fit_rotation,
    frobenius_distance,
    pair_moments,
    principal_basis,
    restricted_distance,
)

SHARE = 0.999
"""Of the variance, held by the directions that a restricted distance is taken on."""
EARLY = 0.02
"""Share of the training that an early checkpoint has seen."""


@dataclass(frozen=True)
class Drift:
    """Distances between every two checkpoints of one run, by site.

    distance: [steps, steps, sites], ||r - I||_F, symmetric. restricted: the same on the principal
    directions of the earlier checkpoint that hold 99.9 % of its variance, per dimension.
    dimensions: [steps, sites], how many those are.
    """

    steps: tuple[int, ...]
    sites: tuple[str, ...]
    width: int
    distance: np.ndarray
    restricted: np.ndarray
    dimensions: np.ndarray
    tokens: int

    @property
    def middle(self) -> str:
        """The middle site."""
        return self.sites[len(self.sites) // 2]

    def nearest(self, share: float) -> int:
        """Index of the checkpoint nearest to `share` of the training, the last left out."""
        return int(np.abs(np.array(self.steps[:-1]) / self.steps[-1] - share).argmin())

    def haar_share(self) -> Measured:
        """||r - I||_F / sqrt(2 d), early checkpoint to the last, middle site: 1 is expected of a
        Haar draw."""
        i, j = self.nearest(EARLY), self.sites.index(self.middle)
        value = self.distance[i, -1, j] / (2 * self.width) ** 0.5
        return self._measured(value, early_step=float(self.steps[i]))

    def toward_output(self, restricted: bool = False) -> Measured:
        """Spearman correlation of a site's depth with the distance from the half-way checkpoint to
        the last; `restricted`, with the distance per identifiable dimension."""
        i = self.nearest(0.5)
        row = (self.restricted if restricted else self.distance)[i, -1]
        by_site = dict(zip(self.sites, row.tolist(), strict=True))
        if restricted:
            by_site |= {
                f"dimensions_{site}": float(n)
                for site, n in zip(self.sites, self.dimensions[i], strict=True)
            }
        value = _spearman(np.arange(len(row)), row)
        return self._measured(value, half_way_step=float(self.steps[i]), **by_site)

    def monotone(self) -> Measured:
        """Spearman correlation of the step gap with the distance over all pairs of checkpoints,
        middle site. (A rank correlation does not see the logarithm.)

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
        to_last = _spearman(gaps[last], by_site[last, middle])
        return self._measured(found[self.middle], to_the_last_only=to_last, **found)

    def _measured(self, value: float, **beside: float) -> Measured:
        counts = {"checkpoints": len(self.steps), "tokens": self.tokens}
        return Measured(
            np.array([float(value)]), ("",), None, beside, {"steps": list(self.steps)}, counts
        )


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    # With five sites -0.9 is one of few possible values, and a bar: rounding must not decide it.
    return round(float(spearmanr(x, y).statistic), 12)


def measure(checkpoints: Cohort) -> Drift:
    """Fit every pair of checkpoints at every site, on the fit split.

    Raises ValueError: fewer than two checkpoints, steps not increasing; as `fit_from_moments`.
    """
    steps = tuple(checkpoints.seeds)
    if len(steps) < 2 or list(steps) != sorted(set(steps)):
        raise ValueError(f"drift is measured between two or more steps, increasing, not {steps}")
    sites = tuple(checkpoints.sites)
    distance = np.zeros((len(steps), len(steps), len(sites)))
    restricted, dimensions = np.zeros_like(distance), np.zeros((len(steps), len(sites)), int)
    tokens = 0
    for j, site in enumerate(sites):
        x = checkpoints.activations("fit", site)
        tokens = x.shape[1]
        dimensions[-1, j] = principal_basis(_covariance(x[-1]), SHARE).shape[1]
        for late in range(1, len(steps)):
            moments = pair_moments(list(x[:late]), x[late], auto=True)
            for early, (m, fit) in enumerate(zip(moments, fit_from_moments(moments), strict=True)):
                assert m.auto_a is not None
                basis = principal_basis(m.auto_a, SHARE)
                dimensions[early, j] = basis.shape[1]
                for table, value in (
                    (distance, frobenius_distance(fit.r)),
                    (restricted, restricted_distance(fit.r, basis)),
                ):
                    table[early, late, j] = table[late, early, j] = value
    return Drift(steps, sites, checkpoints.width, distance, restricted, dimensions, tokens)


def _covariance(x: Tensor) -> Tensor:
    centred = x.double() - x.double().mean(0)
    return centred.T @ centred / len(x)


@dataclass(frozen=True)
class Reconstruction:
    """An earlier checkpoint's dictionary on a later one, explained variances on the score split.

    self_ev: on the earlier itself. naive_ev: on the later. rotated_ev: on the later, centred,
    rotated back, with the earlier's mean.
    """

    self_ev: float
    naive_ev: float
    rotated_ev: float
    rotation: Rotation


def reconstruct(
    checkpoints: Cohort, dictionary: Dictionary, site: str, early: int, late: int = -1
) -> Reconstruction:
    """Score checkpoint number `early`'s dictionary on checkpoint number `late` at `site`.

    The rotation, later @ r ~ earlier, is fitted on the fit split.
    """
    fit, score = (checkpoints.activations(split, site) for split in ("fit", "score"))
    rotation = fit_rotation(fit[late], fit[early])
    turned = rotation.apply(score[late])
    return Reconstruction(
        explained_variance(score[early], dictionary(score[early])),
        explained_variance(score[late], dictionary(score[late])),
        explained_variance(turned, dictionary(turned)),
        rotation,
    )
