"""Drift: the planted angle is reported, and what does not vary does not enter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from polyrot.cohorts import run
from polyrot.cohorts.cohort import CohortDefaults
from polyrot.dictionaries.sae import Dictionary
from polyrot.maps.correlation import spearman
from polyrot.measured import Measured
from polyrot.measures import drift
from polyrot.measures.drift import Drift
from polyrot.measures.reconstructions import Reconstructions, half_way_to_last, reconstruct
from polyrot.toy import transformer
from polyrot.toy.checkpoints import checkpoints
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.trained import Trained

quick = settings(max_examples=12, deadline=None)
D = 8


def plane_rotation(angle: float, axes: tuple[int, int] = (0, 1)) -> Tensor:
    r = torch.eye(D, dtype=torch.float64)
    i, j = axes
    r[i, i] = r[j, j] = math.cos(angle)
    r[i, j], r[j, i] = math.sin(angle), -math.sin(angle)
    return r


class Turning(CohortDefaults):
    """Checkpoints of a run that turns site k by `rates[k]` radians a step, in one plane."""

    scale = "toy_a"

    def __init__(
        self, steps: tuple[int, ...], rates: tuple[float, ...], axes: tuple[int, int] = (0, 1)
    ) -> None:
        self.seeds, self.rates, self.axes = steps, rates, axes
        self.sites = tuple(f"site_{k}" for k in range(len(rates)))
        self.width = D

    def activations(self, split: str, site: str) -> Tensor:
        generator = torch.Generator().manual_seed(0 if split == "fit" else 1)
        scale = torch.linspace(2, 1, D, dtype=torch.float64)
        scale[-2:] = 1e-4  # two directions that hardly vary
        x = torch.randn(600, D, generator=generator, dtype=torch.float64) * scale + 1
        rate = self.rates[self.sites.index(site)]
        return torch.stack([x @ plane_rotation(rate * s, self.axes) for s in self.seeds])


@quick
@given(st.floats(0.05, 3.0))
def test_the_planted_angle_is_reported(angle: float) -> None:
    found = drift.measure_drift(Turning((1, 2), (angle,)))
    wanted = 2 * math.sqrt(2) * math.sin(angle / 2)
    assert found.distance[0, 1, 0] == pytest.approx(wanted, rel=1e-6)
    assert found.distance[1, 0, 0] == found.distance[0, 1, 0]
    assert found.dimensions.tolist() == [[6], [6]]
    assert found.restricted[0, 1, 0] == pytest.approx(wanted / math.sqrt(6), rel=1e-4)
    share = found.haar_share().values[0]
    assert share == pytest.approx(wanted / math.sqrt(2 * D), rel=1e-6)


def test_a_turn_of_what_hardly_varies_does_not_count() -> None:
    found = drift.measure_drift(Turning((1, 2), (1.0,), axes=(6, 7)))
    assert found.distance[0, 1, 0] == pytest.approx(2 * math.sqrt(2) * math.sin(0.5), rel=1e-3)
    assert found.restricted[0, 1, 0] < 1e-4


def test_curves_of_a_steady_turn() -> None:
    steps = (1, 2, 4, 8, 16, 32)
    found = drift.measure_drift(Turning(steps, (0.05, 0.03, 0.01)))
    assert found.middle == "site_1"
    assert found.monotone().values[0] == pytest.approx(1)
    assert found.toward_output().values[0] == pytest.approx(-1)
    assert found.toward_output(restricted=True).values[0] == pytest.approx(-1)
    assert found.steps[run.nearest(found.steps, 0.5)] == 16
    assert found.steps[run.nearest(found.steps, run.EARLY)] == 1
    grows = drift.measure_drift(Turning(steps, (0.01, 0.03, 0.05)))
    assert grows.toward_output().values[0] == pytest.approx(1)


def planted_drift(
    distance: np.ndarray,
    rank: np.ndarray,
    closest: np.ndarray | None = None,
    error: float | np.ndarray = 0.0,
) -> Drift:
    """distance, rank, closest: [steps, steps, sites] of a run of width 8. error: standard errors of
    the distances, those of different sites and steps independent."""
    steps, sites = len(distance), distance.shape[2]
    names = tuple(f"site_{k}" for k in range(sites))
    whole = np.full((steps, sites), 8)
    seen = tuple(2**k for k in range(steps))
    least = distance if closest is None else closest
    noise = np.random.default_rng(0).standard_normal((100, *distance.shape))
    without = distance + error * noise / np.sqrt(99 * (1 - 1 / 100))
    return Drift(
        seen, names, names[0], 8, distance, distance, whole, least, rank, without, without, 9, 100
    )


def test_the_reading_that_favours_the_paper_and_both_recorded() -> None:
    steps = np.array([2.0**k for k in range(6)])
    late = np.maximum(steps[:, None], steps)
    # Distances shrink with the later step, and grow with the gap: to the last they are monotone.
    distance = (np.abs(steps[:, None] - steps) / late**2)[:, :, None]
    found = planted_drift(distance, np.full((6, 6, 1), 8)).monotone()
    assert found.beside["reading"] == "to_the_last_only"
    assert found.values[0] == found.beside["to_the_last_only"] == 1
    assert float(found.beside["all_pairs"]) < 0.5
    # The other way about: to the last checkpoint all are equally far.
    other = np.abs(steps[:, None] - steps)[:, :, None] ** 0.5
    other[-1, :-1] = other[:-1, -1] = 5 - 0.1 * np.arange(5)[::-1, None]
    found = planted_drift(other, np.full((6, 6, 1), 8)).monotone()
    assert found.beside["reading"] == "all_pairs"
    assert found.values[0] == found.beside["all_pairs"]
    # A pair that is not looked at may have any rank.
    early = np.full((6, 6, 1), 8)
    early[0, 1] = early[1, 0] = 7
    assert planted_drift(distance, early).monotone().interval(0) == (1, 1, "sequences")
    assert planted_drift(other, early).monotone().interval(0) == (-1, 1, "sequences")


def ends(measured: Measured) -> tuple[float, float]:
    found = measured.interval(0)
    assert found is not None
    assert found.of == "sequences"
    return found.low, found.high


def by_site(*values: float) -> np.ndarray:
    return np.ones((6, 6, len(values))) * np.array(values)


def test_where_r_is_not_determined_the_interval_is_what_any_completion_gives() -> None:
    whole = planted_drift(by_site(3, 2, 1), np.full((6, 6, 3), 8))
    assert ends(whole.haar_share()) == pytest.approx((0.75, 0.75))
    assert whole.toward_output().interval(0) == (-1, -1, "sequences")
    # The second site may be nearer than the third, but no further off than 2 sqrt(8) = 5.7.
    low = by_site(8, 5, 8).astype(int)
    part = planted_drift(by_site(3, 2, 1), low, closest=by_site(3, 0.5, 1))
    assert ends(part.haar_share()) == pytest.approx((0.75, 0.75)), "of the first site"
    assert part.toward_output().interval(0) == (-1, -0.5, "sequences")
    assert part.toward_output(restricted=True).interval(0) == (-1, -1, "sequences")
    # A site that is far off whatever the completion leaves the order as it is.
    sure = planted_drift(by_site(3, 2, 1), by_site(5, 8, 8).astype(int), closest=by_site(2.5, 2, 1))
    assert sure.toward_output().interval(0) == (-1, -1, "sequences")
    first = planted_drift(by_site(3, 2, 1), by_site(7, 8, 8).astype(int), closest=by_site(1, 2, 1))
    assert ends(first.haar_share()) == pytest.approx((0.25, 2**0.5))
    nothing = planted_drift(by_site(3, 2, 1), by_site(7, 7, 7).astype(int))
    assert nothing.toward_output().interval(0) == (-1, 1, "sequences")


def test_both_orders_of_two_undetermined_sites_are_tried() -> None:
    low = by_site(5, 5, 8, 8).astype(int)
    found = planted_drift(by_site(4, 3, 2, 1), low, closest=by_site(0.2, 0.1, 2, 1))
    assert found.toward_output().interval(0) == (-1, pytest.approx(0.8), "sequences")


def test_the_interval_of_a_distance_and_of_an_order_is_of_sequences() -> None:
    full = np.full((6, 6, 3), 8)
    share = planted_drift(by_site(2, 1, 0.5), full, error=0.1).haar_share().interval(0)
    assert share is not None
    assert share[:2] == pytest.approx((0.5 - 0.049, 0.5 + 0.055), abs=0.012)
    apart = planted_drift(by_site(3, 2, 1), full, error=0.1).toward_output()
    assert apart.interval(0) == (-1, -1, "sequences")
    near = planted_drift(by_site(3, 1.1, 1), full, error=0.2).toward_output()
    assert near.interval(0) == (-1, -0.5, "sequences"), "the last two may be the other way about"
    steps = np.arange(6.0)
    curve = np.abs(steps[:, None] - steps)[:, :, None]
    sure, open_ = (
        planted_drift(curve, full[..., :1], error=error).monotone().interval(0)
        for error in (0.01, 2.0)
    )
    assert sure is not None
    assert open_ is not None
    assert sure.low > 0.95
    assert open_.low < 0.9


def test_without_a_block_the_fit_is_that_of_the_other_sequences() -> None:
    """Each block's own turn is planted: left out, the distance is that of the others."""

    class Blocks(Turning):
        def sequences(self, split):
            return torch.arange(super().activations(split, "site_0").shape[1]) // 25

        def activations(self, split, site):
            x = super().activations(split, site).clone()
            last = self.sequences(split) % drift.BLOCKS == 3
            turned = x[1, last] - x[1].mean(0)
            x[1, last] = turned @ plane_rotation(2.0).to(x) + x[1].mean(0)
            return x

    found = drift.measure_drift(Blocks((1, 2), (0.3,)))
    whole, without = found.distance[0, 1, 0], found.distance_without[:, 0, 1, 0]
    plain = 2 * math.sqrt(2) * math.sin(0.15)
    assert abs(without[3] - plain) < 0.1 * abs(whole - plain)
    assert np.abs(np.delete(without, 3) - whole).max() < abs(without[3] - whole)


