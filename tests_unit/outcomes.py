"""What came of a run of claims inside a test, in pytest's own words."""

from __future__ import annotations

import re

import pytest

AS_PYTEST = {
    "held": "passed",
    "not diagnostic": "passed",
    "refuted": "xfailed",
    "control fails": "xfailed",
    "undecided": "xfailed",
    "out of reach": "xfailed",
    "error": "errors",
}
CLOSING = re.compile(r"=+ (\d.*) in [\d.:]+s")


def counts(result: pytest.RunResult) -> dict[str, int]:
    """The counts of the summary, by the words that it uses: {"held": 3, "control fails": 2}."""
    for line in reversed(result.outlines):
        found = CLOSING.search(line)
        if found:
            parts = (part.split(" ", 1) for part in found[1].split(", "))
            return {word: int(n) for n, word in parts}
    raise AssertionError(f"no summary: {result.outlines[-5:]}")


def assert_outcomes(result: pytest.RunResult, **expected: int) -> None:
    """As `RunResult.assert_outcomes`, of claims by what their verdicts are to pytest."""
    found: dict[str, int] = {}
    for word, n in counts(result).items():
        if word not in ("deselected", "warning", "warnings"):
            as_pytest = AS_PYTEST.get(word, word)
            found[as_pytest] = found.get(as_pytest, 0) + n
    assert found == expected
