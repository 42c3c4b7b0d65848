"""Measurements kept in the store come back as they were, and are made anew when a model changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from polyrot.cohorts.cohort import CohortDefaults
from polyrot.measured import PairSite
from polyrot.measures import kept
from polyrot.store import Store


class World(CohortDefaults):
    def __init__(self, skip):
        self.skip = skip


def table(scale=1.0):
    values = scale * np.array([[1 / 3, -2.5e-7], [0.1, 4e9]])
    made = PairSite(values, ("0-1", "0-2"), ("a", "b"), seeds={"null": 7}, counts={"tokens": 9})
    return made.also(beside=1 / 7, words="as they are")


def test_a_table_survives_json_exactly():
    found = kept.from_json(kept.to_json(table()))
    np.testing.assert_array_equal(found.values, table().values)
    assert found.pairs == ("0-1", "0-2")
    assert found.sites == ("a", "b")
    assert dict(found.beside) == dict(table().beside)
    assert dict(found.seeds) == {"null": 7}
    assert dict(found.counts) == {"tokens": 9}


def test_resamples_and_ceilings_come_back_with_their_table(tmp_path):
    drawn = np.random.default_rng(0).standard_normal((5, 2, 2))
    full = replace(table(), unit="ev", resamples=drawn, ceiling=np.array([1 / 3, 0.2]))

    def measure():
        return {"full": full, "plain": table()}, {"t": torch.arange(3.0)}

    for _ in range(2):  # measured, and read
        tables, tensors = kept.kept(Store(tmp_path), "transfer", "toy", {}, measure)
        assert tensors.keys() == {"t"}
        assert tables["full"].unit == "ev"
        np.testing.assert_array_equal(tables["full"].ceiling, full.ceiling)
        np.testing.assert_array_equal(tables["full"].resamples, drawn.astype(np.float32))
        assert tables["plain"].resamples is None
        assert tables["plain"].ceiling is None


def test_where_r_is_determined_comes_back_and_is_not_made_up():
    known = table().through({"a": True, "b": False})
    assert kept.from_json(kept.to_json(known)).identified == (True, False)
    assert kept.from_json(kept.to_json(table())).identified is None
    assert "identified" not in kept.to_json(table())  # as older tables are


def test_tables_kept_before_they_had_a_unit_are_read():
    old = kept.to_json(table())
    for later in ("unit", "resamples", "ceiling"):
        del old[later]
    found = kept.from_json(old)
    np.testing.assert_array_equal(found.values, table().values)
    assert found.unit == "real"


def test_it_is_measured_once_for_each_recipe(tmp_path):
    store, calls = Store(tmp_path), []

    def measure():
        calls.append(1)
        return {"x": table(len(calls))}, {"t": torch.arange(3.0)}

    first, tensors = kept.kept(store, "agreement", "toy", {"model": 1}, measure)
    again, _ = kept.kept(store, "agreement", "toy", {"model": 1}, measure)
    other, _ = kept.kept(store, "agreement", "toy", {"model": 2}, measure)
    assert len(calls) == 2
    np.testing.assert_array_equal(first["x"].values, again["x"].values)
    assert torch.equal(tensors["t"], torch.arange(3.0))
    assert not np.array_equal(first["x"].values, other["x"].values)


def test_what_is_not_finite_is_not_kept(tmp_path):
    def measure():
        return {"x": PairSite(np.array([[np.nan]]), ("0-1",), ("a",))}, {}

    with pytest.raises(ValueError, match="not finite: nan at 0-1 a"):
        kept.kept(Store(tmp_path), "agreement", "toy", {}, measure)


def test_recipes_name_what_positions_are_left_out_only_where_some_are():
    assert kept.skipped(World(0)) == {}
    assert kept.skipped(World(2)) == {"skipped": kept.SKIPPED_VERSION}
    plain, skipping = (kept.recipe(World(skip), []) for skip in (0, 1))
    assert "skipped" not in plain
    assert skipping.items() >= kept.skipped(World(1)).items()
