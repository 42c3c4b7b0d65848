"""Dictionaries from one start: what is matched, by which index, and along training."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from polyrot.dictionaries.sae import Dictionary
from polyrot.judge.verdicts import judge, reading
from polyrot.measured import PairSite
from polyrot.measures import shared_start
from polyrot.measures.shared_start import UNITS, AlongTraining
from polyrot.runtime.seeding import torch_generator
from tests_unit.worlds.asked import registration

D, FEATURES = 16, 40
PAIRS, SITES = ("0-1", "0-2", "0-3"), ("middle", "last")
COHORT = SimpleNamespace(named_sites=("middle",), sites=("first", *SITES))


def dictionary(columns: torch.Tensor) -> Dictionary:
    d, f = columns.shape
    return Dictionary(columns, torch.zeros(f), columns.T, torch.zeros(d), torch.zeros(d))


def along(**by_step: dict[str, list[list[float]]]) -> AlongTraining:
    """Tables of [pairs, sites] by step ("at_2000") and quantity; 0.5 where nothing is given."""
    steps = {int(name.removeprefix("at_")): given for name, given in by_step.items()}
    tables = {
        step: {
            name: PairSite(
                np.array(given.get(name, [[0.5, 0.5]] * 3)), PAIRS, SITES, unit=UNITS[name]
            )
            for name in UNITS
        }
        for step, given in steps.items()
    }
    noise = {step: PairSite(np.array([[step / 10_000]]), ("noise",), SITES[:1]) for step in steps}
    return AlongTraining(
        tuple(steps)[1:], tables, noise, torch.zeros(3, 2, 4), torch.zeros(1, 1, 4)
    )


def fractions(*values: float) -> dict[str, list[list[float]]]:
    return {"fraction": [[v, 0.4] for v in values]}


FALLING = along(
    at_2000=fractions(0.99, 0.98, 0.97),
    at_4000=fractions(0.98, 0.97, 0.96),
    at_6000=fractions(0.95, 0.96, 0.94),
)


HIGH = [[0.9, 0.5]] * 3
FAILING = dict.fromkeys((4000, 6000), PairSite(np.full((3, 1), -1.0), PAIRS, SITES[:1], unit="ev"))
WORKING = PairSite(np.full((3, 1), 0.5), PAIRS, SITES[:1], unit="ev")


def test_columns_at_their_start_are_near_it_and_strangers_are_not() -> None:
    begun = shared_start.column_starts(D, FEATURES)
    assert shared_start.to_start(dictionary(begun)) == pytest.approx(1)
    drawn = torch.randn(D, FEATURES, generator=torch_generator(0, "strangers"))
    assert abs(shared_start.to_start(dictionary(drawn))) < 0.2


def test_the_reading_that_favours_the_paper_is_judged_and_both_are_recorded() -> None:
    claim = registration().claim("cosine.matched_fraction")
    found = reading(claim, shared_start.matched(FALLING, COHORT))  # type: ignore[arg-type]
    assert found.values == pytest.approx([0.97])
    assert found.beside["reading"] == "4000 steps"
    assert found.beside["middle 6000 steps"] == pytest.approx(0.95)
    assert found.ceilings == (1.0,)
    assert found.beside["live_columns_alone"] == 0.5
    assert found.beside["matched_by_noise_middle"] == pytest.approx(0.4), "at the step judged"


def test_noise_is_read_at_the_step_of_the_match_it_controls() -> None:
    found = shared_start.matched_by_noise(FALLING, FAILING, COHORT)  # type: ignore[arg-type]
    assert (found.labels, found.values) == (("middle",), pytest.approx([0.4]))
    assert found.beside["reading"] == "4000 steps"
    assert found.beside["middle 6000 steps"] == pytest.approx(0.6)


@pytest.mark.parametrize("apart", ["mean", "triplet"])
def test_where_the_claims_are_read_at_several_steps_noise_is_read_at_each(apart: str) -> None:
    later = {"mean": [[0.8, 0.5]] * 3} if apart == "mean" else {}
    tables = along(
        at_2000={},
        at_4000=fractions(0.98, 0.97, 0.96) | {"mean": [[0.7, 0.5]] * 3 if later else HIGH},
        at_6000=fractions(0.95, 0.96, 0.94) | (later or {"mean": HIGH}),
    )
    naive = FAILING if later else {4000: WORKING, 6000: FAILING[6000]}
    found = shared_start.matched_by_noise(tables, naive, COHORT)  # type: ignore[arg-type]
    assert found.labels == ("middle 4000 steps", "middle 6000 steps")
    assert found.values == pytest.approx([0.4, 0.6])
    assert found.beside["reading"] == "4000 and 6000 steps"
    claim = registration().claim("cosine.noise_control")
    assert judge(claim, "toy_a", found).outcome.value == "refuted", "at one of them it matches"


def test_the_change_is_from_a_third_of_the_training_to_its_end_pair_by_pair() -> None:
    found = shared_start.change_over_training(FALLING, COHORT)  # type: ignore[arg-type]
    assert found.values == pytest.approx([-0.03])
    assert found.replicates is not None
    assert found.replicates[0] == pytest.approx([-0.04, -0.02, -0.03])
    assert found.ceilings == (0.0,)
    assert found.beside["matched_by_noise_middle"] == pytest.approx(0.6), "at the end"


def test_the_last_site_is_held_against_the_lowest_of_the_named_ones() -> None:
    found = shared_start.last_site_less_lowest(FALLING, COHORT)  # type: ignore[arg-type]
    assert found.labels == ("last - middle",)
    assert found.values == pytest.approx([-0.55])
    assert found.replicates is not None
    assert found.replicates[0] == pytest.approx([-0.55, -0.56, -0.54])


def test_the_index_is_read_at_the_end_with_the_start_beside() -> None:
    found = shared_start.kept_index(
        along(
            at_2000={},
            at_4000={"same_index": [[0.1, 0.1]] * 3},
            at_6000={"same_index": [[0.9, 0.1]] * 3, "to_start": [[0.8, 0.2]] * 3},
        ),
        COHORT,  # type: ignore[arg-type]
    )
    assert found.values == pytest.approx([0.9])
    assert found.beside["to_start_middle"] == pytest.approx(0.8)


def test_high_cosines_beside_failing_evs_are_read_by_the_reading_that_favours_the_paper() -> None:
    found = along(
        at_2000={}, at_4000={"mean": [[0.9, 0.5]] * 3}, at_6000={"mean": [[0.8, 0.5]] * 3}
    )
    naive = PairSite(np.array([[-1.0], [-0.5], [0.5]]), PAIRS, SITES[:1], unit="ev")
    measured = shared_start.misled(found, {4000: naive, 6000: naive}, COHORT)  # type: ignore[arg-type]
    assert measured.values == pytest.approx([2 / 3])
    assert measured.beside["6000 steps"] == 0


def test_tables_come_back_as_they_were_kept() -> None:
    again = AlongTraining.from_tables(*FALLING.to_tables(), read=FALLING.read)
    assert again.steps == FALLING.steps
    assert again.noise.keys() == FALLING.noise.keys()
    for step in FALLING.steps:
        for name in UNITS:
            assert (again.tables[step][name].values == FALLING.tables[step][name].values).all()


def test_what_a_turned_copy_gives_is_recorded_and_bounds_nothing() -> None:
    turned = {
        name: PairSite(np.array([[value]]), ("turned copy",), SITES[:1])
        for name, value in (("fraction", 0.25), ("mean", 0.375))
    }
    early, late = FALLING.steps[0], FALLING.steps[-1]
    made = FALLING.beside_turned({early: turned, late: turned})
    assert made.tables[early]["fraction"].beside["turned_copy_middle"] == 0.25
    between = made.tables[FALLING.steps[1]]["fraction"]
    assert "turned_copy_middle" not in between.beside
    found = made.last
    assert found["fraction"].beside["turned_copy_middle"] == 0.25
    assert found["mean"].beside["turned_copy_middle"] == 0.375
    assert found["fraction"].ceiling is None
