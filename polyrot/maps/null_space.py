"""Directions that activations do not determine: what to do with a rotation there, and how to leave
them, and those that the architecture fixes, out of a statistic.

Where the cross-covariance C = U S V^T of two models' activations has rank k < d, every
R = U_k V_k^T + U_0 H V_0^T fits equally well, H [d - k, d - k] being any orthogonal matrix. What
an SVD returns for H is an accident of the solver.
"""

from __future__ import annotations

import torch
from scipy.linalg import qr
from torch import Tensor


def haar_block(
    k: int, generator: torch.Generator, det: int | None = None, batch: tuple[int, ...] = ()
) -> Tensor:
    """Haar draws from O(k), [*batch, k, k] float64; of that determinant where `det` (+1, -1) is
    given.

    QR of a Gaussian matrix with the signs fixed (Mezzadri 2007, arXiv:math-ph/0609050).
    """
    shape = *batch, k, k
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    q, triangle = torch.linalg.qr(drawn)
    q = q * triangle.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    if det is not None and k:
        q[torch.linalg.slogdet(q).sign != det, :, 0] *= -1
    return q


def completed(
    r: Tensor, left: Tensor, generator: torch.Generator, allow_reflection: bool = True
) -> Tensor:
    """The rotation `r` [d, d] with a Haar block on the directions that were not determined.

    left: [d, d - k], an orthonormal basis of the directions of the first model's space that the
    cross-covariance does not see (the last left singular vectors). On their complement nothing
    changes. What `r` was there does not enter: a fixed matrix times a Haar one is Haar. Without
    reflections det r stays as it is.

    >>> eye = torch.eye(4, dtype=torch.float64)
    >>> r = completed(eye, eye[:, 3:], torch.Generator().manual_seed(1))
    >>> r.diagonal().abs().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    k = left.shape[1]
    if not k:
        return r
    block = haar_block(k, generator, None if allow_reflection else 1).to(r)
    return r + left @ ((block - torch.eye(k).to(r)) @ (left.T @ r))


def nearest_completion(cross: Tensor, rank: int, to: Tensor) -> Tensor:
    """Of all orthogonal r [d, d] that fit `cross` as well, the one nearest to the matrix `to`.

    cross: [d, d], a^T b of centred activations, as in `Moments`; rank: its numerical rank.
    """
    u, _, vh = torch.linalg.svd(cross)
    left, right = u[:, rank:], vh[rank:]
    turn, _, back = torch.linalg.svd(left.T @ to.to(cross) @ right.T)
    return u[:, :rank] @ vh[:rank] + left @ (turn @ back) @ right


def nearest_to_identity(cross: Tensor, rank: int) -> Tensor:
    """`nearest_completion` to the identity: the end of the freedom that shows the least change."""
    return nearest_completion(cross, rank, torch.eye(len(cross)))


def free_basis(left_out: Tensor) -> Tensor:
    """Orthonormal basis [d, d - k] of what is orthogonal to `left_out`, nearest to the axes.

    left_out: [k, d], linearly independent directions, such as a cohort's `fixed_directions`. As
    many axes as there are of them are set aside, those that lie most along them (by pivoted QR);
    the other axes, projected, are made orthonormal with the least change (their polar factor, as
    in Loewdin 1950, doi:10.1063/1.1747632). Where axes are left out, the others are the basis.
    Raises ValueError: no matrix, not finite, or dependent directions.

    >>> free_basis(torch.tensor([[0.0, 1.0, 0.0]])).tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """
    if left_out.ndim != 2 or not 0 < len(left_out) < left_out.shape[1]:
        raise ValueError(f"directions to leave out: [k, d] with k below d, not {left_out.shape}")
    if not bool(torch.isfinite(left_out).all()):
        raise ValueError("directions to leave out: not finite")
    rows = left_out.double()
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    values, axes = torch.linalg.svd(rows, full_matrices=False)[1:]
    if float(values[-1]) < 1e-10 * float(values[0]):
        raise ValueError("directions to leave out: they are not linearly independent")
    pivots = qr(axes.cpu().numpy(), mode="r", pivoting=True)[1]
    kept = sorted(pivots[len(rows) :].tolist())
    free = torch.eye(rows.shape[1]).to(rows)[:, kept] - axes.T @ axes[:, kept]
    u, _, vh = torch.linalg.svd(free, full_matrices=False)
    return u @ vh
