"""Orthogonal matrices: checking them, drawing them, their determinant and coset.

``O(d)`` is all orthogonal matrices, ``SO(d)`` those with determinant +1, and ``O-(d)`` the other
coset, determinant -1, which is no group. Haar measure on ``O(d)`` is a fair coin between the two.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ortho_group, special_ortho_group

from polyrot.maps.arrays import Array, read_numpy
from polyrot.runtime.threads import blas_for

Group = Literal["O", "SO", "O-"]
FloatArray = NDArray[np.float64]

#: Largest accepted entry of ``|R^T R - I|``: single-precision fits pass, careless products do not.
ORTHOGONALITY_TOLERANCE = 1e-4
#: Below this the rounding is already that of double precision and polishing gains nothing.
_POLISH_ABOVE = 1e-13


class NotOrthogonalError(ValueError):
    """The input is no orthogonal matrix; the message says what is wrong and by how much."""


def as_orthogonal(r: Array, *, tolerance: float = ORTHOGONALITY_TOLERANCE) -> FloatArray:
    """Check a matrix ``[d, d]`` or a stack ``[n, d, d]`` and return it as a float64 stack.

    A deviation between rounding and `tolerance` (a single-precision fit) is removed by one or two
    Newton steps ``R <- R (3 I - R^T R) / 2`` towards the polar factor, so that the eigenvalues come
    in exact pairs. Accepts NumPy arrays, lists, and torch tensors on any device.

    Raises:
        NotOrthogonalError: not square, empty, not finite, not orthogonal, or of a dtype that is not
            floating (integers, complex numbers, objects; sparse).
    """
    raw = read_numpy(r, "orthogonal matrix", NotOrthogonalError)
    stack = np.array(raw, dtype=np.float64, copy=True)
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3 or stack.shape[-1] != stack.shape[-2]:
        raise NotOrthogonalError(
            f"expected a square matrix [d, d] or a stack [n, d, d], got shape {raw.shape}"
        )
    if stack.size == 0:
        raise NotOrthogonalError(f"expected at least one matrix and d >= 1, got shape {raw.shape}")
    with blas_for(stack.shape[-1]):
        _polish(stack, tolerance)
    return stack


def _polish(stack: FloatArray, tolerance: float) -> None:
    """Bring each of a stack nearer to orthogonal, in place; or raise NotOrthogonalError."""
    d = stack.shape[-1]
    for i, m in enumerate(stack):
        which = "the matrix" if len(stack) == 1 else f"matrix {i} of {len(stack)}"
        bad = int(np.count_nonzero(~np.isfinite(m)))
        if bad:
            raise NotOrthogonalError(f"{which} has {bad} of {m.size} entries NaN or infinite")
        deviation = _deviation(m)
        if deviation > tolerance:
            singular = np.linalg.svd(m, compute_uv=False)
            raise NotOrthogonalError(
                f"{which} is not orthogonal: |R^T R - I| is as large as {deviation:.3g} "
                f"(tolerance {tolerance:.3g}); singular values span {singular[-1]:.6g} to "
                f"{singular[0]:.6g} instead of 1 (d = {d}). If it is a linear map, test its polar "
                "factor U V^T"
            )
        for step in range(2):
            if step:
                deviation = _deviation(m)
            if deviation <= _POLISH_ABOVE * np.sqrt(d):
                break
            m[...] = m @ (1.5 * np.eye(d) - 0.5 * (m.T @ m))


def _deviation(m: FloatArray) -> float:
    gram = m.T @ m
    gram.flat[:: len(gram) + 1] -= 1.0  # its diagonal
    return float(np.abs(gram).max())


def as_one_orthogonal(r: Array) -> FloatArray:
    """As `as_orthogonal`, for exactly one matrix; returns ``[d, d]``."""
    stack = as_orthogonal(r)
    if len(stack) != 1:
        raise NotOrthogonalError(f"expected one matrix [d, d], got a stack of {len(stack)}")
    return stack[0]


def determinant_sign(r: FloatArray) -> NDArray[np.int64]:
    """Sign of the determinant, +1 (in SO(d)) or -1, of each matrix of a stack ``[n, d, d]``."""
    sign, _ = np.linalg.slogdet(r)
    return np.where(sign > 0, 1, -1).astype(np.int64)


def sample_haar(d: int, n: int, rng: np.random.Generator, group: Group | int = "O") -> FloatArray:
    """Draw `n` matrices ``[n, d, d]`` from Haar measure on ``O(d)``, ``SO(d)`` or the coset O-(d).

    d: width of a matrix; n: how many; rng: draws them, in float64. `group` is ``"O"``, ``"SO"`` (or
    ``+1``, determinant +1) or ``"O-"`` (or ``-1``). SciPy's samplers draw (QR of a
    Gaussian with signs fixed; Mezzadri 2007, arXiv:math-ph/0609050); O-(d) is SO(d) with the sign
    of one column changed, which maps Haar to Haar.

    Raises:
        ValueError: `d` or `n` below 1, or an unknown group.

    >>> rng = np.random.default_rng(0)
    >>> r = sample_haar(4, 2, rng, "SO")
    >>> r.shape, np.allclose(r[0].T @ r[0], np.eye(4)), np.linalg.det(r).round(6).tolist()
    ((2, 4, 4), True, [1.0, 1.0])
    """
    if d < 1 or n < 1:
        raise ValueError(f"expected d >= 1 and n >= 1, got d = {d}, n = {n}")
    if group not in ("O", "SO", "O-", 1, -1):
        raise ValueError(f'unknown group {group!r}: use "O", "SO" (+1) or "O-" (-1)')
    if d == 1:  # SciPy's samplers start at d = 2
        signs: FloatArray = np.asarray(rng.integers(0, 2, size=n) * 2 - 1, dtype=np.float64)
        if group != "O":
            signs[:] = 1.0 if group in ("SO", 1) else -1.0
        return signs[:, None, None]
    sampler = ortho_group if group == "O" else special_ortho_group
    with blas_for(d):
        drawn = sampler.rvs(d, size=n, random_state=rng)
    r: FloatArray = np.asarray(drawn, dtype=np.float64).reshape(n, d, d)
    if group in ("O-", -1):
        r[:, :, 0] *= -1.0
    return r


def polar(m: FloatArray) -> FloatArray:
    """Nearest orthogonal matrix ``U V^T`` of each ``m = U S V^T`` in ``[..., d, d]``.

    It lies in O(d): the determinant is not constrained.
    """
    with blas_for(m.shape[-1]):
        u, _, vt = np.linalg.svd(m)
    return np.asarray(u @ vt, dtype=np.float64)
