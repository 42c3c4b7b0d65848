"""Shared features, and what Monte-Carlo error leaves open of them, on planted features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from polyrot.haar.battery import holm
from polyrot.haar.orthogonal import sample_haar
from polyrot.measured import PairSite
from polyrot.measures.haar import whitened as measured
from tests_unit.measures.haar.planted import SITES, PlantedCohort


def features(shared: bool, seed: int, d: int = 12, tokens: int = 2_000) -> PlantedCohort:
    """Models in bases of their own, with graded Gaussian features: the same, or each its own."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** -np.linspace(0, 1, d)
    drawn = {}
    for site in SITES:
        own = rng.standard_normal((3, tokens, d))
        common = rng.standard_normal((tokens, d)) + 0.05 * own if shared else own
        drawn[site] = torch.from_numpy(common * scale @ sample_haar(d, 3, rng) + 3.0)
    return PlantedCohort(drawn)


def test_shared_features_show_with_matched_tokens_only() -> None:
    found = measured.shared_features(features(True, 32), None, SITES, variance=1.0)
    assert found.values.tolist() == [1.0]
    assert found.interval(0) is None, "enough is drawn to decide every map"
    assert found.beside["matched_rejected"] == 1
    assert found.beside["shuffled_rejected"] == 0
    assert found.beside["rank_pre_0"] == 12
    assert found.ceilings == (1.0,)


def test_unrelated_features_show_with_neither() -> None:
    found = measured.shared_features(features(False, 33), None, SITES, variance=1.0)
    assert found.values.tolist() == [0.0]
    assert found.beside["matched_rejected"] == found.beside["shuffled_rejected"] == 0
    assert found.ceilings == (1.0,), "the anchor's features are found in a copy of it"


def test_whitened_maps_are_those_of_shared_features() -> None:
    cohort = features(True, 34)
    found = measured.whitened_maps(cohort, None, SITES, variance=1.0)
    asked = measured.shared_features(cohort, None, SITES, variance=1.0)
    assert holm(found.p.values).max() == asked.beside["largest_matched_p"]
    assert measured.rejected(found.p.values).mean() == asked.beside["matched_rejected"] == 1
    assert found.rank.values.tolist() == [[12.0, 12.0]] * 2
    assert found.p.pairs == ("0-1", "0-2")


def test_untrained_siblings_are_counted_against_trained_ones() -> None:
    shared, unshared = (
        measured.whitened_maps(features(which, 35), None, SITES, variance=1.0)
        for which in (True, False)
    )
    for trained, untrained, wanted in ((shared, unshared, 1.0), (shared, shared, 0.0)):
        found = measured.rejected_beyond_untrained(trained, untrained)
        assert found.values.tolist() == [wanted]
        assert found.beside["trained_rejected"] == 1
        assert found.beside["untrained_rejected"] == 1 - wanted
        assert found.beside["rank_untrained_pre_0"] == 12
        assert not found.ceilings
        assert found.interval(0) is None
        assert found.counts["draws"] == 20_000
    assert measured.rejected_beyond_untrained(unshared, shared).values.tolist() == [-1.0]


def test_too_few_draws_leave_both_fractions_open(monkeypatch: pytest.MonkeyPatch) -> None:
    cohorts = [features(which, 36) for which in (True, False)]
    monkeypatch.setattr(measured, "draws_to_decide", lambda _: 2_100)  # each p is at its floor
    found = measured.shared_features(cohorts[0], None, SITES, variance=1.0)
    assert found.values.tolist() == [1.0]
    assert found.beside["largest_matched_p"] < 0.01, "a point that misses nothing"
    assert found.interval(0) == (0.0, 1.0, "Monte Carlo")
    assert found.n == 2_100
    trained, untrained = (
        measured.whitened_maps(each, None, SITES, variance=1.0) for each in cohorts
    )
    for pair, wanted in (((trained, untrained), (0.0, 1.0)), ((trained, trained), (-1.0, 1.0))):
        interval = measured.rejected_beyond_untrained(*pair).interval(0)
        assert interval == (*wanted, "Monte Carlo")


def test_one_undecided_map_moves_one_end() -> None:
    maps = measured.whitened_maps(features(True, 37), None, SITES, variance=1.0)
    unsure = np.zeros_like(maps.error.values)
    exact = replace(maps, error=replace_values(maps.error, unsure))
    p = np.full_like(unsure, 1e-4)
    p[1, 1] = 0.009  # the largest: its adjusted value is itself
    unsure[1, 1] = 0.002
    open_ = replace(maps, p=replace_values(maps.p, p), error=replace_values(maps.error, unsure))
    nothing = replace(exact, p=replace_values(maps.p, np.ones_like(p)))
    found = measured.rejected_beyond_untrained(open_, nothing)
    assert found.values.tolist() == [1.0]
    assert found.interval(0) == (0.75, 1.0, "Monte Carlo")
    found = measured.rejected_beyond_untrained(exact, open_)
    assert found.values.tolist() == [0.0]
    assert found.interval(0) == (0.0, 0.25, "Monte Carlo")


def replace_values(table: PairSite, values: np.ndarray) -> PairSite:
    return replace(table, values=values)
