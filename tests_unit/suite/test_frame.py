"""The verdict plugin, run by pytester on a registration of a few claims."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import torch  # here too: pytester unloads what an inner run imports, and torch loads only once

from polyrot.report.record import SCHEMA
from polyrot.report.table import WIDTH
from tests_unit.outcomes import assert_outcomes

REFUTED_LEDGER = """
["f.two".toy_a]
verdict = "refuted"
why = "0.2, bar ≥ 0.5"
"""


# ---------------------------------------------------------------------------------- collection


def test_ids_name_test_and_scale(suite: Any) -> None:
    result = suite.run("--collect-only", "-q")
    assert [line for line in result.outlines if "::" in line] == [
        "claims/test_small.py::test_f_one[toy_a]",
        "claims/test_small.py::test_f_two[toy_a]",
        "claims/test_small.py::test_g_null[toy_a]",
        "claims/test_small.py::test_f_one[toy_b]",
    ]
    assert "f (section 1)" not in result.stdout.str()


def test_a_scale_that_a_claim_lacks_makes_no_test(suite: Any) -> None:
    result = suite.run("--scale=toy_b")
    assert_outcomes(result, passed=1)
    result.stdout.fnmatch_lines(["scales: toy_b", "collected 1 item"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale=toy_a,toy_c"], "*unknown scale 'toy_c'; known: paper, toy_a*"),
        (["--scale=pair"], "*scale pair and the option --pair A B need each other*"),
        (["--pair", "a", "b", "--scale=toy_a"], "*scale pair and the option --pair A B need*"),
    ],
)
def test_scales_that_cannot_be(suite: Any, arguments: list[str], message: str) -> None:
    result = suite.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_cuda_asked_for_and_absent(suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = suite.run("--device=cuda")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--device cuda: torch * sees no CUDA device*"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def test_x(verdict): pass", "*test_x: a test in claims/ names one claim*"),
        ('@claim("f.no")\ndef test_x(verdict): pass', "*test_x: no registered claim f.no*"),
        ('@claim("f.one")\ndef test_x(verdict): pass', "*f.one has two tests: *"),
        ('@claim("f.one")\ndef test_x(): pass', "*test_x: takes no fixture verdict*"),
        (
            '@claim("f.one")\n@pytest.mark.xfail\ndef test_x(verdict): pass',
            "*only the ledger says which claims are expected to fail*",
        ),
        (
            '@claim("f.one")\n@pytest.mark.parametrize("k", [1, 2])\ndef test_x(verdict, k): 0',
            "*f.one has one verdict per scale*",
        ),
    ],
)
def test_what_a_claim_test_must_not_be(suite: Any, source: str, message: str) -> None:
    suite.write(f__one="" if "two tests" not in message else suite.good["f.one"])
    (suite.claims / "test_bad.py").write_text(suite.head + source)
    result = suite.run()
    assert result.ret in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR)
    text = result.stdout.str() + result.stderr.str()
    pytest.LineMatcher(text.splitlines()).fnmatch_lines([message])


def test_unit_tests_alone_know_nothing_of_claims(suite: Any) -> None:
    suite.pytester.makepyfile(test_unit="def test_unit(): pass")
    (suite.claims / "preregistration.toml").write_text("broken")
    result = suite.run(folder="test_unit.py")
    assert_outcomes(result, passed=1)
    assert "registration" not in result.stdout.str()


def test_claims_and_unit_tests_together(suite: Any) -> None:
    suite.pytester.makepyfile(test_unit="def test_unit(): pass")
    result = suite.run(folder=".")
    assert_outcomes(result, passed=5)
    result.stdout.fnmatch_lines(["core claims: 3 held (of 3, by claim and scale)"])


# ------------------------------------------------------------------------------------ verdicts


def test_all_held(suite: Any) -> None:
    result = suite.run()
    assert_outcomes(result, passed=4)
    lines = [line for line in result.outlines if line.endswith(("held", "holds"))]
    assert [line.split()[:3] for line in lines] == [
        ["one", "toy_a", "0.6"],
        ["one", "toy_b", "0.6"],
        ["two", "toy_a", "0.7"],
        ["null", "toy_a", "0.8"],
    ]
    start = result.outlines.index(next(x for x in result.outlines if "= claims =" in x))
    assert max(map(len, result.outlines[start + 1 : -1])) <= WIDTH
    assert "\x1b" not in result.stdout.str()


def test_refuted_is_one_readable_line(suite: Any) -> None:
    suite.write(f__one='verdict({"0-1 mid": 0.9, "0-2 mid": 0.4}, over="pairs")')
    result = suite.run()
    assert_outcomes(result, passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "f.one?toy_a? refuted: worst 0.4 at seeds 0 -> 2, mid, bar ≥ 0.5, "
            "1 of 2 values miss it; paper: 0.9"
        ]
    )
    result.stdout.fnmatch_lines(["not as the ledger has it*", "  4 verdicts that were not in it"])


def test_a_control_that_fails(suite: Any) -> None:
    suite.write(g__null="verdict(0.1)")
    assert suite.judge() == {
        "f.one[toy_a]": "not diagnostic",
        "f.one[toy_b]": "held",
        "f.two[toy_a]": "held",
        "g.null[toy_a]": "refuted",
    }


def test_a_control_that_did_not_run_is_taken_from_the_ledger(suite: Any) -> None:
    suite.ledger.write_text('["g.null".toy_a]\nverdict = "refuted"\nwhy = "0.1"\n')
    result = suite.run("-k", "f_one")
    result.stdout.fnmatch_lines(["*one*toy_a*control fails [*]*not diagnostic"])
    result.stdout.fnmatch_lines(["* a control that did not run this time, as the ledger has it"])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('raise KeyError("lost")', "KeyError: 'lost'"),
        ("assert False", "AssertionError: assert False"),
        ('verdict(float("nan"))', "ValueError: not finite: nan at the only value"),
        ("verdict(0.7, over='pairs')", "ValueError: f.two: over='pairs', but registered is"),
        ("pass", "RuntimeError: claims/test_small.py::test_f_two[toy_a] never called verdict"),
        ("verdict(0.7); verdict(0.8)", "RuntimeError: f.two: verdict was called twice"),
        ("verdict(0.7); raise KeyError('lost')", "KeyError: 'lost'"),
        ("request.getfixturevalue('nothing')", "FixtureLookupError: "),
    ],
)
@pytest.mark.parametrize("ledger", ["", REFUTED_LEDGER])
def test_a_crash_is_an_error_and_no_refutation(
    suite: Any, body: str, why: str, ledger: str
) -> None:
    suite.ledger.write_text(ledger)
    suite.write(f__two=body)
    assert suite.judge()["f.two[toy_a]"] == "error"
    found = next(v for v in suite.report()["verdicts"] if v["claim"] == "f.two")
    assert found["why"].startswith(why)
    assert_outcomes(suite.run("--update-verdicts"), passed=3, failed=1)
    assert ('"f.two"' in suite.ledger.read_text()) == bool(ledger)


FIXTURE = """
    @pytest.fixture(scope="session")
    def cohort(scale):
        {}