@pytest.mark.parametrize(("length", "blocks"), [(600, 0), (200, 3), (20, drift.BLOCKS)])
def test_few_sequences_make_few_blocks_and_one_none(length: int, blocks: int) -> None:
    class Few(Turning):
        def sequences(self, split):
            return torch.arange(600) // length

    found = drift.measure_drift(Few((1, 2, 4, 8, 16), (0.05, 0.03)))
    assert len(found.distance_without) == len(found.restricted_without) == blocks
    for measured in (found.haar_share(), found.toward_output(), found.monotone()):
        assert (measured.interval(0) is None) == (blocks == 0)


def test_drift_is_reported_at_the_site_that_the_cohort_calls_middle() -> None:
    cohort = Turning((1, 2), (0.1,) * 7)
    assert cohort.middle == drift.measure_drift(cohort).middle == "site_3"
    further = Turning((1, 2), (0.1,) * 7)
    further.middle = "site_4"
    assert drift.measure_drift(further).middle == "site_4"


def test_rounding_does_not_decide_a_rank_correlation() -> None:
    one_swap = np.array([5.0, 4.0, 3.0, 1.0, 2.0])  # exactly -0.9, as the bar has it
    assert spearman(np.arange(5), one_swap) == -0.9


def test_rotation_restores_an_early_dictionary() -> None:
    # A dictionary of the dimensions in which the early checkpoint varies; the later leaves them.
    axes = torch.eye(D).double()[: D - 2]
    keep = torch.cat([axes, -axes])
    cohort = Turning((0, 1), (2.5,), axes=(0, 7))
    mean = cohort.activations("fit", "site_0")[0].mean(0)
    sae = Dictionary(keep.T.contiguous(), torch.zeros(len(keep)).double(), keep, mean, mean)
    found = reconstruct(cohort, {(0, "site_0"): sae})
    assert found.own[0, 0] > 0.999
    assert found.rotated[0, 1, 0] > 0.999
    assert found.naive[0, 1, 0] < found.rotated[0, 1, 0] - 0.1
    assert np.isnan(found.naive[1, 0, 0])
    assert np.isnan(found.own[1, 0])
    again = Reconstructions.from_artifact(found.to_artifact(), "site_0")
    np.testing.assert_array_equal(again.rotated, found.rotated)
    assert again.steps == (0, 1)
    rotated, naive = again.early("rotated"), again.early("naive")
    assert rotated.values[0] == found.rotated[0, 1, 0]
    assert rotated.ceilings == (found.own[0, 0],), "as a rotated copy of the early checkpoint"
    assert not naive.ceilings
    for one in (rotated, naive):
        ends = one.interval(0)
        assert ends is not None
        assert ends.of == "sequences"
        assert ends.low < one.values[0] < ends.high
    older = Reconstructions((0, 1), ("site_0",), "site_0", found.own, found.naive, found.naive)
    assert older.early("naive").interval(0) is None
    assert again.half_way()["naive_ev_site_0"] == found.naive[0, 1, 0]


