"""Linear CKA on planted activations: world x claim -> verdict."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Split
from polyrot.runtime.seeding import torch_generator
from tests_unit.worlds.asked import HELD, REFUTED, Case, claim_tests, parameters
from tests_unit.worlds.evidence import Evidence, Measurable, of
from tests_unit.worlds.planted import World, rotated


def with_noise(world: World, i: int, site: str, split: Split, x: Tensor) -> Tensor:
    """A rotation, and noise of the activations' own size."""
    g = torch_generator(0, "noise of the sibling's own", split, site, i)
    return (x + x.std() * torch.randn(x.shape, generator=g)) @ rotated(world, i, site)


NOISY = "rotated, with noise"

CASES = [
    *(
        Case("similarity.linear_cka", world, HELD, "it does not see what lies between")
        for world in ("rotated", "reflected", "permuted", "louder", "mean shift", "rank deficient")
    ),
    Case("similarity.linear_cka", "the anchor itself", HELD, "one model"),
    Case("similarity.linear_cka", NOISY, REFUTED, "some of what varies is the siblings' own"),
    Case("similarity.linear_cka", "unrelated", REFUTED, "nothing is shared"),
    Case("similarity.linear_cka", "second moments", REFUTED, "a law is shared, no token is"),
    Case("similarity.untrained_control", "rotated against untrained unrelated", HELD, "are not"),
    Case("similarity.untrained_control", "rotated against untrained rotated", REFUTED, "are, too"),
    Case(
        "similarity.untrained_control",
        "unrelated against untrained rotated",
        REFUTED,
        "it is the untrained ones that are alike",
    ),
]


@cache
def measured(world: str) -> Measurable:
    return Evidence(World(NOISY, with_noise)) if world == NOISY else of(world)


@pytest.mark.parametrize("case", parameters(CASES))
def test_the_verdict_is_the_planted_one(case: Case) -> None:
    case.check(measured(case.world))


def test_every_claim_of_the_family_is_asked_in_some_world() -> None:
    wanted = {claim for claim in claim_tests() if claim.split(".")[0] == "similarity"}
    assert {case.claim for case in CASES} == wanted
