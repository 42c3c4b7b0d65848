"""A run of a part of the claims accuses nothing that it merely did not collect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polyrot.judge.registration import Registration
from polyrot.judge.written import claim_tests

ROOT = Path(__file__).parents[2]
CACHE = ("-o", "addopts=--strict-markers --import-mode=importlib")
"""With pytest's cache, which the small suite otherwise does without."""
OTHER = """

@claim("g.null")
def test_g_null(verdict, scale):
    verdict(0.8)
"""


@pytest.fixture
def two_files(suite: Any) -> Any:
    """The small suite in two files, in which f.two is not written."""
    suite.write(f__two="", g__null="")
    (suite.claims / "test_other.py").write_text(suite.head + OTHER)
    return suite


TWO_WORKERS = ["-p", "xdist", "-n2"]
WHOLE: list[list[str]] = [[], TWO_WORKERS, ["-x"], ["-v"], ["--runxfail"]]
PART: list[list[str]] = [
    ["-k", "one"],
    ["-k", "not one"],
    ["-m", "claim"],
    ["--deselect=claims/test_other.py::test_g_null"],
    ["--ignore=claims/test_other.py"],
    ["--ignore-glob=*other.py"],
    ["--ignore=claims/test_small.py"],
    [*TWO_WORKERS, "--ignore=claims/test_other.py"],
    [*TWO_WORKERS, "-k", "one"],
]


def parameters(runs: list[list[str]]) -> list[Any]:
    """Starting workers takes seconds."""
    return [
        pytest.param(run, id=" ".join(run), marks=[pytest.mark.slow] if "-n2" in run else [])
        for run in runs
    ]


@pytest.mark.parametrize("arguments", parameters(WHOLE))
def test_a_whole_run_says_what_is_not_written(two_files: Any, arguments: list[str]) -> None:
    found = two_files.judge(*arguments)
    assert found == {
        "f.one[toy_a]": "held",
        "f.one[toy_b]": "held",
        "f.two[toy_a]": "not written",
        "g.null[toy_a]": "held",
    }


def accuses_nothing(result: pytest.RunResult, suite: Any) -> None:
    text = result.stdout.str() + result.stderr.str()
    assert result.ret in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), text
    assert "without a test" not in text
    assert "not written" not in text
    found = suite.report()["verdicts"]
    assert found
    assert {verdict["verdict"] for verdict in found} <= {"held", "refuted"}


@pytest.mark.parametrize("arguments", parameters(PART))
def test_a_part_accuses_nothing(two_files: Any, arguments: list[str]) -> None:
    accuses_nothing(two_files.run("--report=out", *arguments), two_files)


@pytest.mark.parametrize(
    "path",
    ["claims/test_small.py", "claims/test_other.py::test_g_null", "claims/../claims/test_other.py"],
)
def test_one_file_and_one_test_accuse_nothing(two_files: Any, path: str) -> None:
    accuses_nothing(two_files.run("--report=out", folder=path), two_files)


@pytest.mark.parametrize("again", ["--lf", "--sw"])
def test_what_failed_last_accuses_nothing(two_files: Any, again: str) -> None:
    source = two_files.claims / "test_small.py"
    source.write_text(source.read_text().replace("0.6", "0.1"))
    first = two_files.run(*CACHE, *(["--sw"] if again == "--sw" else []))
    assert first.ret == pytest.ExitCode.TESTS_FAILED or again == "--sw"
    result = two_files.run("--report=out", *CACHE, again)
    text = result.stdout.str() + result.stderr.str()
    assert "without a test" not in text
    assert "not written" not in text
    assert {v["claim"] for v in two_files.report()["verdicts"]} == {"f.one"}


def test_failed_first_is_a_whole_run(two_files: Any) -> None:
    source = two_files.claims / "test_small.py"
    source.write_text(source.read_text().replace("0.6", "0.1"))
    two_files.run(*CACHE)
    assert two_files.judge(*CACHE, "--ff")["f.two[toy_a]"] == "not written"


def test_what_is_not_written_is_an_error(two_files: Any) -> None:
    result = two_files.run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*not written*", "*1 without a test, which is an error;*"])


# ------------------------------------------------------------------------------- the source


def test_claims_are_read_from_the_source(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(
        "import pytest\nclaim = pytest.mark.claim\n"
        '@pytest.mark.claim("f.one")\ndef test_one(verdict): pass\n'
        "@claim('f.two')\nasync def test_two(verdict): pass\n"
        '# @pytest.mark.claim("f.comment")\n"@claim(\'f.text\')"\n'
        '@pytest.mark.skipif("f.other")\ndef test_three(verdict): pass\n'
    )
    (tmp_path / "test_broken.py").write_text('@claim("g.broken")\ndef test_four(verdict: pass\n')
    (tmp_path / "notes.txt").write_text('@claim("g.notes")')
    assert claim_tests(tmp_path) == {
        "f.one": f"{tmp_path.name}/test_a.py::test_one",
        "f.two": f"{tmp_path.name}/test_a.py::test_two",
        "g.broken": f"{tmp_path.name}/test_broken.py",
    }


def test_every_registered_claim_has_a_test_and_no_other_has() -> None:
    registration = Registration.load(ROOT / "claims" / "preregistration.toml")
    written = set(claim_tests(ROOT / "claims"))
    assert written == {claim.id for claim in registration.claims}
