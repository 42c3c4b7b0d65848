"""Which figures a page has: what was judged is told from what was not, and what is no number is
refused."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.figures import Collector
from polyrot.judge.verdicts import Finding, Verdict
from polyrot.report import figures
from polyrot.report.figures import effects
from tests_unit.report import planted_figures as planted
from tests_unit.report.planted_record import HELD, finding, record_of


@pytest.mark.parametrize(
    "found",
    [
        finding("cosine.match", "toy_a", 0.52),
        replace(finding("cosine.match", "toy_a", HELD), outcome=Verdict.OUT_OF_REACH),
    ],
)
def test_what_was_held_against_a_bar_ran_whatever_came_of_it(found: Finding) -> None:
    assert found.outcome in (Verdict.UNDECIDED, Verdict.OUT_OF_REACH)
    lines = [text for _, text in figures.left_out(record_of(found), [])]
    assert "Decoder cosine (toy_a): left out, no claim that ran at this scale measures it" in lines


@pytest.mark.parametrize(
    ("outcome", "drawn"),
    [(Verdict.UNDECIDED, True), (Verdict.OUT_OF_REACH, True), (Verdict.NOT_RUN, False)],
)
def test_power_is_shown_beside_any_judged_haar_test(outcome: Verdict, drawn: bool) -> None:
    record = record_of(finding("cosine.match", "toy_a", HELD))
    record["verdicts"][0] |= {"claim": "haar.phases", "outcome": outcome.value}
    kinds = [figures.kind_of(value).name for value in figures.standing(record)]
    assert ("haar_power" in kinds) is drawn


@pytest.mark.parametrize("level", [0.5, float("nan"), float("-inf")])
def test_a_figure_with_a_value_that_is_no_number_is_refused_where_it_is_collected(
    level: float,
) -> None:
    collector = Collector(SimpleNamespace(stash=pytest.Stash(), workeroutput={}))
    table = planted.attributions()
    table.measured[0, 0] = level
    given = {"cohort": planted.COHORT, "attributions": table}
    item: Any = SimpleNamespace(funcargs=given, get_closest_marker=lambda _: True)
    collector.pytest_runtest_teardown(item)
    figures_found, failures = collector.gathered().figures, collector.gathered().failures
    if level == 0.5:
        assert figures_found == (effects.Effects.of_attributions("toy_a", table),)
        assert failures == ()
    else:
        assert figures_found == ()
        (text,) = failures
        assert re.fullmatch(
            rf"attributions, toy_a: ValueError: Effects\.panels\S+ is {level}", text
        )
