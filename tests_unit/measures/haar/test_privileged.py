"""Kurtosis along the basis and along random directions, against direct computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from polyrot.cohorts.cohort import NotOffered, Split
from polyrot.maps.null_space import haar_block
from polyrot.measured import PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED
from polyrot.measures.haar import privileged as measured
from polyrot.measures.haar.privileged import Tails, kurtosis
from polyrot.runtime.seeding import torch_generator
from tests_unit.measures.haar.planted import SITES, PlantedCohort, unrelated

SEQUENCE = 5


class Sequences(PlantedCohort):
    """Activations of one site, whose sequences are known; `fixed` of it are."""

    def __init__(self, x: Tensor, fixed: Tensor | None = None) -> None:
        super().__init__({"pre_0": torch.zeros_like(x), "post_0": x})
        self.fixed = fixed
        self.asked: set[str] = set()

    def activations(self, split: Split, site: str) -> Tensor:
        self.asked.add(split)
        return super().activations(split, site)

    def sequences(self, split: Split) -> Tensor:
        return torch.arange(self._activations["post_0"].shape[1]) // SEQUENCE

    def fixed_directions(self, site: str) -> Tensor | None:
        return self.fixed


def heavy(seed: int, d: int = 12, tokens: int = 4_000, models: int = 3) -> Tensor:
    """Heavier along each next axis, [models, tokens, d]; each model with a mean of its own."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((models, tokens, d)) ** np.where(np.arange(d) % 2, 3, 1)
    return torch.from_numpy(x + rng.standard_normal((models, 1, d))).float()


def test_kurtosis_is_that_of_the_projections(monkeypatch: pytest.MonkeyPatch) -> None:
    x = heavy(0)[0].double()
    first = torch.arange(len(x)) % SEQUENCE == 0
    x[first] *= 20
    directions = torch.randn(12, 7, generator=torch.Generator().manual_seed(0)).double()
    z = (x @ directions).numpy()
    for rows in (512, 7, 10**6):
        monkeypatch.setattr(measured, "_ROWS", rows)
        without, whole = kurtosis(x, directions, first)
        np.testing.assert_allclose(without, stats.kurtosis(z[~first], fisher=False))
        np.testing.assert_allclose(whole, stats.kurtosis(z, fisher=False))
    single, _ = kurtosis(x.float(), directions.float(), first)
    np.testing.assert_allclose(single, without, rtol=1e-4)


def test_a_gaussian_has_3_and_what_does_not_vary_0() -> None:
    x = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(1))
    x = torch.cat([1e3 + x, torch.full((len(x), 1), 7.0)], 1)
    first = torch.arange(len(x)) == 0
    found = kurtosis(x, torch.eye(3), first)[0]
    np.testing.assert_allclose(found, [3, 3, 0], atol=0.1)


def test_tails_are_the_largest_of_each_model_averaged_over_models() -> None:
    x = heavy(2)
    cohort = Sequences(x)
    found = measured.measure_tails(cohort, rotations=4)
    assert cohort.asked == {"score"}
    inside = x[:, torch.arange(x.shape[1]) % SEQUENCE != 0].numpy()
    along = stats.kurtosis(inside, axis=1, fisher=False)
    np.testing.assert_allclose(found.basis.values[:, 0], along.max(1), rtol=1e-4)
    np.testing.assert_allclose(found.shared[0], along.mean(0).max(), rtol=1e-4)
    assert found.shared.shape == (5, 1)
    drawn = torch_generator(NULL_DRAWS_SEED, "random bases", "post_0")
    for k in range(4):
        turned = inside @ haar_block(12, drawn).numpy()
        of_each = stats.kurtosis(turned, axis=1, fisher=False)
        np.testing.assert_allclose(found.random[k, :, 0], of_each.max(1), rtol=1e-4)
        np.testing.assert_allclose(found.shared[1 + k], of_each.mean(0).max(), rtol=1e-4)
    np.testing.assert_allclose(
        found.with_first.values[:, 0],
        stats.kurtosis(x.numpy(), axis=1, fisher=False).max(1),
        rtol=1e-4,
    )
    assert found.random.shape == found.random_with_first.shape == (4, 3, 1)
    assert len(np.unique(found.random)) == 12
    ratio = measured.basis_over_random(found)
    assert ratio.values[0] == pytest.approx(along.max(1).mean() / found.random.mean(), rel=1e-4)
    assert ratio.values[0] > 1.5
    assert ratio.counts["tokens"] == inside.shape[1]


