"""The page: everything is on it, nothing comes from elsewhere, and what is data stays text."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures import workers
from fixtures.figures import Collector
from polyrot.report import figures
from polyrot.report.__main__ import main
from polyrot.report.figures.reconstruction import EVBySite
from polyrot.report.gathered import CohortFacts
from polyrot.report.html import render, write_page
from polyrot.report.record import write_record
from polyrot.report.sources import Source
from tests_unit.report import planted_figures as planted
from tests_unit.report.page import Page, contrast, palettes
from tests_unit.report.planted_record import (
    HELD,
    REFUTED,
    REGISTRATION,
    finding,
    not_run,
    record_of,
)

VALUES = [
    {"label": label, "value": value, "interval": None, "ceiling": None}
    for label, value in (("a", 0.9), ("b", 0.6))
]
FINDINGS = (
    finding("cosine.match", "toy_a", [HELD, 0.9]),
    finding("cosine.noise_control", "toy_a", REFUTED),
    finding("naive.fails", "toy_a", [REFUTED, 0.9]),
    finding("naive.shift_control", "toy_a", HELD),
    not_run("cosine.match", "neox"),
)


TESTS = {
    "cosine.match": Source(
        "claims/test_cosine.py", "test_match", 7, "def test_match(a):\n    a < 1"
    ),
}


def page_of(record: dict[str, Any], failures: tuple[str, ...] = ()) -> Page:
    return Page(render(record, [], [], failures, TESTS))


@pytest.fixture(scope="module")
def page() -> Page:
    return page_of(record_of(*FINDINGS), ("steering, toy_a: ValueError: no",))


def test_the_page_is_well_formed(page: Page) -> None:
    assert page.balanced
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert Counter(ids).most_common(1)[0][1] == 1
    for _, attributes in page.elements:
        for key in ("aria-labelledby", "href"):
            target = attributes.get(key) or ""
            if target and (key == "aria-labelledby" or target.startswith("#")):
                assert set(target.lstrip("#").split()) <= set(ids), f"{key} {target}"


def test_nothing_comes_from_elsewhere(page: Page) -> None:
    assert not [a for t, a in page.elements if t in ("link", "img", "iframe") or "src" in a]
    links = {a["href"] for a in page.all("a")} - {None}
    assert [link for link in links if str(link).startswith("http")] == [
        "https://arxiv.org/abs/2605.24577"
    ]
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert str(policy).startswith("default-src 'none'")


def test_every_claim_has_its_row(page: Page) -> None:
    rows = [a for a in page.all("tr") if "data-verdict" in a]
    found = [(row["data-scale"], row["data-verdict"]) for row in rows]
    assert found == [
        ("toy_a", "not diagnostic"),
        ("toy_a", "refuted"),
        ("neox", "not run"),
        ("toy_a", "refuted"),
        ("toy_a", "held"),
    ], "by family, what did not run after what did"
    words = page.words()
    for text in (
        "0.75 worst of 2: seeds 0 → 1",
        "≥ 0.5",
        "control fails",
        "control holds",
        "no cohort at neox; to run it: get neox",
        "but the control cosine.noise_control[toy_a] fails",
        "95 %: 0.7 to 0.8, sequences",
        "Figure left out, steering, toy_a: ValueError: no.",
    ):
        assert text in words


def test_headings_are_in_order_and_controls_have_labels(page: Page) -> None:
    levels = [int(t[1]) for t, _ in page.elements if re.fullmatch("h[1-6]", t)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    for tag in ("input", "select"):  # inside of their labels
        within = [t for t, _ in page.elements if t in ("label", tag)]
        assert all(within[i - 1] == "label" for i, t in enumerate(within) if t == tag)


def test_the_answer_comes_first(page: Page) -> None:
    record = record_of(*FINDINGS)
    words = page.words()
    places = [words.index(" ".join(text.split())) for text in record["conclusion"]]
    assert places == sorted(places)
    assert places[-1] < words.index("2 core claims")
    assert words.index("2 core claims") < words.index("Claims of cosine")


def test_the_grid_leads_to_every_row(page: Page) -> None:
    rows = [a["id"] for a in page.all("tr") if "data-verdict" in a]
    assert rows[0] == "cosine.match.toy_a"
    text = page.words()
    assert "not diagnostic: cosine.match at toy_a" in text
    assert "not run: cosine.match at neox" in text
    cells = {a["href"] for a in page.all("a") if "title" in a}
    assert cells == {f"#{row}" for row in rows}, "each claim at each scale, once"


def test_a_row_leads_to_its_test_its_registration_and_its_command(page: Page) -> None:
    links = [str(a["href"]) for a in page.all("a")]
    assert links.count("#cosine.match.toy_a") == 2, "the grid's, and the row's own"
    for target in ("#entry-cosine.match", "#test-cosine.match"):
        assert links.count(target) == 2, "from either scale"
    assert page.all("dl", id="entry-naive.fails"), "registered, if its test is not known"
    assert "#test-naive.fails" not in links
    words = page.words()
    assert "pytest 'claims/test_cosine.py::test_match[toy_a]' --scale toy_a" in words
    assert "claims/test_cosine.py , line 7 def test_match(a): a < 1" in words
    for text in ("from post, section 1", "status core claim", "scales in this run toy_a, neox"):
        assert text in words


def test_a_row_says_what_the_filter_asks(page: Page) -> None:
    row = page.all("tr", id="naive.shift_control.toy_a")[0]
    wanted = {"verdict": "held", "status": "control", "scale": "toy_a", "family": "naive"}
    assert {name: row[f"data-{name}"] for name in wanted} == wanted
    assert {a["name"] for a in page.all("input")} == {*wanted, "q"}


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_colours_can_be_told_from_their_ground(scheme: str) -> None:
    colours = palettes()[scheme]
    for ground in ("--paper", "--card"):
        for text in ("--ink", "--muted", "--link"):
            assert contrast(colours[text], colours[ground]) >= 4.5, f"{text} on {ground}"
        for shape in ("--held", "--refuted", "--empty", "--blue"):
            assert contrast(colours[shape], colours[ground]) >= 3, f"{shape} on {ground}"
    for shape in ("--held", "--refuted", "--empty"):
        assert contrast(colours["--on"], colours[shape]) >= 3, f"the stroke on {shape}"
    assert contrast("#000", "#fff") == pytest.approx(21)


def test_tables_speak_to_a_screen_reader(page: Page) -> None:
    """Roles are spelt out, since a narrow window's style takes the table's own away."""
    tables = page.all("table")
    grids = page.all("table", **{"class": "grid"})
    assert len(tables) == len(page.all("caption"))
    assert len(tables) == len(page.all("table", role="table")) + len(grids)
    assert all(a.get("scope") in ("row", "col") for a in page.all("th"))
    cells = [a for a in page.all("td") if a]  # those of a grid have no attributes
    assert all(a.get("role") == "cell" and a.get("data-label") for a in cells)
    assert page.all("p", id="shown")[0]["aria-live"] == "polite"
    assert page.all("html")[0]["lang"] == "en"


def test_a_verdict_is_told_by_word_and_shape(page: Page) -> None:
    used = {a["href"] for a in page.all("use")}
    shapes = {f"#{a['id']}" for a in page.all("symbol")}
    assert {"#held", "#refuted", "#not-diagnostic", "#not-run"} <= used <= shapes


def test_the_filter_needs_its_script_and_the_table_does_not(page: Page) -> None:
    assert "hidden" in page.all("form", id="filter")[0]
    assert not [a for a in page.all("tr") if "hidden" in a]
    boxes = [(a["name"], a["value"]) for a in page.all("input", type="checkbox")]
    assert boxes == [
        *(("verdict", v) for v in ("held", "refuted", "not diagnostic", "not run")),
        *(("status", v) for v in ("core", "control")),
        *(("scale", v) for v in ("toy_a", "neox")),
        *(("family", v) for v in ("cosine", "naive")),
    ]
    assert not [a for a in page.all("input") if "checked" in a], "nothing asked shows all"


def test_data_stays_text() -> None:
    nasty = "<script>alert(1)</script> & \"quotes\" 'here'"
    first, *others = REGISTRATION.claims
    claims = (replace(first, says=nasty, paper=nasty, measures=nasty), *others)
    registration = replace(REGISTRATION, claims=claims)
    found = replace(finding("cosine.match", "toy_a", HELD), label=nasty, why=nasty)
    record = record_of(found, registration=registration, commit=nasty, device_name=nasty)
    record["conclusion"][0] = nasty
    made = page_of(record, (nasty,))
    assert made.balanced
    assert len(made.all("script")) == 1, "the page's own"
    assert made.words().count("<script>alert(1)</script>") >= 7


def test_provenance(page: Page) -> None:
    words = page.words()
    for text in (
        REGISTRATION.sha256,
        "abc1234567",
        "torch 2.6.0",
        "cosine 1.2 s",
        "f" * 64,
        "toy toy_a-seed0",
        "1 shipped artifacts",
    ):
        assert text in words


def test_what_was_read_and_what_was_measured_is_said() -> None:
    tables = {"read": {"measured": 3, "drift": 2}, "measured": {"transfer": 1, "steering": 4}}
    words = page_of(record_of(*FINDINGS, tables=tables)).words()
    assert "5 read as they were kept, 5 measured in this run: 1 transfer, 4 steering" in words
    assert "What rests on tables measured in this run says so" in words
    none = page_of(record_of(*FINDINGS, tables={"read": {"drift": 2}, "measured": {}})).words()
    assert "All tables behind the figures were read as they were kept" in none
    older = page_of(record_of(*FINDINGS)).words()  # of an earlier version
    assert "--remeasure" not in older
    assert "they were kept" not in older


def test_other_bars_are_said_loudly() -> None:
    other = replace(REGISTRATION, sha256="0" * 64)
    words = page_of(record_of(*FINDINGS, registration=other)).words()
    assert "Not judged against the registered bars." in words
    assert "NOT the registered bars" in words


@pytest.mark.slow  # every figure is drawn
def test_the_whole_report(tmp_path: Path) -> None:
    record = record_of(*FINDINGS)
    write_record(tmp_path, record, "")
    parts = [planted.ev_by_site(), planted.tradeoff()]  # the second without its section
    assert write_page(tmp_path, record, parts) == []
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert len(text) < 3_000_000
    made = Page(text)
    assert made.balanced
    names = [a["id"] for a in made.all("figure")]
    assert names == ["claims_and_controls_all", "ev_by_site_toy_a"], "no section for the other"
    assert made.words().count("left out, no claim of steering ran") == 0
    assert "Decoder cosine (toy_a): left out, no claim that ran at this scale" in made.words()
    scroll = made.all("div", **{"class": "scroll"})
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in scroll), "reached by keyboard"
    # the same page from the files alone
    again = tmp_path / "again"
    assert main(["html", str(tmp_path / "verdicts.json"), "-o", str(again)]) == 0
    assert (again / "index.html").read_text(encoding="utf-8") == text
    assert sorted(p.name for p in (again / "figures").iterdir()) == sorted(
        f"{name}.{kind}" for name in (*names, "tradeoff_toy_a") for kind in ("svg", "pdf")
    )


# ------------------------------------------------------------------- from a run, by its fixtures

RUN = """
import pytest
from polyrot.measured import Measured
from polyrot.report.sources import Source
from tests_unit.report import planted_figures as planted
from tests_unit.report.page import Page, contrast, palettes

