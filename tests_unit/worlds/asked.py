"""A claim test put to a planted world: the suite's own function, judged by the registered bar.

Nothing of a claim is written down twice. A test of `claims/` is found by the claim it names, its
fixtures are taken by name from what the world offers, and what it hands to `verdict` is judged as
the suite judges it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from polyrot.judge.registration import Registration
from polyrot.judge.verdicts import Finding, judge
from polyrot.measured import Measured

HELD, REFUTED, OUT, UNDECIDED = "held", "refuted", "out of reach", "undecided"
CLAIMS = Path(__file__).parents[2] / "claims"


@cache
def registration() -> Registration:
    return Registration.load(CLAIMS / "preregistration.toml")


@cache
def claim_tests() -> dict[str, Callable[..., None]]:
    """The tests of `claims/`, by the claim that each names."""
    found: dict[str, Callable[..., None]] = {}
    for path in sorted(CLAIMS.glob("test_*.py")):
        for value in vars(import_module(f"claims.{path.stem}")).values():
            for mark in getattr(value, "pytestmark", ()):
                if mark.name == "claim":
                    found[mark.args[0]] = value
    return found


def finding(claim: str, evidence: object) -> Finding:
    """What the test of `claim` finds, its fixtures being attributes of `evidence`."""
    test, seen = claim_tests()[claim], []
    registered = registration().claim(claim)

    def verdict(measured: Measured | float | Mapping[str, float], **how: Any) -> None:
        seen.append(judge(registered, registered.scales[0], Measured.of(measured)))

    wanted = [name for name in inspect.signature(test).parameters if name != "verdict"]
    test(**{name: getattr(evidence, name) for name in wanted}, verdict=verdict)
    (found,) = seen
    return found


@dataclass(frozen=True)
class Case:
    """In `world` the verdict on `claim` must be `expected`, because `why`."""

    claim: str
    world: str
    expected: str
    why: str

    @property
    def id(self) -> str:
        return f"{self.claim} in {self.world}"

    def check(self, evidence: object) -> None:
        found = finding(self.claim, evidence)
        assert found.outcome.value == self.expected, f"{self.id}: {found.why}; {self.why}"


def parameters(cases: Sequence[Case], quick: Collection[str] | None = None) -> list[Any]:
    """For `pytest.mark.parametrize`: a case in a world that is not `quick` is slow (None: all are
    quick)."""
    return [
        pytest.param(
            case,
            id=case.id,
            marks=[] if quick is None or case.world in quick else [pytest.mark.slow],
        )
        for case in cases
    ]
