"""What activations do not determine of a rotation, and bases without it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from polyrot.maps.moments import pair_moments
from polyrot.maps.null_space import (
    completed,
    free_basis,
    haar_block,
    nearest_completion,
    nearest_to_identity,
)
from polyrot.maps.procrustes import fit_from_moments, fit_rotation
from polyrot.runtime.seeding import torch_generator

D = 8


def low_rank(rank: int, seed: int, tokens: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Activations [tokens, D] of that rank, an exact copy of them in another basis, and the R that
    carries the first to the second. The copy is made of the same codes, not of rounded rows."""
    generator = torch_generator(seed, "low rank")
    codes = torch.randn(tokens, rank, generator=generator, dtype=torch.float64)
    into = torch.randn(rank, D, generator=generator, dtype=torch.float64)
    r = haar_block(D, generator)
    return codes @ into, codes @ (into @ r), r


@pytest.mark.parametrize("det", [None, 1, -1])
def test_blocks_are_orthogonal_haar_draws(det: int | None) -> None:
    generator = torch_generator(0, "blocks", str(det))
    drawn = torch.stack([haar_block(6, generator, det) for _ in range(400)])
    eye = torch.eye(6, dtype=torch.float64).expand(400, 6, 6)
    torch.testing.assert_close(drawn @ drawn.mT, eye)
    signs = torch.linalg.det(drawn).sign()
    assert abs(float(signs.mean())) < 4 / 20 if det is None else bool((signs == det).all())
    traces = drawn.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(float(traces.mean())) < 4 / 20
    assert float(traces.var()) == pytest.approx(1, abs=0.3)
    # S4 of Haar matrices is 3 d / (d + 2)
    assert float(drawn.pow(4).sum((1, 2)).mean()) == pytest.approx(3 * 6 / 8, abs=0.06)
    assert haar_block(0, generator, det).shape == (0, 0)


@pytest.mark.parametrize("det", [None, 1, -1])
def test_a_batch_of_blocks_is_drawn_one_after_another(det: int | None) -> None:
    batch = haar_block(16, torch_generator(0, "batch"), det, (5, 3))
    alone = torch_generator(0, "batch")
    for one in batch.flatten(0, 1):
        assert torch.equal(one, haar_block(16, alone, det))


@pytest.mark.parametrize("reflect", [True, False])
@pytest.mark.parametrize("rank", [1, 5, 7, 8])
def test_a_completed_fit_is_the_same_where_activations_are(rank: int, reflect: bool) -> None:
    a, b, _ = low_rank(rank, 10 + rank)
    plain = fit_rotation(a, b, reflect)
    drawn = [fit_rotation(a, b, reflect, torch_generator(seed, "null")) for seed in (1, 2)]
    for fit in drawn:
        eye = torch.eye(D, dtype=torch.float64)
        torch.testing.assert_close(fit.r @ fit.r.T, eye)
        torch.testing.assert_close(fit.apply(a), plain.apply(a), atol=1e-9, rtol=0)
        assert fit.rank == rank
        assert reflect or fit.det == 1
    if rank < D - 1 or (rank == D - 1 and reflect):
        moved = float((drawn[0].r - drawn[1].r).norm())
        assert moved > 0.1 or rank == D - 1, "what is not determined is drawn by the generator"
    if rank == D:
        torch.testing.assert_close(drawn[0].r, plain.r, atol=0, rtol=0)


def test_the_drawn_part_is_haar_and_the_solvers_is_not() -> None:
    drawn, solved = [], []
    for seed in range(300):
        a, b, planted = low_rank(3, seed, tokens=40)
        moments = pair_moments([a], b)
        (one,) = fit_from_moments(moments, generators=[torch_generator(seed, "null")])
        (two,) = fit_from_moments(moments)
        # R of a Haar-turned copy is Haar as a whole, whatever the law of the anchor's basis
        drawn.append(float(one.r.trace()))
        solved.append(float((two.r * planted).sum()))
    traces = torch.tensor(drawn)
    assert abs(float(traces.mean())) < 4 / math.sqrt(300)
    assert float(traces.var()) == pytest.approx(1, abs=0.35)
    # R and the planted one agree on three directions and by chance on the rest
    assert sum(solved) / 300 == pytest.approx(3, abs=0.5)


