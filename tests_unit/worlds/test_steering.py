"""Arms of steering and the paper's own scores, in planted networks: world x claim -> verdict."""

from __future__ import annotations

from functools import cache, cached_property

import pytest

from polyrot.maps.procrustes import fit_rotation
from polyrot.measures import published_steering as published, steering_arms as arms
from polyrot.measures.published_steering import PublishedSteering
from polyrot.measures.steering_arms import Arms, SteeringArms
from tests_unit.worlds.asked import HELD, OUT, REFUTED, Case, parameters
from tests_unit.worlds.evidence import Interventions
from tests_unit.worlds.networks import NETWORKS

TURNED, REVERSED = "rotated network", "network, half a turn"
UNREAD = "network, turned where unread"
INSIDE, SAME, STRANGERS = "neurons permuted and scaled", "the same network", "unrelated networks"


SEQUENCES, DRAWS = 64, 8


@cache
def perfect() -> Arms:
    """Of the anchor, which all networks have in common."""
    few = {"draws": DRAWS, "copies": 2}
    return arms.measure_perfect_arms(NETWORKS[SAME], n_sequences=SEQUENCES, **few)


class Steered(Interventions):
    """What the fixtures of `fixtures/steering.py` are for a trained cohort, with fewer draws."""

    @cached_property
    def steering_arms(self) -> SteeringArms:
        anchor, *siblings = self.cohort.activations("fit", self.cohort.steering_site)
        rotations = [fit_rotation(a, anchor) for a in siblings]
        found = arms.measure_arms(self.cohort, rotations, n_sequences=SEQUENCES, draws=DRAWS)
        return SteeringArms(found, perfect())

    @cached_property
    def published_steering(self) -> PublishedSteering:
        return published.measure_published(self.cohort, n_random=16)


CASES = [
    Case("steering.reaches_own", TURNED, HELD, "R is the truth"),
    Case("steering.reaches_own", "louder network", REFUTED, "a scale is missing"),
    Case("steering.covariance_only_control", TURNED, HELD, "R is the truth, signs are drawn"),
    Case("steering.covariance_only_control", STRANGERS, REFUTED, "R does no more"),
    Case("steering.shuffled_tokens_control", UNREAD, HELD, "R is the truth"),
    Case("steering.shuffled_tokens_control", STRANGERS, REFUTED, "R does no more"),
    Case("steering.naive_is_not_enough", REVERSED, HELD, "untouched it steers the other way"),
    Case("steering.naive_is_not_enough", SAME, REFUTED, "there is nothing to repair"),
    Case("steering.depth_transfers_as_published", INSIDE, HELD, "the stream is the anchor's"),
    Case("steering.depth_transfers_as_published", REVERSED, REFUTED, "it costs nothing"),
    Case("steering.depth_direction_control", SAME, HELD, "it is what the read-out reads"),
    Case("steering.depth_direction_control", "softer network", REFUTED, "any direction does it"),
    Case("steering.depth_direction_control", REVERSED, OUT, "it costs siblings nothing"),
    Case("steering.sticky_needs_dose_as_published", "louder network", HELD, "four times the dose"),
    Case("steering.sticky_needs_dose_as_published", SAME, REFUTED, "the same dose"),
    Case("steering.sticky_needs_dose_as_published", REVERSED, REFUTED, "no dose does"),
    Case("steering.closer_disturbs_siblings_more", "softer network", HELD, "four times the dose"),
    Case("steering.closer_disturbs_siblings_more", SAME, REFUTED, "the same accuracy"),
]


@cache
def measured(world: str) -> Steered:
    return Steered(NETWORKS[world])


@pytest.mark.parametrize("case", parameters(CASES))
def test_the_verdict_is_the_planted_one(case: Case) -> None:
    case.check(measured(case.world))
