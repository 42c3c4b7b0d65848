"""How well the decoder columns of a cohort's dictionaries match across models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import ortho_group
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, pair_labels
from polyrot.dictionaries.sae import Dictionary, quality
from polyrot.maps.matching import matched_fraction, max_cosine
from polyrot.measured import Measured, PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits, seeds_used
from polyrot.runtime.seeding import numpy_generator

BySite = Mapping[tuple[int, str], Dictionary]
"""Dictionaries by model (0 is the anchor) and site."""


@dataclass(frozen=True)
class Agreement:
    """For each column of the anchor's decoder, the best cosine in the sibling's; by pair and site.

    fraction: share of columns with a best cosine above 0.5. mean: mean best cosine. cosines:
    [pairs, sites, columns], each column's.
    live_fraction: the fraction among columns active on the score split, in both dictionaries. A
    column that is dead in both may match because neither ever moved from a shared start.
    """

    fraction: PairSite
    mean: PairSite
    live_fraction: PairSite
    cosines: Tensor


def _tables(
    cohort: Cohort, sites: Sequence[str], cell: Callable[[int, str], tuple[float, ...]]
) -> list[PairSite]:
    """One table for each figure that `cell(model, site)` gives, over the siblings."""
    models = range(1, len(cohort.seeds))
    cells = np.array([[cell(m, s) for s in sites] for m in models])
    return [
        PairSite(cells[..., k], pair_labels(cohort), tuple(sites), seeds=seeds_used(cohort))
        for k in range(cells.shape[-1])
    ]


def live_features(cohort: Cohort, saes: BySite) -> dict[tuple[int, str], Tensor]:
    """Which features of each dictionary are active on any token of the score split: bool [f]."""
    return {
        (m, s): quality(sae, cohort.activations("score", s)[m]).live for (m, s), sae in saes.items()
    }


def agreement(cohort: Cohort, saes: BySite, sites: Sequence[str]) -> Agreement:
    """Raw agreement of the anchor's decoders with each sibling's, no rotation."""
    live = live_features(cohort, {k: v for k, v in saes.items() if k[1] in sites})
    kept: list[Tensor] = []

    def cell(model: int, site: str) -> tuple[float, ...]:
        a, b = saes[0, site].decoder, saes[model, site].decoder
        cosines = max_cosine(a, b, features="columns")
        kept.append(cosines.cpu().float())
        masks = live[0, site].cpu(), live[model, site].cpu()
        lively = max_cosine(a, b, *masks, features="columns")
        return matched_fraction(cosines), float(cosines.mean()), matched_fraction(lively)

    fraction, mean, live_fraction = _tables(cohort, sites, cell)
    shape = (len(cohort.seeds) - 1, len(sites))
    return Agreement(fraction, mean, live_fraction, torch.stack(kept).unflatten(0, shape))


def noise_agreement(saes: BySite, sites: Sequence[str]) -> tuple[PairSite, Tensor]:
    """Fraction of the anchor's columns matched by an SAE from the same start that only ever saw
    noise (model 1 of `saes`), [1, sites], and the best cosines behind it, [1, sites, columns]."""
    cosines = torch.stack(
        [max_cosine(saes[0, s].decoder, saes[1, s].decoder, features="columns") for s in sites]
    )
    fractions = np.array([[matched_fraction(row) for row in cosines]])
    return PairSite(fractions, ("noise",), tuple(sites)), cosines[None].cpu().float()


def match_with_noise(noise: PairSite, cohort: Cohort) -> Measured:
    """`noise_agreement` at the sites the paper names; all of its sites beside it."""
    found = dict(zip(noise.sites, noise.values[0].tolist(), strict=True))
    return Measured.of({site: found[site] for site in cohort.named_sites}).also(**found)


def gain_by_rotation(cohort: Cohort, saes: BySite, fits: Fits, sites: Sequence[str]) -> PairSite:
    """Mean best cosine once the sibling's decoder is rotated by R, minus before.

    Recorded beside it: the same gain through a Haar matrix in place of R, which is that of chance.
    """
    rng = numpy_generator(NULL_DRAWS_SEED, "Haar in place of R")

    def cell(model: int, site: str) -> tuple[float, ...]:
        a, b = saes[0, site].decoder, saes[model, site].decoder
        r = fits.matched[site][model - 1].r.to(b)
        haar = torch.from_numpy(ortho_group.rvs(len(r), random_state=rng)).to(b)
        before, after, chance = (
            float(max_cosine(a, c, features="columns").mean()) for c in (b, r.T @ b, haar @ b)
        )
        return after - before, chance - before, before, after

    gain, chance, before, after = _tables(cohort, sites, cell)
    return gain.also(
        gain_through_haar=float(chance.values.mean()),
        mean_before=float(before.values.mean()),
        mean_after=float(after.values.mean()),
    )


def universality(
    cohort: Cohort,
    saes: BySite,
    second_start: Mapping[str, Dictionary],
    fits: Fits,
    sites: Sequence[str],
    haar_draws: int = 8,
) -> PairSite:
    """Fraction of live columns matched after R minus that with Haar matrices in place of R.

    `second_start`: the anchor's dictionaries from another start, by site. Recorded beside: both
    fractions, and what two starts on one model share, which is the ceiling.
    """
    rng = numpy_generator(NULL_DRAWS_SEED, "Haar in place of R, sparse")
    live = live_features(cohort, saes)
    again = live_features(cohort, {(0, s): d for s, d in second_start.items()})

    def cell(model: int, site: str) -> tuple[float, ...]:
        a, b = saes[0, site].decoder, saes[model, site].decoder
        masks = live[0, site].cpu(), live[model, site].cpu()
        r = fits.matched[site][model - 1].r.to(b)
        through_r = matched_fraction(max_cosine(a, r.T @ b, *masks, features="columns"))
        draws = ortho_group.rvs(len(r), size=haar_draws, random_state=rng)
        through_haar = [
            matched_fraction(
                max_cosine(a, torch.from_numpy(q).to(b) @ b, *masks, features="columns")
            )
            for q in draws
        ]
        ceiling = matched_fraction(
            max_cosine(
                a,
                second_start[site].decoder,
                live[0, site].cpu(),
                again[0, site].cpu(),
                features="columns",
            )
        )
        chance = float(np.mean(through_haar))
        return through_r - chance, through_r, chance, ceiling

    difference, through_r, chance, ceiling = _tables(cohort, sites, cell)
    by_site = {
        f"{name}_{site}": float(table.values[:, j].mean())
        for name, table in (("through_R", through_r), ("haar", chance), ("two_starts", ceiling))
        for j, site in enumerate(sites)
    }
    return difference.also(**by_site)
