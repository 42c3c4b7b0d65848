"""The seven statistics of the battery, and moments under Haar in closed form.

Two families. *Class* statistics (Q, TR, SR, KS) depend on the spectrum alone: ``V R V^T`` has the
same values, and their null depends on the determinant. *Entry* statistics (S4, SUB, MX) depend on
R^2 entrywise, so on the basis in which R is written; changing the sign of one row maps SO(d) to
O-(d) and leaves them as they are, so both cosets share one null. ONE is ``u^T R v``, exactly known.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from scipy import stats

from polyrot.haar.orthogonal import FloatArray
from polyrot.haar.spectrum import Coset, ks_distance_to_haar

#: Order of the columns of `class_statistics`.
CLASS_NAMES = ("Q", "TR", "SR", "KS")
#: Order of the columns of `entry_statistics`.
ENTRY_NAMES = ("S4", "SUB", "MX")
#: The battery's seven, in the order they are listed.
BATTERY_NAMES = ("S4", "Q", "TR", "SR", "SUB", "MX", "ONE")
#: Statistics of which only large values speak against Haar; of the others, both tails do.
UPPER_TAIL = frozenset({"SUB", "ONE"})
SEES: Mapping[str, str] = MappingProxyType(
    {
        "S4": "entries: permutations, blocks, Hadamard",
        "Q": "spectrum",
        "TR": "fixed directions, drift",
        "SR": "repulsion",
        "SUB": "invariant subspaces",
        "MX": "one large entry, or none",
        "ONE": "named directions",
        "KS": "spectral density",
    }
)

#: Angles closer than this are one repeated eigenvalue up to rounding.
_SAME_ANGLE = 1e-9
#: Some statistics are constants at d = 1, 2 or 3; unrounded they would be ranked by rounding noise.
_DECIMALS = 9


def class_statistics(free: FloatArray, coset: Coset) -> FloatArray:
    """Q, TR, SR, KS ``[n, 4]`` of `n` matrices of one coset from their free angles ``[n, angles]``.

    - Q: ``sum_{k <= d/2} (tr R^k - [k even])^2 / k`` (Diaconis and Evans 2001,
      doi:10.1090/S0002-9947-01-02800-8: traces of powers are near N([k even], k)).
    - TR: ``tr R``; the Frobenius distance to the identity is ``sqrt(2 d - 2 TR)``.
    - SR: mean of min/max of adjacent gaps (Atas et al. 2013, arXiv:1212.5611); 0 where both gaps
      are closed, NaN with fewer than three angles.
    - KS: distance of the angles to their exact law, see `ks_distance_to_haar`.
    """
    q = np.zeros(len(free))
    z = np.exp(1j * free)
    power = np.ones_like(z)
    trace = np.zeros(len(free))
    for k in range(1, max(1, coset.d // 2) + 1):
        power = power * z
        tr = coset.fixed_plus + coset.fixed_minus * (-1.0) ** k + 2 * power.real.sum(axis=1)
        if k == 1:
            trace = tr
        if k <= coset.d // 2:
            q += (tr - (k % 2 == 0)) ** 2 / k
    columns = [q, trace, _gap_ratio(free), ks_distance_to_haar(free, coset)]
    return np.stack(columns, axis=1).round(_DECIMALS)


def _gap_ratio(free: FloatArray) -> FloatArray:
    if free.shape[1] < 3:
        return np.full(len(free), np.nan)
    gaps = np.diff(free, axis=1)
    gaps[gaps < _SAME_ANGLE] = 0.0
    small = np.minimum(gaps[:, 1:], gaps[:, :-1])
    large = np.maximum(gaps[:, 1:], gaps[:, :-1])
    ratio = np.divide(small, large, out=np.zeros_like(small), where=large > 0)
    return ratio.mean(axis=1)


def block_sizes(d: int) -> range:
    """Sizes p of the leading blocks that SUB looks at: every integer from d/16 to d/2."""
    return range(max(1, d // 16), d // 2 + 1)


def entry_statistics(r: FloatArray) -> FloatArray:
    """S4, SUB, MX ``[n, 3]`` of a stack ``[n, d, d]`` of orthogonal matrices.

    - S4: ``sum R_ij^4`` (inverse participation ratio; between 1, Hadamard, and d, permutations).
    - SUB: largest |z| among the energies ``sum_{i,j < p} R_ij^2`` of the leading blocks, `p` as in
      `block_sizes`, and ``sum R_ii^2``; z by the exact mean and variance. 0 at d = 1.
    - MX: ``max |R_ij|`` (Jiang 2005, doi:10.1007/s00440-004-0376-4: maxima of entries).
    """
    d = r.shape[-1]
    energy = r**2
    s4 = np.einsum("nij,nij->n", energy, energy)
    mx = np.sqrt(energy.max(axis=(1, 2)))
    if d == 1:
        sub = np.zeros(len(r))
    else:
        half = d // 2
        p = np.asarray(block_sizes(d))
        cumulated = energy[:, :half, :half].cumsum(axis=1).cumsum(axis=2)
        blocks = cumulated[:, p - 1, p - 1]
        mean, variance = block_energy_moments(d, p, p)
        z_blocks = np.abs((blocks - mean) / np.sqrt(variance)).max(axis=1)
        diagonal = np.einsum("nii->n", energy)
        z_diagonal = np.abs(diagonal - 1.0) / np.sqrt(diagonal_energy_variance(d))
        sub = np.maximum(z_blocks, z_diagonal)
    return np.stack([s4, sub, mx], axis=1).round(_DECIMALS)


def one_p_value(value: float, d: int) -> float:
    """Exact P(|u^T R v| >= |value|) for unit u, v: the square is Beta(1/2, (d - 1)/2).

    Never below 1e-15: with |value| = 1 to rounding nothing smaller can be known.
    """
    if d == 1:
        return 1.0
    return max(1e-15, float(stats.beta.sf(min(1.0, value**2), 0.5, (d - 1) / 2)))


# ---- moments under Haar on O(d), in closed form (Weingarten calculus; Collins and Sniady 2006,
# arXiv:math-ph/0402073). Those of the entries' squares hold on each coset; those of the trace need
# d >= 3 there.


def frobenius_squared_moments(d: int) -> tuple[float, float]:
    """Mean ``2 d`` and variance 4 of ``||R - I||_F^2 = 2 d - 2 tr R`` (on a coset: d >= 3)."""
    return 2.0 * d, 4.0


def frobenius_distance_moments(d: int) -> tuple[float, float]:
    """Mean and SD of ``||R - I||_F`` with ``tr R ~ N(0, 1)``, by quadrature (use for d >= 8)."""
    x, w = np.polynomial.hermite_e.hermegauss(40)
    w = w / w.sum()
    keep = 2 * x < 2 * d
    distance = np.sqrt(np.maximum(0.0, 2 * d - 2 * x[keep]))
    mean = float((w[keep] * distance).sum())
    return mean, float(np.sqrt((w[keep] * (distance - mean) ** 2).sum()))


def s4_mean(d: int) -> float:
    """Mean of ``sum R_ij^4``: ``3 d / (d + 2)``."""
    return 3.0 * d / (d + 2)


def block_energy_moments(
    d: int, p: int | np.ndarray, q: int | np.ndarray
) -> tuple[FloatArray, FloatArray]:
    """Mean ``p q / d`` and variance of the sum of squares of a p x q block, d >= 2.

    The variance is ``2 p q (d - p)(d - q) / (d^2 (d - 1)(d + 2))``.
    """
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    variance = 2 * p * q * (d - p) * (d - q) / (d**2 * (d - 1) * (d + 2))
    return p * q / d, variance


def diagonal_energy_variance(d: int) -> float:
    """Variance ``2 / (d + 2)`` of ``sum R_ii^2``, whose mean is 1; d >= 2.

    From ``E R_11^4 = 3 / (d (d + 2))`` and ``E R_11^2 R_22^2 = (d + 1) / (d (d - 1)(d + 2))``.
    """
    return 2.0 / (d + 2)
