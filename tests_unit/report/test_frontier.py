"""The page of pairs at the frontier: what it is worked out from is what it says was run."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyrot.report import frontier
from polyrot.streaming.budget import Models

PAGE = Path(__file__).parents[2] / "docs" / "frontier.md"


def rows(heading: str) -> list[dict[str, str]]:
    """Of the page's table under this line of headings, cells by heading."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    names, found = cells(heading), []
    for line in lines[lines.index(heading) + 2 :]:
        if not line.startswith("|"):
            break
        found.append(dict(zip(names, cells(line), strict=True)))
    return found


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def share(text: str) -> float:
    return int(text.removesuffix("%")) / 100


def test_shares_of_a_pass_are_those_that_were_run() -> None:
    ran = {
        (int(row["d"].replace(",", "")), row["products in"]): share(row["of bare products"])
        for row in rows(
            "| d | products in | covariances | ranks | tokens | sums, MiB | held, MiB | GFLOP/s "
            "| of bare products | error |"
        )
        if row["covariances"] == "yes" and row["ranks"] == "1"
    }
    assert ran == frontier.PASS


def test_the_share_of_a_fit_is_that_of_the_largest_that_was_run() -> None:
    ran = rows("| d | covariances | fits | s a fit | GFLOP/s | of bare products |")
    largest = max(int(row["d"].replace(",", "")) for row in ran)
    found = {
        row["covariances"] == "yes": share(row["of bare products"])
        for row in ran
        if row["d"] == f"{largest:,}"
    }
    assert found == frontier.FIT


def table() -> list[list[str]]:
    return [cells(line) for line in frontier.frontier().splitlines() if line.startswith("| two")]


def test_each_size_has_a_row_with_covariances_and_without() -> None:
    found = table()
    assert len(found) == 2 * len(frontier.ASKED)
    assert {len(row) for row in found} == {10}
    for row in found:
        passes, fit, moving, hours = map(float, row[-4:])
        assert hours == pytest.approx((passes + fit + moving) / 60, abs=0.01)


def test_eight_ranks_share_the_passes_and_fit_as_one_does() -> None:
    by_name = {tuple(row[:3]): row for row in table()}
    one, eight = (by_name[f"two 8B, {n}", "all 33", "yes"] for n in ("1 rank", "8 ranks"))
    assert float(eight[6]) == pytest.approx(float(one[6]) / 8, abs=0.06)
    assert eight[7] == one[7]
    assert eight[4] == one[4]


def test_what_is_measured_decides_the_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    before = frontier.needed(frontier.EIGHT, 1)
    for key, value in frontier.PASS.items():
        monkeypatch.setitem(frontier.PASS, key, value / 2)
    halved = frontier.needed(frontier.EIGHT, 1)
    of_products = before.products / (
        2 * frontier.PASS[4096, "float64"] * frontier.BARE * frontier.PEAK_PRODUCTS * 3600
    )
    assert halved.passes - before.passes == pytest.approx(of_products)
    monkeypatch.setitem(frontier.FIT, True, frontier.FIT[True] / 2)
    assert frontier.needed(frontier.EIGHT, 1).fitting == pytest.approx(2 * before.fitting)


def test_another_width_has_no_measured_share() -> None:
    with pytest.raises(KeyError):
        frontier.needed(Models(1e9, 2048, 3), 1)
