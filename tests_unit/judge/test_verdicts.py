"""Each way in which a verdict can come out, without pytest around it."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from polyrot.judge.bar import Bar
from polyrot.judge.ledger import Entry, Ledger
from polyrot.judge.verdicts import (
    NOT_HELD,
    ClaimNotHeld,
    ClaimRefuted,
    Finding,
    NotRun,
    Verdict,
    conclude,
    judge,
    reading,
)
from polyrot.measured import Interval, Measured, PairSite, favourable, favoured
from polyrot.report.table import WIDTH, render, sentences
from tests_unit.judge.planted_claims import REGISTRATION, finding, verdicts


def test_every_value_is_judged_and_the_worst_named() -> None:
    table = PairSite(np.array([[0.9, 0.8], [0.7, 0.4]]), ("0-1", "0-2"), ("mid", "post"))
    found = judge(REGISTRATION.claim("f.held"), "toy_a", table.also(ev_grand=0.3).each())
    assert found.outcome is Verdict.REFUTED
    assert (found.measured, found.label, found.checked, found.missed) == (0.4, "0-2 post", 4, 1)
    assert found.why == "worst 0.4 at seeds 0 -> 2, post, bar ≥ 0.5, 1 of 4 values miss it"
    assert found.beside == {"ev_grand": 0.3}
    assert found.counts == {"pairs": 2, "sites": 2}
    assert Finding.from_json(found.to_json()) == found


def test_held_and_refuted() -> None:
    assert verdicts(finding("f.held", "toy_a", 0.5)) == {"f.held[toy_a]": Verdict.HELD}
    assert verdicts(finding("f.held", "toy_a", 0.4)) == {"f.held[toy_a]": Verdict.REFUTED}


def test_a_control_that_fails_leaves_nothing_diagnosed() -> None:
    held = finding("f.held", "toy_a", 0.9)
    conclusions = conclude([held, finding("g.control", "toy_a", 0.1)], REGISTRATION)
    assert [c.verdict for c in conclusions] == [Verdict.NOT_DIAGNOSTIC, Verdict.REFUTED]
    assert "the control g.control[toy_a] fails: 0.1, bar ≥ 0.5" in conclusions[0].why
    assert verdicts(held, finding("g.control", "toy_a", 0.9))["f.held[toy_a]"] is Verdict.HELD


def test_a_control_says_nothing_of_other_scales_or_of_what_is_refuted() -> None:
    null = finding("g.control", "toy_a", 0.1)
    assert verdicts(finding("f.held", "toy_b", 0.9), null)["f.held[toy_b]"] is Verdict.HELD
    assert verdicts(finding("f.held", "toy_a", 0.1), null)["f.held[toy_a]"] is Verdict.REFUTED


def test_a_control_on_the_paper_speaks_for_every_scale() -> None:
    null = finding("g.paper", "paper", 0.1)
    found = verdicts(finding("f.other", "toy_a", 0.9), finding("f.other", "neox", 0.9), null)
    assert found["f.other[toy_a]"] is found["f.other[neox]"] is Verdict.NOT_DIAGNOSTIC


@pytest.mark.parametrize("outcome", [None, Verdict.NOT_RUN, Verdict.ERROR, Verdict.NOT_WRITTEN])
def test_a_control_that_was_not_judged_is_taken_from_the_ledger(outcome: Verdict | None) -> None:
    findings = [finding("f.held", "toy_a", 0.9)]
    if outcome is not None:
        findings.append(Finding("g.control", "toy_a", outcome, "why"))
    assert verdicts(*findings)["f.held[toy_a]"] is Verdict.HELD
    ledger = Ledger({("g.control", "toy_a"): Entry(Verdict.REFUTED, "0.1, bar ≥ 0.5")})
    concluded = conclude(findings, REGISTRATION, ledger.findings())[0]
    assert concluded.verdict is Verdict.NOT_DIAGNOSTIC
    assert concluded.controls[0].from_ledger
    assert "(ledger): 0.1" in concluded.why


def test_this_run_goes_before_the_ledger() -> None:
    ledger = Ledger({("g.control", "toy_a"): Entry(Verdict.REFUTED, "0.1, bar ≥ 0.5")})
    findings = finding("f.held", "toy_a", 0.9), finding("g.control", "toy_a", 0.9)
    assert verdicts(*findings, ledger=ledger)["f.held[toy_a]"] is Verdict.HELD


def test_exceptions_survive_pickling_and_read_well() -> None:
    refuted = ClaimRefuted(REGISTRATION.claim("f.held"), finding("f.held", "toy_a", 0.4))
    again = pickle.loads(pickle.dumps(refuted))
    assert str(again) == str(refuted)
    assert str(refuted).startswith("f.held[toy_a] refuted: 0.4, bar ≥ 0.5; paper: 0.9")
    reason = pickle.loads(pickle.dumps(NotRun("no weights", "get them")))
    assert (reason.reason, reason.command) == ("no weights", "get them")


def two(low: float, high: float, of_high: tuple[float, float]) -> Finding:
    """Of two values, the first a point, the second with an interval."""
    intervals = (None, Interval(*of_high, "sequences"))
    made = Measured([low, high], ("0-1 mid", "0-2 mid"), intervals=intervals)
    return judge(REGISTRATION.claim("f.held"), "toy_a", made)


def test_an_interval_that_contains_the_limit_decides_nothing() -> None:
    found = two(0.9, 0.52, (0.48, 0.56))
    assert found.outcome is Verdict.UNDECIDED
    assert (found.open, found.missed, found.checked) == (1, 0, 2)
    assert found.interval == Interval(0.48, 0.56, "sequences")
    assert found.why == (
        "worst 0.52 at seeds 0 -> 2, mid (95 % 0.48 to 0.56, sequences), bar ≥ 0.5, "
        "1 of 2 intervals contain a limit"
    )
    assert two(0.9, 0.48, (0.44, 0.52)).outcome is Verdict.UNDECIDED, "missed, but not surely"
    assert two(0.9, 0.48, (0.44, 0.49)).outcome is Verdict.REFUTED
    assert two(0.9, 0.52, (0.51, 0.56)).outcome is Verdict.HELD
    assert two(0.9, 0.55, (0.5, 0.6)).outcome is Verdict.HELD, "the limit itself meets the bar"


def test_one_value_that_surely_misses_refutes_whatever_is_open() -> None:
    found = two(0.4, 0.45, (0.3, 0.6))
    assert found.outcome is Verdict.REFUTED
    assert (found.measured, found.missed, found.open) == (0.4, 1, 1)
    assert two(0.45, 0.2, (0.1, 0.6)).measured == 0.45, "not the open one, though it is lower"


def test_nothing_is_refuted_while_a_reading_that_is_admitted_was_not_measured() -> None:
    def read(values: list[float], unread: str) -> Finding:
        measured = Measured(np.array(values), ("mid", "post")).without(unread)
        return judge(REGISTRATION.claim("f.held"), "toy_a", measured)

    found = read([0.9, 0.4], "another schedule")
    assert found.outcome is Verdict.UNDECIDED
    assert found.missed == 1
    assert found.why == (
        "worst 0.4 at post, bar ≥ 0.5, 1 of 2 values miss it; not measured, and admitted: "
        "another schedule"
    )
    assert read([0.9, 0.4], "").outcome is Verdict.REFUTED
    assert read([0.9, 0.6], "another schedule").outcome is Verdict.HELD


def test_by_models_that_stand_in_for_the_registered_ones_nothing_is_decided() -> None:
    def on(values: list[float], stand_in: str = "others", unmet: str = "") -> Finding:
        measured = Measured(np.array(values), ("mid", "post")).on(stand_in).unless(unmet)
        return judge(REGISTRATION.claim("f.held"), "toy_a", measured)

    for values, said in (
        ([0.9, 0.4], "worst 0.4 at post, bar ≥ 0.5, 1 of 2 values miss it; others"),
        ([0.9, 0.6], "worst 0.6 at post, bar ≥ 0.5, which all values meet; others"),
    ):
        found = on(values)
        assert found.outcome is Verdict.UNDECIDED
        assert found.why == said
    assert on([0.9, 0.4], "").outcome is Verdict.REFUTED
    assert on([0.9, 0.6], "").outcome is Verdict.HELD
    assert on([0.9, 0.6], unmet="too few").outcome is Verdict.OUT_OF_REACH


def of(*values: float, half: float = 0.0) -> Measured:
    intervals = tuple(Interval(x - half, x + half, "pairs") for x in values)
    return Measured(np.array(values), tuple(map(str, range(len(values)))), intervals=intervals)


BETWEEN = replace(REGISTRATION.claim("f.held"), bar=Bar(at_least=0.35, at_most=0.75))


@pytest.mark.parametrize(
    ("readings", "outcome", "name"),
    [
        # Above both limits, and between them: neither the highest nor the lowest is what favours.
        ({"a": of(0.8), "b": of(0.4)}, Verdict.HELD, "b"),
        ({"a": of(0.1), "b": of(0.4), "c": of(0.9)}, Verdict.HELD, "b"),
        ({"a": of(0.4, 0.8), "b": of(0.5, 0.6)}, Verdict.HELD, "b"),
        ({"a": of(0.4), "b": of(0.5)}, Verdict.HELD, "b"),
        ({"a": of(0.4), "b": of(0.4)}, Verdict.HELD, "a"),
        # One setting for all values: those that meet it are not picked out of several.
        ({"a": of(0.4, 0.8), "b": of(0.2, 0.5)}, Verdict.REFUTED, "a"),
        ({"a": of(0.9), "b": of(0.3)}, Verdict.REFUTED, "b"),
        # Refuted only if by every reading.
        ({"a": of(0.8, half=0.01), "b": of(1.5, half=1.0)}, Verdict.UNDECIDED, "b"),
        # One that satisfies the claim, however near its limit the value lies.
        ({"a": of(0.55, half=0.3), "b": of(0.7, half=0.04)}, Verdict.HELD, "b"),
        ({"a": of(0.9).unless("why"), "b": of(0.9)}, Verdict.OUT_OF_REACH, "a"),
        ({"a": of(0.5).unless("why"), "b": of(0.36)}, Verdict.HELD, "b"),
        ({"a": of(0.9).below(0.1), "b": of(0.74).below(0.5)}, Verdict.HELD, "b"),
    ],
)
def test_the_reading_that_favours_the_claim_is_judged(
    readings: dict[str, Measured], outcome: Verdict, name: str
) -> None:
    found = judge(BETWEEN, "toy_a", favourable(readings))
    assert (found.outcome, found.beside["reading"]) == (outcome, name)
    chosen = reading(BETWEEN, favourable(readings))
    assert chosen.beside["reading"] == name
    assert chosen.readings == ()


@pytest.mark.parametrize("bar", [Bar(at_least=0.5), Bar(above=0.5), Bar(at_most=0.5)])
def test_under_one_limit_the_reading_is_the_one_of_its_side(bar: Bar) -> None:
    both = {"a": of(0.9, 0.6), "b": of(0.8, 0.7), "c": of(0.95, 0.3)}
    found = judge(replace(BETWEEN, bar=bar), "toy_a", favourable(both))
    assert found.beside["reading"] == favoured(both, "low" if bar.at_most else "high")


def test_nothing_is_refuted_while_a_reading_was_not_measured() -> None:
    found = judge(BETWEEN, "toy_a", favourable({"a": of(0.9), "b": of(0.8)}).without("seeds"))
    assert (found.outcome, found.beside["reading"]) == (Verdict.UNDECIDED, "b")
    assert "not measured, and admitted: seeds" in found.why


def test_a_bound_is_open_above() -> None:
    def bound(low: float, bar: Bar) -> Finding:
        interval = Interval(low, np.inf, "pairs")
        measured = Measured(np.array([low]), ("",), intervals=(interval,))
        return judge(replace(BETWEEN, bar=bar), "toy_a", measured)

    two = Bar(at_least=2, at_most=8)
    inside = bound(4, two)
    assert inside.outcome is Verdict.UNDECIDED
    assert inside.why == "4 (95 % at least 4, pairs), bar 2 … 8, which contains a limit"
    assert bound(9, two).outcome is Verdict.REFUTED
    assert bound(1, two).outcome is Verdict.UNDECIDED
    assert bound(4, Bar(at_least=2)).outcome is Verdict.HELD
    assert bound(4, Bar(at_most=5)).outcome is Verdict.UNDECIDED
    plain = json.loads(json.dumps(inside.to_json(), allow_nan=False))
    assert Finding.from_json(plain) == inside


def test_a_ceiling_that_misses_the_bar_is_out_of_reach() -> None:
    assert finding("f.held", "toy_a", 0.3, ceiling=0.4).outcome is Verdict.OUT_OF_REACH
    assert "a perfect sibling gives 0.4" in finding("f.held", "toy_a", 0.3, ceiling=0.4).why
    assert finding("f.held", "toy_a", 0.3, ceiling=0.6).outcome is Verdict.REFUTED
    assert finding("f.held", "toy_a", 0.6, ceiling=0.4).outcome is Verdict.OUT_OF_REACH
    assert finding("f.held", "toy_a", 0.5, half=0.1, ceiling=0.4).outcome is Verdict.OUT_OF_REACH


def test_of_two_limits_a_ceiling_is_held_against_that_of_likeness() -> None:
    bar = Bar(at_least=0.8, at_most=1.25)
    claim = replace(REGISTRATION.claim("f.held"), bar=bar)
    for ceiling, expected in ((1.3, Verdict.HELD), (0.7, Verdict.OUT_OF_REACH)):
        found = judge(claim, "toy_a", Measured.of(1.0).below(ceiling))
        assert found.outcome is expected
    assert not Bar(at_most=0.1).reached(0.2)
    assert Bar(at_most=0.1).reached(0.1)
    assert not Bar(above=0.1, below=0.3).reached(0.1)
    assert not Bar(equals=1).reached(0.9)


def test_the_value_at_the_worst_ceiling_is_not_called_the_worst() -> None:
    made = Measured.of({"a": 0.1, "b": 0.2}).below([0.45, 0.4])
    found = judge(REGISTRATION.claim("f.held"), "toy_a", made)
    assert (
        found.why == "0.2 at b, bar ≥ 0.5, where a perfect sibling gives 0.4, as for 2 of 2 values"
    )


def test_a_precondition_that_is_unmet_goes_before_every_value() -> None:
    made = Measured.of(0.1).unless("EV below 0.9 at 6 of 6 sites")
    found = judge(REGISTRATION.claim("f.held"), "toy_a", made)
    assert found.outcome is Verdict.OUT_OF_REACH
    assert found.why == "EV below 0.9 at 6 of 6 sites; 0.1, bar ≥ 0.5"
    met = judge(REGISTRATION.claim("f.held"), "toy_a", Measured.of(0.1).unless(""))
    assert met.outcome is Verdict.REFUTED


@pytest.mark.parametrize(
    ("claim", "control", "expected"),
    [
        (0.9, {"value": 0.1}, Verdict.NOT_DIAGNOSTIC),
        (0.9, {"value": 0.1, "ceiling": 0.2}, Verdict.NOT_DIAGNOSTIC),
        (0.9, {"value": 0.5, "half": 0.1}, Verdict.UNDECIDED),
        (0.9, {"value": 0.9}, Verdict.HELD),
        (0.1, {"value": 0.5, "half": 0.1}, Verdict.REFUTED),
    ],
)
def test_what_a_control_takes_from_a_claim(
    claim: float, control: dict[str, float], expected: Verdict
) -> None:
    found = finding("f.held", "toy_a", claim), finding("g.control", "toy_a", **control)
    conclusion = conclude(found, REGISTRATION)[0]
    assert conclusion.verdict is expected
    assert ("the control g.control[toy_a]" in conclusion.why) == (
        expected in (Verdict.NOT_DIAGNOSTIC, Verdict.UNDECIDED)
    )


def test_a_control_that_was_not_run_is_named() -> None:
    conclusion = conclude([finding("f.held", "toy_a", 0.9)], REGISTRATION)[0]
    assert conclusion.verdict is Verdict.HELD
    assert conclusion.why == "0.9, bar ≥ 0.5; not run: the control g.control[toy_a]"


def test_a_demonstration_says_so_wherever_its_verdict_is_explained() -> None:
    made = Measured.of(0.1).also(demonstration="a model is its own specification")
    found = judge(REGISTRATION.claim("g.control"), "toy_a", made)
    conclusions = conclude([found], REGISTRATION)
    text = "a demonstration, not a test: a model is its own specification"
    assert conclusions[0].why.endswith(text)
    lines = " ".join("".join(t for t, _ in line) for line in render(conclusions, REGISTRATION))
    assert text in " ".join(lines.split())


@pytest.mark.parametrize("outcome", list(NOT_HELD))
def test_each_outcome_that_is_not_held_has_an_exception_of_its_own(outcome: Verdict) -> None:
    assert issubclass(NOT_HELD[outcome], ClaimNotHeld)
    assert len(set(NOT_HELD.values())) == len(NOT_HELD)


# ---------------------------------------------------------------------------------------- table


def test_the_table_names_every_pair_within_its_width() -> None:
    findings = [
        finding("f.held", "toy_a", 0.9),
        finding("f.held", "toy_b", 0.4),
        Finding("f.other", "toy_a", Verdict.ERROR, "RuntimeError: " + "word " * 60),
        Finding("f.other", "neox", Verdict.NOT_RUN, "no models", command="pytest --retrain"),
        finding("g.control", "toy_a", 0.1),
        Finding("g.paper", "paper", Verdict.NOT_WRITTEN, ""),
    ]
    conclusions = conclude(findings, REGISTRATION)
    lines = ["".join(text for text, _ in line) for line in render(conclusions, REGISTRATION)]
    assert max(map(len, lines)) <= WIDTH
    text = "\n".join(lines)
    assert "not run (no models; to run: pytest --retrain): other[neox]" in text
    assert "not written: 1 registered claim without a test (1, by claim and scale)" in text
    assert "(--report DIR): g 1" in " ".join(text.split())
    assert "control fails" in text
    assert "error: f.other[toy_a]: RuntimeError" in text
    assert "not diagnostic: f.held[toy_a]: 0.9, bar ≥ 0.5, but the control g.control" in text
    assert "…" in text
    assert sentences(conclusions, REGISTRATION) == [
        "core claims: 1 refuted, 1 not diagnostic, 1 not run, 1 error (of 4, by claim and scale)",
        "controls: 1 fails, 1 not written (of 2, by claim and scale)",
    ]
