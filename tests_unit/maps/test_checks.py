"""Activations that cannot be fitted are refused, by name."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from polyrot.maps.checks import BadActivations
from polyrot.maps.procrustes import (
    MomentAccumulator,
    affine_from_moments,
    affine_least_squares,
    fit_from_moments,
    fit_rotation,
    frobenius_distance,
    pair_moments,
    principal_axes_from_moments,
    principal_basis,
    restricted_distance,
    shift_only,
)


def cloud(tokens: int, d: int, seed: int, rank: int | None = None) -> Tensor:
    """Anisotropic, uncentred rows [tokens, d] of the given rank."""
    generator = torch.Generator().manual_seed(seed)
    core = torch.randn(tokens, rank or d, generator=generator, dtype=torch.float64)
    mix = torch.randn(rank or d, d, generator=generator, dtype=torch.float64)
    mean = 3 * torch.randn(d, generator=generator, dtype=torch.float64)
    return core @ mix + mean


# ---------------------------------------------------------------- bad input


def spoiled(value: float) -> Tensor:
    a = cloud(50, 4, 0)
    a[7, 2] = value
    return a


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_values_that_are_not_finite_are_named(value: float, side: int) -> None:
    pair = [cloud(50, 4, 1), cloud(50, 4, 1)]
    pair[side] = spoiled(value)
    for fit in (fit_rotation, affine_least_squares, shift_only):
        with pytest.raises(BadActivations, match="token 7, dimension 2"):
            fit(*pair)
    with pytest.raises(BadActivations, match="token 7, dimension 2"):
        MomentAccumulator().update([pair[0]], pair[1])


def test_shapes_and_counts_that_do_not_match() -> None:
    a = cloud(50, 4, 0)
    with pytest.raises(BadActivations, match="50 tokens against 49"):
        fit_rotation(a, a[:49])
    with pytest.raises(BadActivations, match="3 dimensions where 4"):
        fit_rotation(a, a[:, :3])
    with pytest.raises(BadActivations, match=r"expected \[tokens, d\]"):
        fit_rotation(a[None], a)
    with pytest.raises(BadActivations, match="empty"):
        fit_rotation(a[:0], a[:0])
    with pytest.raises(BadActivations, match="floating-point"):
        fit_rotation(a.long(), a)
    with pytest.raises(BadActivations, match="1 siblings where 2 are expected"):
        MomentAccumulator(2).update([a], a)
    with pytest.raises(BadActivations, match="no rows"):
        MomentAccumulator().moments()
    streamed = MomentAccumulator()
    streamed.update([a], a)
    with pytest.raises(BadActivations, match="earlier batches"):
        streamed.update([a[:, :2]], a)


def test_fewer_tokens_than_dimensions() -> None:
    a = cloud(3, 4, 0)
    for fit in (fit_rotation, affine_least_squares):
        with pytest.raises(BadActivations, match="3 tokens for 4 dimensions"):
            fit(a, a)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("side", [0, 1])
def test_constant_dimension_is_named(value: float, dtype: torch.dtype, side: int) -> None:
    pair = [cloud(5000, 4, 0).to(dtype), cloud(5000, 4, 0).to(dtype)]
    pair[side][:, 3] = value
    with pytest.raises(BadActivations, match="dimension 3 is constant"):
        fit_rotation(*pair)
    with pytest.raises(BadActivations, match="dimension 3 is constant"):
        fit_from_moments(pair_moments([pair[0]], pair[1], precision=torch.float32))


def test_other_bad_arguments() -> None:
    a = cloud(50, 4, 0)
    with pytest.raises(ValueError, match="auto=True"):
        affine_from_moments(pair_moments([a], a)[0])
    with pytest.raises(ValueError, match="auto=True"):
        principal_axes_from_moments(pair_moments([a], a)[0], torch.Generator())
    with pytest.raises(ValueError, match="precision"):
        MomentAccumulator(precision=torch.float16)
    with pytest.raises(ValueError, match="sibling"):
        MomentAccumulator(siblings=0)
    with pytest.raises(ValueError, match=r"\[d, d\]"):
        frobenius_distance(a)
    with pytest.raises(ValueError, match="orthonormal"):
        restricted_distance(torch.eye(4), torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"\[4, k\]"):
        restricted_distance(torch.eye(4), torch.eye(3))
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="share"):
            principal_basis(torch.eye(4), share)


def test_token_is_counted_over_batches() -> None:
    a = cloud(50, 4, 0)
    bad = a.clone()
    bad[41, 1] = math.nan
    with pytest.raises(BadActivations, match=r"sibling 0: 1 values .* at token 41, dimension 1"):
        pair_moments([bad], a, chunk=8)