def test_turned_models_have_no_heavy_axis() -> None:
    x = heavy(3)
    turns = torch.linalg.qr(torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0)))[0]
    ratio = measured.basis_over_random(measured.measure_tails(Sequences(x @ turns)))
    assert ratio.values[0] == pytest.approx(1, abs=0.3)
    interval = ratio.interval(0)
    assert interval is not None
    assert interval.low < 1.2
    assert interval.high < 1.5


def test_what_is_fixed_does_not_enter() -> None:
    x = torch.randn(3, 4_000, 12, generator=torch.Generator().manual_seed(4))
    bursts = torch.zeros(4_000)
    bursts[7::50] = 100.0
    ones = torch.ones(1, 12)
    plain = measured.measure_tails(Sequences(x, ones))
    found = measured.measure_tails(Sequences(x + bursts[:, None], ones))
    np.testing.assert_allclose(found.basis.values, plain.basis.values, rtol=1e-3)
    np.testing.assert_allclose(found.random, plain.random, rtol=1e-3)
    assert measured.measure_tails(Sequences(x + bursts[:, None])).basis.values.min() > 20
    loud = x.clone()
    loud[..., 0] += bursts
    axes = measured.measure_tails(Sequences(loud, torch.eye(12)[:1]))
    assert axes.basis.values.max() < 4 > axes.random.max()


def test_every_axis_is_a_coordinate_behind_a_norm() -> None:
    for axis in range(4):
        x = torch.randn(2, 4_000, 12, generator=torch.Generator().manual_seed(5))
        x[..., axis] **= 3
        found = measured.measure_tails(Sequences(x, torch.ones(1, 12)))
        assert found.basis.values.min() > 15


def test_position_0_is_left_out_and_recorded_beside() -> None:
    x = torch.randn(3, 4_000, 12, generator=torch.Generator().manual_seed(6))
    x[:, ::SEQUENCE, 3] *= 4
    found = measured.basis_over_random(measured.measure_tails(Sequences(x)))
    assert found.values[0] == pytest.approx(1, abs=0.1)
    assert found.beside["with_position_0_post_0"] > 1.5


def test_where_first_positions_are_left_out_there_is_no_position_0() -> None:
    x = torch.randn(3, 4_000, 12, generator=torch.Generator().manual_seed(6))
    x[:, ::SEQUENCE, 3] *= 4  # of the first tokens that are kept
    cohort = Sequences(x)
    cohort.skip = 2
    assert not measured.first_of_sequences(cohort).any()
    tails = measured.measure_tails(cohort)
    assert tails.basis.counts["tokens"] == 4_000
    np.testing.assert_array_equal(tails.with_first.values, tails.basis.values)
    found = measured.basis_over_random(tails)
    assert found.values[0] > 1.5
    assert not [name for name in found.beside if name.startswith("with_position_0")]


def test_without_sequences_it_is_not_offered() -> None:
    with pytest.raises(NotOffered, match="which tokens are of one sequence"):
        measured.measure_tails(unrelated(0))


def made(basis: np.ndarray, random: np.ndarray) -> Tails:
    models = tuple(f"model {i}" for i in range(len(basis)))
    table = PairSite(basis, models, SITES, counts={"tokens": 5, "rotations": len(random)})
    shared = np.full((1 + len(random), len(SITES)), 3.0)
    return Tails(table, table, random, random, shared)


def test_the_interval_is_over_models_and_no_narrower_than_the_rotations_allow() -> None:
    basis = np.array([[4.0, 4.0], [8.0, 4.0], [6.0, 4.0]])
    still = np.full((8, 3, 2), 4.0)
    found = measured.basis_over_random(made(basis, still))
    assert found.values.tolist() == [1.5, 1.0]
    first, second = found.intervals
    assert first is not None
    assert second is not None
    assert first.of == "models"
    assert found.n == 3
    assert first.low < 1.0
    assert first.high > 2.0
    assert second.low == second.high == 1.0
    shaken = still + np.array([-1.0, 1.0] * 4)[:, None, None]
    third = measured.basis_over_random(made(basis, shaken)).interval(1)
    assert third is not None
    assert third.low < 0.9 < 1.1 < third.high
    assert not found.ceilings


def test_kept_tails_are_the_same() -> None:
    tails = measured.measure_tails(Sequences(heavy(7)), rotations=3)
    found = Tails.of(tails.tables, tails.tensors)
    assert found.ratio.tolist() == tails.ratio.tolist()
    np.testing.assert_array_equal(found.random_with_first, tails.random_with_first)
    np.testing.assert_array_equal(found.shared, tails.shared)
