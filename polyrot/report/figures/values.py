"""What every figure is drawn from: a frozen value of plain numbers, that JSON keeps as it is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Row = tuple[float, ...]
Table = tuple[Row, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Words:
    """What is said of a figure: title, caption (with its n), and what one sees in it, for those
    who cannot."""

    title: str
    caption: str
    description: str


def row(values: Any) -> Row:
    """Plain floats of a vector (list, array or tensor)."""
    return tuple(float(value) for value in values)


def table(values: Any) -> Table:
    """Plain floats of a matrix, row by row."""
    return tuple(row(values_of_row) for values_of_row in values)


def encode(value: Any) -> Any:
    """`value` as JSON has it: a dataclass as an object, a tuple as an array."""
    return dataclasses.asdict(value)


def decode(cls: type[T], document: Any) -> T:
    """The inverse of `encode`. Raises ValueError naming a field that is missing, unknown, or of
    another kind."""
    return _decode(cls, document, cls.__name__)


def _decode(kind: Any, document: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _object(kind, document, where)
    if get_origin(kind) is tuple:
        if not isinstance(document, Sequence) or isinstance(document, str):
            raise ValueError(f"{where}: expected a list, got {document!r}")
        item = get_args(kind)[0]
        return tuple(_decode(item, part, f"{where}[{i}]") for i, part in enumerate(document))
    wanted: Any = {float: (int, float), int: int, str: str}[kind]
    if not isinstance(document, wanted) or isinstance(document, bool):
        raise ValueError(f"{where}: expected {kind.__name__}, got {document!r}")
    return float(document) if kind is float else document


def _object(kind: Any, document: Any, where: str) -> Any:
    if not isinstance(document, Mapping):
        raise ValueError(f"{where}: expected an object, got {document!r}")
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    if set(names) != set(document):
        odd = sorted(set(names) ^ set(document))
        raise ValueError(f"{where}: missing or unknown: {', '.join(odd)}")
    return kind(**{name: _decode(hints[name], document[name], f"{where}.{name}") for name in names})


def finite(value: T) -> T:
    """`value` as it is. Raises ValueError naming a number in it that is NaN or infinite, which JSON
    has not."""
    _finite(encode(value), type(value).__name__)
    return value


def _finite(document: Any, where: str) -> None:
    if isinstance(document, float) and not math.isfinite(document):
        raise ValueError(f"{where} is {document}")
    if isinstance(document, Mapping):
        for name, part in document.items():
            _finite(part, f"{where}.{name}")
    elif isinstance(document, list | tuple):
        for i, part in enumerate(document):
            _finite(part, f"{where}[{i}]")


def by_name(first: Sequence[T], second: Sequence[T]) -> tuple[T, ...]:
    """Both, in order; where two have one `name`, the later."""
    return tuple({item.name: item for item in (*first, *second)}.values())  # type: ignore[attr-defined]
