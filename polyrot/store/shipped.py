"""What is shipped with the suite: copying artifacts there, the manifest, and checking both."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from polyrot.runtime.documents import BadDocument, read_toml
from polyrot.runtime.files import write_atomically
from polyrot.store.file import SUFFIX, Damaged, read, write

SHIPPED = Path("fixtures") / "shipped"
"""The shipped directory of a checkout."""
SHIPPED_BUDGET = 44 * 2**20
"""Bytes that it may hold, its manifest among them."""

_MANIFEST = "manifest.toml"


class DamagedArtifact(RuntimeError):
    """A shipped file is not what it should be; the message names it and says what to do."""


def shipped_with_code() -> Path | None:
    """The shipped directory of the checkout that this code is run from, wherever one stands; None
    where it was installed without one."""
    found = Path(__file__).resolve().parents[2] / SHIPPED
    return found if found.is_dir() else None


def artifacts_in(directory: Path, fp: str = "", below: str = "") -> list[Path]:
    """The artifacts of a directory, sorted: of one fingerprint, or all (""). below: "*/" for those
    of its folders."""
    # `*` matches hidden files too: checkpoints are none of these.
    found = directory.glob(f"{below}*{fp[:16]}{SUFFIX}")
    return sorted(p for p in found if not p.name.startswith("."))


def restore_advice(path: Path, damage: Damaged) -> str:
    """What is wrong with a shipped file, and how to have it whole again."""
    return (
        f"the shipped file {path} is damaged: {damage}. Restore it with `git checkout -- {path}`, "
        "or run with --retrain to train everything anew"
    )


def ship(file: Path, shipped: Path, half: bool = False, without: str = "") -> Path:
    """Copy one artifact of a cache into `shipped`; `half` stores its float tensors as float16, and
    `without` leaves out those whose names begin so.

    The fingerprint stays; `meta["stored_dtype"]` records the precision, and `get_or_build` returns
    float32; `meta["left_out"]` records the beginning. Raises DamagedArtifact, KeyError where no
    name begins so, and OverflowError where a value does not fit float16 or the file does not fit
    the budget. Call `write_manifest` afterwards.
    """
    import torch

    try:
        head, tensors = read(file)
    except Damaged as damage:
        raise DamagedArtifact(f"{file} cannot be shipped: {damage}") from damage
    if without:
        kept = {n: t for n, t in tensors.items() if not n.startswith(without)}
        if len(kept) == len(tensors):
            raise KeyError(f"no tensor of {file} has a name that begins with {without!r}")
        tensors = kept
        head["meta"]["left_out"] = without
    if half:
        wide = {n: t for n, t in tensors.items() if t.dtype in (torch.float32, torch.float64)}
        for name, tensor in wide.items():
            tensors[name] = tensor.half()
            if tensor.isfinite().all() and not tensors[name].isfinite().all():
                raise OverflowError(f"{name} of {file} does not fit float16: ship it without half")
        head["meta"]["stored_dtype"] = "float16"
    shipped = Path(shipped)
    target = shipped / head["kind"] / Path(file).name
    others = _bytes_in(shipped) - (target.stat().st_size if target.exists() else 0)
    try:
        write(target, head, tensors, most=SHIPPED_BUDGET - others)
    except OverflowError as error:
        raise OverflowError(
            f"{error} of the {SHIPPED_BUDGET / 2**20:.0f} MiB of {shipped}: take away there what "
            "is superseded"
        ) from error
    return target


def _bytes_in(shipped: Path) -> int:
    """Of the artifacts and the manifest."""
    files = artifacts_in(shipped, below="*/")
    return sum(file.stat().st_size for file in files) + _manifest_bytes(shipped)


def _manifest_bytes(shipped: Path) -> int:
    manifest = shipped / _MANIFEST
    return manifest.stat().st_size if manifest.exists() else 0


def write_manifest(shipped: Path) -> Path:
    """Write `manifest.toml` from the headers of all files below `shipped`; its path.

    `how`, `device` and `seconds` come from the artifact's meta where it has them.
    """
    lines = ["# Written by `python -m polyrot.store ship`; check with `... verify`."]
    for path in artifacts_in(Path(shipped), below="*/"):
        try:
            head, _ = read(path)
        except Damaged as damage:
            raise DamagedArtifact(restore_advice(path, damage)) from damage
        meta, built = head["meta"], head.get("built", {})
        entry = {
            "kind": head["kind"],
            "name": head["name"],
            "fingerprint": head["fingerprint"],
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
            "how": meta.get("how", f"`{head['kind']}` built from the recipe in the file's header"),
            "device": meta.get("device", platform.machine()),
            "when": built.get("when", ""),
            "seconds": meta.get("seconds", built.get("seconds", 0)),
        }
        file = path.relative_to(shipped).as_posix()
        lines += ["", f"[{json.dumps(file)}]"]
        lines += [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in entry.items()]
    manifest = Path(shipped) / _MANIFEST
    write_atomically(manifest, "\n".join(lines) + "\n")
    return manifest


def read_manifest(shipped: Path) -> dict[str, dict[str, Any]]:
    """Entries of `manifest.toml` by file name; none where there is none. Raises DamagedArtifact."""
    try:
        state = (Path(shipped) / _MANIFEST).stat()
    except OSError:
        return _read_manifest(Path(shipped))
    return dict(_read_manifest_of(Path(shipped), state.st_mtime_ns, state.st_size, state.st_ino))


@cache
def _read_manifest_of(shipped: Path, *_: int) -> dict[str, dict[str, Any]]:
    """As long as the file is the same: a run asks for an entry hundreds of times."""
    return _read_manifest(shipped)


def _read_manifest(shipped: Path) -> dict[str, dict[str, Any]]:
    entries = _manifest(shipped)
    for file, entry in entries.items():
        if wrong := next(_wrong_in(file, entry), ""):
            raise DamagedArtifact(restore_advice(shipped / _MANIFEST, Damaged(wrong)))
    return entries


def _manifest(shipped: Path) -> dict[str, Any]:
    """The manifest as it stands, entries unchecked."""
    path = shipped / _MANIFEST
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        return read_toml(path)
    except BadDocument as error:
        damage = Damaged(str(error).removeprefix(f"{path}: "))
        raise DamagedArtifact(restore_advice(path, damage)) from error


_ENTRY: dict[str, type | tuple[type, ...]] = {
    "kind": str,
    "name": str,
    "fingerprint": str,
    "sha256": str,
    "bytes": int,
    "how": str,
    "device": str,
    "when": str,
    "seconds": (int, float),
}
"""What an entry of the manifest holds."""


def _wrong_in(file: str, entry: Any) -> Iterator[str]:
    """What is wrong with an entry of the manifest, whatever the file is."""
    if not isinstance(entry, dict):
        yield f"{file}: its entry in the manifest is no table, but {entry!r}"[:200]
        return
    for key, kind in _ENTRY.items():
        if not isinstance(entry.get(key), kind) or isinstance(entry.get(key), bool):
            yield f"{file}: the manifest's {key} is {entry.get(key, 'missing')!r}"[:200]
    for key in ("fingerprint", "sha256"):
        if isinstance(entry.get(key), str) and not re.fullmatch("[0-9a-f]{64}", entry[key]):
            yield f"{file}: the manifest's {key} is no sha256"
    if not re.fullmatch(rf"[a-z0-9_-]+/[^/]+{re.escape(SUFFIX)}", file):
        yield f"{file}: the manifest names no file of the form kind/name{SUFFIX}"


def verify(shipped: Path) -> list[str]:
    """What is wrong with the shipped files, one line each; empty where all is well."""
    shipped = Path(shipped)
    problems: list[str] = []
    listed: dict[str, Any] = {}
    try:
        listed = _manifest(shipped)
    except DamagedArtifact as error:
        problems.append(str(error))
    present, total = set(), _manifest_bytes(shipped)
    for path in _below(shipped, problems):
        file = path.relative_to(shipped).as_posix()
        present.add(file)
        try:
            total += path.stat().st_size
        except OSError:
            continue  # it is said when it is read
    if not listed and not present and not problems:
        return [f"nothing is shipped in {shipped}: there is no manifest and no artifact"]
    problems += [f"{f}: listed in the manifest, but missing" for f in sorted(set(listed) - present)]
    problems += [f"{f}: not listed in the manifest" for f in sorted(present - set(listed))]
    for file, entry in sorted(listed.items()):
        wrong = list(_wrong_in(file, entry))
        problems += wrong
        if file in present and not wrong:
            problems += _wrong_with(shipped, file, entry)
    if total > SHIPPED_BUDGET:
        problems.append(
            f"{total / 2**20:.1f} MiB are shipped, {SHIPPED_BUDGET / 2**20:.0f} at most"
        )
    return problems


def _below(shipped: Path, problems: list[str]) -> list[Path]:
    """Every file that could be an artifact, links to nothing among them; what cannot be looked into
    and what is no artifact's place goes to `problems`."""
    found = []
    for path in _entries(shipped, shipped, problems):
        if path.name == _MANIFEST:
            continue
        if not path.is_dir():
            problems.append(f"{path.name}: no file of the suite, and not in a directory of a kind")
            continue
        for inner in _entries(path, shipped, problems):
            if inner.is_dir() or inner.suffix != SUFFIX or inner.name.startswith("."):
                problems.append(
                    f"{inner.relative_to(shipped).as_posix()}: no artifact of the suite"
                )
            else:
                found.append(inner)
    return found


def _entries(folder: Path, shipped: Path, problems: list[str]) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        where = "the directory" if folder == shipped else folder.relative_to(shipped).as_posix()
        problems.append(f"{where}: it cannot be looked into ({error.strerror or error})")
        return []


def _wrong_with(shipped: Path, file: str, entry: dict[str, Any]) -> Iterator[str]:
    path = shipped / file
    if path.is_symlink() and not path.exists():
        yield f"{file}: a link to nothing"
        return
    try:
        head, _ = read(path, entry["fingerprint"], file_sha=entry["sha256"])
        size = path.stat().st_size
    except (Damaged, OSError) as damage:
        yield f"{file}: {damage}"
        return
    for key, there in (("kind", head["kind"]), ("name", head["name"]), ("bytes", size)):
        if entry[key] != there:
            yield f"{file}: the manifest's {key} is {entry[key]!r}, the file's {there!r}"
    if head["kind"] != path.parent.name:
        yield f"{file}: a {head['kind']} in the directory {path.parent.name}"
