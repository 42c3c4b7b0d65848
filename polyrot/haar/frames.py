"""What a Haar verdict hides: anchors, frames of the models' own, and unidentified directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from polyrot.haar.battery import BatteryResult, haar_battery
from polyrot.haar.nulls import DEFAULT_DRAWS, NULL_SEED, Store
from polyrot.haar.orthogonal import FloatArray, NotOrthogonalError, as_orthogonal, polar
from polyrot.maps.arrays import Array, read_numpy
from polyrot.maps.checks import check_pair

#: Principal directions whose variance is below this share of the largest are rounding noise.
_RANK_TOLERANCE = 1e-10


def relative_rotations(rs: Sequence[Array] | FloatArray) -> FloatArray:
    """``R_b R_c^T`` for neighbours b, c of a chain: ``[n, d, d]`` gives ``[n - 1, d, d]``.

    With ``A_b R_b ~ A_anchor`` and ``A_c R_c ~ A_anchor`` it maps b to c and the anchor cancels: if
    ``R_b = H_b Q^T`` with one Haar Q, each R_b alone is Haar whatever H_b is, but ``R_b R_c^T = H_b
    H_c^T`` is not. A chain, not all pairs: its links are independent if the R_b are Haar.

    Raises:
        ValueError: fewer than two rotations, or one that is not orthogonal.
    """
    stack = as_orthogonal(np.stack([read_numpy(r, "rotation", NotOrthogonalError) for r in rs]))
    if len(stack) < 2:
        raise ValueError("a chain needs at least two rotations")
    return stack[:-1] @ stack[1:].transpose(0, 2, 1)


def whitened_map(
    a: Array,
    b: Array,
    rng: np.random.Generator,
    *,
    rank: int | None = None,
    variance: float = 0.99,
) -> FloatArray:
    """Orthogonal map ``[r, r]`` between the whitened principal frames of two sets of activations.

    ``polar(U_a^T U_b)`` with U the top-r left singular vectors of the centred activations
    ``[tokens, d]``, each with a random sign, so that the map is Haar if the sets are unrelated.
    Plain Procrustes is not, in these frames, because the spectra are graded. The polar factor of
    Gaussian noise is exactly Haar; ``U_a^T U_b`` of shuffled pairs is such noise for many tokens.

    Args:
        a, b: activations of the same tokens; widths may differ; need not be centred.
        rank: r; else the smallest r with which both sets keep the share `variance`.

    Raises:
        BadActivations: no ``[tokens, d]``, token counts differ, NaN or infinity.
        ValueError: a constant set, a rank above that of the activations, too few tokens for it.
    """
    x, y = (read_numpy(m, "whitened_map").astype(np.float64) for m in (a, b))
    check_pair(torch.from_numpy(x), torch.from_numpy(y), "whitened_map", same_width=False)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    axes = [_Principal.of(x, "a"), _Principal.of(y, "b")]
    if rank is None:
        rank = _common_rank(axes, variance)
    lowest = min(axis.full_rank for axis in axes)
    if not 1 <= rank <= lowest:
        raise ValueError(f"rank must lie in 1..{lowest}, the rank of the activations; got {rank}")
    if len(x) <= 2 * rank:
        raise ValueError(f"{len(x)} tokens are too few for rank {rank}: frames would overlap")
    # U_a^T U_b = S_a^-1 V_a^T (A^T B) V_b S_b^-1 needs no [tokens, tokens] or [tokens, r] array
    scaled = [axis.vectors[:, :rank] / axis.scales[:rank] for axis in axes]
    cross = scaled[0].T @ (x.T @ y) @ scaled[1]
    signs = rng.integers(0, 2, size=(2, rank)) * 2.0 - 1.0
    return polar(signs[0][:, None] * cross * signs[1])


def common_rank(sets: Sequence[Array], variance: float = 0.99) -> int:
    """The smallest r with which every set ``[tokens, d]`` keeps the share `variance`; at most the
    lowest rank among them. One r for many maps, as each r has null tables of its own.

    Raises:
        ValueError: a constant set, a share outside of (0, 1].
    """
    axes = []
    for i, each in enumerate(sets):
        x = read_numpy(each, f"set {i}").astype(np.float64)
        axes.append(_Principal.of(x - x.mean(axis=0), f"set {i}"))
    return _common_rank(axes, variance)


def _common_rank(axes: Sequence[_Principal], variance: float) -> int:
    wanted = max(axis.rank_for(variance) for axis in axes)
    return min(wanted, *(axis.full_rank for axis in axes))


@dataclass(frozen=True, eq=False)
class _Principal:
    vectors: FloatArray  # [d, d], columns by falling variance
    scales: FloatArray  # singular values of the centred activations

    @classmethod
    def of(cls, x: FloatArray, name: str) -> _Principal:
        values, vectors = np.linalg.eigh(x.T @ x)
        if values[-1] <= 0:
            raise ValueError(f"{name}: the activations are constant")
        return cls(vectors[:, ::-1], np.sqrt(np.maximum(values[::-1], 0.0)))

    @property
    def full_rank(self) -> int:
        return int((self.scales**2 > _RANK_TOLERANCE * self.scales[0] ** 2).sum())

    def rank_for(self, variance: float) -> int:
        if not 0 < variance <= 1:
            raise ValueError(f"variance must be a share in (0, 1], got {variance}")
        share = np.cumsum(self.scales**2) / (self.scales**2).sum()
        return int(np.searchsorted(share, variance - 1e-12) + 1)


def shuffled_rows(
    tokens: int,
    rng: np.random.Generator,
    sequences: ArrayLike | None = None,
    *,
    by: Literal["token", "sequence"] = "token",
) -> NDArray[np.intp]:
    """A permutation ``[tokens]`` of rows that breaks the pairing of two sets of activations.

    ``by="token"`` permutes rows freely. ``by="sequence"`` moves whole sequences (`sequences` names
    each row's), which keeps the dependence of neighbouring tokens *in both sets*: sound for a
    permutation p-value of a strength of relation, but then slowly varying directions correlate more
    by chance, ``U_a^T U_b`` is not isotropic noise and its polar factor not exactly Haar.

    Raises:
        ValueError: ``by="sequence"`` without `sequences`, or of the wrong length.
    """
    if by == "token":
        return rng.permutation(tokens)
    if sequences is None:
        raise ValueError('by="sequence" needs the sequence of every token')
    labels = np.asarray(sequences)
    if labels.shape != (tokens,):
        raise ValueError(f"sequences: expected shape ({tokens},), got {labels.shape}")
    _, index = np.unique(labels, return_inverse=True)
    rank = rng.permutation(index.max() + 1)
    return np.argsort(rank[index], kind="stable")


@dataclass(frozen=True)
class WhitenedContrast:
    """The battery on the whitened map of matched tokens, and on one of shuffled tokens."""

    matched: BatteryResult
    shuffled: BatteryResult
    rank: int


def whitened_contrast(
    a: Array,
    b: Array,
    rng: np.random.Generator,
    *,
    rank: int | None = None,
    variance: float = 0.99,
    sequences: ArrayLike | None = None,
    by: Literal["token", "sequence"] = "token",
    draws: int = DEFAULT_DRAWS,
    seed: int = NULL_SEED,
    alpha: float = 0.01,
    store: Store | None = None,
) -> WhitenedContrast:
    """Are features shared? The battery on `whitened_map`, for matched and for shuffled tokens.

    Shared features give a massive rejection, shuffled tokens Haar; that contrast is the
    diagnostic. Arguments as in `whitened_map`, `shuffled_rows` and `haar_battery`.
    """
    y = read_numpy(b, "whitened_contrast")
    matched = whitened_map(a, y, rng, rank=rank, variance=variance)
    rows = shuffled_rows(len(y), rng, sequences, by=by)
    shuffled = whitened_map(a, y[rows], rng, rank=len(matched))
    first, second = (
        haar_battery(m, draws=draws, seed=seed, alpha=alpha, store=store)
        for m in (matched, shuffled)
    )
    return WhitenedContrast(first, second, len(matched))