def test_one_generator_for_each_pair() -> None:
    a, b, _ = low_rank(3, 0)
    moments = pair_moments([a, a], b)
    same = fit_from_moments(moments, generators=[torch_generator(0), torch_generator(0)])
    torch.testing.assert_close(same[0].r, same[1].r, atol=0, rtol=0)
    other = fit_from_moments(moments, generators=[torch_generator(0), torch_generator(1)])
    assert float((other[0].r - other[1].r).norm()) > 1
    with pytest.raises(ValueError, match="zip"):
        fit_from_moments(moments, generators=[torch_generator(0)])


def test_without_reflections_the_block_keeps_the_determinant() -> None:
    eye = torch.eye(D, dtype=torch.float64)
    for seed in range(20):
        r = completed(eye, eye[:, 5:], torch_generator(seed), allow_reflection=False)
        assert float(torch.linalg.det(r)) == pytest.approx(1)
        torch.testing.assert_close(r[:5], eye[:5])


@pytest.mark.parametrize("rank", [0, 3, 7, 8])
def test_the_nearest_completion_fits_as_well_and_is_nearest(rank: int) -> None:
    generator = torch_generator(rank, "nearest")
    a = torch.randn(50, rank, generator=generator, dtype=torch.float64)
    x = a @ torch.randn(rank, 8, generator=generator, dtype=torch.float64)
    y = a @ torch.randn(rank, 8, generator=generator, dtype=torch.float64)
    cross = x.T @ y
    u, _, vh = torch.linalg.svd(cross)
    eye = torch.eye(8, dtype=torch.float64)
    for to in (eye, haar_block(8, generator)):
        near = nearest_completion(cross, rank, to)
        torch.testing.assert_close(near @ near.T, eye)
        best = float(torch.linalg.svdvals(cross).sum())
        assert float((near.T @ cross).trace()) == pytest.approx(best)
        gap = float((near - to).norm())
        for _ in range(20):
            q = haar_block(8 - rank, generator)
            other = u[:, :rank] @ vh[:rank] + u[:, rank:] @ q @ vh[rank:]
            assert gap <= float((other - to).norm()) + 1e-9
        if rank == 0:
            assert gap < 1e-6, "nothing is known: the target itself fits"
    torch.testing.assert_close(
        nearest_to_identity(cross, rank), nearest_completion(cross, rank, eye)
    )


# ---------------------------------------------------------------- free directions


def test_axes_that_are_left_out_leave_the_others_as_they_are() -> None:
    eye = torch.eye(D, dtype=torch.float64)
    basis = free_basis(eye[[0, 3, 5]])
    torch.testing.assert_close(basis, eye[:, [1, 2, 4, 6, 7]])
    mixed = haar_block(3, torch_generator(0, "mix")) @ eye[[0, 3, 5]]
    torch.testing.assert_close(free_basis(7 * mixed), basis)


@pytest.mark.parametrize("k", [1, 3])
def test_the_basis_is_orthonormal_free_and_nearest_to_its_axes(k: int) -> None:
    generator = torch_generator(k, "left out")
    out = torch.randn(k, D, generator=generator, dtype=torch.float64)
    out[0] = 1.0
    basis = free_basis(out)
    eye = torch.eye(D - k, dtype=torch.float64)
    torch.testing.assert_close(basis.T @ basis, eye)
    torch.testing.assert_close(out @ basis, torch.zeros(k, D - k, dtype=torch.float64))
    axes = basis.abs().argmax(0)
    assert axes.tolist() == sorted(set(axes.tolist())), "each vector has an axis of its own"
    picked = torch.eye(D, dtype=torch.float64)[:, axes]
    gap = float((basis - picked).norm())
    for _ in range(30):
        other = basis @ haar_block(D - k, generator)
        assert gap < float((other - picked).norm())
    for small in (1e-3, 1e-2):
        skew = torch.randn(D - k, D - k, generator=generator, dtype=torch.float64)
        other = basis @ torch.matrix_exp(small * (skew - skew.T))
        assert gap < float((other - picked).norm())


def test_without_the_all_ones_direction_every_axis_moves_alike() -> None:
    basis = free_basis(torch.ones(1, 64))
    assert basis.shape == (64, 63)
    largest = basis.abs().amax(0)
    torch.testing.assert_close(largest, largest[:1].expand(63))
    assert float(largest[0]) > 0.98


def test_directions_that_cannot_be_left_out_are_refused() -> None:
    with pytest.raises(ValueError, match="not linearly independent"):
        free_basis(torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match="not linearly independent"):
        free_basis(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match="k below d"):
        free_basis(torch.eye(3))
    with pytest.raises(ValueError, match="k below d"):
        free_basis(torch.ones(3))
    with pytest.raises(ValueError, match="not finite"):
        free_basis(torch.tensor([[1.0, math.nan, 0.0]]))
