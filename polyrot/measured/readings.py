"""Claims that may be judged by the setting that favours the paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from polyrot.measured.values import Measured

Side = Literal["high", "low"]
"""Where a claim would have its values: above a bar, or below one."""


def favourable(readings: Mapping[str, Measured], side: Side) -> Measured:
    """Of several readings of one quantity that which favours the claim, one for all of its values:
    the reading whose worst value is best. Its name and every reading's figures are recorded beside.

    readings: by name, such as "4000 steps"; equal figures are given to the first. Raises ValueError
    for none.

    >>> found = favourable({"early": Measured.of(0.98), "late": Measured.of(0.96)}, "high")
    >>> float(found.values[0]), found.beside
    (0.98, {'reading': 'early', 'early': 0.98, 'late': 0.96})
    """
    if not readings:
        raise ValueError("a favourable reading of none")
    name = favoured(readings, side)
    beside: dict[str, float | str] = {"reading": name}
    for reading, found in readings.items():
        each = zip(found.labels, found.values.tolist(), strict=True)
        beside |= {" ".join(filter(None, (label, reading))): value for label, value in each}
    return readings[name].also(**beside)


def favoured(readings: Mapping[str, Measured], side: Side) -> str:
    """The name of the reading that `favourable` takes."""
    if side == "high":
        return max(readings, key=lambda name: float(readings[name].values.min()))
    return min(readings, key=lambda name: float(readings[name].values.max()))
