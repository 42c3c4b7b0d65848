"""The curve of siblings along training shows what was measured, by site."""

from __future__ import annotations

import pytest

from polyrot.report import figures
from tests_unit.report import planted_figures as planted


def test_growth_is_drawn_by_site_and_its_trend_is_said() -> None:
    value = planted.growth()
    lines = {panel.name: panel.curves for panel in value.panels}
    assert [line.name for line in lines["variances"]] == list(planted.COHORT.internal)
    assert lines["variances"][0].mean == pytest.approx((1.0, 1.5, 3.0), abs=0.02)
    assert lines["pointwise_ev"][0].low[0] < 0.6 < lines["pointwise_ev"][0].high[0]
    assert value.trend == (1.0, 1.0)
    assert (value.lowest, value.highest) == ((0.8, 0.95, 0.99), (0.9, 0.99, 1.0))
    words = value.words()
    assert "toy_a (seeds of the pipeline): n = 2 pairs at each of 3 steps" in words.caption
    assert "by site: mid_0 1.00; post_0 1.00." in words.caption
    assert planted.growth("").words().caption.startswith("toy_a: n = ")
    axes = figures.KINDS["growth"].draw(value).axes
    assert len(axes) == 5
    drawn = axes[0].containers[0].lines[0].get_ydata()
    assert list(drawn) == list(lines["pointwise_ev"][0].mean)
