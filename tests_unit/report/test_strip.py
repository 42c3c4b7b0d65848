"""Strips: values on their axis, with the bar, and the worst of them."""

from __future__ import annotations

import re

import pytest

from polyrot.judge.bar import Bar
from polyrot.report.strip import WIDTH, strip


def places(svg: str, kind: str) -> list[float]:
    found = re.findall(rf'class="{kind}[^"]*" d="M([\d.]+)', svg)
    return [float(x) for x in found]


def test_a_strip_shows_values_bar_and_worst() -> None:
    svg = strip(Bar(at_least=0.5), 0.25, [0.25, 0.5, 0.75], (0.3, 0.6))
    low, middle, high = places(svg, "value")
    assert places(svg, "limit") == [middle]
    assert places(svg, "worst") == [low]
    assert middle - low == pytest.approx(high - middle)
    assert 'class="worst miss"' in svg
    region = re.search(r'class="met" x="([\d.]+)" y="3" width="([\d.]+)"', svg)
    assert region is not None
    assert float(region[1]) == middle
    assert float(region[1]) + float(region[2]) == pytest.approx(WIDTH, abs=0.1)
    numbers = re.findall(r'<text class="(\w+)" x="([\d.]+)" y="\d+">([^<]+)<', svg)
    assert [(kind, text) for kind, _, text in numbers] == [
        ("bar", "0.5"), ("end", "0.25"), ("end", "0.75")
    ]  # fmt: skip
    assert float(numbers[0][1]) == middle, "under its line"
    assert "of 3 values 0.25 decides, all from 0.25 to 0.75, bar ≥ 0.5, its 95 % interval" in svg


def test_an_interval_that_is_open_goes_to_the_edge() -> None:
    svg = strip(Bar(at_least=2, at_most=8), 4.0, [4.0], (4.0, float("inf")))
    assert re.findall(r'class="interval" d="M([\d.]+) 9v8M\1 13H(\w+)"', svg) == [
        (f"{places(svg, 'worst')[0]:.1f}", f"{WIDTH}")
    ]
    assert "its 95 % interval at least 4" in svg
    assert "inf" not in svg


@pytest.mark.parametrize(
    ("bar", "worst", "met"),
    [
        (Bar(below=0.001), 0.05, "miss"),
        (Bar(at_least=1e-6), 8e-15, "miss"),
        (Bar(equals=104448), 104448.0, "ok"),
        (Bar(at_least=0.8, at_most=1.25), 0.97, "ok"),
        (Bar(below=0), -3.0, "ok"),
        (Bar(equals=1), 0.0, "miss"),
    ],
)
def test_a_strip_of_any_bar_stays_in_its_cell(bar: Bar, worst: float, met: str) -> None:
    svg = strip(bar, worst)
    assert f'class="worst {met}"' in svg
    assert all(0 <= x <= WIDTH for x in places(svg, "limit") + places(svg, "worst"))


def test_far_apart_values_of_one_sign_are_told_apart() -> None:
    svg = strip(Bar(at_least=1e-6), 1e-12, [1e-12, 1e-9, 1e-6])
    low, middle, high = places(svg, "value")
    assert middle - low == pytest.approx(high - middle), "decades, not differences"


def test_numbers_on_an_axis_are_told_apart() -> None:
    svg = strip(Bar(at_least=0.999), 0.9993, [], (0.9986, 0.9997), 1.0)
    assert re.findall(r"<text[^>]*>([^<]+)<", svg) == ["0.999", "0.9986", "1"]
    assert ">0</text>" in strip(Bar(at_most=0.5), 1.0, [], None, -3e-16)
    assert "104448" in strip(Bar(equals=104448), 104448.0), "a bar in its own digits"
    assert "logarithmic axis" in strip(Bar(at_least=1e-6), 1e-12)
