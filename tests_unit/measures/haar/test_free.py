"""The battery on free directions, and its control, against what was planted there."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from polyrot.haar.orthogonal import sample_haar
from polyrot.maps.procrustes import fit_rotation, pointwise_ev
from polyrot.measured import PairSite
from polyrot.measures import kept
from polyrot.measures.fits import fit_all
from polyrot.measures.haar import free as measured
from polyrot.measures.haar.calibrated import BATTERY_STEPS, PValues
from polyrot.measures.haar.free import FreeCohort, FreeDirections
from polyrot.runtime.seeding import torch_generator
from tests_unit.measures.haar.planted import SITES, PlantedCohort
from tests_unit.worlds.splits import Apart
from tests_unit.worlds.test_haar import AXES, ONES, measured as in_world

FREE = 16


class Fixed(PlantedCohort):
    """Two siblings: the anchor's tokens, the same along `fixed`, turned by `turns` on the rest."""

    def __init__(self, fixed: torch.Tensor, seed: int = 0) -> None:
        d, rng = fixed.shape[1], np.random.default_rng(seed)
        self.fixed = fixed
        basis = measured.free_basis(fixed).numpy()
        m = basis.shape[1]
        self.turns = sample_haar(m, 2 * len(SITES), rng).reshape(len(SITES), 2, m, m)
        drawn = {}
        for site, turns in zip(SITES, self.turns, strict=True):
            x = rng.standard_normal((400, d)) * np.geomspace(2, 0.5, d) + rng.standard_normal(d)
            siblings = [x + x @ basis @ (turn.T - np.eye(m)) @ basis.T for turn in turns]
            drawn[site] = torch.from_numpy(np.stack([x, *siblings]))
        super().__init__(drawn)

    def fixed_directions(self, site: str) -> torch.Tensor:
        return self.fixed


@pytest.mark.parametrize("fixed", [AXES, ONES], ids=["axes", "all-ones"])
def test_r_is_refitted_in_the_basis_of_what_is_free(fixed: torch.Tensor) -> None:
    cohort = Fixed(fixed)
    found = fit_all(FreeCohort(cohort))
    for site, turns in zip(SITES, cohort.turns, strict=True):
        for rotation, turn in zip(found.matched[site], turns, strict=True):
            np.testing.assert_allclose(rotation.r.numpy(), turn, atol=1e-8)


def test_where_axes_are_fixed_the_others_are_the_basis_and_without_any_all_are() -> None:
    cohort = Fixed(AXES)
    x = cohort.activations("fit", SITES[0])
    assert torch.equal(FreeCohort(cohort).activations("fit", SITES[0]), x[..., 4:])
    plain = PlantedCohort({site: cohort.activations("fit", site) for site in SITES})
    assert torch.equal(FreeCohort(plain).activations("fit", SITES[0]), x)
    assert FreeCohort(plain).width == 20
    assert FreeCohort(cohort).width == FREE


def test_named_directions_are_the_anchors_and_none_that_is_fixed() -> None:
    cohort = Fixed(AXES)  # variance falls from axis to axis: the first free one varies most
    found = FreeCohort(cohort).named_directions(SITES[0])
    assert set(found) == {"mean", "largest variance"}, "all-ones is no direction of the anchor's"
    np.testing.assert_array_equal(found["largest variance"], np.eye(FREE)[0])
    mean = cohort.activations("fit", SITES[0])[0].mean(0)
    np.testing.assert_allclose(found["mean"], mean[4:], atol=1e-6)
    behind = FreeCohort(Fixed(ONES))
    projected = behind.bases[SITES[0]][0]
    np.testing.assert_array_equal(
        behind.named_directions(SITES[0])["largest variance"], projected.numpy()
    )


@pytest.mark.parametrize("ev", [1.0, 0.9, 0.3, -0.5])
def test_a_planted_sibling_explains_the_given_share_of_the_anchor(ev: float) -> None:
    x = torch.randn(20_000, 10, generator=torch_generator(0, "planted"), dtype=torch.float64)
    x = x * torch.linspace(0.5, 2, 10) + 3
    sibling = measured.planted_sibling(x, ev, torch_generator(0, "noise"))
    assert pointwise_ev(fit_rotation(sibling, x), sibling, x) == pytest.approx(ev, abs=0.02)


def test_a_planted_turn_is_two_haar_blocks_on_random_halves() -> None:
    x = torch.randn(500, 11, generator=torch_generator(0, "planted"), dtype=torch.float64)
    halves = set()
    for i in range(4):
        sibling = measured.planted_sibling(x, 1.0, torch_generator(0, "turn", i))
        r = fit_rotation(sibling, x).r
        mixes = r.abs() > 1e-9
        sizes = mixes.sum(1).tolist()
        assert sorted(sizes) == [5] * 5 + [6] * 6
        assert torch.equal(mixes, mixes.T), "a half is carried to itself"
        assert not torch.allclose(r @ r, torch.eye(11).double(), atol=0.5), "and turned there"
        halves.add(tuple(sizes))
    assert len(halves) > 1


