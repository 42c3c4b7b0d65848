"""The ledger: what is kept of verdicts, and what may not be written there."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from polyrot.judge.ledger import Entry, Ledger, LedgerError
from polyrot.judge.verdicts import Finding, Verdict, conclude, judge
from polyrot.measured import Interval, Measured
from tests_unit.judge.planted_claims import PROVENANCE, REGISTRATION, finding


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
            Interval(0.25, 3.0, "pairs"),
            ceiling=0.4,
            n=4,
            checked=12,
            missed=2,
            open=1,
            counts={"pairs": 4},
            seeds={"model": [0, 1], "sae": 7},
            beside={"two_starts_mid": 0.1236, 'error / "x"': "1e-3 / 2"},
            **PROVENANCE,
        ),
        ("f.held", "toy_a"): Entry(
            Verdict.HELD, "why", measured=0.0, interval=Interval(0.0, math.inf, "pairs")
        ),
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
        (
            "interval",
            ["3", "[1]", "[1, nan]", "[-inf, 1]", "[1, 'a']", "[1, 2, 3]"],
            "two finite numbers",
        ),
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
    assert ledger.changes(new) == []
    assert ledger.lacks(new) == 1
    assert ledger.without("toy_b").lacks(new) == 0


def test_what_a_control_takes_is_undone_with_it() -> None:
    undecided = finding("g.control", "toy_a", 0.5, half=0.1)
    run = conclude([finding("f.held", "toy_a", 0.9), undecided], REGISTRATION)
    ledger = Ledger().updated(run, REGISTRATION, **PROVENANCE)
    entry = ledger.entries["f.held", "toy_a"]
    assert (entry.verdict, entry.outcome) == (Verdict.UNDECIDED, Verdict.HELD)
    assert entry.nulls == ("g.control[toy_a]",)
    assert updated(ledger, finding("g.control", "toy_a", 0.9))["f.held[toy_a]"] is Verdict.HELD
