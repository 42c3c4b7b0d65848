"""The published criteria as published, and the same quantities against a calibrated null.

The published spectral test is a two-sample Kolmogorov-Smirnov test on folded phases. Its p-value
assumes independent draws; phases of one Haar matrix repel, and each pair is counted twice. Hence
p near 1 for Haar and for much else: the calibrated functions here know the null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from polyrot.haar.nulls import DEFAULT_DRAWS, NULL_SEED, Store, Tail, null_table
from polyrot.haar.orthogonal import FloatArray, as_orthogonal, determinant_sign, sample_haar
from polyrot.haar.permutations import permutation_distances
from polyrot.haar.spectrum import Coset, angles, eigenphases, ks_distance_to_haar

#: From this dimension on the law of the trace is N(0, 1) far below any Monte-Carlo error: its
#: moments agree up to order about d and the distance falls faster than exponentially (Johansson
#: 1997, doi:10.2307/2951843).
NORMAL_TRACE_FROM = 20


@dataclass(frozen=True, eq=False)
class PublishedKS:
    """Two-sample KS statistics and p-values, per matrix ``[n]`` and pooled over all phases."""

    statistics: FloatArray
    p_values: FloatArray
    pooled_statistic: float
    pooled_p_value: float
    n_reference: int

    @property
    def smallest_p(self) -> float:
        """Smallest of the pooled and the per-matrix p-values."""
        return min(self.pooled_p_value, float(self.p_values.min()))


def reference_phases(d: int, rng: np.random.Generator, n_reference: int = 10) -> FloatArray:
    """Pooled folded phases ``[n_reference * d]`` of Haar matrices on O(d), the published sample."""
    return eigenphases(sample_haar(d, n_reference, rng)).ravel()


def published_ks(
    rs: ArrayLike,
    rng: np.random.Generator,
    n_reference: int = 10,
    *,
    reference: FloatArray | None = None,
) -> PublishedKS:
    """The published test: ``scipy.stats.ks_2samp`` of folded phases against Haar matrices' phases.

    All `d` folded phases of a matrix, each conjugate pair twice, against the pooled phases of
    `n_reference` Haar matrices on O(d) (one reference for all, 5,120 phases at d = 512), two-sided,
    SciPy's own choice between exact and asymptotic p. `rs` is ``[d, d]`` or ``[n, d, d]``.

    Source: arXiv 2605.24577, section 5.
    """
    stack = as_orthogonal(rs)
    if reference is None:
        reference = reference_phases(stack.shape[-1], rng, n_reference)
    return ks_of_phases(eigenphases(stack), reference)


def ks_of_phases(phases: FloatArray, reference: FloatArray) -> PublishedKS:
    """`published_ks` of folded phases ``[n, d]``, as `eigenphases` gives them."""
    each = [stats.ks_2samp(p, reference) for p in phases]
    pooled = stats.ks_2samp(phases.ravel(), reference)
    return PublishedKS(
        statistics=np.array([k.statistic for k in each]),
        p_values=np.array([k.pvalue for k in each]),
        pooled_statistic=float(pooled.statistic),
        pooled_p_value=float(pooled.pvalue),
        n_reference=len(reference) // phases.shape[-1],
    )


def frobenius_distances(rs: ArrayLike) -> FloatArray:
    """``||R - I||_F`` of each matrix, ``[n]``."""
    stack = as_orthogonal(rs)
    return np.linalg.norm(stack - np.eye(stack.shape[-1]), axis=(1, 2))


def frobenius_ratio(rs: ArrayLike) -> FloatArray:
    """``||R - I||_F / sqrt(2 d)`` of each matrix, ``[n]``: 1 is the published mark of Haar."""
    stack = as_orthogonal(rs)
    return frobenius_distances(stack) / np.sqrt(2 * stack.shape[-1])


@dataclass(frozen=True, eq=False)
class CalibratedKS:
    """Distance of each spectrum to the exact Haar law, two-sided p-value and its error, ``[n]``."""

    distances: FloatArray
    p_values: FloatArray
    p_errors: FloatArray


def calibrated_ks(
    rs: ArrayLike,
    *,
    draws: int = DEFAULT_DRAWS,
    seed: int = NULL_SEED,
    store: Store | None = None,
) -> CalibratedKS:
    """KS distance to the exact density of R's own coset, two-sided p by Monte Carlo, per matrix.

    Two-sided: a spectrum too even (a cyclic shift) is as wrong as one too uneven. Not corrected for
    several matrices; see `holm`.
    """
    stack = as_orthogonal(rs)
    d = stack.shape[-1]
    tails, distances = [], []
    signs = determinant_sign(stack)
    for free, det in zip(angles(stack, validate=False), signs, strict=True):
        coset = Coset(d, int(det))
        distance = float(ks_distance_to_haar(free, coset).round(9))
        table = null_table(d, coset.det, draws, seed, store, kind="class")
        tails.append(table.p_value("KS", distance))
        distances.append(distance)
    return CalibratedKS(
        np.array(distances),
        np.array([t.p_value for t in tails]),
        np.array([t.p_error for t in tails]),
    )


@dataclass(frozen=True)
class MeanTest:
    """A mean over `n` matrices against Haar; `p_error` is 0 where the law is exact."""

    mean: float
    null_mean: float
    null_sd: float
    n: int
    p_value: float
    p_error: float
    law: str


def mean_cosine_test(
    rs: ArrayLike,
    rng: np.random.Generator,
    *,
    draws: int = DEFAULT_DRAWS,
    seed: int = NULL_SEED,
    store: Store | None = None,
    n_permutations: int = 9_999,
) -> MeanTest:
    """Two-sided p of the pooled mean cosine ``mean(tr R) / d`` for independent Haar matrices.

    For d >= 20 ``tr R`` is N(0, 1) on either coset and the pooled mean is N(0, 1 / (n d^2)); the
    p-value is exact for all purposes. Below, `exchange_p_value` against the null tables.
    """
    stack = as_orthogonal(rs)
    n, d = stack.shape[:2]
    traces = np.trace(stack, axis1=1, axis2=2)
    if d >= NORMAL_TRACE_FROM:
        z = float(traces.sum() / np.sqrt(n))
        p = float(2 * stats.norm.sf(abs(z)))
        return MeanTest(float(traces.mean() / d), 0.0, 1 / (d * n**0.5), n, p, 0.0, "normal")
    parts = []
    dets = determinant_sign(stack)
    # the null has as many matrices of each determinant as the data: a share of draws from each
    for det in sorted(set(dets.tolist())):
        share = round(draws * float(np.mean(dets == det)))
        parts.append(null_table(d, det, draws, seed, store).draws[: max(1, share), 1])
    null = np.concatenate(parts)
    tail = exchange_p_value(traces, null, rng, n_permutations)
    sd = float(null.std(ddof=1)) / (d * n**0.5)
    law = "exchange"
    return MeanTest(
        float(traces.mean() / d), float(null.mean() / d), sd, n, tail.p_value, tail.p_error, law
    )


def grouped_mean_cosine_p(groups: Sequence[ArrayLike]) -> float:
    """Two-sided p of the pooled mean cosine where the matrices of one group are not independent.

    groups: each ``[n, d, d]``. Under the null each group as a whole is turned by a Haar matrix Q of
    its own, which leaves its inner relations as they are: ``tr(S Q)``, S the group's sum, is
    N(0, ||S||_F^2 / d) for large d (Meckes 2008, doi:10.1090/S0002-9947-08-04444-9).
    """
    sums = [as_orthogonal(g).sum(0) for g in groups]
    total = sum(float(np.trace(s)) for s in sums)
    variance = sum(float(np.square(s).sum()) / len(s) for s in sums)
    return float(2 * stats.norm.sf(abs(total) / variance**0.5))


def mean_permutation_test(
    rs: ArrayLike,
    rng: np.random.Generator,
    *,
    draws: int = 2_000,
    seed: int = NULL_SEED,
    store: Store | None = None,
    n_permutations: int = 9_999,
    per_draw: int = 1,
) -> MeanTest:
    """Two-sided p of the mean distance to the nearest signed permutation over `n` Haar matrices.

    per_draw: so many matrices on end count as one draw, their mean. For matrices that hang together
    in whatever way: their mean spreads no more than one, so that p is rather too large.

    The null table has single matrices (an assignment of O(d^3) each); the mean of n is compared by
    `exchange_p_value`, which takes the finite table into account.
    """
    stack = as_orthogonal(rs)
    observed = permutation_distances(stack).reshape(-1, per_draw).mean(1)
    d = stack.shape[-1]
    null = null_table(d, 1, draws, seed, store, kind="permutation").column("signed")
    tail = exchange_p_value(observed, null, rng, n_permutations)
    return MeanTest(
        mean=float(observed.mean()),
        null_mean=float(null.mean()),
        null_sd=float(null.std(ddof=1) / len(observed) ** 0.5),
        n=len(observed),
        p_value=tail.p_value,
        p_error=tail.p_error,
        law="exchange",
    )


def exchange_p_value(
    observed: Sequence[float] | FloatArray,
    null: FloatArray,
    rng: np.random.Generator,
    n_permutations: int = 9_999,
) -> Tail:
    """Two-sided p of the mean of `observed` by exchanging it with the draws `null`.

    If `observed` are n independent draws of the null, every choice of n among all n + N values is
    equally likely; the p-value is therefore valid with any finite table, unlike a comparison with
    the table's mean as though that were exact. Counts choices whose mean is as far from the mean of
    all values.
    """
    own = np.asarray(observed, dtype=np.float64)
    pool = np.concatenate([own, null])
    n, centre = len(own), float(pool.mean())
    distance = abs(float(own.mean()) - centre)
    count = 0
    for _ in range(n_permutations):
        chosen = rng.choice(len(pool), size=n, replace=False, shuffle=False)
        count += abs(float(pool[chosen].mean()) - centre) >= distance - 1e-12
    p = (1 + count) / (1 + n_permutations)
    return Tail(p, float(np.sqrt(p * (1 - p) / n_permutations)))
