"""Comparing two runs: every way a verdict can change, and files that are no record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polyrot.judge.verdicts import Finding
from polyrot.report.__main__ import main
from polyrot.report.compare import compare
from polyrot.report.record import SCHEMA_VERSION, RecordError, read_record, write_record
from tests_unit.report.planted_record import (
    AMENDED,
    HELD,
    REFUTED,
    REGISTRATION,
    finding,
    not_run,
    record_of,
)

MATCH, FAILS = finding("cosine.match", "toy_a", HELD), finding("naive.fails", "toy_a", REFUTED)


def names(*findings: Finding, before: tuple[Finding, ...] = (MATCH, FAILS)) -> dict[str, list[str]]:
    found = compare(record_of(*before), record_of(*findings))
    changes = {"verdicts": found.verdicts, "figures": found.figures}
    return {kind: [change.name for change in those] for kind, those in changes.items()}


def test_the_same_run_changes_nothing() -> None:
    found = compare(record_of(MATCH, FAILS), record_of(MATCH, FAILS))
    assert (found.changed, found.verdicts, found.figures, found.same) == (False, (), (), 2)
    assert "No verdicts changed, 0 with other figures under the same verdict, 2 the same." in (
        found.markdown("a", "b")
    )


@pytest.mark.parametrize(
    ("after", "changed"),
    [
        (finding("naive.fails", "toy_a", HELD), True),
        (not_run("naive.fails", "toy_a"), True),
        (finding("naive.fails", "toy_a", REFUTED - 0.1), False),
    ],
)
def test_a_verdict_that_changes(after: Finding, changed: bool) -> None:
    found = names(MATCH, after)
    assert found["verdicts"] == (["naive.fails[toy_a]"] if changed else [])
    assert found["figures"] == ([] if changed else ["naive.fails[toy_a]"])
    back = names(MATCH, FAILS, before=(MATCH, after))
    assert back == found, "a change is one in both directions"


def test_a_control_changes_what_it_controls() -> None:
    null = finding("cosine.noise_control", "toy_a", HELD)
    passing = finding("cosine.noise_control", "toy_a", REFUTED)
    found = names(MATCH, passing, before=(MATCH, null))
    assert found["verdicts"] == ["cosine.match[toy_a]", "cosine.noise_control[toy_a]"]


def test_claims_judged_by_another_bar_or_text_are_named() -> None:
    before, after = record_of(MATCH, FAILS), record_of(MATCH, FAILS)
    entry = after["verdicts"][0]
    entry["bar"] = {"at_least": 0.6, "was": {"at_least": 0.5}}
    entry["over"] = "pairs"
    del after["verdicts"][1]["controls"][0]
    found = compare(before, after)
    assert found.judged_otherwise == (
        "cosine.match: bar ≥ 0.5 → ≥ 0.6 (was ≥ 0.5)",
        "cosine.match: over: nothing → pairs",
        "naive.fails: controls: naive.shift_control → nothing",
    )
    assert not found.changed, "another text is no other verdict"
    assert "## Judged by another bar or text" in found.markdown("a", "b")
    assert not compare(before, before).judged_otherwise


def test_an_amendment_judges_otherwise_only_once_it_is_measured() -> None:
    """AMENDED has an amendment of `over` that the measure does not follow yet."""
    match = finding("cosine.match", "toy_a", HELD, registration=AMENDED)
    claims = tuple(
        replace(c, over="pairs x <sites>" if c.id == "cosine.match" else c.over)
        for c in AMENDED.claims
    )
    waiting = record_of(match, registration=replace(AMENDED, claims=claims))
    followed = replace(AMENDED, claims=claims, measured_as_before=frozenset())
    first = replace(
        REGISTRATION,
        claims=tuple(replace(c, over="all" if c.id == "cosine.match" else None) for c in claims),
    )
    assert compare(record_of(match, registration=first), waiting).judged_otherwise == ()
    assert compare(waiting, record_of(match, registration=followed)).judged_otherwise == (
        "cosine.match: over: all → pairs x <sites>",
    )


def test_added_and_removed() -> None:
    assert names(MATCH)["verdicts"] == ["naive.fails[toy_a]"], "judged before, absent now"
    added = finding("naive.fails", "toy_b", HELD)
    assert names(MATCH, FAILS, added)["verdicts"] == ["naive.fails[toy_b]"]
    waiting = not_run("naive.fails", "neox")
    assert names(MATCH, FAILS, waiting) == {"verdicts": [], "figures": []}, "no verdict, no change"


def test_the_table_has_verdicts_and_figures() -> None:
    before = record_of(MATCH, finding("naive.fails", "toy_a", [0.75, 0.85]))
    after = record_of(MATCH, finding("naive.fails", "toy_a", [0.25, 0.85]), commit="def")
    text = compare(before, after).markdown("a|b.json", "c.json")
    assert (
        "| `naive.fails[toy_a]` | held → **refuted** | 0.75 at seeds 0 -> 1 (0.7 to 0.8) → "
        "0.25 at seeds 0 -> 1 (0.2 to 0.3) | ≥ 0.5 |"
    ) in text
    assert "# Verdicts: a\\|b.json → c.json" in text
    assert "- commit: abc1234567 → def" in text


def test_other_bars_are_shouted() -> None:
    before, after = record_of(MATCH), record_of(MATCH)
    after["run"]["registration_sha256"] = "0" * 64
    assert "THE BARS DIFFER" in compare(before, after).markdown("a", "b")


def save(path: Path, record: dict[str, Any]) -> str:
    path.mkdir(exist_ok=True)
    write_record(path, record, "")
    return str(path / "verdicts.json")


def test_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = save(tmp_path / "a", record_of(MATCH, FAILS))
    other = save(tmp_path / "b", record_of(MATCH, finding("naive.fails", "toy_a", HELD)))
    figures = save(tmp_path / "c", record_of(MATCH, finding("naive.fails", "toy_a", 0.2)))
    assert main(["compare", one, one]) == 0
    assert main(["compare", one, figures]) == 0
    assert "1 with other figures" in capsys.readouterr().out
    assert main(["compare", one, other]) == 1
    assert "refuted → **held**" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON: Expecting property name"),
        ("[]", "it has no schema_version"),
        ('{"figures": []}', "it has no schema_version"),
        ('{"schema_version": 1}', f"schema_version 1, this polyrot reads {SCHEMA_VERSION}"),
        (f'{{"schema_version": {SCHEMA_VERSION}}}', "the document: 'run' is a required property"),
    ],
)
def test_a_file_that_is_no_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    good = save(tmp_path / "good", record_of(MATCH))
    bad = tmp_path / "bad.json"
    bad.write_text(content)
    assert main(["compare", good, str(bad)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "bad.json" in error


def test_no_file_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_a_verdict_that_lacks_a_key_is_named(tmp_path: Path) -> None:
    record = record_of(MATCH, FAILS)
    del record["verdicts"][1]["bar"]
    with pytest.raises(RecordError, match=r"verdicts\[1\]: 'bar' is a required property"):
        read_record(Path(save(tmp_path, record)))


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    record = record_of(MATCH, FAILS)
    path = Path(save(tmp_path, record))
    assert read_record(path) == json.loads(json.dumps(record))
