"""Could these tests say otherwise? Shared features in whitened frames, and the controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from polyrot.cohorts.cohort import Cohort
from polyrot.haar.alternatives import ALTERNATIVES
from polyrot.haar.battery import holm
from polyrot.haar.frames import WhitenedContrast, common_rank, whitened_contrast
from polyrot.haar.nulls import Store
from polyrot.haar.orthogonal import FloatArray, sample_haar
from polyrot.haar.permutations import permutation_distances
from polyrot.haar.published import calibrated_ks, frobenius_ratio, published_ks
from polyrot.maps.procrustes import fit_rotation
from polyrot.measured import Measured
from polyrot.measures.fits import COHORTS_OF_COPIES, NULL_DRAWS_SEED, Fits
from polyrot.measures.haar.calibrated import BATTERY_STEPS, null_draws, rejected
from polyrot.measures.haar.rotations import (
    BOTH,
    LEVEL,
    Which,
    at_identified,
    labels,
    not_identified,
    rotation_stack,
)
from polyrot.runtime.seeding import derive, numpy_generator, torch_generator

PUBLISHED_P = 0.99  # the published test reports "p of about 1"
PUBLISHED_FROBENIUS = 0.01  # and a distance within a percent of sqrt(2d)
NOISE = 0.1
"""Variance of the noise on the anchor, as a share of its own."""


def passes_published(rs: FloatArray) -> np.ndarray:
    """Which of the matrices [n, d, d] meet the published criteria, KS and Frobenius: bool [n]."""
    ks = published_ks(rs, numpy_generator(NULL_DRAWS_SEED, "published reference"))
    return (ks.p_values >= PUBLISHED_P) & (np.abs(frobenius_ratio(rs) - 1) <= PUBLISHED_FROBENIUS)


def shuffled_failures(fits: Fits) -> Measured:
    """Share of rotations fitted on shuffled tokens that fail the published criteria.

    Beside it the same share of true Haar draws, and by each criterion alone.
    """
    rs = rotation_stack(fits, "shuffled")
    d = rs.shape[-1]
    haar = sample_haar(d, 200, numpy_generator(NULL_DRAWS_SEED, "Haar against published"))
    ks = published_ks(rs, numpy_generator(NULL_DRAWS_SEED, "published reference"))
    return Measured.of(float((~passes_published(rs)).mean())).also(
        haar_fails=float((~passes_published(haar)).mean()),
        fails_ks=float((ks.p_values < PUBLISHED_P).mean()),
        fails_frobenius=float((np.abs(frobenius_ratio(rs) - 1) > PUBLISHED_FROBENIUS).mean()),
    )


def same_model_rejections(cohort: Cohort, fits: Fits, store: Store | None) -> Measured:
    """Share of identified sites at which the anchor against itself with noise is rejected.

    The noise is isotropic, of a share NOISE of the anchor's whole variance; the fit is of noisy to
    clean activations on the score split, other tokens than R is fitted on, and the test that of the
    calibrated spectrum, Holm-adjusted. It could fail: where most directions vary less than the
    noise, R is noise's and Haar.
    """
    judged, unmet = at_identified(fits)
    rs = []
    for site in judged.sites:
        x = cohort.activations("score", site)[0]
        rs.append(fit_rotation(_noisy(x, site), x).r.cpu().numpy())
    draws = null_draws(len(labels(fits)))
    p = holm(calibrated_ks(np.stack(rs), draws=draws, store=store).p_values)
    found = Measured.of(float((p < LEVEL).mean()))
    return found.also(largest_p=float(p.max()), **not_identified(fits)).unless(unmet)


def _noisy(x: torch.Tensor, site: str) -> torch.Tensor:
    """Activations [tokens, d] with isotropic noise on them, float64."""
    wide = x.double()
    size = (NOISE * wide.var(0).mean()).sqrt()
    drawn = torch_generator(NULL_DRAWS_SEED, "noise on the anchor", site)
    return wide + size * torch.randn(x.shape, generator=drawn, dtype=torch.float64).to(wide)


def shared_features(
    cohort: Cohort, store: Store | None, sites: Sequence[str], variance: float = 0.99
) -> Measured:
    """Share of pairs and sites whose whitened map is rejected as Haar with matched tokens, minus
    the share with shuffled tokens; each a family of its own for Holm. All maps of a site have one
    rank, with which every model keeps the share `variance`.

    The ceiling is the same of exact copies of the anchor, one at each site: the median of
    COHORTS_OF_COPIES such differences, as shuffled tokens of copies are rejected once in so often,
    too.
    """
    siblings: list[WhitenedContrast] = []
    copies: list[list[WhitenedContrast]] = [[] for _ in range(COHORTS_OF_COPIES)]
    ranks = {}
    # As few as can reject every map after Holm: each rank needs tables of its own.
    maps = len(sites) * (len(cohort.seeds) - 1)
    draws = math.ceil(1.05 * BATTERY_STEPS * maps / LEVEL)

    def contrast(a: FloatArray, b: FloatArray, rank: int, *purpose: str | int) -> WhitenedContrast:
        rng = numpy_generator(NULL_DRAWS_SEED, "whitened", *purpose)
        return whitened_contrast(a, b, rng, rank=rank, draws=draws, store=store)

    for site in sites:
        x = cohort.activations("fit", site).cpu()
        rank = common_rank([each.numpy() for each in x], variance)
        ranks[f"rank_{site}"] = float(rank)
        anchor = x[0].double().numpy()

        siblings += [
            contrast(x[m].double().numpy(), anchor, rank, site, m) for m in range(1, len(x))
        ]
        for number, found in enumerate(copies):
            rng = numpy_generator(NULL_DRAWS_SEED, "whitened copy", number, site)
            turned = anchor @ sample_haar(anchor.shape[1], 1, rng, "SO")[0].T
            found.append(contrast(turned, anchor, rank, site, f"copy {number}"))
    share = {which: _share_rejected(siblings, which) for which in BOTH}
    measured = Measured.of(share["matched"] - share["shuffled"]).also(
        matched_rejected=share["matched"],
        shuffled_rejected=share["shuffled"],
        largest_matched_p=float(holm([each.matched.p_value for each in siblings]).max()),
        **ranks,
    )
    of_copies = [_share_rejected(c, "matched") - _share_rejected(c, "shuffled") for c in copies]
    return measured.below(float(np.median(of_copies)))


def _share_rejected(found: Sequence[WhitenedContrast], which: Which) -> float:
    return float(rejected([getattr(each, which).p_value for each in found]).mean())


PUBLISHED_ALTERNATIVES = (
    "permutation",
    "cyclic shift",
    "block Haar x2",
    "block Haar x8",
    "flipped Hadamard",
)


def alternatives_that_fail(d: int = 512, per_alternative: int = 5) -> Measured:
    """Share of orthogonal matrices that are not Haar which fail the published KS criterion."""
    rates: Mapping[str, float] = {
        name: _fails(name, d, per_alternative) for name in PUBLISHED_ALTERNATIVES
    }
    return Measured.of(float(np.mean(list(rates.values())))).also(**rates)


def _fails(name: str, d: int, n: int) -> float:
    rng = np.random.default_rng(derive(NULL_DRAWS_SEED, "alternative", name))
    drawn = np.stack([ALTERNATIVES[name](d, rng) for _ in range(n)])
    ks = published_ks(drawn, numpy_generator(NULL_DRAWS_SEED, "published reference"))
    return float((ks.p_values < PUBLISHED_P).mean())


def permutation_figure_gap(published: float = 29.6, d: int = 512, draws: int = 16) -> Measured:
    """How far the published distance is from the mean over Haar matrices."""
    rs = sample_haar(d, draws, numpy_generator(NULL_DRAWS_SEED, "permutation figure"))
    found = permutation_distances(rs)
    unsigned = permutation_distances(rs, signed=False)
    return Measured.of(abs(published - float(found.mean()))).also(
        haar_signed=float(found.mean()), haar_unsigned=float(unsigned.mean()), draws=float(draws)
    )
