"""What the paper itself reports of R: distances, the pooled statistics, halves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.haar.nulls import Store
from polyrot.haar.orthogonal import FloatArray
from polyrot.haar.published import (
    MeanTest,
    frobenius_ratio,
    grouped_mean_cosine_p,
    ks_of_phases,
    mean_cosine_test,
    mean_permutation_test,
    published_ks,
    reference_phases,
)
from polyrot.haar.spectrum import Coset, fold, sample_angles
from polyrot.maps.moments import Moments, blocks_of, cross_without_each, pair_moments
from polyrot.maps.null_space import nearest_completion
from polyrot.maps.procrustes import frobenius_distance, split_half_share
from polyrot.measured import Measured, PairSite, interval_about
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits
from polyrot.measures.haar.rotations import (
    at_identified,
    ceiling,
    not_identified,
    rotation_stack,
    without_map,
)
from polyrot.runtime.seeding import numpy_generator

SETS_OF_PHASES = 31
"""Haar spectra are compared with the published test in so many sets, each as large as the data's:
its smallest p-value misses 0.99 in 1 set of 5 at d = 128, and in most of 31 in 1 case of 10,000."""


def _table(fits: Fits, cell: Callable[[int, str], float]) -> PairSite:
    values = [[cell(i, site) for site in fits.sites] for i in range(len(fits.pairs))]
    seeds = {"null": NULL_DRAWS_SEED}
    return PairSite(np.array(values), fits.pairs, fits.sites, seeds=seeds, unit="positive")


def distances(fits: Fits) -> PairSite:
    """||R - I||_F by pair and site; Haar gives sqrt(2d) in the mean square."""
    return _table(fits, lambda i, s: frobenius_distance(fits.matched[s][i].r))


def distance_of_each(cohort: Cohort, fits: Fits) -> Measured:
    """||R - I||_F of every pair at every site, each with its error over sequences.

    The error is a jackknife's over blocks of the fit split's sequences, R being refitted without
    each; there is none of a single sequence. The ceiling is the distance of an exact copy.
    """
    table = distances(fits)
    plain, errors = table.each(), distance_errors(cohort, fits)
    intervals = [
        None
        if np.isnan(error)
        else interval_about(float(value), float(error), "sequences", "positive")
        for value, error in zip(plain.values, errors.ravel(), strict=True)
    ]
    found = Measured(
        plain.values,
        plain.labels,
        seeds=plain.seeds,
        counts={**plain.counts, "sequences": int(cohort.sequences("fit").max()) + 1},
        intervals=tuple(intervals),
        unit="positive",
    )
    copies = ceiling(fits, lambda each: distances(each).values.ravel())
    return found.also(**not_identified(fits)).below(copies).unless(without_map(fits))


def distance_errors(cohort: Cohort, fits: Fits) -> FloatArray:
    """Jackknife standard errors of `distances` over blocks of sequences, [pairs, sites]; NaN
    of a single sequence. See `without_each_block`.
    """
    errors = np.full((len(fits.pairs), len(fits.sites)), np.nan)
    for j, site in enumerate(fits.sites):
        for i, without in enumerate(without_each_block(cohort, fits, site)):
            if without:
                each = [frobenius_distance(r) for r in without]
                errors[i, j] = float(np.sqrt(len(each) - 1) * np.std(each))
    return errors


def without_each_block(cohort: Cohort, fits: Fits, site: str) -> list[list[Tensor]]:
    """Of every pair the R [d, d] that are fitted without one block of the fit split's sequences;
    none where there is a single sequence.

    What is not determined is not drawn anew: without a block, R is what is nearest to the whole R.
    """
    by_pair = zip(*moments_of_blocks(cohort, site), strict=True)
    return [
        [
            nearest_completion(cross, whole.rank, whole.r)
            for cross in cross_without_each(list(blocks))
        ]
        for blocks, whole in zip(by_pair, fits.matched[site], strict=True)
    ]


def moments_of_blocks(cohort: Cohort, site: str) -> list[list[Moments]]:
    """Of every block of the fit split's sequences, the moments of every pair."""
    x = cohort.activations("fit", site)
    return [
        pair_moments(list(part[1:]), part[0], where=f"{cohort.scale}, {site}, a block")
        for part in blocks_of(x, cohort.sequences("fit"))
    ]


def mean_ratio(fits: Fits) -> Measured:
    """Mean over pairs and sites of ||R - I||_F / sqrt(2d)."""
    ratios = frobenius_ratio(rotation_stack(fits))
    low, high = np.percentile(ratios, [10, 90])
    by_pair = ratios.reshape(len(fits.pairs), -1).mean(1)
    found = Measured(
        by_pair.mean(keepdims=True),
        ("",),
        by_pair[None],
        {"percentile_10": low, "percentile_90": high, **not_identified(fits)},
        counts={"pairs": len(fits.pairs), "sites": len(fits.sites)},
        unit="positive",
    )
    copies = ceiling(fits, lambda each: float(frobenius_ratio(rotation_stack(each)).mean()))
    return found.below(copies).unless(without_map(fits))


