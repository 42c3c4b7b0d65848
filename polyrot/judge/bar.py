"""Bars: limits on one number, fixed before it was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SIGNS = {"equals": "=", "at_least": "≥", "above": ">", "at_most": "≤", "below": "<"}


class RegistrationError(ValueError):
    """The registration is malformed, contradicts itself, or is not the one that was registered."""


@dataclass(frozen=True)
class Bar:
    """Limits on one number. `above` and `below` are strict, `equals` is exact; `was` is the old bar
    where an amendment put these limits in its place.

    Raises RegistrationError if there is none, one is no finite number, or nothing satisfies them.
    """

    equals: float | None = None
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    was: Bar | None = None

    def __post_init__(self) -> None:
        limits = self._limits()
        if not limits:
            raise RegistrationError(f"no bar: give at least one of {', '.join(SIGNS)}")
        for key, limit in limits.items():
            if (
                isinstance(limit, bool)
                or not isinstance(limit, int | float)
                or not math.isfinite(limit)
            ):
                raise RegistrationError(f"bar {key} = {limit!r} is not a finite number")
        if "equals" in limits and len(limits) > 1:
            raise RegistrationError("bar has equals and another limit")
        for strict, loose in (("above", "at_least"), ("below", "at_most")):
            if strict in limits and loose in limits:
                raise RegistrationError(f"bar has both {strict} and {loose}")
        low = limits.get("at_least", limits.get("above", -math.inf))
        high = limits.get("at_most", limits.get("below", math.inf))
        if low > high or (low == high and {"above", "below"} & limits.keys()):
            raise RegistrationError(f"bar that nothing satisfies: {self.describe()}")

    def satisfied(self, x: float) -> bool:
        """Whether x is within the bar. Raises ValueError if x is not finite."""
        if not math.isfinite(x):
            raise ValueError(f"{x} cannot be judged")
        return self._holds(x)

    def _holds(self, x: float) -> bool:
        return (
            (self.equals is None or x == self.equals)
            and (self.at_least is None or x >= self.at_least)
            and (self.above is None or x > self.above)
            and (self.at_most is None or x <= self.at_most)
            and (self.below is None or x < self.below)
        )

    def reached(self, ceiling: float) -> bool:
        """Whether what a perfect sibling gives meets the bar on the side of likeness: its only
        limit, or of two the lower one, as likeness raises what they bound.

        >>> Bar(at_least=0.8, at_most=1.25).reached(1.3), Bar(at_least=0.8).reached(0.7)
        (True, False)
        """
        if self.equals is not None or not self._two_sided:
            return self.satisfied(ceiling)
        if self.at_least is not None:
            return ceiling >= self.at_least
        return self.above is not None and ceiling > self.above

    @property
    def _two_sided(self) -> bool:
        low, high = {"at_least", "above"}, {"at_most", "below"}
        return bool(low & self._limits().keys()) and bool(high & self._limits().keys())

    def missed_by_all(self, low: float, high: float) -> bool:
        """Whether every number from `low` to `high` lies beyond one and the same limit.

        >>> Bar(at_least=0.5).missed_by_all(0.1, 0.4), Bar(at_least=0.5).missed_by_all(0.1, 0.6)
        (True, False)
        """
        if self.equals is not None:
            return not low <= self.equals <= high
        too_low = (self.at_least is not None and high < self.at_least) or (
            self.above is not None and high <= self.above
        )
        too_high = (self.at_most is not None and low > self.at_most) or (
            self.below is not None and low >= self.below
        )
        return too_low or too_high

    def met_by_all(self, low: float, high: float) -> bool:
        """Whether every number from `low` to `high`, which may be infinite, is within the bar."""
        return self._holds(low) and self._holds(high)

    def margin(self, x: float) -> float:
        """Distance of x to the nearest limit, negative beyond it."""
        margins = []
        for key, limit in self._limits().items():
            if key == "equals":
                margins.append(-abs(x - limit))
            else:
                margins.append(x - limit if key in ("at_least", "above") else limit - x)
        return min(margins)

    def worst(self, values: Iterable[float]) -> int:
        """Index of the value that misses the bar most, or comes closest to missing it."""
        ranked = [self.rank(x) for x in values]
        return ranked.index(min(ranked))

    def rank(self, x: float) -> tuple[bool, float]:
        """By which values are ordered, from the one that misses the bar most."""
        # A value on a strict limit misses with margin 0, so satisfaction comes before the margin.
        return self.satisfied(x), self.margin(x)

    def describe(self) -> str:
        """ "≥ 0.96", "0.35 … 0.7", "= 104448", amended "≥ 0.95 (was ≥ 0.96)"."""
        limits = self._limits()
        if limits.keys() == {"at_least", "at_most"}:
            text = f"{self.at_least:.10g} … {self.at_most:.10g}"
        else:
            text = ", ".join(f"{SIGNS[key]} {limit:.10g}" for key, limit in limits.items())
        return text if self.was is None else f"{text} (was {self.was.describe()})"

    def show(self, x: float) -> str:
        """x in as few digits, at least four, as leave it on its side of the bar."""
        for digits in range(4, 17):
            text = f"{x:.{digits}g}"
            if self.satisfied(float(text)) == self.satisfied(x):
                return f"{x:.0f}" if x == round(x) and abs(x) < 1e9 else text
        return repr(x)

    def to_json(self) -> dict[str, Any]:
        """Its limits by name, and the bar that it was before an amendment."""
        was = {} if self.was is None else {"was": self.was.to_json()}
        return {**self._limits(), **was}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Bar:
        """What `to_json` wrote. Raises RegistrationError for what is no bar."""
        unknown = sorted(document.keys() - {*SIGNS, "was"})
        if unknown:
            raise RegistrationError(f"bar has the unknown key {unknown[0]!r}")
        was = document.get("was")
        limits = {key: limit for key, limit in document.items() if key != "was"}
        return cls(**limits, was=None if was is None else cls.from_json(was))

    def _limits(self) -> dict[str, float]:
        found = {key: getattr(self, key) for key in SIGNS}
        return {key: limit for key, limit in found.items() if limit is not None}
