"""Each way in which a verdict can come out, without pytest around it; Measured; the ledger."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from polyrot.judge.bar import Bar
from polyrot.judge.ledger import Entry, Ledger, LedgerError
from polyrot.judge.registration import Claim, Registration
from polyrot.judge.verdicts import ClaimRefuted, Finding, NotRun, Verdict, conclude, judge
from polyrot.measured import Measured, PairSite
from polyrot.report.table import WIDTH, render, sentences

PROVENANCE = {"device": "cpu", "date": "2026-11-23", "commit": "abc"}


def claim(id: str, scales: tuple[str, ...] = ("toy_a",), *controls: str) -> Claim:
    return Claim(
        id=id,
        section="1",
        status="control" if controls else "core",
        scales=scales,
        says="says",
        measures="measures",
        bar=Bar(at_least=0.5),
        paper="0.9, a figure with a long explanation behind it, far too long for any column",
        controls=controls,
    )


REGISTRATION = Registration(
    (
        claim("f.held", ("toy_a", "toy_b")),
        claim("f.other", ("toy_a", "neox")),
        claim("g.control", ("toy_a",), "f.held"),
        claim("g.paper", ("paper",), "f.other"),
    ),
    "2026-11-22",
    0.01,
    "0" * 64,
)


def finding(id: str, scale: str, value: float) -> Finding:
    return judge(REGISTRATION.claim(id), scale, Measured.of(value))


def verdicts(*findings: Finding, ledger: Ledger | None = None) -> dict[str, Verdict]:
    recorded = ledger.findings() if ledger else ()
    return {c.finding.name: c.verdict for c in conclude(findings, REGISTRATION, recorded)}


# ------------------------------------------------------------------------------------- measured


def test_every_value_is_judged_and_the_worst_named() -> None:
    table = PairSite(np.array([[0.9, 0.8], [0.7, 0.4]]), ("0-1", "0-2"), ("mid", "post"))
    found = judge(REGISTRATION.claim("f.held"), "toy_a", table.also(ev_grand=0.3).each())
    assert found.outcome is Verdict.REFUTED
    assert (found.measured, found.label, found.n, found.missed) == (0.4, "0-2 post", 4, 1)
    assert found.why == "worst 0.4 at 0-2 post, bar ≥ 0.5, 1 of 4 values miss it"
    assert found.beside == {"ev_grand": 0.3}
    assert found.counts == {"pairs": 2, "sites": 2}
    assert Finding.from_json(found.to_json()) == found


def test_the_interval_is_student_t_over_pairs() -> None:
    values = np.array([[0.9, 0.8], [0.7, 0.4], [0.6, 0.5]])
    table = PairSite(values, ("0-1", "0-2", "0-3"), ("mid", "post"))
    for measured, clusters in [
        (table.mean_over_pairs(), values[:, 1]),
        (table.each(), values.mean(axis=1)),
        (table.mean(), values.mean(axis=1)),
    ]:
        low, high = stats.t.interval(0.95, 2, clusters.mean(), stats.sem(clusters))
        index = measured.values.size - 1
        assert measured.interval(index) == pytest.approx((low, high))
    assert table.mean_over_pairs().labels == ("mid", "post")


def test_no_interval_from_one_pair() -> None:
    table = PairSite(np.array([[0.9, 0.8]]), ("0-1",), ("mid", "post"))
    assert table.mean_over_pairs().interval(0) is None
    assert Measured.of(0.5).interval(0) is None


def test_tables_combine_only_with_the_same_labels() -> None:
    one = PairSite(np.array([[0.9, 0.8]]), ("0-1",), ("mid", "post"))
    assert (one - one).values.tolist() == [[0.0, 0.0]]
    assert (one + one).at(["post"]).values.tolist() == [[1.6]]
    assert (one / one).mean().values.tolist() == [1.0]
    with pytest.raises(ValueError, match="different sites: mid, post against post"):
        one - one.at(["post"])
    with pytest.raises(KeyError, match="no site pre among mid, post"):
        one.at(["pre"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_an_error_that_names_its_place(bad: float) -> None:
    with pytest.raises(ValueError, match=r"not finite: .* at 0-2 post"):
        PairSite(np.array([[0.9, 0.8], [0.7, bad]]), ("0-1", "0-2"), ("mid", "post"))
    with pytest.raises(ValueError, match=r"not finite: .* at the only value"):
        Measured.of(bad)
    with pytest.raises(ValueError, match=r"not finite: .* at there"):
        Measured.of({"here": 1.0, "there": bad})
    with pytest.raises(ValueError, match="for the figure ev_grand"):
        Measured.of(1.0).also(ev_grand=bad)


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        Measured.of({})
    with pytest.raises(ValueError, match="0 pairs x 1 sites"):
        PairSite(np.empty((0, 1)), (), ("mid",))
    with pytest.raises(ValueError, match="2 measured values but 1 labels"):
        Measured(np.zeros(2), ("a",))
    with pytest.raises(ValueError, match="replicates must be"):
        Measured(np.zeros(2), ("a", "b"), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="doubled label"):
        PairSite(np.zeros((1, 2)), ("0-1",), ("mid", "mid"))


def test_what_was_measured_does_not_change_afterwards() -> None:
    source = np.array([[0.9]])
    table = PairSite(source, ("0-1",), ("mid",))
    source[0, 0] = 0.0
    assert table.values[0, 0] == 0.9
    with pytest.raises(ValueError, match="read-only"):
        table.values[0, 0] = 0.0


# ------------------------------------------------------------------------------------- verdicts


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


# --------------------------------------------------------------------------------------- ledger


def test_the_ledger_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.toml"
    entries = {
        ("g.control", "toy_a"): Entry(Verdict.REFUTED, "why"),
        ("f.held", "toy_b"): Entry(
            Verdict.NOT_DIAGNOSTIC,
            'a "quoted" \\ line,\nʼtwoʼ \x7f',
            ("g.control[toy_a]",),
            -1e-05,
            "0-3 mid",
            (0.25, 3.0),
            12,
            {"model": [0, 1], "sae": 7},
            {"two_starts_mid": 0.1236, 'error / "x"': "1e-3 / 2"},
            **PROVENANCE,
        ),
        ("f.held", "toy_a"): Entry(Verdict.HELD, "why", measured=0.0),
    }
    Ledger(entries).save(path, REGISTRATION)
    assert Ledger.load(path, REGISTRATION).entries == entries
    headers = [line for line in path.read_text().splitlines() if line.startswith("[")]
    assert headers == ['["f.held".toy_a]', '["f.held".toy_b]', '["g.control".toy_a]']
    assert [file.name for file in tmp_path.iterdir()] == ["verdicts.toml"]


def test_no_ledger_is_an_empty_one(tmp_path: Path) -> None:
    assert Ledger.load(tmp_path / "verdicts.toml", REGISTRATION).entries == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["f.gone".toy_a]\nverdict = "held"', r"f\.gone\[toy_a\] is no registered claim"),
        ('["f.held".neox]\nverdict = "held"', r"f\.held\[neox\] is no registered claim"),
        ('"f.held" = 1', r"f\.held\[\] is no registered claim"),
        ('["f.held"]\ntoy_a = 1', r"f\.held\[toy_a\] must be a table"),
        ('["f.held".toy_a]\nverdict = "true"', "'true' is no verdict"),
        ('["f.held".toy_a]\nwhy = "x"', "None is no verdict"),
        ('["f.held".toy_a]\nverdict = "held"\nnote = 1', "unknown key 'note'"),
        ('["f.held".toy_a]\nverdict = "held"\nbeside = 1', "beside must be a table"),
        ('["f.held".toy_a]\nverdict = "held"\nbeside = { a = nan }', "a = nan is no figure"),
        ('["f.held".toy_a]\nverdict = "held"\nbeside = { a = true }', "a = True is no figure"),
        ('["f.held".toy_a]\nverdict = "held"\nbeside = { a = [1] }', r"a = \[1\] is no figure"),
        ("[", "verdicts.toml: "),
    ],
)
def test_what_a_ledger_must_not_say(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "verdicts.toml"
    path.write_text(text)
    with pytest.raises(LedgerError, match=message):
        Ledger.load(path, REGISTRATION)


@pytest.mark.parametrize(
    ("key", "values", "kind"),
    [
        ("measured", ["'abc'", "nan", "inf", "true", "[1]"], "a finite number"),
        ("interval", ["3", "[1]", "[1, nan]", "[1, 'a']", "[1, 2, 3]"], "two finite numbers"),
        ("n", ["'many'", "1.5", "true", "-1"], "a count"),
        ("nulls", ["'abc'", "5", "[5]"], "a list of strings"),
        ("seeds", ["3", "{ a = 'b' }", "{ a = 0.5 }", "{ a = [0.5] }"], "a table of integers"),
        *((key, ["3", "2026-11-23"], "a string") for key in ("why", "label", *PROVENANCE)),
    ],
)
def test_what_an_entry_must_not_hold(
    tmp_path: Path, key: str, values: list[str], kind: str
) -> None:
    path = tmp_path / "verdicts.toml"
    for value in values:
        path.write_text(f'["f.held".toy_a]\nverdict = "held"\n{key} = {value}\n')
        with pytest.raises(LedgerError, match=rf"f\.held\[toy_a\]: {key} must be {kind}.*, not "):
            Ledger.load(path, REGISTRATION)


def updated(ledger: Ledger, *findings: Finding) -> dict[str, Verdict]:
    conclusions = conclude(findings, REGISTRATION, ledger.findings())
    entries = ledger.updated(conclusions, REGISTRATION, **PROVENANCE).entries
    return {f"{id}[{scale}]": entry.verdict for (id, scale), entry in entries.items()}


def test_a_run_replaces_only_what_it_judged() -> None:
    ledger = Ledger(
        {
            ("f.held", "toy_a"): Entry(Verdict.HELD, "why"),
            ("f.held", "toy_b"): Entry(Verdict.REFUTED, "why"),
        }
    )
    waiting = Finding("f.held", "toy_a", Verdict.NOT_RUN, "no weights", command="get them")
    crashed = Finding("f.held", "toy_b", Verdict.ERROR, "crash")
    new = Finding("f.other", "neox", Verdict.NOT_RUN, "no weights", command="get them")
    stopped = Finding("f.other", "toy_a", Verdict.NOT_RUN, "the run stopped before it")
    assert updated(ledger, waiting, crashed, new, stopped) == {
        "f.held[toy_a]": Verdict.HELD,
        "f.held[toy_b]": Verdict.REFUTED,
        "f.other[neox]": Verdict.NOT_RUN,
    }


def test_the_ledgers_verdicts_follow_their_controls() -> None:
    ledger = Ledger({("f.held", "toy_a"): Entry(Verdict.HELD, "why", measured=0.9)})
    failing = finding("g.control", "toy_a", 0.1)
    assert updated(ledger, failing)["f.held[toy_a]"] is Verdict.NOT_DIAGNOSTIC
    ledger = ledger.updated(conclude([failing], REGISTRATION), REGISTRATION, **PROVENANCE)
    assert ledger.entries["f.held", "toy_a"].nulls == ("g.control[toy_a]",)
    assert ledger.entries["f.held", "toy_a"].measured == 0.9
    assert updated(ledger, finding("g.control", "toy_a", 0.9))["f.held[toy_a]"] is Verdict.HELD


def test_figures_beside_are_kept_to_four_digits(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.toml"
    measured = Measured.of(0.9).also(two_starts_mid=0.123456, steps=12345.6, bound="never")
    found = [
        judge(REGISTRATION.claim("f.held"), "toy_a", measured),
        finding("f.held", "toy_b", 0.9),
    ]
    ledger = Ledger().updated(conclude(found, REGISTRATION), REGISTRATION, **PROVENANCE)
    ledger.save(path, REGISTRATION)
    assert Ledger.load(path, REGISTRATION) == ledger
    kept = ledger.entries["f.held", "toy_a"].beside
    assert kept == {"two_starts_mid": 0.1235, "steps": 12350.0, "bound": "never"}
    lines = [line for line in path.read_text().splitlines() if line.startswith("beside")]
    assert lines == ['beside = { "two_starts_mid" = 0.1235, "steps" = 12350.0, "bound" = "never" }']


def test_changes_against_the_ledger_are_named() -> None:
    ledger = Ledger({("f.held", "toy_a"): Entry(Verdict.HELD, "why")})
    conclusions = conclude([finding("f.held", "toy_a", 0.4)], REGISTRATION)
    assert ledger.changes(conclusions) == ["f.held[toy_a]: held -> refuted (0.4, bar ≥ 0.5)"]
    assert ledger.changes(conclude([finding("f.held", "toy_a", 0.6)], REGISTRATION)) == []
    new = conclude([finding("f.held", "toy_b", 0.6)], REGISTRATION)
    assert ledger.changes(new) == ["1 verdicts that were not in it"]


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
    assert "not written: 1 registered claim without a test (1 claim-scale pairs)" in text
    assert "(--report DIR): g 1" in " ".join(text.split())
    assert "control fails" in text
    assert "error: f.other[toy_a]: RuntimeError" in text
    assert "not diagnostic: f.held[toy_a]: 0.9, bar ≥ 0.5, but the control g.control" in text
    assert "…" in text
    assert sentences(conclusions, REGISTRATION) == [
        "core claims: 1 refuted, 1 not diagnostic, 1 not run, 1 error (of 4 claim-scale pairs)",
        "controls: 1 fails, 1 not written (of 2 claim-scale pairs)",
    ]
