"""The record of a study: one JSON file, the same bytes for the same findings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from polyrot.runtime.documents import BadDocument, read_json
from polyrot.runtime.files import write_atomically

FORMAT = 1
"""Of the file: raise when what is written changes its meaning."""
_DIGITS = 6
_REQUIRED = ("format", "study", "date", "device", "seconds", "predictions", "rows")


@dataclass(frozen=True)
class Row:
    """One measured value: of what, in which arm of the study and where; its 95 % interval and of
    what that is, and the size of the sample. what: of the measures that the study names."""

    what: str
    arm: str
    value: float
    low: float | None = None
    high: float | None = None
    of: str = ""
    n: int = 0
    where: str = ""


def record_of(
    study: str,
    *,
    device: str,
    seconds: float,
    predictions: Sequence[Mapping[str, Any]],
    rows: Sequence[Row],
    **more: Any,
) -> dict[str, Any]:
    """What a study found, as plain values. seconds: of training and measuring, all told; more:
    what the study itself wants to keep, such as its schedules.

    >>> record_of("tails", device="cpu", seconds=1, predictions=[], rows=[])["study"]
    'tails'
    """
    return {
        "format": FORMAT,
        "study": study,
        "date": datetime.now(UTC).date().isoformat(),
        "device": device,
        "seconds": round(seconds),
        "torch": torch.__version__.partition("+")[0],
        "predictions": [dict(each) for each in predictions],
        "rows": [asdict(row) for row in rows],
        **more,
    }


def merged(record: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """A record of which some arms were measured anew: `part` has all rows of those, and everything
    that is no row as it is now. seconds: of all arms, where `arm_seconds` has those of the arms
    that are measured anew; else what both took.

    >>> rows = [Row("ev", "l1", 0.8), Row("ev", "topk", 0.9)]
    >>> old = record_of("tails", device="cpu", seconds=2, predictions=[], rows=rows)
    >>> rows = [Row("ev", "l1", 0.7)]
    >>> new = record_of("tails", device="cpu", seconds=1, predictions=[], rows=rows)
    >>> found = merged(old, new)
    >>> [(row.arm, row.value) for row in rows_of(found)], found["seconds"]
    ([('l1', 0.7), ('topk', 0.9)], 3)
    """
    anew = {row["arm"] for row in part["rows"]}
    rows = [row for row in record["rows"] if row["arm"] not in anew] + part["rows"]
    before, now = record.get("arm_seconds", {}), part.get("arm_seconds", {})
    replaced = sum(before.get(arm, 0) for arm in now)
    order = list(dict.fromkeys(row["arm"] for row in [*record["rows"], *part["rows"]]))
    return {
        **part,
        "seconds": record["seconds"] - replaced + part["seconds"],
        **({"arm_seconds": {**before, **now}} if now else {}),
        "rows": sorted(rows, key=lambda row: order.index(row["arm"])),
    }


def rows_of(record: Mapping[str, Any]) -> tuple[Row, ...]:
    """The measured values of a record."""
    return tuple(Row(**row) for row in record["rows"])


def text_of(record: Mapping[str, Any]) -> str:
    """The canonical text: keys as they come, numbers to six significant digits.

    >>> print(text_of({"share": 0.123456789}), end="")
    {
     "share": 0.123457
    }
    """
    return json.dumps(_rounded(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all. Raises ValueError for a number that is none,
    Unwritable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text_of(record))


def read(path: Path, study: str) -> dict[str, Any]:
    """The record of a study. Raises BadDocument: no such file, no JSON, or another kind of file."""
    found = read_json(path)
    missing = [key for key in _REQUIRED if not isinstance(found, dict) or key not in found]
    if missing:
        raise BadDocument(f"{path} is no record of a study: it has no {', '.join(missing)}")
    if (found["format"], found["study"]) != (FORMAT, study):
        raise BadDocument(
            f"{path} is of study {found['study']!r}, format {found['format']!r}; "
            f"wanted {study!r}, {FORMAT}"
        )
    return dict(found)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {str(key): _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
