"""Every state of a claim: what is green beside which ledger, and how pytest itself speaks of it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests_unit.outcomes import counts

HEADER = "from polyrot.measured import Interval, Measured\n"
OPEN = 'Measured([0.52], ("",), intervals=(Interval(0.4, 0.6, "pairs"),))'
BODIES = {
    "held": "verdict(0.9)",
    "refuted": "verdict(0.1)",
    "undecided": f"verdict({OPEN})",
    "out of reach": "verdict(Measured.of(0.3).below(0.4))",
}


def ledger(verdict: str) -> str:
    return f'["f.two".toy_a]\nverdict = "{verdict}"\nwhy = "as it was"\n'


GREEN = {
    "held": ("held",),
    "refuted": ("refuted",),
    "undecided": ("held", "refuted", "undecided"),  # either outcome is as recorded
    "out of reach": ("out of reach",),
}


@pytest.mark.parametrize("recorded", GREEN)
def test_a_run_is_green_exactly_when_reality_is_as_recorded(suite: Any, recorded: str) -> None:
    for found, body in BODIES.items():
        suite.ledger.write_text(ledger(recorded))
        suite.write(HEADER, f__two=body)
        result = suite.run("--scale=toy_a")
        assert (result.ret == 0) == (found in GREEN[recorded]), f"{recorded} in it, {found} here"
        assert counts(result).get("failed", 0) == (found not in GREEN[recorded])


@pytest.mark.parametrize("found", ["refuted", "undecided", "out of reach"])
def test_runxfail_fails_on_whatever_did_not_hold(suite: Any, found: str) -> None:
    suite.ledger.write_text(ledger(found))
    suite.write(HEADER, f__two=BODIES[found])
    result = suite.run("--runxfail")
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"f.two?toy_a? {found}: *"])


def test_words_letters_and_counts_are_those_of_the_verdict(suite: Any) -> None:
    suite.write(HEADER, f__two=BODIES["undecided"], g__null="verdict(0.1)")
    suite.run("--update-verdicts")
    result = suite.run()
    result.stdout.fnmatch_lines(
        ["claims/test_small.py not diagnostic, undecided, control fails, held *100%?"]
    )
    assert counts(result) == {"held": 1, "not diagnostic": 1, "undecided": 1, "control fails": 1}
    text = suite.run("-v").stdout.str()
    shown = re.findall(r"::test_\w+\[\w+\] ([A-Z]+(?: [A-Z]+)*)", text)
    assert shown == ["NOT DIAGNOSTIC", "UNDECIDED", "CONTROL FAILS", "HELD"]


@pytest.mark.parametrize(
    ("recorded", "arguments", "expected"),
    [
        (
            "refuted",
            (),
            "As recorded in * 3 held, 1 refuted; 0 verdicts changed, 3 not in it yet, *0. *",
        ),
        (
            "held",
            (),
            "NOT as recorded in * 1 verdict changed, 3 not in it yet, so exit status 1. *",
        ),
        ("undecided", (), "NOT as recorded in * 1 verdict changed, 3 *, so exit status 0. *"),
        ("held", ("--update-verdicts",), "Recorded now in * 1 verdict changed, *exit status 0. *"),
        ("refuted", ("--runxfail",), "As recorded in * 0 verdicts changed, * exit status 1. *"),
    ],
)
def test_the_last_line_says_it_all(
    suite: Any, recorded: str, arguments: tuple[str, ...], expected: str
) -> None:
    suite.ledger.write_text(ledger(recorded))
    suite.write(f__two="verdict(0.1)")
    result = suite.run(*arguments)
    last = result.outlines[-1]
    result.stdout.fnmatch_lines([expected])
    assert last.endswith("`--runxfail` fails on every claim that did not hold.")
    assert f"exit status {int(result.ret)}." in last


def test_an_error_is_no_change_of_verdict(suite: Any) -> None:
    suite.run("--update-verdicts")
    suite.write(f__two="1 / 0")
    last = suite.run().outlines[-1]
    assert "0 verdicts changed, but something else failed: exit status 1." in last
    assert "1 error" in last


def test_no_module_and_no_tensor_in_a_traceback(suite: Any) -> None:
    suite.write(
        """
        import torch

        @pytest.fixture
        def weights():
            return torch.ones(3, 3)
        """,
        f__two="assert weights is not None\nverdict(0.1)",
    )
    source = suite.claims / "test_small.py"
    source.write_text(source.read_text().replace("test_f_two(", "test_f_two(weights, "))
    text = suite.run("--runxfail").stdout.str()
    assert "f.two[toy_a] refuted: 0.1, bar ≥ 0.5" in text
    assert "tensor(" not in text
    assert "polyrot.judge" not in text
