"""The permutation, signed or not, nearest to an orthogonal matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from polyrot.haar.orthogonal import FloatArray, as_one_orthogonal


@dataclass(frozen=True)
class NearestPermutation:
    """A (signed) permutation ``P[i, columns[i]] = signs[i]`` and ``||R - P||_F``."""

    distance: float
    columns: tuple[int, ...]
    signs: tuple[int, ...]

    def matrix(self) -> FloatArray:
        """The permutation as a dense matrix ``[d, d]``."""
        d = len(self.columns)
        p = np.zeros((d, d))
        p[np.arange(d), list(self.columns)] = self.signs
        return p


def nearest_signed_permutation(r: ArrayLike) -> NearestPermutation:
    """Nearest in Frobenius norm among the 2^d d! signed permutations; exact, by assignment.

    ``||R - P||^2 = 2 d - 2 sum_i |R_{i, p(i)}|``: maximise the sum and give each entry R's sign.

    Raises:
        NotOrthogonalError: see `polyrot.haar.as_orthogonal`.
    """
    return _nearest(as_one_orthogonal(r), signed=True)


def nearest_permutation(r: ArrayLike) -> NearestPermutation:
    """As `nearest_signed_permutation`, among the d! permutations with entries +1."""
    return _nearest(as_one_orthogonal(r), signed=False)


def _nearest(r: FloatArray, *, signed: bool) -> NearestPermutation:
    rows, columns = _assign(r, signed=signed)
    matched = r[rows, columns]
    signs = np.where(matched < 0, -1, 1) if signed else np.ones(len(rows), dtype=int)
    return NearestPermutation(
        distance=_distance(r, signed=signed),
        columns=tuple(int(c) for c in columns),
        signs=tuple(int(s) for s in signs),
    )


def _assign(r: FloatArray, *, signed: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, columns = linear_sum_assignment(np.abs(r) if signed else r, maximize=True)
    return rows, columns


def _distance(r: FloatArray, *, signed: bool) -> float:
    rows, columns = _assign(r, signed=signed)
    matched = r[rows, columns]
    total = float((np.abs(matched) if signed else matched).sum())
    return float(np.sqrt(max(0.0, 2 * len(r) - 2 * total)))


def permutation_distances(r: FloatArray, *, signed: bool = True) -> FloatArray:
    """Distance ``[n]`` of each matrix of a stack ``[n, d, d]`` to its nearest permutation."""
    return np.array([_distance(m, signed=signed) for m in r])
