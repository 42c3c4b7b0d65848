"""The page in a browser: accessible, nothing asked of the network, what one chose in its address.

Skipped where there is no browser to ask; `pip install -e ".[browser]"` and a Chromium of the system
or of `playwright install chromium` lift that.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polyrot.report.html import write_page
from tests_unit.report import planted_figures as planted
from tests_unit.report.planted_record import HELD, REFUTED, finding, not_run, record_of

HOW = 'pip install -e ".[browser]"'
driver = pytest.importorskip("playwright.sync_api", reason=f"no playwright: {HOW}")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=f"no axe-core: {HOW}")
WIDTHS = (1280, 768, 390)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with driver.sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=found, args=arguments)
        except driver.Error as error:
            reason = str(error).strip().splitlines()[0]
            pytest.skip(f"no Chromium ({reason}): playwright install chromium")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("page")
    record = record_of(
        finding("cosine.match", "toy_a", [HELD, 0.9], departures=("fewer steps",)),
        finding("cosine.match", "toy_b", HELD),
        finding("cosine.noise_control", "toy_a", REFUTED),
        finding("naive.fails", "toy_a", [REFUTED, 0.9]),
        not_run("cosine.match", "neox"),
    )
    assert write_page(folder, record, [planted.ev_by_site()]) == []
    return (folder / "index.html").as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing(browser: Any, address: str, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    found = axe.Axe().run(page)
    page.close()
    assert found.response["passes"], "axe looked at something"
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(browser: Any, address: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cards = page.evaluate("getComputedStyle(document.querySelector('.claims thead')).position")
    assert (cards == "absolute") == (width < 66 * 16), "cards below 66rem"
    page.close()


def test_nothing_is_asked_of_the_network(browser: Any, address: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    page.close()
    assert asked == [address]
    assert wrong == []


def _shown(page: Any) -> list[str]:
    rows = page.locator("tr[data-verdict]:visible")
    return [row.get_attribute("id") for row in rows.all()]


def test_what_one_chose_is_in_the_address(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    assert len(_shown(page)) == 5
    page.check("input[name=status][value=core]")
    page.check("input[name=verdict][value='not diagnostic']")
    page.check("input[name=verdict][value='refuted']")
    page.select_option("select[name=sort]", "verdict")
    assert _shown(page) == ["naive.fails.toy_a", "cosine.match.toy_a"], "refuted before"
    page.fill("input[name=q]", "match cosine")
    assert _shown(page) == ["cosine.match.toy_a"]
    assert "1 of 5 shown" in page.inner_text("#shown")
    again = browser.new_page()
    again.goto(page.url)
    assert _shown(again) == ["cosine.match.toy_a"]
    again.click("button[type=reset]")
    again.wait_for_function("!location.search")
    assert len(_shown(again)) == 5
    again.goto(f"{address}?family=naive&scale=toy_a")
    assert _shown(again) == ["naive.fails.toy_a"]
    again.close()
    page.close()


def test_a_link_shows_what_it_leads_to(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 700})
    page.goto(f"{address}?family=naive#cosine.match.neox")
    assert page.locator("tr[id='cosine.match.neox']").is_visible(), "though the filter hid it"
    page.goto(f"{address}#entry-naive.fails")
    assert page.locator("dl[id='entry-naive.fails']").is_visible(), "though it was folded"
    page.close()


def test_on_paper_the_claims_are_a_table_without_controls(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 700, "height": 900}, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(address)
    for hidden in ("#filter", "#sources", ".links"):
        assert not page.locator(hidden).first.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('tr[data-claim]')).display") == (
        "table-row"
    )
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    page.close()


def test_on_paper_what_is_folded_is_shown(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.emulate_media(media="print")
    page.goto(address)
    controls = page.locator(".more .grid", has_text="noise_control")
    assert controls.evaluate("grid => grid.checkVisibility({contentVisibilityAuto: true})")
    assert page.locator("td summary", has_text="1 departure from").is_visible()
    assert not page.locator("th summary").first.is_visible(), "commands are for the screen"
    page.close()


def test_on_paper_a_choice_is_said(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.emulate_media(media="print")
    page.goto(f"{address}?verdict=refuted&q=naive")
    assert page.inner_text("#shown").endswith(
        "1 of 5 shown (a claim at one scale each): refuted, “naive”"
    )
    assert page.locator("#shown").is_visible()
    for hidden in ("button[type=reset]", "input[type=search]", "fieldset"):
        assert not page.locator(hidden).first.is_visible()
    page.close()
