"""The Haar statistics of a cohort's rotations: what the claims of section 5 measure.

Every p-value that is compared over pairs and sites is Holm-adjusted over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch

from polyrot.cohorts.cohort import Cohort, NotOffered
from polyrot.haar.alternatives import ALTERNATIVES
from polyrot.haar.battery import BatteryResult, Direction, haar_batteries, holm
from polyrot.haar.frames import common_rank, relative_rotations, whitened_contrast
from polyrot.haar.nulls import DEFAULT_DRAWS, Store
from polyrot.haar.orthogonal import FloatArray, determinant_sign, sample_haar
from polyrot.haar.permutations import permutation_distances
from polyrot.haar.published import (
    calibrated_ks,
    frobenius_distances,
    frobenius_ratio,
    grouped_mean_cosine_p,
    mean_cosine_test,
    mean_permutation_test,
    published_ks,
)
from polyrot.maps.procrustes import fit_rotation, split_half_share
from polyrot.measured import Measured, PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits
from polyrot.runtime.seeding import derive, numpy_generator

PUBLISHED_P = 0.99  # the published test reports "p of about 1"
PUBLISHED_FROBENIUS = 0.01  # and a distance within a percent of sqrt(2d)

LEVEL = 0.01  # at which a Holm-adjusted p-value counts as a rejection, as in the registered bars

# N draws give a matrix beyond all of them a family p of 5 / (N + 1) in the battery and 2 / (N + 1)
# in the calibrated KS test. Holm over m matrices needs m * 5 / (N + 1) < 0.01, or N >= 500 m; the
# margin makes it 700 m, so that the default tables of 20,000 serve up to 28 matrices (toy_b has 20,
# neox 28) and 56 take tables of 39,200.
BATTERY_STEPS, MARGIN = 5, 1.4

Which = Literal["matched", "shuffled"]
_BOTH: tuple[Which, Which] = ("matched", "shuffled")


def rotation_stack(fits: Fits, which: Which = "matched") -> FloatArray:
    """All rotations [pairs * sites, d, d], pair by pair, in the order of `labels`."""
    maps = getattr(fits, which)
    return np.stack(
        [maps[s][i].r.cpu().numpy() for i in range(len(fits.pairs)) for s in fits.sites]
    )


def labels(fits: Fits) -> tuple[str, ...]:
    """One label per rotation of `rotation_stack`."""
    return tuple(f"{pair} {site}" for pair in fits.pairs for site in fits.sites)


def _table(fits: Fits, cell: Callable[[int, str], float]) -> PairSite:
    values = [[cell(i, site) for site in fits.sites] for i in range(len(fits.pairs))]
    return PairSite(np.array(values), fits.pairs, fits.sites, seeds={"null": NULL_DRAWS_SEED})


def distances(fits: Fits) -> PairSite:
    """||R - I||_F by pair and site; Haar gives sqrt(2d) in the mean square."""
    return _table(fits, lambda i, s: float(frobenius_distances(fits.matched[s][i].r)[0]))


def mean_ratio(fits: Fits) -> Measured:
    """Mean over pairs and sites of ||R - I||_F / sqrt(2d)."""
    ratios = frobenius_ratio(rotation_stack(fits))
    low, high = np.percentile(ratios, [10, 90])
    return Measured.of(float(ratios.mean())).also(percentile_10=low, percentile_90=high)


def spectrum_as_published(fits: Fits) -> Measured:
    """Smallest of the pooled and per-pair p-values of the published test."""
    found = published_ks(
        rotation_stack(fits), numpy_generator(NULL_DRAWS_SEED, "published reference")
    )
    return Measured.of(found.smallest_p).also(
        pooled_statistic=found.pooled_statistic,
        pooled_p=found.pooled_p_value,
        smallest_statistic=float(found.statistics.min()),
        largest_statistic=float(found.statistics.max()),
    )


def pooled_mean_cosine(fits: Fits, store: Store | None) -> Measured:
    """Two-sided p-value of the pooled mean of cos(theta) under Haar, all matrices independent.

    Beside it the p-value that takes a pair's sites as they hang together, turned by one matrix.
    """
    rng = numpy_generator(NULL_DRAWS_SEED, "mean cosine")
    rs = rotation_stack(fits)
    found = mean_cosine_test(rs, rng, store=store)
    by_pair = rs.reshape(len(fits.pairs), len(fits.sites), *rs.shape[1:])
    return Measured.of(found.p_value).also(
        mean_cosine=found.mean, p_with_sites_dependent=grouped_mean_cosine_p(list(by_pair))
    )


def nearest_permutation(fits: Fits, store: Store | None) -> Measured:
    """Two-sided p-value of the mean distance to the closest signed permutation under Haar, all
    matrices independent.

    Beside it the p-value that counts a pair's sites as one draw, whose spread is at most that of a
    single matrix: too large rather than too small, however the sites hang together.
    """
    rng = numpy_generator(NULL_DRAWS_SEED, "permutations")
    rs = rotation_stack(fits)
    found = mean_permutation_test(rs, rng, store=store)
    cautious = mean_permutation_test(rs, rng, store=store, per_draw=len(fits.sites))
    return Measured.of(found.p_value).also(
        mean_distance=found.mean,
        haar_mean=found.null_mean,
        p_with_pairs_as_draws=cautious.p_value,
    )


def null_draws(matrices: int) -> int:
    """Draws of null tables with which each of so many matrices can fall below LEVEL after Holm.

    Related claims of a cohort ask for the number of all its rotations, also where they test fewer,
    so that they share tables.
    """
    return max(DEFAULT_DRAWS, math.ceil(round(MARGIN * BATTERY_STEPS * matrices / LEVEL, 6)))


def _rejected(p_values: Sequence[float] | FloatArray) -> np.ndarray:
    return holm(p_values) < LEVEL


def _adjusted(
    p_values: FloatArray, names: tuple[str, ...], full_rank: np.ndarray, **beside: float
) -> Measured:
    """Holm-adjusted p-values. Beside them how many miss LEVEL, in all and where the fit has full
    rank: elsewhere a part of R is the solver's choice, and its not being Haar says nothing."""
    missed = _rejected(p_values)
    return Measured(
        holm(p_values),
        names,
        beside={
            "rejected_share": float(missed.mean()),
            "rejected": float(missed.sum()),
            "at_full_rank": float(full_rank.sum()),
            "rejected_at_full_rank": float((missed & full_rank).sum()),
            **beside,
        },
        seeds={"null": NULL_DRAWS_SEED},
    )


