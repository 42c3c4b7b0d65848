"""What a run shows: verdicts in words, a table that fits, node ids to copy, families, progress."""

from __future__ import annotations

import re
from typing import Any

import pytest

from polyrot.report.said import section_words
from polyrot.report.table import NARROWEST, WIDEST
from tests_unit.conftest import registered

LONG = "f." + "a_name_that_is_longer_than_a_narrow_table_has_room_for"


def columns(suite: Any, monkeypatch: pytest.MonkeyPatch, n: int) -> pytest.RunResult:
    """A run without a terminal, `n` columns wide."""
    monkeypatch.setenv("COLUMNS", str(n))
    return suite.run()


def table_of(result: pytest.RunResult) -> list[str]:
    start = next(i for i, line in enumerate(result.outlines) if "= claims =" in line)
    end = next(i for i, line in enumerate(result.outlines) if line.startswith("core claims: "))
    return result.outlines[start + 1 : end]


@pytest.fixture
def wide(suite: Any) -> Any:
    """A suite with a long name, and a figure of the paper that only a wide table has room for."""
    registration = suite.claims / "preregistration.toml"
    said = "0.9, " + "as the paper says in many words " * 3
    registration.write_text(
        registration.read_text() + registered(LONG, "core", ["toy_a", "toy_b"], paper=said)
    )
    suite.write(**{LONG.replace(".", "__"): "verdict(Measured.of(0.7).below(0.8))"})
    return suite


@pytest.mark.parametrize("n", [60, 80, 120, 160])
def test_the_table_fits_the_columns_there_are(
    wide: Any, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    shown = table_of(columns(wide, monkeypatch, n))
    assert max(map(len, shown)) <= n
    text = "\n".join(shown)
    assert f"  {LONG.removeprefix('f.')}" in text, "a name is not cut"
    assert ("no room here for paper" in text) == (n < 120)
    assert ("as the pap" in text) == (n >= 120)
    rows = [line for line in shown if line.endswith(" held")]
    assert len(rows) == 5
    assert len({line.rindex("held") for line in rows}) == 1, "the verdicts stand in one column"


@pytest.mark.parametrize(("n", "used"), [(45, NARROWEST), (500, WIDEST)])
def test_no_terminal_is_too_narrow_or_too_wide(
    wide: Any, monkeypatch: pytest.MonkeyPatch, n: int, used: int
) -> None:
    shown = table_of(columns(wide, monkeypatch, n))
    assert max(map(len, shown)) <= used


def test_verdicts_are_words_in_lines_that_end_in_time(
    suite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.write(g__null="verdict(0.1)")
    suite.run("--update-verdicts")
    suite.write(f__two="1 / 0", g__null="verdict(0.9)")
    result = columns(suite, monkeypatch, 62)
    start = result.outlines.index(next(x for x in result.outlines if x.startswith("claims/")))
    shown = result.outlines[start : start + 3]
    assert max(map(len, shown)) <= 62
    said = re.sub(r"\s+", " ", " ".join(shown)).partition(" [100%]")[0]
    assert said == (
        "claims/test_small.py not diagnostic, FAILED (error), FAILED (control holds), held"
    )


def test_each_file_begins_anew(suite: Any) -> None:
    suite.write(g__null="")
    (suite.claims / "test_tiny.py").write_text(
        suite.head + '@claim("g.null")\ndef test_g(verdict): verdict(0.1)\n'
    )
    result = suite.run("--update-verdicts")
    result.stdout.fnmatch_lines(
        [
            "claims/test_small.py held, held *",
            "claims/test_tiny.py control fails *",
            "claims/test_small.py held *",
        ]
    )


def test_a_claim_that_was_not_run_is_no_letter(suite: Any) -> None:
    suite.write(f__two='raise NotRun("no weights", "pytest --retrain")')
    result = suite.run("-rs")
    result.stdout.fnmatch_lines(["claims/test_small.py held, not run, control holds, held *"])
    result.stdout.fnmatch_lines(["NOT RUN * no weights*"])


def test_node_ids_can_be_copied_from_the_table(suite: Any) -> None:
    verbose = table_of(suite.run("-v"))
    ids = [line.strip() for line in verbose if "::" in line]
    assert ids == [f"claims/test_small.py::test_{name}" for name in ("f_one", "f_two", "g_null")]
    assert suite.run(folder=ids[0]).ret == pytest.ExitCode.OK
    assert "::" not in "\n".join(table_of(suite.run()))


def test_a_claim_is_chosen_by_its_id(suite: Any) -> None:
    suite.write(f__one="", f__two="")
    (suite.claims / "test_other.py").write_text(
        suite.head + '@claim("f.two")\ndef test_named_otherwise(verdict): verdict(0.7)\n'
    )
    assert suite.judge("-k", "f.two") == {"f.two[toy_a]": "held"}


@pytest.mark.parametrize("choice", [["-k", "harr"], ["-m", "nothing"]])
def test_where_nothing_is_chosen_the_families_are_named(suite: Any, choice: list[str]) -> None:
    result = suite.run(*choice, "--scale=toy_a,toy_b", "-o", "markers=nothing: no test has it")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    text = " ".join(result.outlines[-3:])
    assert "No claim was chosen. At toy_a, toy_b there are, by claim and scale: f 3, g 1." in text
    assert "No claim was chosen" not in suite.run().stdout.str()


WORKING = """
    @pytest.fixture
    def progress(pytestconfig):
        from fixtures import terminal

        return terminal.progress(pytestconfig)
"""
USING = """
    progress = request.getfixturevalue("progress")
    progress("training", 1, 2)
    progress("training", 2, 2)
    verdict(0.7)
"""


def test_progress_has_lines_of_its_own_without_a_terminal(suite: Any) -> None:
    suite.write(WORKING, f__two=USING)
    lines = suite.run("--capture=fd").outlines
    first = lines.index("training: 1/2 (50%)")
    assert lines[first - 1] == "claims/test_small.py held"
    assert re.fullmatch(r"training: 2/2 \(100%\) in 0:00", lines[first + 1])
    assert lines[first + 2].startswith("  held")
    assert lines[first + 3].startswith("claims/test_small.py control holds, held")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["3"], "post, section 3"),
        (["paper 8.2"], "paper, section 8.2"),
        (
            ["paper 8.10, 8.4", "TL;DR", "10"],
            "post, TL;DR and section 10; paper, sections 8.10 and 8.4",
        ),
        (["paper 8.8, related work"], "paper, section 8.8 and related work"),
        (["methods"], "post, methods"),
    ],
)
def test_a_section_says_of_which_text_it_is(given: list[str], said: str) -> None:
    assert section_words(given) == said
