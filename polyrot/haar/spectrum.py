"""Eigenphases of orthogonal matrices and their exact law under Haar measure.

The eigenvalues are ``exp(+-i theta)`` in pairs, plus forced ones that depend on ``d`` and the
determinant alone: one +1 in SO(odd), one -1 in O-(odd), one of each in O-(even), none in SO(even).
The free angles in (0, pi) are a determinantal process with the kernels of Weyl's integration
formula, from which the expected counts below follow by integration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import svdvals
from scipy.linalg.lapack import dsterf

from polyrot.haar.orthogonal import FloatArray, as_orthogonal, determinant_sign
from polyrot.runtime.threads import blas_for

#: Closer to 0 or pi than this, arccos of a cosine loses digits (error 1e-16 / theta): see `_refine`
_NEAR_ENDS = 1e-3
#: Tridiagonal models drawn at once: a few MiB at a width of 512.
_AT_ONCE = 256


@dataclass(frozen=True)
class Coset:
    """SO(d) (`det` = +1) or O-(d) (`det` = -1) and which eigenvalues it forces."""

    d: int
    det: int

    def __post_init__(self) -> None:
        if self.d < 1 or self.det not in (-1, 1):
            raise ValueError(f"expected d >= 1 and det +1 or -1, got {self.d} and {self.det}")

    @property
    def fixed_plus(self) -> int:
        """Number of forced eigenvalues +1: 0 or 1."""
        return int((self.d % 2 == 1) == (self.det == 1))

    @property
    def fixed_minus(self) -> int:
        """Number of forced eigenvalues -1: 0 or 1."""
        return int(self.det == -1)

    @property
    def n_angles(self) -> int:
        """Number of free angles in (0, pi), each standing for a conjugate pair."""
        return (self.d - self.fixed_plus - self.fixed_minus) // 2

    @property
    def name(self) -> str:
        """The coset of O(d), as it is written."""
        return f"SO({self.d})" if self.det == 1 else f"O-({self.d})"


def angles(r: ArrayLike, *, validate: bool = True) -> list[FloatArray]:
    """The free angles of each matrix, ascending, in radians: `Coset.n_angles` values in [0, pi].

    The cosines are the eigenvalues of the symmetric part ``(R + R^T) / 2``, each twice; both copies
    are averaged. Several times cheaper than a general eigensolver, and pairs stay exact. `r` is
    ``[d, d]`` or ``[n, d, d]``; the result has one array per matrix, since in even dimension the
    number of free angles depends on the determinant.
    """
    stack = as_orthogonal(r) if validate else np.asarray(r, dtype=np.float64)
    d = stack.shape[-1]
    with blas_for(d):
        dets = determinant_sign(stack)
        cosines = np.linalg.eigvalsh((stack + stack.transpose(0, 2, 1)) / 2.0)[:, ::-1]
    found = []
    for m, det, c in zip(stack, dets, cosines, strict=True):
        coset = Coset(d, int(det))
        theta = np.arccos(np.clip(_pair(c, coset), -1.0, 1.0))
        if theta.size and (theta[0] < _NEAR_ENDS or theta[-1] > np.pi - _NEAR_ENDS):
            with blas_for(d):
                theta = _refine(m, coset, theta)
        found.append(theta)
    return found


def _pair(values: FloatArray, coset: Coset) -> FloatArray:
    """Drop the forced ends of values sorted by angle and average each conjugate pair."""
    free = values[coset.fixed_plus : coset.d - coset.fixed_minus]
    return free.reshape(-1, 2).mean(axis=1)


def _refine(m: FloatArray, coset: Coset, theta: FloatArray) -> FloatArray:
    """Angles to full absolute precision near 0 and pi as well.

    R is normal, so the singular values of ``I - R`` are ``2 sin(theta/2)`` and those of ``I + R``
    are ``2 cos(theta/2)``. Both are known to rounding and monotone in theta, so sorting matches
    them; each is used on the half where its inverse is well conditioned.
    """
    eye = np.eye(coset.d)
    sine = np.clip(_pair(svdvals(eye - m)[::-1], coset) / 2, 0.0, 1.0)
    cosine = np.clip(_pair(svdvals(eye + m), coset) / 2, 0.0, 1.0)
    fine = np.where(theta < np.pi / 2, 2 * np.arcsin(sine), np.pi - 2 * np.arcsin(cosine))
    return np.sort(fine)


def fold(free: FloatArray, coset: Coset) -> FloatArray:
    """All `d` folded phases ``[..., d]`` from the free angles ``[..., n]``: each pair twice."""
    lead = free.shape[:-1]
    zeros = np.zeros((*lead, coset.fixed_plus))
    pis = np.full((*lead, coset.fixed_minus), np.pi)
    return np.concatenate([zeros, np.repeat(free, 2, axis=-1), pis], axis=-1)


def eigenphases(r: ArrayLike) -> FloatArray:
    """|angle| of all `d` eigenvalues in [0, pi], ascending, each conjugate pair counted twice.

    ``[d, d]`` gives ``[d]``, ``[n, d, d]`` gives ``[n, d]``. This is the folding of the published
    test; `angles` gives each pair once. The determinant fixes which exact 0 and pi occur.

    Raises:
        NotOrthogonalError: see `polyrot.haar.as_orthogonal`.
    """
    stack = as_orthogonal(r)
    d = stack.shape[-1]
    dets = determinant_sign(stack)
    each = angles(stack, validate=False)
    phases = np.stack([fold(t, Coset(d, int(s))) for t, s in zip(each, dets, strict=True)])
    return phases[0] if np.ndim(r) == 2 else phases


def mean_cosine(r: ArrayLike) -> FloatArray:
    """Mean cosine of the `d` eigenphases, which is ``tr R / d``, for each matrix ``[n]``."""
    stack = as_orthogonal(r)
    return np.trace(stack, axis1=1, axis2=2) / stack.shape[-1]


def expected_count(theta: ArrayLike, coset: Coset) -> FloatArray:
    """Exact expected number of free angles below theta (radians) under Haar on one coset.

    With n free angles the one-point density is ``1/pi`` times a sum of n squares: ``1 + 2 sum
    cos^2(k t)``, k < n, on SO(2n); ``2 sum sin^2(k t)``, k <= n, on O-(2n + 2); ``2 sum
    sin^2((k + 1/2) t)``, k < n, on SO(2n + 1); the same with cosines on O-(2n + 1). Integrated:

    - even d: ``n t/pi +- (1/2pi) sum_{k < d/2} sin(2 k t)/k``, + for det = +1
    - odd d: ``n t/pi -+ (1/pi) sum_{k < n} sin((2k + 1) t)/(2k + 1)``, - for det = +1

    Source: Weyl's integration formula, e.g. Katz and Sarnak, Random Matrices, Frobenius
    Eigenvalues, and Monodromy (1999), section 5.
    """
    t = np.asarray(theta, dtype=np.float64)
    if coset.d % 2 == 0:
        frequencies, sign = 2.0 * np.arange(1, coset.d // 2), float(coset.det)
    else:
        frequencies, sign = 2.0 * np.arange(coset.n_angles) + 1.0, -float(coset.det)
    wave = np.zeros_like(t)
    # exp(i f t) by repeated multiplication: one complex product per term instead of a sine
    step, term = np.exp(2j * t), np.exp(1j * (0.0 if coset.d % 2 == 0 else -1.0) * t)
    for f in frequencies:
        term = term * step
        wave += term.imag / f
    return coset.n_angles * t / np.pi + sign * wave / np.pi


def ks_distance_to_haar(free: FloatArray, coset: Coset) -> FloatArray:
    """Kolmogorov distance of the free angles ``[..., n]`` (ascending) to their exact Haar law.

    ``sup |N(t) - E N(t)| / n``; NaN where there are no free angles. Its law under Haar is *not*
    Kolmogorov's, since the angles repel: use the null tables.
    """
    n = coset.n_angles
    if n == 0:
        return np.full(free.shape[:-1], np.nan)
    law = expected_count(free, coset) / n
    above = np.arange(1, n + 1) / n - law
    below = law - np.arange(n) / n
    return np.maximum(above.max(axis=-1), below.max(axis=-1))


def sample_angles(coset: Coset, n: int, rng: np.random.Generator) -> FloatArray:
    """Draw the free angles ``[n, n_angles]`` (ascending) of `n` Haar matrices in O(d^2) each.

    The cosines are a Jacobi ensemble (beta = 2, exponents -1/2 at an unforced end and +1/2 at a
    forced one), whose tridiagonal model has independent Beta coefficients: Killip and Nenciu 2004,
    arXiv:math/0410034, theorem 2 and proposition B.2.
    """
    size = coset.n_angles
    if size == 0:
        return np.empty((n, 0))
    a, b = coset.fixed_plus - 0.5, coset.fixed_minus - 0.5
    k = np.arange(2 * size - 1)
    even = k % 2 == 0
    s = np.where(even, (2 * size - k - 2) / 2 + a + 1, (2 * size - k - 3) / 2 + a + b + 2)
    t = np.where(even, (2 * size - k - 2) / 2 + b + 1, (2 * size - k - 1) / 2)
    draws = np.empty((n, size))
    for first in range(0, n, _AT_ONCE):
        count = min(_AT_ONCE, n - first)
        # alpha[:, j + 2] is Verblunsky coefficient j; the last and the one before the first are -1
        alpha = np.full((count, 2 * size + 2), -1.0)
        alpha[:, 0], alpha[:, 2:-1] = 0.0, 1.0 - 2.0 * rng.beta(s, t, (count, len(k)))
        here, back, back2 = alpha[:, 2:-1:2], alpha[:, 1:-2:2], alpha[:, 0:-3:2]
        diagonal = (1 - back) * here - (1 + back) * back2
        off = np.sqrt((1 - back[:, :-1]) * (1 - here[:, :-1] ** 2) * (1 + back[:, 1:]))
        draws[first : first + count] = _tridiagonal_eigenvalues(diagonal, off)
    return np.arccos(np.clip(draws[:, ::-1] / 2, -1.0, 1.0))


def _tridiagonal_eigenvalues(diagonal: FloatArray, off: FloatArray) -> FloatArray:
    """Ascending, of each symmetric tridiagonal matrix: diagonals ``[n, size]`` and those beside
    them ``[n, size - 1]``. As SciPy's `eigvalsh_tridiagonal`, whose checks cost more than these."""
    if off.shape[1] == 0:
        return diagonal
    found = [dsterf(here, beside) for here, beside in zip(diagonal, off, strict=True)]
    if any(failed for _, failed in found):
        raise RuntimeError("LAPACK found no eigenvalues of a tridiagonal matrix")
    return np.stack([values for values, _ in found])
