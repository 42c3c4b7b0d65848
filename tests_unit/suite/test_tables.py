"""Which tables are behind each claim, and whether a run read or measured them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polyrot.store.store import Tally
from tests_unit.outcomes import assert_outcomes

WITH = (
    *("-p", "fixtures.tally", "-p", "fixtures.cohorts", "-p", "fixtures.figures"),
    *("--artifacts=cache", "--report=out"),
)
HEAD = """
from polyrot.store import Artifact

def table(store, kind, scale):
    store.get_or_build(kind, {"at": scale}, lambda _: Artifact({}))

@pytest.fixture(scope="session")
def cohort(scale):
    from types import SimpleNamespace
    return SimpleNamespace(
        scale=scale, seeds=(1, 2), width=4, sites=("s",), fingerprint="f", departures=()
    )

@pytest.fixture(scope="session")
def fits(store, scale):
    table(store, "fits", scale)

@pytest.fixture(scope="session")
def transfer(store, scale, fits):
    table(store, "transfer", scale)

@pytest.fixture(scope="session")
def lazily(request, store, scale):
    request.getfixturevalue("transfer")
"""
CLAIMS = """

# A fixture, and what it names; one that asks for what others set up before; the same again, and
# what the test itself asks for.
@claim("f.one")
def test_one(verdict, cohort, transfer):
    verdict({"a": 0.9, "b": 0.6}, over="pairs")

@claim("f.two")
def test_two(verdict, cohort, lazily):
    verdict(0.7)

@claim("g.null")
def test_null(verdict, cohort, lazily, store):
    table(store, "neurons", "none")
    store.get_or_build("toy-seeds", {}, lambda _: Artifact({}))
    verdict(0.8)
"""


@pytest.fixture
def tables(suite: Any) -> Any:
    (suite.claims / "test_small.py").write_text(suite.head + HEAD + CLAIMS)
    return suite


def behind(suite: Any) -> dict[str, Any]:
    return {f"{v['claim']}[{v['scale']}]": v["tables"] for v in suite.report()["verdicts"]}


def of(read: int, measured: int) -> dict[str, int]:
    return {"read": read, "measured": measured}


def test_each_claim_says_which_of_its_tables_were_measured(tables: Any) -> None:
    assert_outcomes(tables.run(*WITH), passed=4)
    # Also where an earlier claim measured what a later one uses; what is trained is no table.
    assert behind(tables) == {
        "f.one[toy_a]": of(0, 2),
        "f.one[toy_b]": of(0, 2),
        "f.two[toy_a]": of(0, 2),
        "g.null[toy_a]": of(0, 3),
    }
    for path in (tables.pytester.path / "cache" / "transfer").glob("*.safetensors"):
        path.unlink()
    assert_outcomes(tables.run(*WITH, "--scale=toy_a"), passed=3)
    assert behind(tables) == {
        "f.one[toy_a]": of(1, 1),
        "f.two[toy_a]": of(1, 1),
        "g.null[toy_a]": of(2, 1),
    }
    page = (tables.pytester.path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count("measured in this run: 1 of 2 tables</span>") == 2
    assert page.count("measured in this run: 1 of 3 tables</span>") == 1
    assert_outcomes(tables.run(*WITH), passed=4)
    assert behind(tables)["f.one[toy_b]"] == of(1, 1), "of toy_b it had to be measured again"
    assert behind(tables)["f.one[toy_a]"] == of(2, 0)


def test_a_claim_asked_alone_has_the_tables_it_has_among_others(tables: Any) -> None:
    tables.run(*WITH)
    together: dict[str, Any] = {}
    tables.run(*WITH)
    together |= behind(tables)
    for name in ("f.one", "f.two", "g.null"):
        tables.run(*WITH, "-k", name)
        alone = behind(tables)
        assert alone == {key: together[key] for key in alone}
        assert all(key.startswith(name) for key in alone)


def test_a_run_without_a_report_notes_them_for_others(tables: Any, tmp_path: Path) -> None:
    xml = tmp_path / "junit.xml"
    tables.run(*WITH[:6], "--artifacts=cache", f"--junitxml={xml}")
    assert "transfer/" in xml.read_text(encoding="utf-8")


def test_what_is_watched_ends_with_its_context() -> None:
    tally = Tally()
    with tally.watched() as outer:
        tally.note("fits", "1", read=True)
        with tally.watched() as inner:
            tally.note("fits", "2", read=False)
        tally.note("toy-seeds", "3", read=True)
    tally.note("fits", "4", read=True)
    assert (outer, inner) == ({("fits", "1"), ("fits", "2")}, {("fits", "2")})
