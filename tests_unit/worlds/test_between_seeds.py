"""Bars between seeds, untrained agreement, other lengths: world -> verdict."""

from __future__ import annotations

from functools import cache

import pytest

from tests_unit.worlds.asked import Case, parameters
from tests_unit.worlds.between_seeds import CASES, Figures, Two, evidence


@cache
def measured(world: str) -> Two | Figures:
    return evidence(world)


@pytest.mark.parametrize("case", parameters(CASES))
def test_the_verdict_is_the_planted_one(case: Case) -> None:
    case.check(measured(case.world))
