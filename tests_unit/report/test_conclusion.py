"""The three sentences follow the verdicts, both ways, and never speak of another scale."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polyrot.judge.bar import Bar
from polyrot.judge.registration import Registration
from polyrot.judge.verdicts import Finding, Verdict
from polyrot.report.conclusion import Beside, answer, stricter_beside, three_sentences
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
        "Of the paper's core claims 3 of 4 held (toy_a 1 of 2, toy_b 2 of 2) and 1 was refuted."
    )


@pytest.mark.parametrize(("value", "held", "refuted"), [(HELD, 2, 0), (REFUTED, 1, 1)])
def test_a_changed_verdict_changes_the_sentence(value: float, held: int, refuted: int) -> None:
    core = sentences(finding("cosine.match", "toy_a", HELD), finding("naive.fails", "toy_a", value))
    assert core[0].startswith(
        f"Of the paper's core claims {held} of 2 held at toy_a and {refuted} w"
    )


def test_a_claim_whose_control_fails_is_counted_as_proving_nothing() -> None:
    found = finding("cosine.match", "toy_a", HELD)
    holding = sentences(found, finding("cosine.noise_control", "toy_a", HELD))
    failing = sentences(found, finding("cosine.noise_control", "toy_a", REFUTED))
    assert "1 of 1 held at toy_a and 0 were refuted." in holding[0]
    assert "0 of 1 held at toy_a, 0 were refuted and 1 met its bar but proves nothing" in failing[0]
    assert holding[1].endswith("0 of 1 fail at toy_a.")
    assert failing[1].endswith("1 of 1 fail at toy_a.")


def test_bars_that_the_paper_reports_as_missed_are_told_apart() -> None:
    core = sentences(
        finding("bars.missed", "toy_a", REFUTED), finding("naive.fails", "toy_a", REFUTED)
    )[0]
    assert "2 were refuted (1 as the paper itself reports)" in core
    assert "itself" not in sentences(finding("bars.missed", "toy_a", HELD))[0]


def test_what_did_not_run_is_named_and_nothing_is_said_of_it() -> None:
    core, controls, title = sentences(
        finding("cosine.match", "toy_a", HELD),
        not_run("cosine.match", "neox"),
        not_run("naive.fails", "neox"),
    )
    assert core.endswith("; 2 came to no verdict (neox), and nothing is said of them.")
    assert "1 of 1 held at toy_a" in core
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


def universal(scale: str, value: float, between_starts: float) -> Finding:
    beside = {
        "between_starts_mid": between_starts,
        "haar_mid": 0.01,
        "two_starts_mid": 0.99,  # of one pair of starts, chance included: no ceiling
        "between_starts_post": between_starts + 0.1,
        "haar_post": 0.01,
    }
    return finding("cosine.universal", scale, value, beside)


def test_the_title_is_judged_by_scale_with_its_ceiling() -> None:
    title = sentences(universal("toy_a", 0.1, 0.2), universal("toy_b", 0.6, 0.7))[2]
    assert title == (
        "The claim of the title, that features are so, is held at toy_b (0.6, bar ≥ 0.5) and "
        "refuted at toy_a (0.1, bar ≥ 0.5), where dictionaries of one and the same model, "
        "from other starts, share 20% to 80% beyond chance, so that at 2 of 4 sites the bar lay "
        "above it."
    )


def test_scales_of_one_verdict_are_told_together() -> None:
    title = sentences(universal("toy_a", 0.1, 0.2), universal("toy_b", 0.2, 0.2))[2]
    assert "is refuted at toy_a and toy_b (0.1 to 0.2, bar ≥ 0.5), where" in title


def test_a_ceiling_is_held_against_the_bar_by_site() -> None:
    for share, wanted in ((0.45, "at 1 of 2 sites the bar lay above it"), (0.5, "lay within it")):
        assert wanted in sentences(universal("toy_a", 0.1, share))[2]


def test_the_bar_of_a_ratio_is_not_held_against_a_share() -> None:
    beside = {"between_starts_mid": 0.19, "between_starts_post": 0.2}
    said = sentences(finding("cosine.universal", "toy_a", 0.7, beside))[2]
    assert "share" not in said
    assert "the bar lay" not in said


def test_dictionaries_that_are_not_as_registered_are_named() -> None:
    quality = {"ev_mid": 0.71, "l0_mid": 5.04, "ev_post": 0.9, "l0_post": 12.0}
    found = universal("toy_a", 0.1, 0.2)
    short = replace(found, beside={**found.beside, **quality})
    assert sentences(short)[2].endswith(
        "at 2 of 2 sites the bar lay above it (at toy_a the dictionaries of 1 of 2 sites are not "
        "as registered: EV 0.71 to 0.9, L0 5.04 to 12)."
    )
    dense = replace(short, beside={**short.beside, "least_l0": 4.0, "largest_l0": 10.0})
    assert "(at toy_a the dictionaries of 2 of 2 sites are not as" in sentences(dense)[2]
    met = replace(found, beside={**found.beside, **quality, "ev_mid": 0.95})
    assert sentences(met) == sentences(found)


def test_a_title_without_a_ceiling() -> None:
    title = sentences(finding("cosine.universal", "toy_a", HELD))[2]
    assert title.endswith("is held at toy_a (0.75, bar ≥ 0.5).")


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
    assert controls.endswith("1 of 1 fail on the paper's own figures.")


STRICT = replace(
    REGISTRATION,
    claims=(*REGISTRATION.claims, claim("cosine.strict", "sharp"), claim("naive.strict", "sharp")),
)


def test_stricter_forms_are_named_beside_core_claims_that_met_their_bar() -> None:
    found = concluded(
        finding("cosine.match", "toy_a", HELD),
        finding("cosine.match", "toy_b", REFUTED),
        finding("naive.fails", "toy_a", HELD),
        *(finding("cosine.strict", s, REFUTED, registration=STRICT) for s in ("toy_a", "toy_b")),
        finding("naive.strict", "toy_a", HELD, registration=STRICT),
        registration=STRICT,
    )
    assert stricter_beside(found, STRICT) == (
        Beside("cosine", "toy_a", ("cosine.match",), ("cosine.strict",)),
    ), "not where the core claim was refuted, nor where the stricter form held"
    assert answer(found, STRICT)[:3] == three_sentences(found, STRICT)
    assert answer(found, STRICT)[3:] == (
        "Beside a core claim that met its bar, 1 stricter form was refuted in the same family: "
        "cosine.strict (toy_a).",
    )


def test_core_claims_that_met_their_bar_and_prove_nothing_are_called_so() -> None:
    found = concluded(
        finding("cosine.match", "toy_a", HELD),
        finding("cosine.noise_control", "toy_a", REFUTED),
        finding("cosine.strict", "toy_a", REFUTED, registration=STRICT),
        registration=STRICT,
    )
    assert answer(found, STRICT)[3].startswith(
        "Beside a core claim that met its bar (not diagnostic), 1 stricter form was"
    )
    more = concluded(
        finding("cosine.match", "toy_a", HELD),
        finding("cosine.noise_control", "toy_a", REFUTED),
        finding("cosine.strict", "toy_a", REFUTED, registration=STRICT),
        finding("cosine.match", "toy_b", HELD),
        finding("cosine.strict", "toy_b", REFUTED, registration=STRICT),
        registration=STRICT,
    )
    assert "2 core claims that met their bar (1 of them not diagnostic)" in answer(more, STRICT)[3]


def test_nothing_is_said_beside_where_no_stricter_form_was_refuted() -> None:
    assert len(answer(concluded(finding("cosine.match", "toy_a", HELD)), REGISTRATION)) == 3


def test_other_bars_are_said_first() -> None:
    other = replace(REGISTRATION, sha256="0" * 64)
    core = sentences(finding("cosine.match", "toy_a", HELD), registration=other)[0]
    assert core.startswith("By bars that are not the registered ones: ")


def test_the_bar_decides_the_reach() -> None:
    """The ceiling is held against the registered bar, not against a number of the report's own."""
    low = replace(REGISTRATION.claim("cosine.universal"), bar=Bar(at_least=0.15))
    registration = replace(REGISTRATION, claims=(low,))
    beside = {"between_starts_mid": 0.19, "haar_mid": 0.01}
    found = finding("cosine.universal", "toy_a", 0.1, beside, registration)
    assert "lay within it" in sentences(found, registration=registration)[2]
