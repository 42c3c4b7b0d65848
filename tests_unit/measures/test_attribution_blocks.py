"""What blocks of sequences say of attribution: each left out in turn, and intervals from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from polyrot.maps.correlation import Correlation
from polyrot.measures import component_effects
from polyrot.measures.attribution import Table
from polyrot.measures.component_effects import (
    integrated_gradients,
    loss_along_path,
    mean_ablation_by_block,
)
from polyrot.measures.published_attribution import Signs, published_signs
from tests_unit.measures.test_attribution import COMPONENTS, TOKENS, Planted


def test_without_a_block_is_the_batch_without_its_sequences() -> None:
    cohort = Planted(lambda s: s.sin())
    blocks = mean_ablation_by_block(cohort, 0, TOKENS)
    assert len(blocks.values) >= component_effects.BLOCKS
    size = len(TOKENS) // component_effects.BLOCKS
    rest = torch.cat([TOKENS[:size], TOKENS[2 * size :]])
    wanted = mean_ablation_by_block(cohort, 0, rest).mean
    torch.testing.assert_close(blocks.without_each()[1], wanted, atol=1e-6, rtol=1e-6)
    ig = integrated_gradients(cohort, 0, TOKENS, 4)
    again = integrated_gradients(cohort, 0, rest, 4)
    torch.testing.assert_close(ig.without[1, 0], again.effects, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ig.without[1, 1], again.measured, atol=1e-6, rtol=1e-6)
    path, without = loss_along_path(cohort, 0, TOKENS)
    alone, _ = loss_along_path(cohort, 0, rest)
    assert path.orders().shape == (len(COMPONENTS),)
    torch.testing.assert_close(without.orders()[1], alone.orders(), atol=1e-6, rtol=1e-6)


def planted_table(r: Sequence[float], without: np.ndarray) -> Table:
    """A table whose correlations, and those without each block, are given."""
    found = tuple(Correlation(x, 10, (-1.0, 1.0), (-1.0, 1.0)) for x in r)
    n, orders = len(r), np.tile([2.0, 2.1, 2.2], (len(r), 1))
    rest = np.stack([orders - 0.1, orders + 0.1] * 4, 1)
    return Table(
        tuple(range(n)),
        ("a", "b", "c"),
        orders,
        orders,
        found,
        found,
        (),
        orders,
        without,
        without,
        rest,
        np.ones((n, 8, 2, 3)),
        (),
    )


def test_intervals_come_of_the_blocks() -> None:
    r = [-0.8, -0.1, 0.1, 0.9]
    wide = np.array([0.02, -0.02] * 4)
    table = planted_table(r, np.array(r)[:, None] + wide)
    share = table.anticorrelating()
    # Of four, two are negative; those near 0 may have either sign.
    assert share.values[0] == 0.5
    assert share.interval(0) == (0.25, 0.75, "sequences")
    found = table.uncorrelated()
    assert found.values.tolist() == pytest.approx(np.abs(r))
    ends = found.interval(1)
    assert ends is not None
    assert ends.low == 0, "|r| has no negative end"
    last = found.interval(0)
    assert last is not None
    assert 0.5 < last.low < 0.8 < last.high < 0.95
    # On Fisher's scale, on which a correlation of 0.999 is as uncertain as one of 0.
    z = np.arctanh(0.999) + np.array([0.1, -0.1] * 4)
    high = planted_table([0.999], np.tanh(z)[None]).uncorrelated().interval(0)
    half = scipy.stats.t.ppf(0.975, 7) * (7 / 8 * 8 * 0.1**2) ** 0.5
    assert high is not None
    assert (high.low, high.high) == pytest.approx(
        np.tanh(np.arctanh(0.999) + half * np.array([-1, 1]))
    )
    order = table.order_of_error().interval(0)
    error = (7 / 8 * 8 * 0.1**2) ** 0.5
    assert order is not None
    assert order.high == pytest.approx(2.1 + scipy.stats.t.ppf(0.975, 7) * error)
    assert table.signs() == Signs(4, 2, 1, 3, {f"r_{i}": x for i, x in enumerate(r)})
    sure = planted_table(r, np.repeat(np.array(r)[:, None], 8, 1)).anticorrelating()
    assert sure.interval(0) == (0.5, 0.5, "sequences")


def test_what_is_predicted_of_an_effect_loses_blocks_of_all_models_together() -> None:
    table = planted_table([0.1, 0.2, 0.3], np.zeros((3, 8)))
    measured = np.tile([2.0, 4.0, 8.0], (3, 1))
    predicted = measured * np.array([[0.01], [0.05], [0.2]]) * np.array([-1.0, 1.0, 2.0])
    noise = np.exp([0.1, -0.1] * 4)[None, :, None]
    without = np.stack([predicted[:, None] * noise, np.repeat(measured[:, None], 8, 1)], 2)
    found = replace(
        table, predicted=predicted, measured=measured, effects_without=without
    ).falls_short()
    assert found.values[0] == pytest.approx(0.05)
    assert [found.beside[f"median_{i}"] for i in range(3)] == pytest.approx([0.01, 0.05, 0.2])
    ends = found.interval(0)
    half = scipy.stats.t.ppf(0.975, 7) * (7 / 8 * 8 * 0.1**2) ** 0.5
    assert ends is not None
    assert (ends.low, ends.high) == pytest.approx((0.05 * np.exp(-half), 0.05 * np.exp(half)))


def test_a_majority_is_told_from_a_coin_by_its_count() -> None:
    for negative, p in ((5, 1 / 32), (4, 6 / 32), (3, 0.5), (0, 1.0)):
        assert Signs(5, negative, negative, negative, {}).majority().values[0] == pytest.approx(p)
    found = Signs(5, 4, 3, 5, {"r_0": 0.1}).majority()
    assert found.interval(0) == pytest.approx((1 / 32, 0.5, "sequences"))
    assert found.beside == {"r_0": 0.1, "negative": 4.0}
    published = published_signs().majority()
    assert published.values[0] == 0.5
    assert published.interval(0) is None
    assert "no model" in str(published.beside["demonstration"])
