"""Claims that may be judged by the setting that favours the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from polyrot.measured.values import Measured

Side = Literal["high", "low"]
"""Where a claim would have its values: above a bar, or below one."""
OF_PIPELINE = "seeds_of_the_pipeline"
T = TypeVar("T")


def favourable(readings: Mapping[str, Measured]) -> Measured:
    """Several admissible readings of one quantity, of which the one that favours the claim is
    judged, one for all of its values: which that is, its bar decides (`judge.verdicts.reading`).
    The name of the reading and every reading's figures are recorded beside.

    readings: by name, such as "4000 steps"; of equal ones the first is judged. A reading that is
    out of reach has its reason in place of figures. Raises ValueError for none.

    >>> found = favourable({"early": Measured.of(0.98), "late": Measured.of(0.96)})
    >>> [x.beside["reading"] for x in (found, *found.readings)], found.beside["late"]
    (['early', 'late'], 0.96)
    """
    if not readings:
        raise ValueError("a favourable reading of none")
    beside: dict[str, float | str] = {}
    for reading, found in readings.items():
        for label, value in zip(found.labels, found.values.tolist(), strict=True):
            beside[" ".join(filter(None, (label, reading)))] = found.unmet or value
    first, *others = (found.also(reading=n, **beside) for n, found in readings.items())
    return first.beside_readings(*others)


def favoured(readings: Mapping[str, Measured], side: Side) -> str:
    """The name of the reading that favours a claim with one limit, on the `side` away from it: the
    one whose worst value is best."""
    if side == "high":
        return max(readings, key=lambda name: float(readings[name].values.min()))
    return min(readings, key=lambda name: float(readings[name].values.max()))


def with_pipeline(measure: Callable[[T], Measured], run: T, pipeline: T | None) -> Measured:
    """What `measure` makes of the run's seeds, which are judged; what it makes of the seeds as the
    paper's pipeline trains them is recorded beside, where these are there: the value, of several
    the lowest and the highest, or the reason why there is none.

    >>> found = with_pipeline(Measured.of, 0.7, 0.9)
    >>> float(found.values[0]), found.beside
    (0.7, {'seeds_of_the_pipeline': 0.9})
    """
    found = measure(run)
    if pipeline is None:
        return found
    other = measure(pipeline)
    if other.unmet:
        return found.also(**{OF_PIPELINE: other.unmet})
    low, high = float(other.values.min()), float(other.values.max())
    if other.values.size == 1:
        return found.also(**{OF_PIPELINE: low})
    return found.also(**{f"{OF_PIPELINE}_lowest": low, f"{OF_PIPELINE}_highest": high})


def of_text_or_pipeline(measure: Callable[[T], Measured], run: T, pipeline: T | None) -> Measured:
    """What `measure` makes of the run's seeds, and of the seeds as the paper's pipeline trains them
    where these are there: of both the one that favours the claim, as is registered for what is
    judged "as published" (see `favourable`).

    >>> found = of_text_or_pipeline(Measured.of, 0.7, 0.9)
    >>> found.beside
    {'reading': 'seeds of the text', 'seeds of the text': 0.7, 'seeds of the pipeline': 0.9}
    """
    found = measure(run)
    if pipeline is None:
        return found
    return favourable({"seeds of the text": found, "seeds of the pipeline": measure(pipeline)})
