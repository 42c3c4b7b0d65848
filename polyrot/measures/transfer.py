"""What the anchor's dictionary makes of a sibling's activations, untouched and mapped.

All scores are explained variances on the score split, of the dictionary's own input: of the
sibling's activations as they are, or as a map carries them to the anchor's basis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries.sae import Dictionary
from polyrot.maps.explained_variance import EVSums
from polyrot.maps.procrustes import ActivationMap, pointwise_ev
from polyrot.measured import PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits, seeds_used
from polyrot.runtime.seeding import torch_generator


@dataclass(frozen=True)
class Transfer:
    """Explained variances by pair and site.

    self: the anchor's dictionary on the anchor (the same for each pair). naive: on the sibling.
    shifted: on the sibling with the anchor's mean. rotated: centred, rotated, with the anchor's
    mean. shuffled, principal: as rotated, through the rotations of the controls. noise: on a
    Gaussian of the anchor's mean and covariance. permuted: on the anchor with every dimension
    shuffled on its own. pointwise, affine: no dictionary, the anchor's activations predicted from
    the sibling's through the rotation and through the unconstrained affine map.
    The `_grand` tables are the pipeline's score, around one scalar mean.
    """

    self_ev: PairSite
    naive_ev: PairSite
    shifted_ev: PairSite
    rotated_ev: PairSite
    shuffled_ev: PairSite
    principal_ev: PairSite
    noise_ev: PairSite
    permuted_ev: PairSite
    pointwise_ev: PairSite
    affine_ev: PairSite
    naive_ev_grand: PairSite
    rotated_ev_grand: PairSite

    def gap_closed_by_shift(self, sites: Sequence[str]) -> PairSite:
        """Share of the gap self - naive that replacing the mean closes, at sites with a gap."""
        own, naive, shifted = (
            table.at(sites) for table in (self.self_ev, self.naive_ev, self.shifted_ev)
        )
        return (shifted - naive) / (own - naive)


@dataclass(frozen=True)
class GaussianLaw:
    """A normal law: mean [d] and a root [d, d] of its covariance, root @ root.T, float64."""

    mean: Tensor
    root: Tensor

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` draws [n, d], float64."""
        shape, device = (n, len(self.mean)), self.mean.device
        drawn = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
        return drawn @ self.root.T + self.mean


def gaussian_law(x: Tensor) -> GaussianLaw:
    """The Gaussian with the mean and covariance of x [tokens, d].

    By the eigendecomposition, which does not mind a covariance of lower rank.
    """
    wide = x.double()
    values, axes = torch.linalg.eigh(torch.cov(wide.T, correction=0))
    return GaussianLaw(wide.mean(0), axes * values.clamp_min(0).sqrt())


def permuted_dimensions(x: Tensor, generator: torch.Generator) -> Tensor:
    """x [tokens, d] with the rows of every dimension shuffled on their own: marginals kept."""
    order = torch.rand(x.shape, generator=generator, device=x.device).argsort(0)
    return x.gather(0, order)


def _score(dictionary: Dictionary, x: Tensor) -> tuple[float, float]:
    sums = EVSums.of(x, dictionary(x))
    return sums.score, sums.grand_score


def measure_transfer(
    cohort: Cohort, fits: Fits, saes: Mapping[str, Dictionary], seed: int = NULL_DRAWS_SEED
) -> Transfer:
    """Score the anchor's dictionaries `saes` (by site) on every sibling. `seed` draws the noise."""
    shape = (len(fits.pairs), len(fits.sites))
    names = list(Transfer.__dataclass_fields__)
    values = {name: np.zeros(shape) for name in names}
    tokens = 0
    # The fit split is left before the score split is begun: a large cohort holds one at a time.
    laws = {site: gaussian_law(cohort.activations("fit", site)[0]) for site in fits.sites}
    for j, site in enumerate(fits.sites):
        x, sae = cohort.activations("score", site), saes[site]
        anchor, siblings, tokens = x[0], x[1:], x.shape[1]
        drawn = torch_generator(seed, "matched noise", site, device=x.device)
        gaussian = laws[site].draw(tokens, drawn).to(x.dtype)
        permuted = permuted_dimensions(anchor, drawn)
        values["self_ev"][:, j] = _score(sae, anchor)[0]
        values["noise_ev"][:, j] = _score(sae, gaussian)[0]
        values["permuted_ev"][:, j] = _score(sae, permuted)[0]
        for i, a in enumerate(siblings):
            ev, grand = _score(sae, a)
            values["naive_ev"][i, j], values["naive_ev_grand"][i, j] = ev, grand
            rotation = fits.matched[site][i]
            ev, grand = _score(sae, rotation.apply(a))
            values["rotated_ev"][i, j], values["rotated_ev_grand"][i, j] = ev, grand
            through: dict[str, Sequence[ActivationMap]] = {
                "shifted_ev": fits.shift[site],
                "shuffled_ev": fits.shuffled[site],
                "principal_ev": fits.principal[site],
            }
            for name, maps in through.items():
                values[name][i, j] = _score(sae, maps[i].apply(a))[0]
            values["pointwise_ev"][i, j] = pointwise_ev(rotation, a, anchor)
            values["affine_ev"][i, j] = pointwise_ev(fits.affine[site][i], a, anchor)
    return Transfer(
        **{
            name: PairSite(
                values[name],
                fits.pairs,
                fits.sites,
                seeds=seeds_used(cohort, seed),
                counts={"tokens": tokens},
            )
            for name in names
        }
    )


def site_means(table: PairSite) -> dict[str, float]:
    """Mean over pairs, by site."""
    return dict(zip(table.sites, table.values.mean(0).tolist(), strict=True))


def rank_of(site: str, means: Mapping[str, float]) -> int:
    """1 where `site` has the lowest mean, 2 where one site is lower, and so on."""
    return 1 + sum(mean < means[site] for mean in means.values())


def misled_fraction(cosine: PairSite, naive: PairSite, high: float = 0.85) -> float:
    """Share of pairs and sites whose mean best cosine is `high` while naive EV is negative."""
    return float(((cosine.values >= high) & (naive.values < 0)).mean())
