"""The file format of `polyrot.store`: one artifact, one `.safetensors` file, checked whole.

Nothing here decides what is built or looked for where; that is the store's.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from polyrot.runtime.documents import json_of
from polyrot.runtime.files import FULL, Unwritable, room, unwritable

if TYPE_CHECKING:
    import torch

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

_FORMAT = 1
SUFFIX = ".safetensors"
ELSEWHERE = "Give another with --artifacts DIR"


class StoreFull(Unwritable):
    """No space for an artifact; the message says how much was needed, and where."""


class Damaged(Exception):
    """What is wrong with one file, without saying yet whether that is fatal."""


@dataclass(frozen=True)
class Artifact:
    """Named tensors and what is known of them. `meta` holds JSON values only, finite numbers."""

    tensors: Mapping[str, torch.Tensor]
    meta: Mapping[str, Any] = field(default_factory=dict)


def plain(value: Any, where: str, fold: bool = False) -> Any:
    """`value` as plain JSON; a ValueError names the key otherwise. `fold` writes 1.0 as 1."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: a recipe or meta holds finite numbers only")
        return int(value) if fold and value.is_integer() else float(value)
    if isinstance(value, list | tuple):
        return [plain(v, f"{where}[{i}]", fold) for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {key!r}: keys must be strings")
        return {k: plain(v, f"{where}.{k}", fold) for k, v in value.items()}
    raise ValueError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}: only None, bool, int, "
        "float, str, lists and dicts can be stored; convert it first"
    )


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(kind: str, recipe: Mapping[str, Any]) -> str:
    """sha256 (hex) of the canonical JSON of `kind` and `recipe`.

    Keys are sorted and 1 equals 1.0. Raises ValueError naming the key of a value that is not JSON,
    or not finite.
    """
    folded = plain(recipe, "recipe", fold=True)
    return hashlib.sha256(_dumps({"kind": kind, "recipe": folded}).encode()).hexdigest()


def digest(what: torch.Tensor | str) -> str:
    """sha256 (hex) of a tensor's shape and values, or of a text: for recipes.

    >>> digest("") == hashlib.sha256(b"").hexdigest()
    True
    """
    if isinstance(what, str):
        return hashlib.sha256(what.encode()).hexdigest()
    data = what.detach().cpu().contiguous().numpy().tobytes()
    return hashlib.sha256(str(list(what.shape)).encode() + data).hexdigest()


def _digest(head: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over the header (less the sha256 itself), names, dtypes, shapes and bytes."""
    import torch

    layout = [[n, str(t.dtype), list(t.shape)] for n, t in sorted(tensors.items())]
    rest = {k: v for k, v in head.items() if k != "sha256"}
    sha = hashlib.sha256(_dumps([rest, layout]).encode())
    for _, tensor in sorted(tensors.items()):
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def read(
    path: Path, fp: str | None = None, role: str = "artifact", file_sha: str | None = None
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors as stored. Raises Damaged unless everything about the file agrees."""
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(f"it cannot be read ({error.strerror or error})") from error
    if file_sha is not None and (found := hashlib.sha256(data).hexdigest()) != file_sha:
        raise Damaged(f"its sha256 differs: {found}, but the manifest says {file_sha}")
    try:
        size = int.from_bytes(data[:8], "little")
        head = json_of(json_of(data[8 : 8 + size].decode())["__metadata__"]["polyrot"])
        tensors = safetensors.torch.load(data)
        if head["sha256"] != _digest(head, tensors):
            raise Damaged("its sha256 differs from the one in its header")
        if head["fingerprint"] != fingerprint(head["kind"], head["recipe"]):
            raise Damaged("its fingerprint is not that of its recipe")
        wrong = head["format"] != _FORMAT or head["role"] != role
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise Damaged(f"it is no artifact of this suite ({type(error).__name__})") from error
    if wrong:
        raise Damaged(f"it is a {head['role']} of format {head['format']}, not a {role} of this")
    if fp is not None and head["fingerprint"] != fp:
        raise Damaged(f"it belongs to another recipe ({head['kind']}, {head['fingerprint']})")
    return head, tensors


def from_stored(head: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Artifact:
    """The artifact of a file that was read, float16 of shipped files widened."""
    import torch

    if head["meta"].get("stored_dtype") == "float16":
        tensors = {n: t.float() if t.dtype == torch.half else t for n, t in tensors.items()}
    return Artifact(dict(tensors), dict(head["meta"]))


def write(
    path: Path, head: dict[str, Any], tensors: Mapping[str, torch.Tensor], most: int | None = None
) -> None:
    """Write one file whole or not at all. Raises Unwritable, where there is no room StoreFull, and
    OverflowError for a file of more than `most` bytes, leaving nothing behind."""
    import safetensors.torch

    head = {**head, "format": _FORMAT}
    head["sha256"] = _digest(head, tensors)
    # One metadata entry: several would be written in no fixed order, and the file with them.
    blob = safetensors.torch.save(dict(tensors), metadata={"polyrot": _dumps(head)})
    if most is not None and len(blob) > most:
        needs, left = len(blob) / 2**20, max(most, 0) / 2**20
        raise OverflowError(f"{path.name} needs {needs:.2f} MiB, and {left:.2f} MiB are left")
    temporary = path.parent / f".tmp-{head['fingerprint'][:16]}-{uuid.uuid4().hex}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise refused(path, error, len(blob)) from error
        raise


def refused(path: Path, error: OSError, needed: int = 0) -> Unwritable:
    """The error for a write that was refused: StoreFull where there was no room for the `needed`
    bytes."""
    if error.errno not in FULL or isinstance(error, StoreFull):
        return unwritable(path, error, ELSEWHERE)
    needs = f": {path.name} needs {needed / 2**20:.1f} MiB" if needed else ""
    return StoreFull(
        error.errno or errno.ENOSPC,
        f"{room(path.parent)}{needs}. Nothing was written; make room, or move the store with "
        "--artifacts DIR",
    )


def on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # Cloned: safetensors refuses tensors that share memory, and the caller may go on to change his.
    """Copies on the CPU, each with memory of its own."""
    import torch

    return {
        n: t.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        for n, t in tensors.items()
    }