claim = pytest.mark.claim

@pytest.fixture(scope="session")
def cohort(scale):
    return planted.COHORT

@pytest.fixture(scope="session")
def transfer(cohort):
    return planted.transfer()

@pytest.fixture(scope="session")
def steering(cohort):
    return "not what a figure can be drawn from"
"""


def test_a_run_hands_its_figures_over(suite: Any) -> None:
    suite.write(
        head=RUN,
        f__one='request.getfixturevalue("transfer"); verdict({"a": 0.9, "b": 0.6}, over="pairs")',
        f__two='request.getfixturevalue("steering"); verdict(0.7)',
    )
    # only what a test asks for by name is looked at: no fixture is made for a figure's sake
    source = (suite.claims / "test_small.py").read_text()
    source = source.replace("test_f_one(verdict,", "test_f_one(verdict, transfer,")
    source = source.replace("test_f_two(verdict,", "test_f_two(verdict, steering,")
    (suite.claims / "test_small.py").write_text(source)
    result = suite.run("--report=out", "--scale=toy_a", "-p", "fixtures.figures")
    result.stdout.fnmatch_lines(["figure left out: steering, toy_a: AttributeError: *"])
    out = suite.pytester.path / "out"
    values, failures = figures.read_values(out / "figures.json")
    (found,) = [v for v in values if figures.kind_of(v).name == "ev_by_site"]
    assert found == EVBySite.of(planted.COHORT, planted.transfer())
    assert len(failures) == 1
    record = suite.report()
    assert record["run"]["cohorts"][0]["seeds"] == [0, 1, 2]
    assert set(record["run"]["seconds"]) == {"f", "g"}
    one = next(v for v in record["verdicts"] if v["claim"] == "f.one")
    assert one["values"] == VALUES
    assert "ev_by_site" not in (out / "index.html").read_text(), "no section of its families"


def test_workers_send_what_they_gathered_home() -> None:
    there = SimpleNamespace(stash=pytest.Stash(), workerinput={}, workeroutput={})
    here = SimpleNamespace(stash=pytest.Stash())
    worker, home = Collector(there), Collector(here)
    worker.figures["toy_a", "joint"] = planted.tradeoff()
    worker.failures["toy_a", "steering"] = "steering, toy_a: ValueError: no"
    worker.cohorts["toy_a"] = CohortFacts.of(planted.COHORT)
    workers.pytest_sessionfinish(SimpleNamespace(config=there))
    workers.pytest_testnodedown(SimpleNamespace(config=here, workeroutput=there.workeroutput))
    workers.pytest_testnodedown(SimpleNamespace(config=here))  # a worker that crashed sends nothing
    found = home.gathered()
    assert found.figures == (planted.tradeoff(),)
    assert found.failures == ("steering, toy_a: ValueError: no",)
    assert found.cohorts == (CohortFacts.of(planted.COHORT),)
    assert any(entry["name"].startswith("toy_a") for entry in found.shipped)


def test_no_figure_is_thought_of_without_a_report(suite: Any) -> None:
    suite.write(head=RUN)
    result = suite.run("--scale=toy_a", "-p", "fixtures.figures")
    assert result.ret == pytest.ExitCode.OK
    assert not (suite.pytester.path / "out").exists()


def test_junit_properties_are_readable_one_by_one(suite: Any) -> None:
    suite.write(g__null="verdict(0.1)")
    suite.run("--junitxml=junit.xml", "--scale=toy_a")
    text = (suite.pytester.path / "junit.xml").read_text()
    cases = re.findall(r"<testcase .*?</testcase>", text, flags=re.S)
    (one,) = [case for case in cases if 'value="f.one"' in case]
    found = dict(re.findall(r'<property name="(\w+)" value="([^"]*)"', one))
    wanted = {
        "claim": "f.one",
        "scale": "toy_a",
        "status": "core",
        "verdict": "held",
        "measured": "0.6",
        "bar": "≥ 0.5",
        "paper": "0.9",
    }
    assert {key: found[key] for key in wanted} == wanted
    values = json.loads(found["values"].replace("&quot;", '"'))
    assert values == VALUES


def test_a_junit_verdict_knows_the_controls_that_are_known(suite: Any) -> None:
    suite.write(g__null="verdict(0.1)")
    suite.run("--update-verdicts")
    suite.run("--junitxml=junit.xml", "--scale=toy_a")
    text = (suite.pytester.path / "junit.xml").read_text()
    assert text.count('name="verdict" value="not diagnostic"') == 1
    assert text.count('name="verdict" value="control fails"') == 1
