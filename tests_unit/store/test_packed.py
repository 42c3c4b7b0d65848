"""Values as artifacts, and back: exactly, and nothing that was not asked for."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, strategies as st

from polyrot.store import Store
from polyrot.store.packed import packed, unpacked


class Pair(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Inner:
    name: str
    ends: tuple[Pair | None, ...]


@dataclass(frozen=True)
class Outer:
    values: np.ndarray
    counts: np.ndarray
    inner: dict[str, Inner]
    steps: list[int]
    missing: None = None


def outer() -> Outer:
    values = np.array([[0.1, math.nan], [np.pi, -math.inf]])
    return Outer(
        values, np.arange(3), {"b": Inner("y", ()), "a": Inner("x", (Pair(0.1, 0.3), None))}, [1, 2]
    )


def test_a_value_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    store, built = Store(tmp_path), []

    def build(_: object) -> object:
        built.append(1)
        return packed(outer())

    for _ in range(2):
        found = unpacked(store.get_or_build("x", {"v": 1}, build), Outer, Inner, Pair)
        assert type(found) is Outer
        assert np.array_equal(found.values, outer().values, equal_nan=True)
        assert found.counts.dtype == np.int64
        assert found.inner == outer().inner
        assert isinstance(found.inner["a"].ends[0], Pair)
        assert (found.steps, found.missing) == ([1, 2], None)
        assert list(found.inner) == ["b", "a"]
    assert built == [1]


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
))  # fmt: skip
def test_plain_values_come_back_as_they_were(value: object) -> None:
    back = unpacked(packed(value))
    assert back == value
    assert repr(back) == repr(value)  # in the same order


def test_nothing_is_made_that_was_not_asked_for() -> None:
    with pytest.raises(ValueError, match=r"a Outer is stored, and none of \['Inner', 'Pair'\]"):
        unpacked(packed(outer()), Inner, Pair)


@pytest.mark.parametrize(
    ("value", "named"),
    [({"a": [object()]}, "value.a.0 is a object"), ({1: 2}, "value has the key 1")],
)
def test_what_cannot_be_held_is_named(value: object, named: str) -> None:
    with pytest.raises(TypeError, match=named):
        packed(value)
