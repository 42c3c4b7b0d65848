"""Stitching of planted networks: world x claim -> verdict."""

from __future__ import annotations

from functools import cache

import pytest

from tests_unit.worlds.asked import HELD, REFUTED, Case, claim_tests, parameters
from tests_unit.worlds.evidence import Measurable, of

TURNED, PERMUTED, REVERSED = "rotated network", "permuted network", "network, half a turn"
INSIDE, SAME, SHIFTED = "neurons permuted and scaled", "the same network", "shifted network"
STRANGERS, LOUDER = "unrelated networks", "louder network"
OFTEN, ELSEWHERE = "network, turned a dozen times", "network that reads elsewhere"
PRESERVES, NAIVE = "stitching.rotation_preserves_function", "stitching.naive_fails"
ENOUGH = "stitching.orthogonal_is_enough"
SECOND, SHUFFLED = "stitching.covariance_only_control", "stitching.shuffled_tokens_control"

CASES = [
    *(
        Case(PRESERVES, world, HELD, "one function in another basis")
        for world in (TURNED, PERMUTED, REVERSED, INSIDE, SAME, SHIFTED)
    ),
    Case(PRESERVES, STRANGERS, REFUTED, "two functions"),
    Case(PRESERVES, LOUDER, REFUTED, "a scale is missing"),
    Case(PRESERVES, "softer network", REFUTED, "a scale is missing"),
    Case(PRESERVES, ELSEWHERE, REFUTED, "one law, no token in common"),
    Case(NAIVE, OFTEN, HELD, "in other bases"),
    Case(NAIVE, STRANGERS, HELD, "two functions"),
    Case(NAIVE, SAME, REFUTED, "in the anchor's own basis"),
    Case(NAIVE, SHIFTED, REFUTED, "only the mean differs, and it is replaced"),
    Case(ENOUGH, TURNED, HELD, "R is the truth"),
    Case(ENOUGH, LOUDER, REFUTED, "the truth is no rotation"),
    Case(SECOND, OFTEN, HELD, "signs are not told by second moments"),
    Case(SECOND, ELSEWHERE, REFUTED, "R knows no more than they do"),
    Case(SHUFFLED, OFTEN, HELD, "which token is which is what R knows"),
    Case(SHUFFLED, ELSEWHERE, REFUTED, "all pairs of tokens are as good"),
]


@cache
def measured(world: str) -> Measurable:
    return of(world)


@pytest.mark.parametrize("case", parameters(CASES))
def test_the_verdict_is_the_planted_one(case: Case) -> None:
    case.check(measured(case.world))


def test_every_claim_of_the_family_is_asked_in_some_world() -> None:
    wanted = {claim for claim in claim_tests() if claim.split(".")[0] == "stitching"}
    assert {case.claim for case in CASES} == wanted