def spectrum_as_published(fits: Fits) -> Measured:
    """Smallest of the pooled and per-pair p-values of the published test.

    R of an exact copy is the matrix that it was turned by, so the ceiling needs no copy: it is the
    median over SETS_OF_PHASES sets of exact Haar spectra in SO(d), as many as there are rotations.
    """
    rs = rotation_stack(fits)
    found = published_ks(rs, numpy_generator(NULL_DRAWS_SEED, "published reference"))
    measured = Measured.of(found.smallest_p).also(
        pooled_statistic=found.pooled_statistic,
        pooled_p=found.pooled_p_value,
        smallest_statistic=float(found.statistics.min()),
        largest_statistic=float(found.statistics.max()),
        **not_identified(fits),
    )
    return measured.below(_smallest_p_of_haar(*rs.shape[:2])).unless(without_map(fits))


def _smallest_p_of_haar(matrices: int, d: int) -> float:
    reference = reference_phases(d, numpy_generator(NULL_DRAWS_SEED, "published reference"))
    coset, rng = Coset(d, 1), numpy_generator(NULL_DRAWS_SEED, "Haar spectra")
    sets = (fold(sample_angles(coset, matrices, rng), coset) for _ in range(SETS_OF_PHASES))
    return float(np.median([ks_of_phases(phases, reference).smallest_p for phases in sets]))


def _by_pair(fits: Fits) -> list[FloatArray]:
    rs = rotation_stack(fits)
    return list(rs.reshape(len(fits.pairs), len(fits.sites), *rs.shape[1:]))


def pooled_mean_cosine(fits: Fits, store: Store | None) -> Measured:
    """Two-sided p-value of the pooled mean of cos(theta), null: all R of a pair turned by one and
    the same Haar matrix. Its law is known (`grouped_mean_cosine_p`): nothing is drawn.

    Beside it the p-value that takes all matrices as independent.
    """
    rng = numpy_generator(NULL_DRAWS_SEED, "mean cosine")
    found = mean_cosine_test(rotation_stack(fits), rng, store=store)
    measured = Measured.of(grouped_mean_cosine_p(_by_pair(fits))).also(
        mean_cosine=found.mean,
        p_with_sites_independent=found.p_value,
        **not_identified(fits),
    )
    copies = ceiling(fits, lambda each: grouped_mean_cosine_p(_by_pair(each)))
    return measured.below(copies).unless(without_map(fits))


EXCHANGES = 9_999
"""Monte-Carlo draws of the test of the nearest permutations."""


def nearest_permutation(fits: Fits, store: Store | None) -> Measured:
    """Two-sided Monte-Carlo p-value of the mean distance to the closest signed permutation under
    Haar, a pair's sites counting as one draw, whose spread is at most that of a single matrix: too
    large rather than too small, however the sites hang together.

    Beside it the p-value that takes all matrices as independent.
    """

    def tested(each: Fits, per_draw: int, exchanges: int = EXCHANGES) -> MeanTest:
        rng, rs = numpy_generator(NULL_DRAWS_SEED, "permutations"), rotation_stack(each)
        return mean_permutation_test(
            rs, rng, store=store, n_permutations=exchanges, per_draw=per_draw
        )

    sites = len(fits.sites)
    own = tested(fits, sites)
    found = Measured(
        np.array([own.p_value]),
        ("",),
        beside={
            "mean_distance": own.mean,
            "haar_mean": own.null_mean,
            "p_with_sites_independent": tested(fits, 1).p_value,
            **not_identified(fits),
        },
        seeds={"null": NULL_DRAWS_SEED},
        counts={"draws": EXCHANGES},
        intervals=(interval_about(own.p_value, own.p_error, "Monte Carlo", "fraction"),),
        unit="fraction",
    )
    copies = ceiling(fits, lambda each: tested(each, sites, 999).p_value)
    return found.below(copies).unless(without_map(fits))


def half_gap(fits: Fits) -> PairSite:
    """||R_1 - R_2||_F / sqrt(2d) between fits on disjoint halves of the tokens."""

    def cell(i: int, site: str) -> float:
        first, second = (half[i].r for half in fits.halves[site])
        return float(np.sqrt(max(0.0, 1 - split_half_share(first, second))))

    return _table(fits, cell)


def identifiable(fits: Fits) -> Measured:
    """`half_gap` at identified sites, mean over pairs; beside it at the other sites."""
    judged, unmet = at_identified(fits)
    elsewhere = [site for site in fits.sites if site not in judged.sites]
    beside = {f"gap_{site}": half_gap(fits.at([site])).values.mean() for site in elsewhere}
    found = half_gap(judged).mean_over_pairs().also(**not_identified(fits), **beside)
    return found.below(ceiling(judged, lambda each: half_gap(each).values.mean(0))).unless(unmet)
