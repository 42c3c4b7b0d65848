"""The paper's own scores, a rotation with a scalar, chains of siblings, and likeness along training
on planted activations: world x claim -> verdict."""

from __future__ import annotations

from functools import cache

import pytest

from tests_unit.worlds.asked import HELD, OUT, REFUTED, Case, finding, parameters
from tests_unit.worlds.planted import WORLDS
from tests_unit.worlds.scored import MORE, NOISE, Growing, Scored

SPOILED = "rotated, spoiled by more steps"
POOR = "the dictionary is poor at one site: an exact copy does not reach the bar there"

CASES = [
    Case("naive.internal_sites_fail_as_published", "rotated", HELD, "the basis moved"),
    Case("naive.internal_sites_fail_as_published", "the anchor itself", REFUTED, "nothing moved"),
    Case("naive.language_model_sites_fail_as_published", "rotated", HELD, "the basis moved"),
    Case(
        "naive.language_model_sites_fail_as_published",
        "second moments",
        REFUTED,
        "a dictionary sees the law alone",
    ),
    Case("procrustes.recovers_as_published", "rotated", HELD, "one rotation is the truth"),
    Case("procrustes.recovers_as_published", SPOILED, HELD, "one of the readings is the truth"),
    Case("procrustes.recovers_as_published", "louder", REFUTED, "no rotation makes it quieter"),
    Case("procrustes.recovers_as_published", "unrelated", REFUTED, "nothing to recover"),
    Case("procrustes.recovers_as_published", "very weak inside", OUT, POOR),
    Case("procrustes.near_ceiling_as_published", "rotated", HELD, "an exact copy"),
    Case("procrustes.near_ceiling_as_published", "very weak inside", HELD, "poor for both"),
    Case("procrustes.near_ceiling_as_published", "unrelated", REFUTED, "nothing to recover"),
    Case("procrustes.recovers_language_model_as_published", "rotated", HELD, "one rotation"),
    Case("procrustes.recovers_language_model_as_published", "unrelated", REFUTED, "no relation"),
    Case("procrustes.similarity_is_enough", "rotated", HELD, "a rotation is the truth"),
    Case("procrustes.similarity_is_enough", "louder", HELD, "a rotation and one scalar are"),
    Case("procrustes.similarity_is_enough", "stretched", REFUTED, "two scalars are needed"),
    Case("procrustes.recovers_with_scale", "louder", HELD, "one scalar makes it quieter"),
    Case("procrustes.recovers_with_scale", "unrelated", REFUTED, "nothing to recover"),
    Case("procrustes.recovers_with_scale", "very weak inside", OUT, POOR),
    Case("procrustes.composes", "rotated", HELD, "all are turned copies of one network"),
    Case("procrustes.composes", "rank deficient", HELD, "where nothing varies nothing is lost"),
    Case(
        "procrustes.composes",
        "nearer to each other than to the anchor",
        REFUTED,
        "what they share the anchor has not, what it has they do not",
    ),
    Case(
        "naive.untrained_noise_control",
        "rotated against untrained second moments",
        HELD,
        "a sibling of the anchor's law is reconstructed as the anchor is",
    ),
    Case(
        "naive.untrained_noise_control",
        "rotated against untrained rotated",
        REFUTED,
        "noise keeps the basis, the sibling does not",
    ),
    Case("procrustes.grows_with_training", "ever more alike", HELD, "noise falls"),
    Case("procrustes.grows_with_training", "ever less alike", REFUTED, "noise rises"),
    Case("procrustes.grows_with_training", "as alike as before", REFUTED, "it goes up and down"),
    Case("procrustes.grows_with_training", "alike, at few steps", OUT, "seven steps are too few"),
]


@cache
def measured(name: str) -> Scored | Growing:
    if name in NOISE:
        return Growing(name)
    world, _, untrained = name.partition(" against untrained ")
    if name == SPOILED:
        return Scored(WORLDS["rotated"], spoiled=40)
    known = WORLDS | MORE
    return Scored(known[world], known[untrained] if untrained else None)


@pytest.mark.slow  # scores of many worlds: a quarter of a minute and more
@pytest.mark.parametrize("case", parameters(CASES))
def test_the_verdict_is_the_planted_one(case: Case) -> None:
    case.check(measured(case.world))


def test_the_favourable_reading_is_judged_and_the_other_recorded() -> None:
    found = finding("procrustes.recovers_as_published", measured(SPOILED))
    beside = found.beside
    assert beside["reading"] == "4000 steps"
    early, late = (float(beside[f"resid_mid_0 {steps} steps"]) for steps in (4000, 6000))
    assert late < 0.96 < early
    naive = finding("naive.internal_sites_fail_as_published", measured(SPOILED))
    assert naive.beside["reading"] == "6000 steps"
