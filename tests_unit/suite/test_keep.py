"""What a claim is judged by, kept: asked for once, and anew where something decides otherwise."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fixtures.keep import Keep
from polyrot.measured import Interval, Measured
from polyrot.store import Store

CALLS: list[tuple[Any, ...]] = []
RECIPE_VERSION = 1


def of_pairs(cohort: Any, fits: Any) -> Measured:
    """With intervals of pairs, which are made from what is kept."""
    CALLS.append(("pairs", cohort.fingerprint, fits.sites))
    replicates = np.array([[0.1, 0.3, 0.2]])
    return Measured(
        replicates.mean(1), ("r",), replicates, {"beside": 1.5, "word": "x"}, {"model": (0, 1)},
        {"pairs": 3}, unit="positive", ceilings=(0.9,), unread="another reading", stand_in="others",
    )  # fmt: skip


def of_sequences(cohort: Any, sites: Any, store: Any) -> Measured:
    CALLS.append(("sequences", sites, store))
    found = Measured(
        np.array([0.5, 0.1]), ("a", "b"), intervals=(Interval(0.4, 0.6, "sequences"), None)
    )
    return found.unless("a precondition")


def arithmetic(d: int = 4) -> float:
    CALLS.append(("arithmetic", d))
    return d / 3


class Fits:
    def __init__(self, sites: tuple[str, ...] = ("all",)) -> None:
        self.sites = sites

    def at(self, sites: tuple[str, ...]) -> "Fits":
        return Fits(sites)


@pytest.fixture(autouse=True)
def calls() -> list[tuple[Any, ...]]:
    CALLS.clear()
    return CALLS


def keep_in(tmp_path: Path, cohort: str = "one") -> Keep:
    store = Store(tmp_path)
    there: dict[str, Any] = {
        "cohort": SimpleNamespace(fingerprint=cohort, internal=("mid",)),
        "fits": Fits(),
        "store": store,
    }
    return Keep(there.__getitem__, store, "toy_a")


@pytest.mark.parametrize("function", [of_pairs, of_sequences, arithmetic])
def test_what_is_kept_is_what_was_measured(tmp_path: Path, function: Any) -> None:
    first, second = (keep_in(tmp_path)(function) for _ in range(2))
    assert len(CALLS) == 1
    there = keep_in(tmp_path).fixture
    given = {"fits": there("fits"), "cohort": there("cohort"), "sites": ("mid",), "store": None}
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    fresh = Measured.of(function(**{n: given[n] for n in names if n in given}))
    for found in (first, second):
        assert found.values.tolist() == fresh.values.tolist()
        assert found.labels == fresh.labels
        assert [found.interval(i) for i in range(len(found.values))] == [
            fresh.interval(i) for i in range(len(fresh.values))
        ]
        for name in (
            "beside",
            "seeds",
            "counts",
            "unit",
            "ceilings",
            "unmet",
            "unread",
            "stand_in",
            "n",
        ):
            assert getattr(found, name) == getattr(fresh, name), name


def test_nothing_but_the_cohort_is_asked_for_again(tmp_path: Path) -> None:
    keep_in(tmp_path)(of_pairs)
    cohort = {"cohort": SimpleNamespace(fingerprint="one", internal=("mid",))}
    Keep(cohort.__getitem__, Store(tmp_path), "toy_a")(of_pairs)  # no fits: a KeyError if asked
    assert len(CALLS) == 1


def test_sites_reach_the_function(tmp_path: Path) -> None:
    keep = keep_in(tmp_path)
    keep(of_pairs)
    keep(of_pairs, sites="internal")
    keep(of_sequences)
    assert [call[1:] for call in CALLS[:2]] == [("one", ("all",)), ("one", ("mid",))]
    assert CALLS[2][1] == ("mid",)


@pytest.mark.parametrize("change", ["another cohort", "another version", "another null seed"])
def test_whatever_decides_it_measures_it_anew(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_in(tmp_path)(of_pairs)
    if change == "another version":
        monkeypatch.setattr(sys.modules[__name__], "RECIPE_VERSION", 2)
    if change == "another null seed":
        monkeypatch.setattr("polyrot.measures.fits.NULL_DRAWS_SEED", 1)
    keep_in(tmp_path, "two" if change == "another cohort" else "one")(of_pairs)
    assert len(CALLS) == 2


def test_what_fails_is_not_kept(tmp_path: Path) -> None:
    def fails(cohort: Any) -> Measured:
        CALLS.append(("fails",))
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            keep_in(tmp_path)(fails)
    assert len(CALLS) == 2
