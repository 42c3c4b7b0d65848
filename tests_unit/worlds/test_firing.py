"""Firing patterns on planted activations: world x claim -> verdict."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Split
from polyrot.dictionaries.sae import Dictionary
from polyrot.runtime.seeding import torch_generator
from tests_unit.worlds.asked import HELD, REFUTED, Case, claim_tests, parameters
from tests_unit.worlds.evidence import Evidence, Measurable, of
from tests_unit.worlds.planted import World, rotated


class Clean(World):
    """Its dictionary reads the features and nothing beside them."""

    def saes(self, overshoot: float = 0.0) -> dict[str, Dictionary]:
        return super().saes(overshoot)


def noisy_features(world: World, i: int, site: str, split: Split, x: Tensor) -> Tensor:
    """A rotation of features that fire as the anchor's do, and now and then otherwise."""
    g = torch_generator(0, "noise on features", split, site, i)
    return (x + 0.8 * x.std() * torch.randn(x.shape, generator=g)) @ rotated(world, i, site)


def noise_beside(world: World, i: int, site: str, split: Split, x: Tensor) -> Tensor:
    """The anchor's features turned, and much of the sibling's own where the anchor has nothing:
    R finds the features, and other directions see what is not shared."""
    at = world.law(site)
    g = torch_generator(0, "noise beside features", split, site, i)
    rest = at.features[:, at.major :]
    own = 3 * x.std() * torch.randn(len(x), rest.shape[1], generator=g)
    return (x + own @ rest.T) @ rotated(world, i, site)


OWN = {
    world.name: Evidence(world)
    for world in (
        Clean("features that fire with noise", noisy_features),
        Clean("features amid noise of the sibling's own", noise_beside),
    )
}
NOISY, AMID = OWN

CASES = [
    Case("firing.raw_overlap_is_low", "rotated", HELD, "the basis moved"),
    Case("firing.raw_overlap_is_low", "unrelated", HELD, "nothing is shared"),
    Case("firing.raw_overlap_is_low", "the anchor itself", REFUTED, "nothing moved"),
    Case("firing.rotation_recovers", NOISY, HELD, "through R they fire alike, but not all the way"),
    Case("firing.rotation_recovers", "rotated", REFUTED, "exact copies do all the way"),
    Case("firing.rotation_recovers", "unrelated", REFUTED, "there is nothing to find"),
    Case("firing.raw_overlap_is_nil_in_a_language_model", "second moments", HELD, "other tokens"),
    Case("firing.raw_overlap_is_nil_in_a_language_model", "the anchor itself", REFUTED, "the same"),
    Case("firing.rotation_recovers_in_a_language_model", "rotated", HELD, "R finds the features"),
    Case("firing.rotation_recovers_in_a_language_model", NOISY, HELD, "through the noise as well"),
    Case(
        "firing.rotation_recovers_in_a_language_model",
        "second moments, turned",
        REFUTED,
        "the features are the same, the tokens are not",
    ),
    Case("firing.shuffled_tokens_control", "rotated", HELD, "R needs the tokens matched"),
    Case("firing.shuffled_tokens_control", "second moments", REFUTED, "R is of unmatched tokens"),
    Case("firing.untrained_control", "rotated against untrained unrelated", HELD, "do not"),
    Case("firing.untrained_control", "rotated against untrained rotated", REFUTED, "do too"),
    Case("firing.random_directions_control", AMID, HELD, "what is shared are the features alone"),
    Case(
        "firing.random_directions_control",
        "rotated",
        REFUTED,
        "of an exact copy every direction overlaps",
    ),
]


@cache
def measured(world: str) -> Measurable:
    return OWN[world] if world in OWN else of(world)


@pytest.mark.parametrize("case", parameters(CASES))
def test_the_verdict_is_the_planted_one(case: Case) -> None:
    case.check(measured(case.world))


def test_every_claim_of_the_family_is_asked_in_some_world() -> None:
    wanted = {claim for claim in claim_tests() if claim.split(".")[0] == "firing"}
    assert {case.claim for case in CASES} == wanted


def test_what_is_planted_fires_as_the_cases_say() -> None:
    firing = OWN[NOISY].firing
    assert ((firing.rotated.mean.values > 0.3) & (firing.rotated.mean.values < 0.9)).all()
    assert (OWN[AMID].firing.rotated.mean.values > 0.5).all()
