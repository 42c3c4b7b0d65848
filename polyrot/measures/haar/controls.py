"""Could these tests say otherwise? Shared features in whitened frames, and the controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from polyrot.cohorts.cohort import Cohort, pair_labels
from polyrot.haar.alternatives import ALTERNATIVES
from polyrot.haar.battery import haar_battery, holm
from polyrot.haar.frames import WhitenedContrast, common_rank, whitened_contrast, whitened_map
from polyrot.haar.nulls import Store
from polyrot.haar.orthogonal import FloatArray, sample_haar
from polyrot.haar.permutations import permutation_distances
from polyrot.haar.published import calibrated_ks, frobenius_ratio, published_ks
from polyrot.maps.procrustes import fit_rotation
from polyrot.measured import Measured, PairSite
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

RECIPE_VERSION = 1
"""Of `whitened_maps`: raise when a change of code changes what is measured."""
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
    draws = _whitened_draws(len(sites) * (len(cohort.seeds) - 1))

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


@dataclass(frozen=True)
class Whitened:
    """The battery on whitened maps of matched tokens, [pairs, sites]: family p-values before Holm,
    as they decide `shared_features`, and the rank of the maps at each site."""

    p: PairSite
    rank: PairSite


def whitened_maps(
    cohort: Cohort, store: Store | None, sites: Sequence[str], variance: float = 0.99
) -> Whitened:
    """Of every sibling at the sites, by the maps, ranks and null draws of `shared_features`."""
    pairs = pair_labels(cohort)
    p, ranks = np.zeros((2, len(pairs), len(sites)))
    for j, site in enumerate(sites):
        x = cohort.activations("fit", site).cpu()
        rank = common_rank([each.numpy() for each in x], variance)
        ranks[:, j] = rank
        anchor, *siblings = (each.double().numpy() for each in x)
        for i, sibling in enumerate(siblings):
            rng = numpy_generator(NULL_DRAWS_SEED, "whitened", site, i + 1)
            found = whitened_map(sibling, anchor, rng, rank=rank)
            draws = _whitened_draws(len(pairs) * len(sites))
            p[i, j] = haar_battery(found, draws=draws, store=store).p_value
    seeds, names = {"null": NULL_DRAWS_SEED}, tuple(sites)
    return Whitened(
        PairSite(p, pairs, names, seeds=seeds), PairSite(ranks, pairs, names, seeds=seeds)
    )


def rejected_beyond_untrained(trained: Whitened, untrained: Whitened) -> Measured:
    """Share of whitened maps that are rejected as Haar, trained minus untrained siblings'; each a
    family of its own for Holm.

    Without a ceiling: how often the untrained ones are rejected is what is asked, and no bound.
    """
    share = {
        name: float(rejected(each.p.values).mean())
        for name, each in (("trained", trained), ("untrained", untrained))
    }
    ranks = {
        f"rank_{name}_{site}": float(rank)
        for name, each in (("trained", trained), ("untrained", untrained))
        for site, rank in zip(each.rank.sites, each.rank.values[0], strict=True)
    }
    return Measured.of(share["trained"] - share["untrained"]).also(
        trained_rejected=share["trained"],
        untrained_rejected=share["untrained"],
        smallest_untrained_p=float(holm(untrained.p.values).min()),
        largest_untrained_p=float(holm(untrained.p.values).max()),
        **ranks,
    )


def _whitened_draws(maps: int) -> int:
    """As few as can reject every map after Holm: each rank needs tables of its own."""
    return math.ceil(1.05 * BATTERY_STEPS * maps / LEVEL)


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
