"""What a claim test hands over: values with labels, and the interval and ceiling of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from polyrot.measured import (
    Interval,
    Measured,
    PairSite,
    Unit,
    favourable,
    favoured,
    interval_about,
    jackknifed,
    with_pipeline,
)

VALUES = np.array([[0.9, 0.8], [0.7, 0.4], [0.6, 0.5]])
PAIRS, SITES = ("0-1", "0-2", "0-3"), ("mid", "post")


def test_the_interval_of_a_mean_is_student_t_over_pairs() -> None:
    table = PairSite(VALUES, PAIRS, SITES)
    for measured, sample in [
        (table.mean_over_pairs(), VALUES[:, 1]),
        (table.mean(), VALUES.mean(axis=1)),
    ]:
        expected = stats.t.interval(0.95, 2, sample.mean(), stats.sem(sample))
        low, high, of = measured.interval(measured.values.size - 1) or (0.0, 0.0, "")
        assert (low, high) == pytest.approx(expected)
        assert (of, measured.n) == ("pairs", 3)
    assert table.mean_over_pairs().labels == SITES


def test_a_single_pair_has_the_interval_of_its_own_sequences_or_none() -> None:
    assert PairSite(VALUES, PAIRS, SITES).each().intervals == (None,) * 6
    rng = np.random.default_rng(0)
    spread = np.array([[0.01, 0.02], [0.03, 0.04], [0.05, 0.06]])
    draws = VALUES + spread * rng.standard_normal((4000, 3, 2))
    counts = {"sequences": 128}
    each = PairSite(VALUES, PAIRS, SITES, resamples=draws, counts=counts).each()
    for value, sd, found in zip(VALUES.ravel(), spread.ravel(), each.intervals, strict=True):
        assert found is not None
        assert found.of == "sequences"
        assert (found.low, found.high) == pytest.approx(
            (value - 1.96 * sd, value + 1.96 * sd), abs=0.005
        )
    assert each.n == 128


def test_draws_are_combined_before_their_spread_is_taken() -> None:
    """The difference of two tables that rise and fall together hardly varies."""
    shared = np.random.default_rng(0).standard_normal((500, 3, 2))
    one, other = (
        PairSite(VALUES + x, PAIRS, SITES, resamples=VALUES + x + shared) for x in (0.0, 0.1)
    )
    found = (other - one).each().interval(0)
    assert found is not None
    assert found.high - found.low < 1e-9
    wide = one.each().interval(0)
    assert wide is not None
    assert wide.high - wide.low > 3
    assert (one - PairSite(VALUES, PAIRS, SITES)).each().interval(0) is None


@pytest.mark.parametrize(
    ("unit", "value", "possible"),
    [
        ("ev", 0.97, (-np.inf, 1)),
        ("ev", -30.0, (-np.inf, 1)),
        ("correlation", 0.98, (-1, 1)),
        ("correlation", -0.98, (-1, 1)),
        ("positive", 0.01, (0, np.inf)),
        ("fraction", 0.02, (0, 1)),
        ("fraction", 0.97, (0, 1)),
    ],
)
def test_no_end_is_impossible(unit: Unit, value: float, possible: tuple[float, float]) -> None:
    low, high, _ = interval_about(value, 0.5, "pairs", unit, freedom=3)
    assert possible[0] <= low < value < high <= possible[1]
    # for small errors every scale gives what the straight one does
    straight, bent = (interval_about(value, 1e-4, "pairs", u, freedom=3) for u in ("real", unit))
    assert bent[:2] == pytest.approx(straight[:2], abs=2e-5)


@pytest.mark.parametrize("unit", ["ev", "positive"])
def test_the_interval_covers_as_often_as_it_says(unit: Unit) -> None:
    rng, truth, hits = np.random.default_rng(1), 1.0 if unit == "positive" else 0.9, 0
    for _ in range(2000):
        drawn = rng.gamma(9, 1 / 9, 4)
        sample = drawn if unit == "positive" else 1 - drawn / 10
        found = Measured([sample.mean()], ("",), sample[None], unit=unit).interval(0)
        assert found is not None
        hits += found.low <= truth <= found.high
    assert hits / 2000 == pytest.approx(0.95, abs=0.02)


def test_a_value_at_the_end_of_its_range_or_without_spread_has_no_width() -> None:
    assert interval_about(1.0, 0.1, "pairs", "fraction")[:2] == (1.0, 1.0)
    assert interval_about(0.7, 0.0, "pairs", "correlation")[:2] == (0.7, 0.7)


def test_a_jackknife_is_no_narrower_than_the_least_error() -> None:
    same = np.full(4, 2.0)
    assert jackknifed(2.0, same, "pairs")[:2] == (2.0, 2.0)
    low, high, of = jackknifed(2.0, same, "pairs", least=0.1)
    half = stats.t.ppf(0.975, 3) * 0.1
    assert (low, high, of) == pytest.approx((2 - half, 2 + half, "pairs"))


def test_no_interval_from_one_pair() -> None:
    table = PairSite(np.array([[0.9, 0.8]]), ("0-1",), SITES)
    assert table.mean_over_pairs().interval(0) is None
    assert Measured.of(0.5).interval(0) is None
    assert Measured.of({"a": 0.5, "b": 0.6}).n == 2


def test_an_interval_of_another_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.9, but the mean of its replicates 0\.7: they are of"):
        Measured([0.9], ("worst",), np.array([[0.9, 0.5]]))
    with pytest.raises(ValueError, match=r"0\.9 lies outside of Interval"):
        Measured([0.9], ("worst",), intervals=(Interval(0.1, 0.2, "pairs"),))
    with pytest.raises(ValueError, match="replicates and intervals are both given"):
        Measured([0.9], ("",), np.array([[0.9]]), intervals=(None,))
    with pytest.raises(ValueError, match="1 measured values but 2 intervals"):
        Measured([0.9], ("",), intervals=(None, None))


def test_ceilings_stay_with_their_sites() -> None:
    table = PairSite(VALUES, PAIRS, SITES, ceiling=np.array([1.0, 0.5]))
    assert table.each().ceilings == (1.0, 0.5) * 3
    assert table.at(["post"]).mean_over_pairs().ceilings == (0.5,)
    assert table.mean().ceilings == (0.75,)
    assert (table - table).each().ceilings == (0.0,) * 6
    assert (table - PairSite(VALUES, PAIRS, SITES)).each().ceilings == (), "one side has none"
    assert Measured.of({"a": 0.1, "b": 0.2}).below(0.9).ceilings == (0.9, 0.9)
    again = table.mean_over_pairs().below([0.3, 0.4]).also(more=1.0)
    assert (again.ceilings, again.n) == ((0.3, 0.4), 3)
    with pytest.raises(ValueError, match="not finite: nan at the ceiling at post"):
        PairSite(VALUES, PAIRS, SITES, ceiling=np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="1 measured values but 2 ceilings"):
        Measured([0.9], ("",), ceilings=(1.0, 1.0))


def test_the_larger_of_two_tables_is_taken_draw_by_draw() -> None:
    drawn = np.array([[[0.0, 1.0]], [[2.0, 3.0]]])
    one = PairSite(np.array([[1.0, 2.0]]), ("0-1",), ("a", "b"), resamples=drawn,
                   ceiling=np.array([4.0, 0.0]))  # fmt: skip
    other = replace(one, values=np.array([[0.5, 7.0]]), resamples=1.5 + 0 * drawn)
    found = one.larger(other)
    np.testing.assert_array_equal(found.values, [[1.0, 7.0]])
    np.testing.assert_array_equal(found.resamples, [[[1.5, 1.5]], [[2.0, 3.0]]])
    np.testing.assert_array_equal(found.ceiling, [4.0, 0.0])
    assert one.larger(replace(other, ceiling=None)).ceiling is None


def test_tables_combine_only_with_the_same_labels() -> None:
    one = PairSite(np.array([[0.9, 0.8]]), ("0-1",), ("mid", "post"))
    assert (one - one).values.tolist() == [[0.0, 0.0]]
    assert (one + one).at(["post"]).values.tolist() == [[1.6]]
    assert (one / one).mean().values.tolist() == [1.0]
    with pytest.raises(ValueError, match="different sites: mid, post against post"):
        one - one.at(["post"])
    with pytest.raises(KeyError, match="no site pre among mid, post"):
        one.at(["pre"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_an_error_that_names_its_place(bad: float) -> None:
    with pytest.raises(ValueError, match=r"not finite: .* at 0-2 post"):
        PairSite(np.array([[0.9, 0.8], [0.7, bad]]), ("0-1", "0-2"), ("mid", "post"))
    with pytest.raises(ValueError, match=r"not finite: .* at the only value"):
        Measured.of(bad)
    with pytest.raises(ValueError, match=r"not finite: .* at there"):
        Measured.of({"here": 1.0, "there": bad})
    with pytest.raises(ValueError, match="for the figure ev_grand"):
        Measured.of(1.0).also(ev_grand=bad)


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        Measured.of({})
    with pytest.raises(ValueError, match="0 pairs x 1 sites"):
        PairSite(np.empty((0, 1)), (), ("mid",))
    with pytest.raises(ValueError, match="2 measured values but 1 labels"):
        Measured(np.zeros(2), ("a",))
    with pytest.raises(ValueError, match="replicates must be"):
        Measured(np.zeros(2), ("a", "b"), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="doubled label"):
        PairSite(np.zeros((1, 2)), ("0-1",), ("mid", "mid"))


def test_what_was_measured_does_not_change_afterwards() -> None:
    source = np.array([[0.9]])
    table = PairSite(source, ("0-1",), ("mid",))
    source[0, 0] = 0.0
    assert table.values[0, 0] == 0.9
    with pytest.raises(ValueError, match="read-only"):
        table.values[0, 0] = 0.0


def test_of_readings_every_figure_is_beside_each_and_what_is_changed_is_changed_in_all() -> None:
    both = {
        "early": Measured(np.array([0.9, 0.6]), ("a", "b")).also(own=1.0),
        "late": Measured(np.array([0.8, 0.7]), ("a", "b")),
    }
    early = favourable(both).below(1.0).without("a third").also(more=2.0)
    (late,) = early.readings
    assert [x.beside["reading"] for x in (early, late)] == ["early", "late"]
    for found in (early, late):
        assert (found.beside["a early"], found.beside["b late"]) == (0.9, 0.7)
        assert (found.ceilings, found.unread, found.beside["more"]) == ((1.0, 1.0), "a third", 2.0)
    assert "own" not in late.beside
    unmet = early.unless("no")
    assert [x.unmet for x in (unmet, *unmet.readings)] == ["no", "no"]
    said = favourable({"here": Measured.of(0.5), "there": Measured.of(1.0).unless("no gap")})
    assert said.beside["there"] == "no gap", "what is out of reach has no figure"
    with pytest.raises(ValueError, match="none"):
        favourable({})


def test_under_one_limit_the_worst_value_says_which_reading_favours() -> None:
    both = {
        "early": Measured(np.array([0.9, 0.6]), ("a", "b")),
        "late": Measured(np.array([0.8, 0.7]), ("a", "b")),
    }
    assert favoured(both, "high") == "late", "one reading for all values: the least decides"
    assert favoured(both, "low") == "late", "below a bar the largest decides"


def test_an_interval_that_is_open_above_has_no_end_in_a_report() -> None:
    bound = Interval(4.0, np.inf, "pairs")
    assert Measured(np.array([4.0]), ("",), intervals=(bound,)).interval(0) == bound
    assert bound.to_json() == [4.0, None, "pairs"]
    for found in (bound, Interval(0.1, 0.2, "models"), None):
        assert Interval.from_json(None if found is None else found.to_json()) == found


def test_the_pipelines_seeds_stand_beside_and_are_never_judged() -> None:
    values = {"run": Measured.of({"a": 0.5, "b": 0.9}), "other": Measured.of({"a": 0.7, "b": 0.2})}
    found = with_pipeline(values.__getitem__, "run", "other")
    assert found.values.tolist() == [0.5, 0.9]
    wanted = {"seeds_of_the_pipeline_lowest": 0.2, "seeds_of_the_pipeline_highest": 0.7}
    assert found.beside == wanted
    assert with_pipeline(values.__getitem__, "run", None).beside == {}
    assert with_pipeline(Measured.of, 0.5, 0.7).beside == {"seeds_of_the_pipeline": 0.7}
    said = with_pipeline(lambda why: Measured.of(0.5).unless(why), "", "there is no gap")
    assert said.unmet == ""
    assert said.beside == {"seeds_of_the_pipeline": "there is no gap"}


NO_NUMBERS: dict[str, Any] = {
    "complex": np.array([1 + 2j]),
    "complex in a list": [1 + 0j],
    "complex tensor": torch.tensor([1j]),
    "texts": np.array(["1.0"]),
    "None": np.array([None]),
    "masked": np.ma.masked_array([1.0], [True]),
}


@pytest.mark.parametrize("given", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_real_number_is_refused_wherever_it_is_given(given: Any) -> None:
    matrix: Any = given.reshape(1, 1) if hasattr(given, "reshape") else [given]
    for make in (
        lambda: Measured(given, ("a",)),
        lambda: Measured.of(given),
        lambda: Measured.of(1.0).below(given),
        lambda: Measured(np.ones(1), ("a",), ceilings=given),
        lambda: Measured(np.ones(1), ("a",), replicates=matrix),
        lambda: PairSite(matrix, ("0-1",), ("mid",)),
        lambda: Measured.of(1.0).also(spread=given),
    ):
        with pytest.raises(ValueError, match=r"expected real numbers|are masked"):
            make()


def test_real_numbers_of_every_library_are_taken() -> None:
    tensor = torch.tensor([1.0, 2.0], requires_grad=True)
    two: list[Any] = [[1, 2], (1.0, 2.0), np.array([1, 2], np.float32), tensor]
    for given in two:
        assert Measured(given, ("a", "b")).values.tolist() == [1.0, 2.0]
    lone: Any = np.float32(3)
    figure: Any = torch.tensor(2.0)
    assert Measured.of(lone).also(x=figure).values.tolist() == [3.0]
