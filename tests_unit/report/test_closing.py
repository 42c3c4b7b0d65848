"""The end of a run: what cannot be written, what is warned of, which bars were amended."""

from __future__ import annotations

import errno
import fnmatch
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: F401  # here once: pytester unloads what an inner run imports

from polyrot.judge.ledger import Ledger
from polyrot.judge.verdicts import Verdict
from polyrot.report.closing import close_run
from polyrot.report.gathered import Gathered
from tests_unit.outcomes import assert_outcomes
from tests_unit.report import planted_figures as planted
from tests_unit.report.planted_record import (
    HELD,
    REFUTED,
    REGISTRATION,
    RUN,
    finding,
    not_run,
)

AMENDMENT = """
[[amendment]]
claim = "f.one"
date = 2026-12-01
reason = "the bar was written for another unit"
bar = { at_least = 0.65 }
"""


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    for module in ("polyrot.judge.ledger", "polyrot.report.record"):
        monkeypatch.setattr(f"{module}.write_atomically", full)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--update-verdicts", "NOT rewritten: the ledger *verdicts.toml: *No space left*"),
        ("--report=out", "NOT written, or not whole: the report in out: *No space left*"),
    ],
)
def test_a_full_disk_does_not_cost_the_table(
    suite: Any, full_disk: None, option: str, message: str
) -> None:
    result = suite.run(option)
    assert_outcomes(result, passed=4)
    result.stdout.fnmatch_lines(["*one*toy_a*held", "core claims: 3 held*", message])
    assert "ledger rewritten" not in result.stdout.str()
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_report_whose_folder_is_gone_does_not_cost_the_ledger(suite: Any) -> None:
    suite.write(
        "import os", f__one='os.rmdir("out") if scale == "toy_b" else 0\nverdict(1, "pairs")'
    )
    result = suite.run("--report=out", "--update-verdicts")
    result.stdout.fnmatch_lines(["ledger rewritten*", "NOT written*the report in out: *"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert '["f.one".toy_b]' in suite.ledger.read_text()


def test_a_page_that_fails_costs_neither_conclusions_nor_record(tmp_path: Path) -> None:
    panel = planted.effects().panels[0]
    wrong = replace(planted.effects(), panels=(replace(panel, r=(math.nan, *panel.r[1:])),))
    for figures, messages in (
        ((planted.ev_by_site(),), [f"report written to {tmp_path}"]),
        ((wrong,), [f"report written to {tmp_path}", f"NOT written: the page in {tmp_path}: *"]),
    ):
        closing = close_run(
            [finding("cosine.match", "toy_a", HELD)],
            REGISTRATION,
            Ledger(),
            RUN,
            report=tmp_path,
            gathered=Gathered(figures=figures),
        )
        said = [text for text in closing.messages if str(tmp_path) in text]
        assert len(said) == len(messages)
        assert all(map(fnmatch.fnmatchcase, said, messages))
        assert closing.all_written == (figures != (wrong,))
        assert closing.conclusions[0].verdict is Verdict.HELD
        assert (tmp_path / "verdicts.json").exists()
    assert "ValueError" in said[-1]


@pytest.mark.parametrize("commit", ["abc1234567", "abc1234567-dirty"])
@pytest.mark.parametrize("rewrite", [True, False])
def test_a_ledger_from_a_changed_checkout_is_warned_of(
    tmp_path: Path, commit: str, rewrite: bool
) -> None:
    ledger = tmp_path / "verdicts.toml"
    closing = close_run(
        [finding("cosine.match", "toy_a", HELD)],
        REGISTRATION,
        Ledger(),
        {**RUN, "commit": commit},
        rewrite_ledger=ledger if rewrite else None,
    )
    warned = [text for text in closing.messages if text.startswith("warning: the ledger names")]
    assert len(warned) == (rewrite and commit.endswith("-dirty"))
    assert ledger.exists() == rewrite
    assert closing.all_written


def test_the_last_line_counts_as_pytest_does() -> None:
    findings = [
        finding("cosine.match", "toy_a", HELD),
        finding("cosine.match", "toy_b", REFUTED),
        finding("cosine.noise_control", "toy_a", REFUTED),
        not_run("cosine.match", "neox"),
    ]
    said = close_run(findings, REGISTRATION, Ledger(), RUN).last_line(0)
    assert ": 1 refuted, 1 control fails, 1 not diagnostic, 1 not run; 0 verdicts changed" in said
    alone = close_run(findings[2:3], REGISTRATION, Ledger(), RUN).last_line(0)
    assert ": 1 control fails; 0 verdicts" in alone
    nothing = close_run(findings[3:], REGISTRATION, Ledger(), RUN).last_line(0)
    assert ": nothing judged, 1 not run; 0 verdicts" in nothing


def test_an_amended_bar_judges_and_is_shown_with_the_old_one(suite: Any) -> None:
    registration = suite.claims / "preregistration.toml"
    registration.write_text(registration.read_text() + AMENDMENT)
    result = suite.run("--report=out")
    assert_outcomes(result, passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*one*toy_a*0.6*≥ 0.65 (was ≥ 0.5)*refuted",
            "bar of f.one amended on 2026-12-01: ≥ 0.65 (was ≥ 0.5); the bar was written for*",
        ]
    )
    assert "≥ 0.65 (was ≥ 0.5)" in (suite.pytester.path / "out" / "verdicts.md").read_text()
    assert "bar of f.one" not in suite.run("-k", "f_two").stdout.str()


def test_a_measure_before_its_amendment_is_judged_by_the_old_over_and_marked(
    suite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration = suite.claims / "preregistration.toml"
    id = "triplet.cosine_hides_failure"
    monkeypatch.setattr("polyrot.judge.registration.MEASURED_AS_BEFORE", frozenset({id}))
    claim = registration.read_text().split("[[claim]]")[1].replace("f.one", id)
    made = AMENDMENT.replace("f.one", id).replace(
        "bar = { at_least = 0.65 }", 'over = "pairs x identified sites"'
    )
    registration.write_text(registration.read_text() + f"\n[[claim]]{claim}" + made)
    suite.write(triplet__cosine_hides_failure='verdict(0.9, over="pairs")')
    result = suite.run("--report=out")
    result.stdout.fnmatch_lines(
        [
            "*cosine_hides_failure †*toy_a*held",
            "† amended, and still judged by the measure before the amendment",
            "1 amendment of what is measured, over what,*",
        ]
    )
    text = (suite.pytester.path / "out" / "verdicts.md").read_text()
    assert f"`{id}` †, 2026-12-01: over: pairs x identified sites (was: pairs)." in text
    suite.write(triplet__cosine_hides_failure='verdict(0.9, over="pairs x identified sites")')
    suite.run().stdout.fnmatch_lines(["*but registered is over='pairs'*"])


def test_every_option_of_the_suite_is_explained(suite: Any) -> None:
    lines = suite.run("--help").outlines
    start = next(i for i, line in enumerate(lines) if line.startswith("polyrot: "))
    group = lines[start + 1 : lines.index("", start)]
    options = [i for i, line in enumerate(group) if line.startswith("  -")]
    for i, end in zip(options, [*options[1:], len(group)], strict=True):
        explained = " ".join(group[i:end]).strip().partition("  ")[2]
        assert explained, group[i]
