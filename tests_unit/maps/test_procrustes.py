"""Maps between activations: planted truths found, planted falsehoods refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.procrustes import (
    Affine,
    MomentAccumulator,
    Rotation,
    affine_least_squares,
    fit_from_moments,
    fit_rotation,
    frobenius_distance,
    pair_moments,
    pointwise_ev,
    principal_axes_map,
    principal_basis,
    restricted_distance,
    scaled_from_moments,
    shift_only,
    split_half_share,
)
from polyrot.runtime.seeding import torch_generator

seeds = st.integers(0, 2**31 - 1)
widths = st.integers(1, 9)
quick = settings(max_examples=25, deadline=None)


def haar(d: int, seed: int) -> Tensor:
    if d == 1:
        return torch.tensor([[1.0 - 2 * (seed % 2)]], dtype=torch.float64)
    return torch.from_numpy(scipy.stats.ortho_group.rvs(d, random_state=seed))


def cloud(tokens: int, d: int, seed: int, rank: int | None = None) -> Tensor:
    """Anisotropic, uncentred rows [tokens, d] of the given rank."""
    generator = torch.Generator().manual_seed(seed)
    core = torch.randn(tokens, rank or d, generator=generator, dtype=torch.float64)
    mix = torch.randn(rank or d, d, generator=generator, dtype=torch.float64)
    mean = 3 * torch.randn(d, generator=generator, dtype=torch.float64)
    return core @ mix + mean


def objective(a: Tensor, b: Tensor, r: Tensor) -> float:
    return float(((a - a.mean(0)) @ r - (b - b.mean(0))).norm())


def is_orthogonal(r: Tensor) -> bool:
    return torch.allclose(r.T @ r, torch.eye(len(r), dtype=r.dtype), atol=1e-10)


# ---------------------------------------------------------------- planted truths


@quick
@given(d=widths, seed=seeds, noise=st.sampled_from([0.0, 0.01, 0.1]))
def test_planted_rotation_is_found_through_noise(d: int, seed: int, noise: float) -> None:
    r = haar(d, seed)
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(4000, d, generator=generator, dtype=torch.float64) + 5
    b = a @ r - 2 + noise * torch.randn(4000, d, generator=generator, dtype=torch.float64)
    fit = fit_rotation(a[:2000], b[:2000])
    assert is_orthogonal(fit.r)
    assert fit.rank == d
    assert float((fit.r - r).abs().max()) <= 1e-9 + 0.2 * noise
    expected = 1 - noise**2 / (1 + noise**2)
    assert pointwise_ev(fit, a[2000:], b[2000:]) == pytest.approx(expected, abs=0.005)


def test_unrelated_activations_are_not_related_by_a_rotation() -> None:
    a, b = cloud(4000, 16, 1), cloud(4000, 16, 2)
    assert pointwise_ev(fit_rotation(a[:2000], b[:2000]), a[2000:], b[2000:]) < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_dtypes_are_fitted_and_mapped(dtype: torch.dtype) -> None:
    r = haar(8, 4)
    a = cloud(500, 8, 3)
    fit = fit_rotation(a.to(dtype), (a @ r).to(dtype))
    assert float((fit.r - r).abs().max()) < 0.05
    assert fit.r.dtype == torch.float64
    assert fit.apply(a.to(dtype)).dtype == torch.float32


@quick
@given(d=widths, seed=seeds)
def test_reflections_are_found_and_can_be_excluded(d: int, seed: int) -> None:
    r = haar(d, seed)
    if torch.linalg.det(r) > 0:
        r[0] *= -1
    a = cloud(200, d, seed)
    free = fit_rotation(a, a @ r)
    assert free.det == -1.0
    assert torch.allclose(free.r, r, atol=1e-8)
    proper = fit_rotation(a, a @ r, allow_reflection=False)
    assert proper.det == 1.0
    assert is_orthogonal(proper.r)


# ---------------------------------------------------------------- optimality


@quick
@given(d=widths, seed=seeds, reflect=st.booleans())
def test_no_random_rotation_does_better(d: int, seed: int, reflect: bool) -> None:
    a, b = cloud(60, d, seed), cloud(60, d, seed + 1)
    fit = fit_rotation(a, b, allow_reflection=reflect)
    best = objective(a, b, fit.r)
    generator = torch.Generator().manual_seed(seed)
    for i in range(10):
        other = haar(d, seed // 2 + i)
        near = torch.randn(d, d, generator=generator, dtype=torch.float64) * 0.05
        for candidate in (other, fit.r @ torch.linalg.matrix_exp(near - near.T)):
            if not reflect and torch.linalg.det(candidate) < 0:
                continue
            assert best <= objective(a, b, candidate) + 1e-9


@quick
@given(d=widths, seed=seeds)
def test_agrees_with_scipy(d: int, seed: int) -> None:
    a, b = cloud(50, d, seed), cloud(50, d, seed + 1)
    r, scale = scipy.linalg.orthogonal_procrustes((a - a.mean(0)).numpy(), (b - b.mean(0)).numpy())
    fit = fit_rotation(a, b)
    assert objective(a, b, fit.r) == pytest.approx(objective(a, b, torch.from_numpy(r)))
    assert float(fit.singular_values.sum()) * 50 == pytest.approx(scale)
    if fit.singular_values[-1] > 1e-6 * fit.singular_values[0]:
        np.testing.assert_allclose(fit.r.numpy(), r, atol=1e-6)


# ---------------------------------------------------------------- invariances


@quick
@given(d=st.integers(2, 7), seed=seeds)
def test_equivariant_under_rotation_of_either_side(d: int, seed: int) -> None:
    a, b, p, q = cloud(80, d, seed), cloud(80, d, seed + 1), haar(d, seed), haar(d, seed + 2)
    plain, turned = fit_rotation(a, b), fit_rotation(a @ p, b @ q)
    if plain.singular_values[-1] > 1e-4 * plain.singular_values[0]:
        assert torch.allclose(turned.r, p.T @ plain.r @ q, atol=1e-6)
    assert torch.allclose(turned.singular_values, plain.singular_values)


@quick
@given(d=widths, seed=seeds)
def test_invariant_to_row_order_and_translation(d: int, seed: int) -> None:
    a, b = cloud(70, d, seed), cloud(70, d, seed) @ haar(d, seed) + cloud(70, d, seed + 1) * 0.1
    order = torch.randperm(70, generator=torch.Generator().manual_seed(seed))
    plain = fit_rotation(a, b)
    moved = fit_rotation(a[order] + 7, b[order] - 4)
    assert torch.allclose(plain.r, moved.r, atol=1e-7)
    assert torch.allclose(moved.mean_a, plain.mean_a + 7)
    assert torch.allclose(moved.apply(a + 7), plain.apply(a) - 4, atol=1e-6)


@quick
@given(d=st.integers(3, 9), seed=seeds, data=st.data())
def test_rank_deficient_activations(d: int, seed: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, d - 1))
    a = cloud(100, d, seed, rank)
    r = haar(d, seed)
    fit = fit_rotation(a, a @ r)
    assert fit.rank == rank
    assert is_orthogonal(fit.r)
    # Only what the activations span is determined, and on that the map is right.
    assert torch.allclose(fit.apply(a), a @ r, atol=1e-6)
    affine = affine_least_squares(a, a @ r)
    assert affine.rank == rank
    assert torch.allclose(affine.apply(a), a @ r, atol=1e-6)
    basis = principal_basis(torch.cov(a.T), 0.99999)
    assert basis.shape[1] <= rank


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_dimension(sign: float) -> None:
    a = cloud(20, 1, 0)
    fit = fit_rotation(a, sign * 3 * a)
    assert fit.r.item() == pytest.approx(sign)
    assert fit.det == sign
    assert fit_rotation(a, sign * a, allow_reflection=False).r.item() == pytest.approx(1.0)


def test_two_dimensions_against_the_angle() -> None:
    angle = 0.7
    r = torch.tensor(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]],
        dtype=torch.float64,
    )
    a = cloud(30, 2, 5)
    fit = fit_rotation(a, a @ r)
    assert torch.allclose(fit.r, r)
    assert frobenius_distance(fit.r) == pytest.approx(math.sqrt(4 * (1 - math.cos(angle))))


def test_the_same_model_twice_is_the_identity() -> None:
    a = cloud(50, 6, 5)
    fit = fit_rotation(a, a)
    assert frobenius_distance(fit.r) < 1e-9


# ---------------------------------------------------------------- moments


@quick
@given(seed=seeds, chunk=st.integers(1, 60))
def test_moments_do_not_depend_on_batches(seed: int, chunk: int) -> None:
    a, c, b = cloud(60, 5, seed), cloud(60, 3, seed + 1), cloud(60, 5, seed + 2)
    streamed = MomentAccumulator(siblings=2, auto=True)
    for i in range(0, 60, chunk):
        streamed.update([a[i : i + chunk], c[i : i + chunk]], b[i : i + chunk])
    for x, got, whole in zip(
        (a, c), streamed.moments(), pair_moments([a, c], b, auto=True), strict=True
    ):
        joint = torch.cov(torch.cat([x, b], 1).T, correction=0)
        d = x.shape[1]
        assert got.tokens == 60
        for have in (got, whole):
            assert torch.allclose(have.cross, joint[:d, d:], atol=1e-9)
            assert torch.allclose(have.auto_a, joint[:d, :d], atol=1e-9)
            assert torch.allclose(have.auto_b, joint[d:, d:], atol=1e-9)
            assert torch.allclose(have.var_a, joint.diag()[:d], atol=1e-9)
            assert torch.allclose(have.mean_a, x.mean(0))


def test_many_fits_at_once_equal_single_fits() -> None:
    b = cloud(300, 6, 0)
    siblings = [b @ haar(6, i) + 0.1 * cloud(300, 6, i) for i in range(1, 5)]
    for allow in (True, False):
        fits = fit_from_moments(pair_moments(siblings, b), allow_reflection=allow)
        for a, fit in zip(siblings, fits, strict=True):
            assert torch.allclose(fit.r, fit_rotation(a, b, allow).r, atol=1e-10)
    assert fit_from_moments([]) == []


def test_single_precision_products_are_accurate_despite_large_means() -> None:
    r = haar(16, 3)
    a = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0)) + 1000
    b = ((a.double() - 1000) @ r + 300).float()
    (fit,) = fit_from_moments(pair_moments([a], b, precision=torch.float32))
    assert float((fit.r - r).abs().max()) < 1e-5
    assert torch.allclose(fit.mean_b, b.double().mean(0), atol=1e-4)


# ---------------------------------------------------------------- the other maps


def test_affine_finds_what_no_rotation_can() -> None:
    a = cloud(3000, 6, 1)
    w = torch.randn(6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    fit = affine_least_squares(a[:1500], a[:1500] @ w + 2)
    assert torch.allclose(fit.w, w, atol=1e-8)
    assert pointwise_ev(fit, a[1500:], a[1500:] @ w + 2) == pytest.approx(1.0)
    solution = np.linalg.lstsq((a - a.mean(0)).numpy(), (a @ w).numpy(), rcond=None)[0]
    np.testing.assert_allclose(fit.w.numpy(), solution, atol=1e-7)


@quick
@given(seed=seeds)
def test_affine_is_at_least_as_good_as_the_rotation_on_its_own_rows(seed: int) -> None:
    a, b = cloud(40, 5, seed), cloud(40, 5, seed + 1)
    better, worse = affine_least_squares(a, b), fit_rotation(a, b)
    assert pointwise_ev(better, a, b) >= pointwise_ev(worse, a, b) - 1e-9


def test_shift_moves_the_mean_only() -> None:
    a, b = cloud(50, 4, 1), cloud(70, 4, 2)
    moved = shift_only(a, b).apply(a)
    assert torch.allclose(moved.mean(0), b.mean(0))
    assert torch.allclose(moved - moved.mean(0), a - a.mean(0))


def test_principal_axes_match_covariance_and_not_tokens() -> None:
    a = cloud(5000, 6, 1)
    b = a @ haar(6, 2) + 3
    fit = principal_axes_map(a, b, torch.Generator().manual_seed(0))
    assert is_orthogonal(fit.r)
    mapped = fit.apply(a)
    assert torch.allclose(torch.cov(mapped.T), torch.cov(b.T), atol=1e-6)
    # Up to its sign every axis is right; the signs are drawn.
    assert explained_variance(b, mapped) < 0.99
    shuffled = a[torch.randperm(5000, generator=torch.Generator().manual_seed(3))]
    again = principal_axes_map(shuffled, b, torch.Generator().manual_seed(0))
    assert torch.allclose(fit.r.abs(), again.r.abs(), atol=1e-6)
    draws = {
        tuple(principal_axes_map(a, b, torch.Generator().manual_seed(i)).r.sign()[0].tolist())
        for i in range(8)
    }
    assert len(draws) > 1


def test_principal_basis_holds_the_share() -> None:
    covariance = torch.diag(torch.tensor([90.0, 9.0, 0.95, 0.05, 0.0]))
    assert [principal_basis(covariance, s).shape[1] for s in (0.5, 0.95, 0.999, 1.0)] == [
        1,
        2,
        3,
        4,
    ]
    basis = principal_basis(covariance, 0.95)
    assert torch.allclose(basis[:2].abs(), torch.eye(2, dtype=torch.float64))


def test_distances() -> None:
    eye = torch.eye(8, dtype=torch.float64)
    basis = haar(8, 1)[:, :3]
    assert frobenius_distance(eye) == restricted_distance(eye, basis) == 0
    assert frobenius_distance(-eye) == pytest.approx(2 * math.sqrt(8))
    assert restricted_distance(-eye, basis) == pytest.approx(2.0)
    draws = [haar(64, i) for i in range(20)]
    assert np.mean([frobenius_distance(r) for r in draws]) == pytest.approx(11.3134, abs=0.06)
    wide = haar(64, 99)[:, :20]
    mean = np.mean([restricted_distance(r, wide) ** 2 for r in draws])
    assert mean == pytest.approx(2.0, abs=0.06)


def test_restricted_distance_ignores_what_is_arbitrary() -> None:
    a = cloud(200, 8, 1, rank=3)
    a = a - a.mean(0)
    basis = principal_basis(torch.cov(a.T), 0.999999)
    complement = torch.linalg.svd(basis.T)[2][basis.shape[1] :]
    # Arbitrary on the five dimensions that a does not enter, the identity on the others.
    r = basis @ basis.T + complement.T @ haar(8 - basis.shape[1], 4) @ complement
    assert is_orthogonal(r)
    assert frobenius_distance(r) > 1
    assert restricted_distance(r, basis) < 1e-7


def test_values_are_frozen() -> None:
    for value in (Rotation, Affine):
        assert value.__dataclass_params__.frozen


def test_split_halves_share_the_identified_part_only() -> None:
    d, rank = 20, 5
    inner = haar(rank, 49)
    halves = torch.zeros(2, d, d, dtype=torch.float64)
    for half, seed in zip(halves, (50, 51), strict=True):
        half[:rank, :rank] = inner
        half[rank:, rank:] = haar(d - rank, seed)
    share = split_half_share(*halves)
    assert share == pytest.approx(rank / d, abs=5 / d)
    distance = float((halves[0] - halves[1]).norm()) / math.sqrt(2 * d)
    assert distance == pytest.approx(math.sqrt(1 - share))
    assert split_half_share(inner, inner.numpy()) == pytest.approx(1.0)
    assert split_half_share(inner, -inner) == pytest.approx(-1.0)
    draws = [split_half_share(haar(d, i), haar(d, i + 100)) for i in range(40)]
    assert np.mean(draws) == pytest.approx(0, abs=4 / (d * math.sqrt(40)))
    with pytest.raises(ValueError, match="one width"):
        split_half_share(np.eye(2), np.eye(3))
    with pytest.raises(ValueError, match="not orthogonal"):
        split_half_share(np.eye(2), 2 * np.eye(2))


@pytest.mark.parametrize("reflect", [True, False])
def test_the_scale_is_found_and_is_the_best_one(reflect: bool) -> None:
    a = cloud(400, 5, 3)
    b = 2.5 * (a @ haar(5, 4)) + torch.randn(400, 5, generator=torch_generator(1, "noise")).double()
    moments = pair_moments([a], b)[0]
    rotation = fit_from_moments([moments], reflect)[0]
    scaled = scaled_from_moments(rotation, moments)
    factor = (scaled.w * rotation.r).sum() / 5
    best = pointwise_ev(scaled, a, b)
    for other in (0.99, 1.01):
        changed = Affine(other * scaled.w, scaled.mean_a, scaled.mean_b, 5)
        assert pointwise_ev(changed, a, b) < best
    if reflect:
        assert float(factor) == pytest.approx(2.5, rel=0.02)
