"""Drift of planted runs, cosines of known dictionaries, bars of moved toys: world -> verdict."""

from __future__ import annotations

from functools import cache

import pytest

from tests_unit.worlds import between_seeds
from tests_unit.worlds.asked import (
    HELD,
    OUT,
    REFUTED,
    UNDECIDED,
    Case,
    claim_tests,
    parameters,
)
from tests_unit.worlds.evidence import of
from tests_unit.worlds.runs import RUNS
from tests_unit.worlds.shelves import SHELVES, Shelved
from tests_unit.worlds.toys import toys

LESS = "a run that turns half as far, less toward the output"
MORE, AFRESH = "a run that turns more toward the output", "a run of fresh bases"
MEAN, LOW = (
    "a run whose mean alone moves",
    "a run that turns less toward the output, of low rank",
)
STILL, FADING = "a run that stands still", "a run whose known features fade"
SOLVER = "R may be anything where activations do not vary"
FEATURES, ANCHORS = "dictionaries of features", "the anchor's features"
START, CHANCE = "dictionaries at their start", "dictionaries that two starts decide"
LEAVING = "dictionaries that leave their start"
PARTING = "dictionaries that part at the last site"
THROUGHOUT = "the anchor's features at the last site too"
COARSE = "dictionaries that reconstruct too little"
NOR_TWO_STARTS = "two starts on one model do not match either"
MOVED, STRANGER, SEEN = (
    "toy, moved inside",
    "toy, a stranger",
    "toy, a stranger seen through folded",
)
PIPELINE = "divergences below the bar on the pipeline's lengths alone"
NEAR, BENT = "divergences near the bar", "a run that turns early, then little"
BELOW, ABOVE = "divergences below the bar", "divergences far above the bar"

