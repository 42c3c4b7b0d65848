"""Could these tests say otherwise? Controls of the claims of section 5."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from polyrot.cohorts.cohort import Cohort
from polyrot.haar.alternatives import ALTERNATIVES
from polyrot.haar.battery import holm
from polyrot.haar.nulls import Store
from polyrot.haar.orthogonal import FloatArray, sample_haar
from polyrot.haar.permutations import permutation_distances
from polyrot.haar.published import calibrated_ks, frobenius_ratio, published_ks
from polyrot.maps.procrustes import fit_rotation
from polyrot.measured import Measured
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits
from polyrot.measures.haar.calibrated import PValues, monte_carlo_range, null_draws, rejected
from polyrot.measures.haar.rotations import (
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


PUBLISHED_RANGE = (9.0, 11.6)
"""Of ||R - I||_F at d = 64, as registered: it holds what the paper reports of both cohorts."""


def shuffled_outside_range(fits: Fits) -> Measured:
    """Share of rotations fitted on shuffled tokens whose ||R - I||_F lies outside PUBLISHED_RANGE.

    Beside it the least and the largest of these distances, and the same share of Haar draws.
    """
    rs = rotation_stack(fits, "shuffled")
    haar = sample_haar(rs.shape[-1], 200, numpy_generator(NULL_DRAWS_SEED, "Haar within range"))

    def outside(stack: FloatArray) -> tuple[FloatArray, float]:
        distances = np.linalg.norm(stack - np.eye(stack.shape[-1]), axis=(1, 2))
        low, high = PUBLISHED_RANGE
        return distances, float(((distances < low) | (distances > high)).mean())

    distances, share = outside(rs)
    return Measured.of(share).also(
        least=float(distances.min()),
        largest=float(distances.max()),
        haar_outside=outside(haar)[1],
        **not_identified(fits),
    )


def same_model_rejections(cohort: Cohort, fits: Fits, store: Store | None) -> Measured:
    """Share of identified sites at which the anchor against itself with noise is rejected.

    The noise is isotropic, of a share NOISE of the anchor's whole variance; the fit is of noisy to
    clean activations on the score split, other tokens than R is fitted on, and the test that of the
    calibrated spectrum, Holm-adjusted. It could fail: where most directions vary less than the
    noise, R is noise's and Haar. A range where Monte-Carlo error leaves it open which are rejected.
    """
    judged, unmet = at_identified(fits)
    rs = []
    for site in judged.sites:
        x = cohort.activations("score", site)[0]
        rs.append(fit_rotation(_noisy(x, site), x).r.cpu().numpy())
    draws = null_draws(len(labels(fits)))
    ks = calibrated_ks(np.stack(rs), draws=draws, store=store)
    tested = PValues(ks.p_values, ks.p_errors, judged.sites, judged.sites)
    found = Measured(
        np.array([float(rejected(tested.p).mean())]),
        ("",),
        beside={"largest_p": float(holm(tested.p).max()), **not_identified(fits)},
        counts={"draws": draws, "sites": len(judged.sites)},
        intervals=monte_carlo_range(*tested.rejected_range()),
        unit="fraction",
    )
    return found.unless(unmet)


def _noisy(x: torch.Tensor, site: str) -> torch.Tensor:
    """Activations [tokens, d] with isotropic noise on them, float64."""
    wide = x.double()
    size = (NOISE * wide.var(0).mean()).sqrt()
    drawn = torch_generator(NULL_DRAWS_SEED, "noise on the anchor", site)
    return wide + size * torch.randn(x.shape, generator=drawn, dtype=torch.float64).to(wide)


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