"""


def test_a_crash_in_a_fixture_is_an_error(suite: Any) -> None:
    suite.ledger.write_text(REFUTED_LEDGER)
    suite.write(FIXTURE.format("1 / 0"), f__two="pass")
    source = (suite.claims / "test_small.py").read_text()
    source = source.replace("def test_f_two(verdict", "def test_f_two(cohort, verdict")
    (suite.claims / "test_small.py").write_text(source)
    result = suite.run()
    assert_outcomes(result, passed=3, errors=1)
    result.stdout.fnmatch_lines(["*two*toy_a*error", "error: f.two?toy_a?: ZeroDivisionError: *"])


@pytest.mark.parametrize("ledger", ["", REFUTED_LEDGER])
def test_not_run_says_why_and_how(suite: Any, ledger: str) -> None:
    suite.ledger.write_text(ledger)
    suite.write(
        FIXTURE.format('raise NotRun("no weights", "pytest --scale toy_a --retrain")'),
        f__two="request.getfixturevalue('cohort')",
    )
    source = (suite.claims / "test_small.py").read_text()
    source = source.replace("def test_f_one(verdict", "def test_f_one(cohort, verdict")
    (suite.claims / "test_small.py").write_text(source)
    result = suite.run("-rs")
    assert_outcomes(result, passed=1, skipped=3)
    result.stdout.fnmatch_lines(
        ["*no weights (to run it: pytest --scale toy_a --retrain)"],
    )
    result.stdout.fnmatch_lines(
        [
            "*not run (no weights; to run: pytest --scale toy_a --retrain):",
            "    one?toy_a,toy_b?, two?toy_a?",
        ]
    )
    result.stdout.fnmatch_lines(["core claims: 3 not run (of 3, by claim and scale)"])


def test_a_plain_skip_is_no_pass(suite: Any) -> None:
    suite.write(f__two='pytest.skip("too lazy")')
    assert suite.judge()["f.two[toy_a]"] == "not run"


def test_a_swallowed_refutation_is_refuted(suite: Any) -> None:
    suite.write(f__two="with pytest.raises(AssertionError):\n    verdict(0.1)")
    assert_outcomes(suite.run(), passed=3, failed=1)


# -------------------------------------------------------------------------------------- ledger


def test_refuted_as_the_ledger_has_it_is_green(suite: Any) -> None:
    suite.ledger.write_text(REFUTED_LEDGER)
    suite.write(f__two="verdict(0.1)")
    result = suite.run()
    assert_outcomes(result, passed=3, xfailed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*two*refuted"])


def test_refuted_in_the_ledger_but_held_is_red(suite: Any) -> None:
    suite.ledger.write_text(REFUTED_LEDGER)
    result = suite.run()
    assert_outcomes(result, passed=3, failed=1)
    result.stdout.fnmatch_lines(["*XPASS(strict)*"])
    result.stdout.fnmatch_lines(["*two*held", "  f.two?toy_a?: refuted -> held (0.7, bar ≥ 0.5)"])


def test_held_in_the_ledger_but_refuted_is_red(suite: Any) -> None:
    suite.ledger.write_text(REFUTED_LEDGER.replace("refuted", "held"))
    suite.write(f__two="verdict(0.1)")
    result = suite.run()
    assert_outcomes(result, passed=3, failed=1)
    result.stdout.fnmatch_lines(["  f.two?toy_a?: held -> refuted (0.1, bar ≥ 0.5)"])


def test_runxfail_gives_the_raw_answer(suite: Any) -> None:
    suite.ledger.write_text(REFUTED_LEDGER)
    suite.write(f__two="verdict(0.1)")
    assert_outcomes(suite.run("--runxfail"), passed=3, failed=1)


def test_update_verdicts_rewrites_the_ledger(suite: Any) -> None:
    suite.ledger.write_text(REFUTED_LEDGER)
    suite.write(g__null="verdict(0.1)")
    result = suite.run("--update-verdicts")
    assert_outcomes(result, passed=3, xfailed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["ledger rewritten, changed:", "  f.two*held (0.7*", "  3 verdicts that were not in it"]
    )
    text = suite.ledger.read_text()
    assert text.index('["f.one".toy_a]') < text.index('["f.two".toy_a]') < text.index('["g.null"')
    assert 'verdict = "not diagnostic"' in text
    again = suite.run()
    assert_outcomes(again, passed=3, xfailed=1)
    assert "ledger has it" not in again.stdout.str()


def test_a_narrowed_update_leaves_the_rest(suite: Any) -> None:
    suite.ledger.write_text(REFUTED_LEDGER)
    suite.run("--update-verdicts", "--scale=toy_b")
    text = suite.ledger.read_text()
    assert '["f.one".toy_b]' in text
    assert '["f.one".toy_a]' not in text
    assert 'why = "0.2, bar ≥ 0.5"' in text


def test_a_ledger_line_for_no_claim(suite: Any) -> None:
    suite.ledger.write_text('["f.gone".toy_a]\nverdict = "held"\n')
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*f.gone?toy_a? is no registered claim*"])


# ------------------------------------------------------------------------ registration, record


def test_other_bars_are_refused_or_said_loudly(suite: Any) -> None:
    result = suite.run()
    result.stdout.fnmatch_lines(["WARNING: bars that are NOT the registered ones*", "WARNING: *"])
    result = suite.run("-o", "polyrot_unregistered=false")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is not the registered registration: its sha256 is *"])


def test_the_report(suite: Any) -> None:
    suite.write(g__null="verdict(0.1)", f__two='raise NotRun("no weights", "get them")')
    suite.run("--report=out/deep").stdout.fnmatch_lines(["report written to *deep"])
    document = json.loads((suite.pytester.path / "out" / "deep" / "verdicts.json").read_text())
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert document["run"]["as_registered"] is False
    markdown = (suite.pytester.path / "out" / "deep" / "verdicts.md").read_text()
    row = "| `f.one` | toy_a | 0.6, worst of 2: b | ≥ 0.5 |  | 0.9 | control fails | "
    assert row + "**not diagnostic**" in markdown
    assert "not run (no weights; to run: `get them`): `f.two[toy_a]`" in markdown


@pytest.mark.slow  # starting workers takes seconds
def test_two_workers_find_what_one_finds(suite: Any) -> None:
    held_or_waiting = """
    if scale == "toy_b":
        raise NotRun("no weights", "get them")
    verdict(0.7, over="pairs")
    """
    suite.write(f__one=held_or_waiting, g__null="verdict(0.1)")
    alone = suite.judge()
    assert {"not diagnostic", "refuted", "not run"} <= set(alone.values())
    record = suite.report()["verdicts"]
    assert suite.judge("-p", "xdist", "-n2") == alone
    assert suite.report()["verdicts"] == record


def test_junit_has_the_finding(suite: Any) -> None:
    suite.run("--junitxml=junit.xml")
    text = (suite.pytester.path / "junit.xml").read_text()
    assert text.count('<property name="finding"') == 4
