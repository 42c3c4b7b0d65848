"""JSON and TOML that others wrote: read with one clear error for whatever is wrong with the text.

What Python's own readers let through or crash on is refused: in JSON a number that is none (NaN,
1e999) and a key twice; in both one of thousands of digits, and nesting deeper than any real file's.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEEPEST = 64
"""Lists and tables inside of each other: real files have five."""
LARGEST = 2**27
"""Bytes; a record of all claims has 2 MiB."""


class BadDocument(ValueError):
    """A text that is no JSON or TOML, or no plain one; the message says what is wrong."""


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises BadDocument naming the file."""
    return _file(path, json_of)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises BadDocument naming the file."""
    found: dict[str, Any] = _file(path, toml_of)
    return found


def json_of(text: str) -> Any:
    """The value of a JSON text.

    >>> json_of('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> json_of('{"a": NaN}')
    Traceback (most recent call last):
        ...
    polyrot.runtime.documents.BadDocument: no JSON: NaN is no number
    """
    try:
        found = json.loads(
            text, parse_constant=_no_number, parse_float=_float, object_pairs_hook=_once
        )
    except RecursionError:
        raise BadDocument(f"nested too deeply: {DEEPEST} lists and tables at most") from None
    except ValueError as error:  # also of whole numbers of more than 4300 digits
        raise BadDocument(f"no JSON: {error}") from error
    return _plain(found)


def toml_of(text: str) -> dict[str, Any]:
    """The tables of a TOML text, which may hold `nan` and `inf`. Raises BadDocument."""
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise BadDocument(f"nested too deeply: {DEEPEST} lists and tables at most") from None
    except ValueError as error:
        raise BadDocument(f"no TOML: {error}") from error
    tables: dict[str, Any] = _plain(found)
    return tables


def _file(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise BadDocument(f"{path} has {size / 2**20:.0f} MiB: no such file is so large")
        return parse(path.read_bytes().decode().removeprefix("\ufeff"))
    except OSError as error:
        raise BadDocument(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadDocument(f"{path} is no UTF-8 text ({error.reason} at {error.start})") from error
    except BadDocument as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise BadDocument(f"{where}{error}") from error


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _float(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"{text[:24]} is no number, or beyond double precision")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return found


def _plain(value: Any) -> Any:
    """`value`, nested no deeper than DEEPEST, of whole numbers that fit double precision."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise BadDocument(f"nested too deeply: {DEEPEST} lists and tables at most")
        inner: list[Any] = []
        for each in level:
            if isinstance(each, int) and not isinstance(each, bool) and each.bit_length() > 1023:
                raise BadDocument(f"a whole number of {each.bit_length()} bits")
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        level, depth = inner, depth + 1
    return value
