"""Intervals of judged values, at 95 %: on which scale, and of what.

They are taken on a scale on which the quantity is unbounded (see `Unit`) by the delta method, so
that they hold their value and no end is impossible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

Unit = Literal["real", "ev", "correlation", "positive", "fraction"]
"""What kind of number a quantity is: any real; an explained variance, at most 1; a correlation, -1
to 1; a ratio or distance that cannot be negative; a fraction, 0 to 1. It decides the scale on which
intervals are taken: as it is, log(1 - x), artanh x (Fisher's z), log x, log(x / (1 - x))."""

Source = Literal["pairs", "models", "sequences", "Monte Carlo"]


class Interval(NamedTuple):
    """A 95 % interval of a value, and what it is of. high: infinite where it is open above, as the
    value is a bound ("at least")."""

    low: float
    high: float
    of: Source

    def to_json(self) -> list[float | str | None]:
        """Plain values, for a report: null in place of an infinite end, which JSON has not."""
        return [self.low, self.high if np.isfinite(self.high) else None, self.of]

    @classmethod
    def from_json(cls, document: Sequence[Any] | None) -> Interval | None:
        """What `to_json` wrote; None of null, a value that has none."""
        if document is None:
            return None
        low, high, of = document
        return cls(low, np.inf if high is None else high, of)


class _Scale(NamedTuple):
    to: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


_SCALES: dict[Unit, _Scale] = {
    "real": _Scale(lambda x: x, np.ones_like, lambda y: y),
    "ev": _Scale(lambda x: np.log1p(-x), lambda x: -1 / (1 - x), lambda y: -np.expm1(y)),
    "correlation": _Scale(np.arctanh, lambda x: 1 / (1 - x**2), np.tanh),
    "positive": _Scale(np.log, lambda x: 1 / x, np.exp),
    "fraction": _Scale(
        lambda x: np.log(x / (1 - x)), lambda x: 1 / (x * (1 - x)), lambda y: 1 / (1 + np.exp(-y))
    ),
}
LEVEL = 0.95


def interval_about(
    value: float, error: float, of: Source, unit: Unit = "real", freedom: float = np.inf
) -> Interval:
    """The interval of a `value` with the standard `error`, in its own unit.

    freedom: degrees of freedom of the error, for Student's t (default: normal).
    The ends are worked out on the unit's scale and carried back (delta method): value inside, both
    ends possible. A value at an end of its range, or an error of 0, has an interval of no width.

    >>> interval_about(0.9, 0.05, "pairs", "ev")
    Interval(low=0.733..., high=0.962..., of='pairs')
    """
    tail = 0.5 + LEVEL / 2
    quantile = float(ndtri(tail) if np.isinf(freedom) else stdtrit(freedom, tail))
    scale = _SCALES[unit]
    x = np.asarray(value, dtype=np.float64)
    with np.errstate(all="ignore"):
        centre, half = scale.to(x), quantile * error * np.abs(scale.slope(x))
        if error == 0 or not (np.isfinite(centre) and np.isfinite(half)):
            return Interval(float(x), float(x), of)
        ends = sorted(float(scale.back(np.asarray(centre + side * half))) for side in (-1, 1))
    return Interval(min(ends[0], float(x)), max(ends[1], float(x)), of)


def over_pairs(value: float, row: np.ndarray, unit: Unit) -> Interval | None:
    """Student's t interval of the mean of `row` [pairs]; None with fewer than two pairs."""
    if row.size < 2:
        return None
    error = float(row.std(ddof=1)) / row.size**0.5
    return interval_about(value, error, "pairs", unit, freedom=row.size - 1)


def resampled(value: float, draws: np.ndarray, of: Source, unit: Unit = "real") -> Interval:
    """The interval of a value from its bootstrap `draws` [n]."""
    return interval_about(value, _spread(draws, value, unit), of, unit)


def jackknifed(
    value: float, without: np.ndarray, of: Source, unit: Unit = "real", least: float = 0.0
) -> Interval:
    """The interval of a value from what it is `without` each part of the sample in turn, [n]; its
    error at least `least`, in the value's unit (Efron and Tibshirani 1993, chapter 11).

    >>> x = np.array([1.0, 2.0, 4.0, 5.0])
    >>> jackknifed(x.mean(), (x.sum() - x) / 3, "pairs")  # of a mean: Student's t
    Interval(low=0.0948..., high=5.905..., of='pairs')
    """
    n = len(without)
    inflated = _spread(without, value, unit) * (n - 1) / n**0.5
    error = float(np.hypot(inflated, least))
    return interval_about(value, error, of, unit, freedom=n - 1)


def _spread(draws: np.ndarray, value: float, unit: Unit) -> float:
    """Standard deviation of `draws` of a value, in its own unit: taken on the unit's scale and
    carried back to first order."""
    scale = _SCALES[unit]
    with np.errstate(all="ignore"):
        slope = abs(float(scale.slope(np.asarray(value, dtype=np.float64))))
        spread = float(np.std(scale.to(draws), ddof=1))
    if not (np.isfinite(slope) and np.isfinite(spread)):
        return float(np.std(draws, ddof=1))
    return spread / slope
