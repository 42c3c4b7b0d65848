"""What a report says of amendments and of claims without a test, in each of its forms."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyrot.judge.bar import Bar
from polyrot.judge.ledger import Ledger
from polyrot.judge.verdicts import Finding, Verdict
from polyrot.measured import Interval, Measured
from polyrot.report import junit
from polyrot.report.compare import compare
from polyrot.report.html import render as page
from polyrot.report.record import RecordError, markdown, read_record, write_record
from polyrot.report.table import render
from tests_unit.report.planted_record import (
    AMENDED,
    HELD,
    REGISTRATION,
    RUN,
    concluded,
    finding,
    record_of,
)

MATCH = finding("cosine.match", "toy_a", HELD, registration=AMENDED)
FAILS = finding("naive.fails", "toy_a", HELD, registration=AMENDED)
UNWRITTEN = Finding("bars.missed", "toy_a", Verdict.NOT_WRITTEN, "")


def saved(folder: Path, record: dict[str, Any]) -> Path:
    write_record(folder, record, "")
    return folder / "verdicts.json"


def test_amendments_travel_in_the_record(tmp_path: Path) -> None:
    record = read_record(saved(tmp_path, record_of(MATCH, FAILS, registration=AMENDED)))
    match, fails = record["verdicts"]
    assert (match["measured_as_before"], fails["measured_as_before"]) == (True, False)
    assert match["amendments"] == [
        {
            "date": "2026-11-27",
            "reason": "Mind a|b <c>.",
            "changes": [{"key": "over", "old": "all", "new": "pairs x <sites>"}],
        }
    ]
    assert Bar.from_json(fails["bar"]) == Bar(at_least=0.5, was=Bar(at_least=0.4))
    keys = [change["key"] for change in fails["amendments"][0]["changes"]]
    assert keys == ["bar", "measures"]
    assert record_of(MATCH)["verdicts"][0]["amendments"] == []


def test_amendments_in_markdown() -> None:
    text = markdown(concluded(MATCH, FAILS, registration=AMENDED), AMENDED, RUN)
    assert "| `cosine.match` † | toy_a |" in text
    assert "| `naive.fails` | toy_a | 0.75 (0.7 to 0.8, sequences) | ≥ 0.5 (was ≥ 0.4) |" in text
    assert "- `cosine.match` †, 2026-11-27: over: pairs x &lt;sites> (was: all). Mind a\\|b" in text
    assert "measures: a share (was: part). Another unit." in text
    plain = markdown(concluded(MATCH), REGISTRATION, RUN)
    assert "Amendments" not in plain
    assert "†" not in plain


def test_amendments_on_the_page() -> None:
    text = page(record_of(MATCH, FAILS, registration=AMENDED), (), ())
    head = "<dt>amended</dt><dd>"
    one = "2026-11-27: over: pairs x &lt;sites&gt; (was: all). Mind a|b &lt;c&gt;."
    assert head + one in text
    assert f"{head}2026-11-28: bar ≥ 0.5 (was ≥ 0.4); measures: a share (was: part)." in text
    assert text.count("still judged by the measure before its amendment") == 1


def test_amendments_in_the_terminal() -> None:
    lines = ["".join(t for t, _ in line) for line in render(concluded(MATCH, FAILS), AMENDED)]
    assert any(line.startswith("  match †") for line in lines)
    assert lines[-1] == "† amended, and still judged by the measure before the amendment"


def test_claims_without_a_test_are_counted_in_the_terminal_and_named_in_the_report() -> None:
    conclusions = concluded(MATCH, UNWRITTEN)
    lines = ["".join(t for t, _ in line) for line in render(conclusions, REGISTRATION)]
    assert not any("bars (section" in line for line in lines), "a family of no verdicts has no head"
    assert lines[-1].startswith(
        "not written: 1 registered claim without a test (1, by claim and scale"
    )
    assert lines[-1].endswith(": bars 1")
    other = replace(UNWRITTEN, scale="neox")
    text = markdown(concluded(MATCH, UNWRITTEN, other), REGISTRATION, RUN)
    assert "## Not written: registered, no test yet\n\n- bars: `bars.missed[toy_a,neox]`" in text
    assert "Not written" not in markdown(concluded(MATCH), REGISTRATION, RUN)
    record = record_of(MATCH, UNWRITTEN)
    assert [v["verdict"] for v in record["verdicts"]] == ["held", "not written"]
    assert 'data-verdict="not written"' in page(record, (), ())


def test_a_bound_is_open_in_every_form(tmp_path: Path) -> None:
    bound = replace(MATCH, interval=Interval(0.7, math.inf, "pairs"))
    record = read_record(saved(tmp_path, record_of(bound)))
    assert record["verdicts"][0]["interval"] == [0.7, None, "pairs"]
    said = "at least 0.7"
    assert f"({said}, pairs)" in markdown(concluded(bound), REGISTRATION, RUN)
    assert f"95 %: {said}, pairs" in page(record, (), ())
    refuted = finding("cosine.match", "toy_a", 0.25, registration=AMENDED)
    differs = compare(record_of(bound), record_of(refuted)).markdown("before", "after")
    assert f"({said}) → 0.25" in differs
    properties = dict(junit.properties(bound, [], REGISTRATION, Ledger({})))
    assert properties["interval"] == f"{said}, pairs"
    assert Finding.from_json(json.loads(properties["finding"])) == bound
    values = Measured(np.array([0.7]), ("",), intervals=(bound.interval,))
    assert json.loads(junit.values(values)[1])[0]["interval"] == [0.7, None, "pairs"]
    record["verdicts"][0]["interval"][0] = 0.9  # above the value
    with pytest.raises(RecordError, match=r"does not lie in its interval 0\.9 to inf"):
        read_record(saved(tmp_path, record))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("verdicts", 0, "bar"),
            {"at_most": "1"},
            r"verdicts\[0\].bar.at_most: '1' is not of type",
        ),
        (("verdicts", 0, "bar"), {"most": 1}, r"verdicts\[0\].bar: .*'most' was unexpected"),
        (("verdicts", 0, "amendments"), [{"date": "x"}], "is a required property"),
        (("verdicts", 0, "measured_as_before"), None, "None is not of type 'boolean'"),
        (("verdicts",), {}, "verdicts: {} is not of type 'array'"),
        (("run", "scales"), "toy_a", "run.scales: 'toy_a' is not of type"),
    ],
)
def test_an_altered_record_is_refused(
    tmp_path: Path, path: tuple[Any, ...], value: Any, message: str
) -> None:
    record = json.loads(json.dumps(record_of(MATCH)))
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(RecordError, match=message):
        read_record(saved(tmp_path, record))
