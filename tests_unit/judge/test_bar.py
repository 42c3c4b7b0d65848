"""Bars: what they must not be, what satisfies them, how they are shown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from polyrot.judge.bar import Bar, RegistrationError


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"equals": 1.0, "at_least": 0.0},
        {"at_least": 0.0, "above": 0.0},
        {"at_most": 0.0, "below": 0.0},
        {"at_least": 1.0, "at_most": 0.0},
        {"above": 1.0, "at_most": 1.0},
        {"at_least": math.inf},
        {"at_least": True},
    ],
)
def test_what_a_bar_must_not_be(limits: dict[str, float]) -> None:
    with pytest.raises(RegistrationError):
        Bar(**limits)


@pytest.mark.parametrize(
    ("bar", "inside", "outside", "text"),
    [
        (Bar(equals=104448), [104448], [104447, 104448.5], "= 104448"),
        (Bar(at_least=0.96), [0.96, 1], [0.959999], "≥ 0.96"),
        (Bar(at_most=0.96), [0.96, 0], [0.960001], "≤ 0.96"),
        (Bar(above=0.0), [1e-300], [0.0, -1], "> 0"),
        (Bar(below=0.0), [-1e-300], [0.0, 1], "< 0"),
        (Bar(at_least=0.35, at_most=0.7), [0.35, 0.7], [0.34, 0.71], "0.35 … 0.7"),
        (Bar(above=0.35, at_most=0.7), [0.36, 0.7], [0.35, 0.71], "> 0.35, ≤ 0.7"),
    ],
)
def test_bar(bar: Bar, inside: list[float], outside: list[float], text: str) -> None:
    assert all(bar.satisfied(x) for x in inside)
    assert not any(bar.satisfied(x) for x in outside)
    assert bar.describe() == text
    for x in outside:
        assert bar.worst([inside[0], x, inside[-1]]) == 1


def test_a_bar_does_not_judge_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="cannot be judged"):
        Bar(at_least=0.0).satisfied(math.nan)


def test_the_value_on_a_strict_limit_is_worse_than_one_on_a_loose_limit() -> None:
    assert Bar(above=0.0, at_most=5.0).worst([5.0, 0.0, 2.0]) == 1


@given(
    st.lists(st.floats(-10, 10), min_size=1, max_size=20),
    st.sampled_from([Bar(at_least=0.5), Bar(below=0.5), Bar(above=-1, at_most=1), Bar(equals=1)]),
)
def test_all_values_are_within_the_bar_exactly_if_the_worst_is(
    values: list[float], bar: Bar
) -> None:
    assert bar.satisfied(values[bar.worst(values)]) == all(bar.satisfied(x) for x in values)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_shown_value_is_on_its_side_of_the_bar(limit: float, x: float) -> None:
    bar = Bar(at_least=limit)
    assert bar.satisfied(float(bar.show(x))) == bar.satisfied(x)
