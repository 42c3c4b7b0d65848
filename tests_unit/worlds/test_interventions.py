"""What is done to planted models, and what they are: world x claim -> verdict."""

from __future__ import annotations

from functools import cache

import pytest

from tests_unit.worlds import between_seeds, test_steering as steered
from tests_unit.worlds.asked import (
    HELD,
    OUT,
    REFUTED,
    UNDECIDED,
    Case,
    claim_tests,
    parameters,
)
from tests_unit.worlds.evidence import Measurable, of

TURNED, REVERSED = "rotated network", "network, half a turn"
OFTEN = "network, turned a dozen times"
INSIDE, SAME, STRANGERS = "neurons permuted and scaled", "the same network", "unrelated networks"
TWICE, PINNED = "network, seed twice", "network, turned where unread"
LINEAR, MINIMUM, UNRELATED = (
    "nearly linear loss",
    "loss at its minimum",
    "effect unrelated to slope",
)
BEYOND, FIVE = "effect far beyond the slope", "loss at its minimum, five seeds"
BENDS, STRAIGHTENS = "a run that bends", "a run that straightens"
CURVES = (LINEAR, MINIMUM, UNRELATED, "cubic loss")
CHANCE = "tokens of sign and size that a turned direction gets by chance, over two pairs"

CASES = [
    # ---------------------------------------------------------------- section 2: what they compute
    Case("architecture.same_function", TURNED, HELD, "logits are the anchor's"),
    Case("architecture.same_function", INSIDE, HELD, "logits are the anchor's"),
    Case("architecture.same_function", STRANGERS, REFUTED, "other functions"),
    Case("architecture.seeds_are_distinct", TURNED, HELD, "other weights"),
    Case("architecture.seeds_are_distinct", SAME, REFUTED, "the anchor's weights"),
    Case(
        "architecture.seeds_are_distinct",
        TWICE,
        REFUTED,
        "siblings 2 and 3 are one model",
    ),
    # ------------------------------------------------------------------------ section 6: steering
    Case("steering.depth_transfers", INSIDE, HELD, "the stream is the anchor's"),
    Case("steering.depth_transfers", "shifted network", HELD, "a direction is a difference"),
    Case("steering.depth_transfers", REVERSED, REFUTED, "it steers the other way"),
    Case("steering.sticky_needs_dose", "louder network", HELD, "exactly four times the dose"),
    Case("steering.sticky_needs_dose", INSIDE, REFUTED, "the same dose"),
    Case("steering.sticky_needs_dose", REVERSED, REFUTED, "no dose does"),
    Case("steering.sticky_needs_dose", "softer network", REFUTED, "a quarter of it"),
    Case("steering.closer_inverts", REVERSED, HELD, "the stream is reversed"),
    Case("steering.closer_inverts", INSIDE, REFUTED, "nothing is reversed"),
    Case("steering.closer_inverts", TURNED, UNDECIDED, CHANCE),
    Case("steering.effect_is_inverted", REVERSED, HELD, "the stream is reversed"),
    Case("steering.effect_is_inverted", "softer network", REFUTED, "nothing is reversed"),
    Case("steering.all_ratios_above_one", "softer network", HELD, "read four times as much"),
    Case("steering.all_ratios_above_one", "louder network", REFUTED, "read a quarter as much"),
    Case(
        "steering.all_ratios_above_one",
        INSIDE,
        UNDECIDED,
        "every ratio is 1, which is the bar",
    ),
    Case("steering.random_direction_control", SAME, HELD, "it is what the read-out reads"),
    Case("steering.random_direction_control", OFTEN, REFUTED, "turned, it is like any other"),
    Case("steering.overlap_predicts_transfer", PINNED, HELD, "what is read is where it was"),
    Case("steering.overlap_predicts_transfer", OFTEN, REFUTED, "what is read was turned too"),
    Case("steering.overlap_predicts_transfer", SAME, OUT, "all transfer: nothing to rank"),
    Case("steering.rotation_repairs", TURNED, HELD, "R is the truth"),
    Case("steering.rotation_repairs", "permuted network", HELD, "R is the truth"),
    Case("steering.rotation_repairs", REVERSED, HELD, "R is the truth"),
    Case("steering.rotation_repairs", STRANGERS, REFUTED, "no R is"),
    Case("steering.rotation_repairs", "softer network", REFUTED, "a scale is missing"),
    # ------------------------------------------------------------------------- section 9: editing
    Case("editing.weight_edits_do_not_transfer", TURNED, REFUTED, "neurons are in order: it does"),
    Case("editing.weight_edits_do_not_transfer", STRANGERS, HELD, "nothing to carry it by"),
    Case("editing.neuron_map_does_not_help", TURNED, REFUTED, "both maps are the truth"),
    Case("editing.neuron_map_does_not_help", STRANGERS, HELD, "nothing to carry it by"),
    # --------------------------------------------------------------------- section 8: attribution
    Case("attribution.patching_anticorrelates", MINIMUM, HELD, "downhill first, then up"),
    Case("attribution.patching_anticorrelates", LINEAR, REFUTED, "exact"),
    Case("attribution.patching_uncorrelated", UNRELATED, HELD, "planted so"),
    Case("attribution.patching_uncorrelated", LINEAR, REFUTED, "exact"),
    Case("attribution.patching_uncorrelated", MINIMUM, REFUTED, "opposite is not unrelated"),
    *(Case("attribution.integrated_gradients_toy", w, HELD, "by completeness") for w in CURVES),
    Case("attribution.integrated_gradients_toy", "permuted network", HELD, "by completeness"),
    Case("attribution.integrated_gradients_language_model", MINIMUM, HELD, "by completeness"),
    Case("attribution.remainder_is_quadratic", LINEAR, HELD, "planted so"),
    Case("attribution.remainder_is_quadratic", "cubic loss", REFUTED, "planted so"),
    Case("attribution.untrained_control", LINEAR, REFUTED, "nothing was trained, and it agrees"),
    Case("attribution.patching_falls_short", BEYOND, HELD, "thirty times the slope"),
    Case("attribution.patching_falls_short", LINEAR, REFUTED, "exact"),
    Case("attribution.five_seeds_decide", FIVE, HELD, "all five: 1 in 32"),
    Case("attribution.five_seeds_decide", MINIMUM, REFUTED, "all three of three: 1 in 8"),
    Case("attribution.five_seeds_decide", LINEAR, REFUTED, "none is negative"),
    Case("attribution.convergence_is_the_cause", BENDS, HELD, "planted so"),
    Case("attribution.convergence_is_the_cause", STRAIGHTENS, REFUTED, "better as it trains"),
]


@cache
def measured(world: str) -> Measurable:
    return of(world)


@pytest.mark.slow  # networks are run and steered: a quarter of a minute and more
@pytest.mark.parametrize("case", parameters(CASES))
def test_the_verdict_is_the_planted_one(case: Case) -> None:
    case.check(measured(case.world))


def test_every_claim_of_these_families_is_asked_in_some_world() -> None:
    families = ("architecture", "steering", "editing", "attribution")
    arithmetic = {
        "architecture.toy_parameters",
        "architecture.pythia_parameters",
        "attribution.published_table",
        "attribution.published_table_decides",
    }
    wanted = {claim for claim in claim_tests() if claim.split(".")[0] in families} - arithmetic
    elsewhere = {case.claim for case in (*between_seeds.CASES, *steered.CASES)}
    assert {case.claim for case in CASES} | (elsewhere & wanted) == wanted