def test_with_so_many_draws_matrices_beyond_all_are_surely_rejected() -> None:
    for n in (12, 28):
        draws = measured.draws_to_decide(n)
        p = np.full(n, BATTERY_STEPS / (draws + 1))
        error = p / (1 + 1.25) ** 0.5  # of a count of none beyond, as in polyrot.haar.nulls
        found = PValues(p, error, ("",) * n, ("",) * n).intervals()
        assert all(each is not None and each.high < measured.LEVEL for each in found)
    assert measured.draws_to_decide(1) == measured.DEFAULT_DRAWS


def tables(
    p: list[list[float]],
    planted: list[list[float]],
    error: float = 0.0,
    unidentified: str = "",
    no_map: str = "",
) -> FreeDirections:
    """Two pairs at two sites."""
    beside = {
        "unidentified": unidentified,
        "no_map": no_map,
        "free_dimensions": 16.0,
        "sites_not_identified": 1.0,
    }

    def table(values: object) -> PairSite:
        filled = np.broadcast_to(np.asarray(values, dtype=float), (2, 2))
        return PairSite(filled, ("0-1", "0-2"), SITES, beside, {"null": 1}, {"draws": 7})

    return FreeDirections(
        p=table(p),
        error=table(error),
        without_one=table(0.5),
        copies=table(0.6),
        shuffled=table(0.4),
        planted=table(planted),
        planted_error=table(error),
        pointwise_ev=table(0.8),
    )


def test_the_battery_is_judged_pair_by_pair_and_site_by_site() -> None:
    found = measured.battery_on_free_directions(tables([[0.001, 0.5], [0.9, 0.004]], [[1, 1]] * 2))
    assert found.values.tolist() == pytest.approx([0.004, 1.0, 1.0, 0.012]), "Holm over all four"
    assert found.labels == ("0-1 pre_0", "0-1 post_0", "0-2 pre_0", "0-2 post_0")
    assert found.ceilings == (0.6,) * 4
    assert (found.beside["rejected"], found.beside["rejected_share"]) == (1, 0.25)
    assert found.beside["rejected_without_one"] == 0
    assert found.beside["free_dimensions"] == 16
    assert not found.unmet


def test_the_control_is_the_share_rejected_and_a_range_where_that_is_open() -> None:
    planted = [[1e-5, 1e-5], [1e-5, 0.5]]
    found = measured.planted_rejections(tables([[1, 1]] * 2, planted))
    assert found.values.tolist() == [0.75]
    assert found.intervals == (None,)
    assert not found.ceilings, "no statement of likeness"
    found = measured.planted_rejections(tables([[1, 1]] * 2, [[0.002, 0.002], [0.002, 0.5]], 5e-4))
    assert found.values.tolist() == [0.75]
    (interval,) = found.intervals
    assert interval is not None
    assert (interval.low, interval.high) == (0.0, 0.75)


def test_what_says_nothing_says_why() -> None:
    everywhere = [[1.0, 1.0]] * 2
    low = tables(everywhere, everywhere, unidentified="low rank")
    assert measured.battery_on_free_directions(low).unmet == "low rank"
    assert measured.planted_rejections(low).unmet == "low rank"
    noise = tables(everywhere, everywhere, no_map="noise")
    assert measured.battery_on_free_directions(noise).unmet == "noise"
    assert not measured.planted_rejections(noise).unmet, "it is of the anchor alone"


def test_kept_tables_give_the_same_verdicts() -> None:
    made = tables([[0.001, 0.5], [0.9, 0.004]], [[0.002, 0.002], [0.002, 0.5]], 5e-4, no_map="x")
    saved = {name: json.loads(json.dumps(kept.to_json(t))) for name, t in made.tables.items()}
    found = FreeDirections.of({name: kept.from_json(each) for name, each in saved.items()})
    for reads in (measured.battery_on_free_directions, measured.planted_rejections):
        before, after = reads(made), reads(found)
        assert before.values.tolist() == after.values.tolist()
        assert (before.intervals, before.unmet, before.beside) == (
            after.intervals,
            after.unmet,
            after.beside,
        )


def test_what_is_measured_in_a_world_is_what_the_tables_say() -> None:
    found = in_world("turned").free_directions
    assert found.counts == {"free_dimensions": FREE, "sites_not_identified": 0}
    assert found.p.values.shape == (3, 3)
    np.testing.assert_allclose(found.pointwise_ev.values, 1.0, atol=1e-9)
    assert (found.planted.values < 1e-3).all()
    assert (found.shuffled.values > 1e-3).all()
    assert len(np.unique(found.without_one.values)) > 6, "each of its own R"


def test_noise_goes_down_to_what_the_score_split_says() -> None:
    cohort = Apart()
    found = measured.measure_free(cohort, fit_all(cohort), None)
    cohort.read()
    ev = measured._pointwise(FreeCohort(cohort), fit_all(FreeCohort(cohort)))
    assert cohort.read() == {"fit", "score"}
    np.testing.assert_array_equal(found.pointwise_ev.values, ev)
    assert (ev < 0).all(), "another map holds on the score split"
