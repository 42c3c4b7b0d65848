"""Orthogonal matrices that are not Haar: what a test of Haar must reject."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from scipy.linalg import block_diag, expm, hadamard
from scipy.optimize import brentq
from scipy.special import j1

from polyrot.haar.orthogonal import FloatArray, polar, sample_haar

#: Draws one matrix ``[d, d]`` of an alternative.
Alternative = Callable[[int, np.random.Generator], FloatArray]


def _haar(d: int, rng: np.random.Generator) -> FloatArray:
    return sample_haar(d, 1, rng)[0]


def random_permutation(d: int, rng: np.random.Generator) -> FloatArray:
    """A uniform permutation matrix."""
    return np.eye(d)[rng.permutation(d)]


def signed_permutation(d: int, rng: np.random.Generator) -> FloatArray:
    """A uniform permutation matrix with independent random signs."""
    return random_permutation(d, rng) * (rng.integers(0, 2, size=d) * 2.0 - 1.0)


def cyclic_shift(d: int, _rng: np.random.Generator) -> FloatArray:
    """The shift by one place; its spectrum is perfectly even. Not random."""
    return np.roll(np.eye(d), 1, axis=0)


def block_haar(blocks: int) -> Alternative:
    """Block-diagonal with independent Haar blocks of (nearly) equal size."""

    def draw(d: int, rng: np.random.Generator) -> FloatArray:
        if d < blocks:
            raise ValueError(f"{blocks} blocks need d >= {blocks}, got {d}")
        edges = np.linspace(0, d, blocks + 1).astype(int)
        return np.asarray(block_diag(*(_haar(int(s), rng) for s in np.diff(edges))))

    return draw


def flipped_hadamard(d: int, rng: np.random.Generator) -> FloatArray:
    """A Hadamard matrix over sqrt(d) with random column signs; d must be a power of two.

    Signs of rows as well would give the same spectrum. It is a product of two involutions, so where
    the signs are not half and half some eigenvalues are repeated exactly.
    """
    if d & (d - 1):
        raise ValueError(f"a Sylvester-Hadamard matrix needs d a power of two, got {d}")
    return hadamard(d) / np.sqrt(d) * (rng.integers(0, 2, size=d) * 2.0 - 1.0)


def fixed_coordinates(d: int, rng: np.random.Generator) -> FloatArray:
    """d/8 random coordinates stay, the rest is Haar."""
    r = np.eye(d)
    moved = rng.permutation(d)[max(1, d // 8) :]
    r[np.ix_(moved, moved)] = _haar(len(moved), rng)
    return r


def fixed_subspace(dimension: Callable[[int], int]) -> Alternative:
    """A uniformly random subspace of `dimension(d)` stays, its complement is turned by Haar."""

    def draw(d: int, rng: np.random.Generator) -> FloatArray:
        k = dimension(d)
        v = _haar(d, rng)
        return v[:, :k] @ v[:, :k].T + v[:, k:] @ _haar(d - k, rng) @ v[:, k:].T

    return draw


def half_drift_time() -> float:
    """The t at which ``||exp(t A) - I||_F`` is half that of Haar, A as in `drift`, d large.

    The spectrum of A is a semicircle on ``[-2i, 2i]``, so ``E cos = J_1(2t) / t``, wanted 3/4.
    """
    return float(brentq(lambda t: j1(2 * t) / t - 0.75, 0.1, 1.5))


def drift(t: float) -> Alternative:
    """``exp(t A)``, ``A = (G - G^T) / sqrt(2 d)`` with standard Gaussian G: a random geodesic."""

    def draw(d: int, rng: np.random.Generator) -> FloatArray:
        g = rng.standard_normal((d, d))
        return np.asarray(expm(t * (g - g.T) / np.sqrt(2 * d)))

    return draw


def independent_angles(d: int, rng: np.random.Generator) -> FloatArray:
    """Angles independent and uniform instead of repelling; Haar eigenvectors."""
    theta = rng.uniform(0, np.pi, d // 2)
    blocks = [np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in theta]
    if d % 2:
        blocks.append(np.ones((1, 1)))
    v = _haar(d, rng)
    return v @ block_diag(*blocks) @ v.T


def permutation_spectrum(d: int, rng: np.random.Generator) -> FloatArray:
    """A random permutation conjugated by a Haar matrix: only its spectrum is left to see."""
    v = _haar(d, rng)
    return v[:, rng.permutation(d)] @ v.T


def shrunk_to_identity(d: int, rng: np.random.Generator) -> FloatArray:
    """``polar(G + c I)``, c = 4/d, G Gaussian with entries of variance 1/d: a faint common part."""
    return polar(rng.standard_normal((d, d)) / np.sqrt(d) + 4.0 / d * np.eye(d))


def hidden_permutation(d: int, rng: np.random.Generator) -> FloatArray:
    """PQ with an unknown Haar Q: exactly Haar, so nothing can see it, and nothing should."""
    return random_permutation(d, rng) @ _haar(d, rng)


#: By the name under which the power table lists them. "Haar" is the null: its row shows the size.
ALTERNATIVES: Mapping[str, Alternative] = MappingProxyType(
    {
        "Haar": _haar,
        "permutation": random_permutation,
        "signed permutation": signed_permutation,
        "cyclic shift": cyclic_shift,
        "block Haar x2": block_haar(2),
        "block Haar x8": block_haar(8),
        "flipped Hadamard": flipped_hadamard,
        "d/8 coordinates fixed": fixed_coordinates,
        "random d/8 subspace fixed": fixed_subspace(lambda d: max(1, d // 8)),
        "half drift exp(tA)": drift(half_drift_time()),
        "drift exp(1.9 A)": drift(1.9),
        "independent angles": independent_angles,
        "permutation spectrum": permutation_spectrum,
        "polar(G + 4/d I)": shrunk_to_identity,
        "2 random directions fixed": fixed_subspace(lambda _: 2),
        "PQ, unknown Haar Q": hidden_permutation,
    }
)
