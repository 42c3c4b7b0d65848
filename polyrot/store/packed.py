"""Values of frozen dataclasses and named tuples as artifacts: arrays as tensors, the rest as JSON.

>>> from dataclasses import dataclass
>>> import numpy as np
>>> @dataclass(frozen=True)
... class Found:
...     values: np.ndarray
...     names: tuple[str, ...]
>>> back = unpacked(packed(Found(np.eye(2), ("a", "b"))), Found)
>>> back.names, back.values.trace()
(('a', 'b'), np.float64(2.0))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from polyrot.store.file import JSON, Artifact


def packed(value: object) -> Artifact:
    """A value made of dataclasses, named tuples, mappings by text, sequences, NumPy arrays and
    plain values.

    Raises TypeError for anything else, naming it and where it stands.
    """
    tensors: dict[str, Any] = {}
    return Artifact(tensors, {"value": _plain(value, "value", tensors)})


def unpacked(artifact: Artifact, *known: type) -> Any:
    """What `packed` was given, of dataclasses among `known`: nothing else is ever made.

    Raises ValueError for a dataclass that is not among them.
    """
    return _value(artifact.meta["value"], artifact.tensors, {cls.__name__: cls for cls in known})


def _plain(value: Any, where: str, tensors: dict[str, Any]) -> JSON:
    import torch

    if isinstance(value, np.ndarray):
        tensors[where] = torch.from_numpy(np.ascontiguousarray(value).copy())
        return {"array": where}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return {"plain": value}
    named = None
    if is_dataclass(value) and not isinstance(value, type):
        named = {f.name: getattr(value, f.name) for f in fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        named = value._asdict()
    if named is not None:
        return {"class": type(value).__name__, "fields": _mapping(named, where, tensors)}
    if isinstance(value, Mapping):
        return {"mapping": _mapping(value, where, tensors)}
    if isinstance(value, Sequence):
        items: list[JSON] = [_plain(v, f"{where}.{i}", tensors) for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    raise TypeError(f"{where} is a {type(value).__name__}, which no artifact can hold")


def _mapping(named: Mapping[Any, Any], where: str, tensors: dict[str, Any]) -> list[JSON]:
    """Pairs, as the keys of an object would come back in another order."""
    for key in named:
        if not isinstance(key, str):
            raise TypeError(f"{where} has the key {key!r}; keys are text")
    return [[key, _plain(value, f"{where}.{key}", tensors)] for key, value in named.items()]


def _value(plain: Any, tensors: Mapping[str, Any], known: Mapping[str, type]) -> Any:
    def each(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        return {key: _value(item, tensors, known) for key, item in items}

    if "array" in plain:
        return tensors[plain["array"]].numpy()
    if "plain" in plain:
        return plain["plain"]
    if "class" in plain:
        if plain["class"] not in known:
            raise ValueError(f"a {plain['class']} is stored, and none of {sorted(known)}")
        return known[plain["class"]](**each(plain["fields"]))
    if "mapping" in plain:
        return each(plain["mapping"])
    kind = "tuple" if "tuple" in plain else "list"
    items = [_value(item, tensors, known) for item in plain[kind]]
    return tuple(items) if kind == "tuple" else items