CASES = [
    # --------------------------------------------------------------------------- section 7: drift
    Case("drift.naive_fails", LESS, HELD, "the basis moved"),
    Case("drift.rotation_recovers", LESS, HELD, "by a rotation"),
    Case("drift.rotation_recovers", AFRESH, HELD, "by a rotation"),
    Case("drift.half_of_haar", LESS, HELD, "planted so"),
    Case("drift.half_of_haar", AFRESH, REFUTED, "as far as Haar"),
    Case("drift.half_of_haar", MEAN, REFUTED, "nothing turned"),
    Case("drift.half_of_haar", LOW, UNDECIDED, SOLVER),
    Case("drift.shrinks_toward_output", LESS, HELD, "planted so"),
    Case("drift.shrinks_toward_output", MORE, REFUTED, "it grows"),
    Case("drift.shrinks_toward_output", LOW, UNDECIDED, SOLVER),
    Case("drift.shrinks_where_identifiable", LESS, HELD, "planted so"),
    Case("drift.shrinks_where_identifiable", MORE, REFUTED, "it grows"),
    Case("drift.shrinks_where_identifiable", LOW, HELD, "asked where activations vary"),
    Case("drift.monotone_curve", LESS, HELD, "planted so"),
    Case("drift.monotone_curve", BENT, HELD, "as the distance to the last checkpoint does"),
    Case("drift.monotone_curve", AFRESH, REFUTED, "any step is as far as any other"),
    Case("drift.monotone_curve", LOW, UNDECIDED, SOLVER),
    Case("drift.toy_naive_transfers", STILL, HELD, "nothing moved"),
    Case("drift.toy_naive_transfers", LESS, REFUTED, "the basis moved"),
    Case("drift.toy_rotation_recovers", LESS, HELD, "by a rotation"),
    Case("drift.toy_rotation_recovers", FADING, REFUTED, "by what no rotation is"),
    # --------------------------------------------------------------------- section 1: decoders
    Case("cosine.matched_fraction", ANCHORS, HELD, "the same columns"),
    Case("cosine.matched_fraction", START, HELD, "columns that never moved"),
    Case("cosine.matched_fraction", FEATURES, REFUTED, "turned out of each other's way"),
    Case("cosine.matched_fraction", LEAVING, HELD, "at 4,000 steps, which is a reading"),
    Case("cosine.mean_max", START, HELD, "columns that never moved"),
    Case("cosine.mean_max", LEAVING, HELD, "at 4,000 steps, which is a reading"),
    Case("cosine.one_to_one", ANCHORS, HELD, "the same columns"),
    Case("cosine.one_to_one", START, HELD, "columns that never moved"),
    Case("cosine.one_to_one", FEATURES, REFUTED, "turned out of each other's way"),
    Case("cosine.same_index", ANCHORS, HELD, "the same columns in another order"),
    Case("cosine.same_index", START, REFUTED, "columns that never moved keep their place"),
    Case("cosine.survives_training", ANCHORS, HELD, "the same columns at every step"),
    Case("cosine.survives_training", LEAVING, REFUTED, "they leave what they had in common"),
    Case("cosine.final_layer_drops", PARTING, HELD, "strangers at the last site alone"),
    Case("cosine.final_layer_drops", THROUGHOUT, REFUTED, "the same columns at every site"),
    Case("cosine.mean_max", FEATURES, REFUTED, "turned out of each other's way"),
    Case("cosine.independent_initialisation", ANCHORS, HELD, "the same columns"),
    Case("cosine.independent_initialisation", START, REFUTED, "other starts, other columns"),
    Case("cosine.independent_initialisation", CHANCE, OUT, NOR_TWO_STARTS),
    Case("cosine.noise_control", FEATURES, HELD, "noise leaves the start"),
    Case("cosine.noise_control", START, REFUTED, "noise stays at the start as well"),
    Case("cosine.rotation_raises_match", FEATURES, HELD, "R is the truth"),
    Case("cosine.rotation_raises_match", ANCHORS, REFUTED, "nothing was turned"),
    Case("cosine.rotation_raises_match", CHANCE, OUT, NOR_TWO_STARTS),
    Case("cosine.universal_up_to_rotation", FEATURES, HELD, "the same features, turned"),
    Case("cosine.universal_up_to_rotation", ANCHORS, HELD, "the same features"),
    Case("cosine.universal_up_to_rotation", CHANCE, OUT, NOR_TWO_STARTS),
    Case("cosine.universal_up_to_rotation", COARSE, OUT, "they are not as registered"),
    Case("cosine.universal_relative_to_ceiling", FEATURES, HELD, "as many as starts share"),
    Case("cosine.universal_relative_to_ceiling", START, REFUTED, "starts share, siblings do not"),
    Case("cosine.universal_relative_to_ceiling", CHANCE, OUT, NOR_TWO_STARTS),
    Case("cosine.universal_relative_to_ceiling", COARSE, OUT, "they are not as registered"),
    Case("triplet.cosine_hides_failure", START, HELD, "high cosine, turned activations"),
    Case("triplet.cosine_hides_failure", LEAVING, HELD, "at 4,000 steps, which is a reading"),
    Case("triplet.cosine_hides_failure", FEATURES, REFUTED, "the cosine shows it"),
    # ------------------------------------------------------------------------ section 10: the bars
    Case("bars.parametric", MOVED, HELD, "an element of the group"),
    Case("bars.parametric", STRANGER, REFUTED, "no element is"),
    Case("bars.parametric", SEEN, REFUTED, "what `folded` gives is judged"),
    Case("bars.parametric_out_of_reach", MOVED, REFUTED, "within reach"),
    Case("bars.joint_alignment_fails", MOVED, REFUTED, "an element of the group"),
    Case("bars.joint_alignment_fails", STRANGER, HELD, "no element is"),
    Case("bars.basins_disconnected", MOVED, REFUTED, "a descent never loses twice"),
    Case("bars.basins_disconnected", STRANGER, REFUTED, "a descent never loses twice"),
    Case("bars.causal_within", MOVED, HELD, "by completeness"),
    Case("bars.causal_across", MOVED, HELD, "heads are found in their new order"),
    Case("bars.causal_across", STRANGER, REFUTED, "other effects"),
    Case("bars.causal_across_fails_as_published", MOVED, REFUTED, "it does not fail"),
    Case("bars.behavioural", BELOW, HELD, "planted so"),
    Case("bars.behavioural", ABOVE, REFUTED, "planted so"),
    Case("bars.behavioural", PIPELINE, HELD, "by the reading that favours the paper"),
    Case("bars.behavioural", NEAR, UNDECIDED, "the draws of inputs decide"),
    Case("bars.behavioural_near_miss", BELOW, HELD, "planted so"),
    Case("bars.behavioural_near_miss", ABOVE, REFUTED, "planted so"),
    Case("bars.depth_boundary_dominates", BELOW, HELD, "planted so"),
    Case("bars.behavioural_near_miss", PIPELINE, HELD, "by the reading that favours the paper"),
    Case("bars.depth_boundary_dominates", ABOVE, REFUTED, "planted so"),
    Case("bars.constructive_spec_is_the_model", BELOW, HELD, "planted so"),
    Case("bars.constructive_spec_is_the_model", ABOVE, REFUTED, "a model is its own specification"),
    Case("bars.decoy_rejected", BELOW, HELD, "planted so"),
    Case("bars.decoy_rejected", ABOVE, REFUTED, "the decoy is as good"),
    Case("bars.independent_cohort_holds_equally", BELOW, HELD, "planted so"),
    Case("bars.independent_cohort_holds_equally", "independent cohort is worse", REFUTED, "is"),
    Case(
        "bars.independent_cohort_holds_equally",
        "independent cohort is worse at home",
        OUT,
        "its dictionaries know their own anchor less well",
    ),
]


@cache
def measured(world: str) -> object:
    if world in RUNS:
        return of(world)
    return Shelved(SHELVES[world]) if world in SHELVES else toys(world)


@pytest.mark.slow  # whole runs of toys are turned: a quarter of a minute and more
@pytest.mark.parametrize("case", parameters(CASES))
def test_the_verdict_is_the_planted_one(case: Case) -> None:
    case.check(measured(case.world))


def test_every_claim_of_these_families_is_asked_in_some_world() -> None:
    families = ("drift", "cosine", "triplet", "bars")
    wanted = {claim for claim in claim_tests() if claim.split(".")[0] in families}
    elsewhere = {case.claim for case in between_seeds.CASES}
    assert {case.claim for case in CASES} | (elsewhere & wanted) == wanted