def _full_rank(fits: Fits) -> np.ndarray:
    """Whether each matched fit has full rank: bool [pairs, sites]."""
    return np.array(
        [
            [m.rank == len(m.r) for m in (fits.matched[s][i] for s in fits.sites)]
            for i in range(len(fits.pairs))
        ]
    )


def calibrated_spectrum(fits: Fits, store: Store | None) -> Measured:
    """Holm-adjusted p-value of each spectrum's distance to the exact Haar law, two-sided.

    Beside it the published test's smallest p-value on the same matrices.
    """
    rs = rotation_stack(fits)
    found = calibrated_ks(rs, draws=null_draws(len(rs)), store=store)
    p = found.p_values
    published = spectrum_as_published(fits)
    return _adjusted(
        p,
        labels(fits),
        _full_rank(fits).ravel(),
        published_smallest_p=float(published.values[0]),
        p_error_of_smallest=float(found.p_errors[p.argmin()]),
    )


def named_directions(cohort: Cohort, site: str) -> dict[str, Direction]:
    """Directions for ONE, v of v^T R v: all-ones, the anchor's mean activation and its dimension of
    largest variance, of the fit split.

    The anchor's alone, for they must be fixed before R: of a copy that a Haar rotation turned they
    say nothing. A sibling's own mean turns with its basis as R does, and R carries it to the
    anchor's wherever the two share a mean, whatever the law of R.
    """
    x = cohort.activations("fit", site)[0]
    variance, mean = torch.var_mean(x.double(), dim=0)
    loudest = torch.zeros_like(mean)
    loudest[variance.argmax()] = 1.0
    found = {"all-ones": torch.ones_like(mean), "mean": mean, "largest variance": loudest}
    return {name: v.cpu().numpy() for name, v in found.items()}


def _deciding(results: Sequence[BatteryResult], full_rank: np.ndarray) -> dict[str, float]:
    """How many matrices fall without ONE, in all and of full rank, and with ONE along all-ones
    alone."""
    without = [r.p_along() for r in results]
    plain = [r.p_along("ONE[all-ones]") for r in results]
    return {
        "rejected_without_one": float(_rejected(without).sum()),
        "rejected_without_one_at_full_rank": float((_rejected(without) & full_rank).sum()),
        "smallest_without_one": float(holm(without).min()),
        "rejected_with_all_ones_alone": float(_rejected(plain).sum()),
        "smallest_with_all_ones_alone": float(holm(plain).min()),
    }


