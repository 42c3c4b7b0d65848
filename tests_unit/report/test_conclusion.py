"""The three sentences follow the verdicts, both ways, and never speak of another scale."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polyrot.judge.bar import Bar
from polyrot.judge.registration import Registration
from polyrot.judge.verdicts import Finding, Verdict
from polyrot.report.conclusion import three_sentences
from tests_unit.report.planted_record import (
    HELD,
    REFUTED,
    REGISTRATION,
    claim,
    concluded,
    finding,
    not_run,
)


def sentences(
    *findings: Finding, registration: Registration = REGISTRATION
) -> tuple[str, str, str]:
    found = three_sentences(concluded(*findings, registration=registration), registration)
    assert all(text.endswith(".") and ". " not in text for text in found), "one sentence each"
    return found


def test_core_claims_are_counted_by_scale() -> None:
    core = sentences(
        finding("cosine.match", "toy_a", HELD),
        finding("naive.fails", "toy_a", REFUTED),
        finding("cosine.match", "toy_b", HELD),
        finding("naive.fails", "toy_b", HELD),
    )[0]
    assert core == (
        "Core claims: at toy_a, of 2 judged 1 held and 1 was refuted; "
        "at toy_b, of 2 judged 2 held and 0 were refuted."
    )


@pytest.mark.parametrize(("value", "held", "refuted"), [(HELD, 2, 0), (REFUTED, 1, 1)])
def test_a_changed_verdict_changes_the_sentence(value: float, held: int, refuted: int) -> None:
    core = sentences(finding("cosine.match", "toy_a", HELD), finding("naive.fails", "toy_a", value))
    assert f"{held} held and {refuted} w" in core[0]


def test_a_claim_whose_control_fails_is_counted_as_proving_nothing() -> None:
    found = finding("cosine.match", "toy_a", HELD)
    holding = sentences(found, finding("cosine.noise_control", "toy_a", HELD))
    failing = sentences(found, finding("cosine.noise_control", "toy_a", REFUTED))
    assert "1 held and 0 were refuted." in holding[0]
    assert "0 held, 0 were refuted and 1 held but proves nothing, as a control fails" in failing[0]
    assert holding[1].endswith("at toy_a 0 of 1 controls fail.")
    assert failing[1].endswith("at toy_a 1 of 1 controls fail (of cosine).")


def test_bars_that_the_paper_reports_as_missed_are_told_apart() -> None:
    core = sentences(
        finding("bars.missed", "toy_a", REFUTED), finding("naive.fails", "toy_a", REFUTED)
    )[0]
    assert "2 were refuted (1 of which the paper itself reports as missed)" in core
    assert "missed" not in sentences(finding("bars.missed", "toy_a", HELD))[0]


def test_what_did_not_run_is_named_and_nothing_is_said_of_it() -> None:
    core, controls, title = sentences(
        finding("cosine.match", "toy_a", HELD),
        not_run("cosine.match", "neox"),
        not_run("naive.fails", "neox"),
    )
    assert core.endswith("; 2 came to no verdict (neox), and nothing is said of them.")
    assert "at neox" not in core
    assert controls == "No control was judged, so no claim that held is known to mean anything."
    assert title == "The claim of the title was not judged."


def test_what_has_no_test_yet_is_counted_apart_from_what_did_not_run() -> None:
    unwritten = Finding("bars.missed", "toy_a", Verdict.NOT_WRITTEN, "")
    core = sentences(
        finding("cosine.match", "toy_a", HELD), not_run("cosine.match", "neox"), unwritten
    )[0]
    assert core.endswith(
        "; 1 came to no verdict (neox), and nothing is said of it; 1 has no test yet."
    )
    assert sentences(unwritten)[0] == (
        "None of the paper's core claims was judged; 1 has no test yet."
    )


def test_no_core_claim() -> None:
    core = sentences(not_run("cosine.match", "neox"))[0]
    assert core == (
        "None of the paper's core claims was judged; 1 came to no verdict (neox), and nothing is "
        "said of it."
    )


def universal(scale: str, value: float, two_starts: float, haar: float = 0.01) -> Finding:
    beside = {
        "two_starts_mid": two_starts,
        "haar_mid": haar,
        "two_starts_post": two_starts + 0.1,
        "haar_post": haar,
    }
    return finding("cosine.universal", scale, value, beside)


def test_the_title_is_judged_by_scale_with_its_ceiling() -> None:
    title = sentences(universal("toy_a", 0.1, 0.2), universal("toy_b", 0.6, 0.7))[2]
    assert title == (
        "The claim of the title (features are so): refuted at toy_a (0.1 at 0-1, bar ≥ 0.5), where "
        "two dictionaries of one and the same model share 20% to 30%, so that at 2 of 2 sites "
        "the bar lay above it; held at toy_b (0.6 at 0-1, bar ≥ 0.5), where two dictionaries of "
        "one and the same model share 70% to 80%, so that the bar lay within it."
    )


def test_a_ceiling_is_what_remains_above_chance() -> None:
    assert (
        "at 1 of 2 sites the bar lay above it"
        in sentences(universal("toy_a", 0.1, 0.55, haar=0.1))[2]
    )
    assert "lay within it" in sentences(universal("toy_a", 0.1, 0.55, haar=0.05))[2]


def test_dictionaries_that_are_not_as_registered_are_named() -> None:
    quality = {"ev_mid": 0.71, "l0_mid": 5.04, "ev_post": 0.9, "l0_post": 12.0}
    found = universal("toy_a", 0.1, 0.2)
    short = replace(found, beside={**found.beside, **quality})
    assert sentences(short)[2].endswith(
        "at 2 of 2 sites the bar lay above it, with dictionaries that at 1 of 2 sites are not as "
        "registered (self EV 0.9 or more): EV 0.71 to 0.9, L0 5.04 to 12."
    )
    dense = replace(short, beside={**short.beside, "least_l0": 4.0, "largest_l0": 10.0})
    assert sentences(dense)[2].endswith(
        "at 2 of 2 sites are not as registered (self EV 0.9 or more, L0 4 to 10): EV 0.71 to 0.9, "
        "L0 5.04 to 12."
    )
    met = replace(found, beside={**found.beside, **quality, "ev_mid": 0.95})
    assert sentences(met) == sentences(found)


def test_a_title_without_a_ceiling() -> None:
    title = sentences(finding("cosine.universal", "toy_a", HELD))[2]
    assert title.endswith("held at toy_a (0.75 at 0-1, bar ≥ 0.5).")


def test_a_crash_is_no_verdict() -> None:
    crashed = Finding("cosine.universal", "toy_a", Verdict.ERROR, "ValueError: no")
    assert sentences(crashed)[2].startswith("The claim of the title was not judged; 1 came to no")


def test_figures_of_the_paper_are_named_as_such() -> None:
    other = claim("haar.table_control", "control", "cosine.match", scales=("paper",))
    registration = replace(REGISTRATION, claims=(*REGISTRATION.claims, other))
    controls = sentences(
        finding("haar.table_control", "paper", REFUTED, registration=registration),
        registration=registration,
    )[1]
    assert controls.endswith("on the paper's own figures 1 of 1 controls fail (of haar).")


def test_other_bars_are_said_first() -> None:
    other = replace(REGISTRATION, sha256="0" * 64)
    core = sentences(finding("cosine.match", "toy_a", HELD), registration=other)[0]
    assert core.startswith("By bars that are not the registered ones: ")


def test_the_bar_decides_the_reach() -> None:
    """The ceiling is held against the registered bar, not against a number of the report's own."""
    low = replace(REGISTRATION.claim("cosine.universal"), bar=Bar(at_least=0.15))
    registration = replace(REGISTRATION, claims=(low,))
    beside = {"two_starts_mid": 0.2, "haar_mid": 0.01}
    found = finding("cosine.universal", "toy_a", 0.1, beside, registration)
    assert "lay within it" in sentences(found, registration=registration)[2]