def test_half_way_is_put_on_the_last_at_every_site() -> None:
    cohort = Turning((0, 1, 2), (0.7, 0.3), axes=(0, 7))
    saes = {}
    for i in range(2):
        for site in cohort.sites:
            mean = cohort.activations("fit", site)[i].mean(0)
            axes = torch.eye(D).double()[: D - 2]
            keep = torch.cat([axes, -axes])
            zero = torch.zeros(len(keep)).double()
            saes[i, site] = Dictionary(keep.T.contiguous(), zero, keep, mean, mean)
    whole, half = reconstruct(cohort, saes), half_way_to_last(cohort, saes)
    for name, table in (("naive", whole.naive), ("rotated", whole.rotated)):
        found = half[name]
        np.testing.assert_allclose(found.values[0], table[1, 2], rtol=1e-12)
        np.testing.assert_allclose(found.ceiling, whole.own[1], rtol=1e-12)
        assert found.beside == {"half_way_step": 1.0, "last_step": 2.0}
        measured = found.each()
        for value, ends in zip(measured.values, measured.intervals, strict=True):
            assert ends is not None
            assert ends.of == "sequences"
            assert ends.low < value < ends.high


def test_checkpoints_are_a_cohort_of_the_snapshots() -> None:
    params = transformer.initialise([0])
    snapshots = {
        8: {n: 2 * p for n, p in params.items()},
        2: params,
    }
    run = Trained.__new__(Trained)
    object.__setattr__(run, "params", params)
    object.__setattr__(run, "snapshots", snapshots)
    object.__setattr__(run, "seeds", (0,))
    object.__setattr__(run, "chosen", [8])
    made = checkpoints("toy_a", run, "made by a test")
    made._tokens = {split: x[:200] for split, x in made._tokens.items()}
    assert made.seeds == (2, 8)
    whole = ToyCohort("toy_a", (0,), params, ["x"])
    whole._tokens = made._tokens
    wanted = whole.activations("fit", "resid_mid_0")[0]
    torch.testing.assert_close(made.activations("fit", "resid_mid_0")[0], wanted)
    # The best of a run need not be the last of it, nor one that was kept.
    object.__setattr__(run, "snapshots", snapshots | {1: params})
    object.__setattr__(run, "chosen", [5])
    found = checkpoints("toy_a", run, "made by a test")
    assert found.seeds == (1, 2, 5)
    assert torch.equal(found.params["embed"][2], params["embed"][0])
    object.__setattr__(run, "snapshots", {})
    with pytest.raises(ValueError, match=r"kept 1 checkpoint, of step .*, not two"):
        checkpoints("toy_a", run, "made by a test")


def test_bad_input_is_named() -> None:
    for steps in ((3,), (4, 2), (2, 2)):
        with pytest.raises(ValueError, match="two or more steps, increasing"):
            drift.measure_drift(Turning(steps, (0.1,)))
    few = np.zeros((3, 3, 1))
    with pytest.raises(ValueError, match="needs 5 checkpoints, not 3"):
        planted_drift(few, few.astype(int)).monotone()