def battery(cohort: Cohort, fits: Fits, store: Store | None) -> Measured:
    """Holm-adjusted family p-value of the battery for each rotation.

    ONE looks along the `named_directions`, as one statistic corrected for three. Beside the verdict
    stands what falls without ONE, with ONE along all-ones alone, and of the shuffled fits.
    """
    at = {site: named_directions(cohort, site) for site in fits.sites}
    vectors = [at[site] for _ in fits.pairs for site in fits.sites]
    draws = null_draws(len(vectors))
    matched, shuffled = (
        haar_batteries(rotation_stack(fits, which), vectors=vectors, draws=draws, store=store)
        for which in _BOTH
    )
    full_rank = _full_rank(fits).ravel()
    return _adjusted(
        np.array([r.p_value for r in matched]),
        labels(fits),
        full_rank,
        shuffled_rejected_share=float(_rejected([r.p_value for r in shuffled]).mean()),
        shuffled_rejected_without_one=float(_rejected([r.p_along() for r in shuffled]).sum()),
        **_deciding(matched, full_rank),
    )


def relative(cohort: Cohort, fits: Fits, store: Store | None) -> Measured:
    """Holm-adjusted family p-values of R_b R_c^T along the chain of siblings, at every site.

    ONE as in `battery`. A link has full rank where both of its rotations have.
    Raises NotOffered for a cohort with a single sibling.
    """
    if len(fits.pairs) < 2:
        raise NotOffered("a chain of siblings needs two, beside the anchor")
    draws = null_draws(len(labels(fits)))
    rank = _full_rank(fits)
    results: list[BatteryResult] = []
    names, full = [], []
    for j, site in enumerate(fits.sites):
        chain = relative_rotations([m.r for m in fits.matched[site]])
        vectors = [named_directions(cohort, site)] * len(chain)
        results += haar_batteries(chain, vectors=vectors, draws=draws, store=store)
        names += [f"{b} {c} {site}" for b, c in pairwise(fits.pairs)]
        full += list(rank[:-1, j] & rank[1:, j])
    p = np.array([r.p_value for r in results])
    return _adjusted(p, tuple(names), np.array(full), **_deciding(results, np.array(full)))


def half_gap(fits: Fits) -> PairSite:
    """||R_1 - R_2||_F / sqrt(2d) between fits on disjoint halves of the tokens."""

    def cell(i: int, site: str) -> float:
        first, second = (half[i].r for half in fits.halves[site])
        return float(np.sqrt(max(0.0, 1 - split_half_share(first, second))))

    return _table(fits, cell)


def special_fraction(fits: Fits) -> Measured:
    """Share of rotations with determinant +1."""
    signs = determinant_sign(rotation_stack(fits))
    return Measured.of(float((signs > 0).mean())).also(
        **{f"det_{label}": float(sign) for label, sign in zip(labels(fits), signs, strict=True)}
    )


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


def same_model_rejections(cohort: Cohort, store: Store | None) -> Measured:
    """Share of sites at which the anchor against itself, on the score split, is rejected."""
    rs = []
    for site in cohort.sites:
        x = cohort.activations("score", site)[0]
        rs.append(fit_rotation(x, x).r.cpu().numpy())
    # as many draws as for all rotations: see `null_draws`
    draws = null_draws(len(cohort.sites) * max(1, len(cohort.seeds) - 1))
    p = holm(calibrated_ks(np.stack(rs), draws=draws, store=store).p_values)
    return Measured.of(float((p < LEVEL).mean())).also(largest_p=float(p.max()))


def shared_features(
    cohort: Cohort, store: Store | None, sites: Sequence[str], variance: float = 0.99
) -> Measured:
    """Share of pairs and sites whose whitened map is rejected as Haar with matched tokens, minus
    the share with shuffled tokens; each a family of its own for Holm. All maps of a site have one
    rank, with which every model keeps the share `variance`."""
    p_values: dict[Which, list[float]] = {which: [] for which in _BOTH}
    ranks = {}
    # As few as can reject every map after Holm: each rank needs tables of its own.
    maps = len(sites) * (len(cohort.seeds) - 1)
    draws = math.ceil(1.05 * BATTERY_STEPS * maps / LEVEL)
    for site in sites:
        x = cohort.activations("fit", site).cpu()
        rank = common_rank([each.numpy() for each in x], variance)
        ranks[f"rank_{site}"] = float(rank)
        anchor = x[0].double().numpy()
        for m in range(1, len(x)):
            rng = numpy_generator(NULL_DRAWS_SEED, "whitened", site, m)
            sibling = x[m].double().numpy()
            found = whitened_contrast(sibling, anchor, rng, rank=rank, draws=draws, store=store)
            for which in _BOTH:
                p_values[which].append(getattr(found, which).p_value)
    share = {which: float(_rejected(p).mean()) for which, p in p_values.items()}
    return Measured.of(share["matched"] - share["shuffled"]).also(
        matched_rejected=share["matched"],
        shuffled_rejected=share["shuffled"],
        largest_matched_p=float(holm(p_values["matched"]).max()),
        **ranks,
    )


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
