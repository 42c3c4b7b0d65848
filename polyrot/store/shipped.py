"""What is shipped with the suite: copying artifacts there, the manifest, and checking both."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tomllib
from pathlib import Path
from typing import Any

import torch

from polyrot.store.file import SUFFIX, Damaged, read, write

SHIPPED_BUDGET = 40 * 2**20


_MANIFEST = "manifest.toml"


class DamagedArtifact(RuntimeError):
    """A shipped file is not what it should be; the message names it and says what to do."""


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


def ship(file: Path, shipped: Path, half: bool = False) -> Path:
    """Copy one artifact of a cache into `shipped`; `half` stores its float tensors as float16.

    The fingerprint stays; `meta["stored_dtype"]` records the precision, and `get_or_build` returns
    float32. Raises DamagedArtifact, and OverflowError where a value does not fit float16.
    Call `write_manifest` afterwards.
    """
    try:
        head, tensors = read(file)
    except Damaged as damage:
        raise DamagedArtifact(f"{file} cannot be shipped: {damage}") from damage
    if half:
        wide = {n: t for n, t in tensors.items() if t.dtype in (torch.float32, torch.float64)}
        for name, tensor in wide.items():
            tensors[name] = tensor.half()
            if tensor.isfinite().all() and not tensors[name].isfinite().all():
                raise OverflowError(f"{name} of {file} does not fit float16: ship it without half")
        head["meta"]["stored_dtype"] = "float16"
    target = Path(shipped) / head["kind"] / Path(file).name
    write(target, head, tensors)
    return target


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
    temporary = manifest.with_suffix(".tmp")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(temporary, manifest)
    return manifest


def read_manifest(shipped: Path) -> dict[str, dict[str, Any]]:
    """Entries of `manifest.toml` by file name; none where there is none. Raises DamagedArtifact."""
    path = Path(shipped) / _MANIFEST
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedArtifact(restore_advice(path, Damaged(f"it is not TOML ({error})"))) from error


def verify(shipped: Path) -> list[str]:
    """What is wrong with the shipped files, one line each; empty where all is well."""
    shipped = Path(shipped)
    try:
        listed = read_manifest(shipped)
    except DamagedArtifact as error:
        return [str(error)]
    present = {p.relative_to(shipped).as_posix() for p in artifacts_in(shipped, below="*/")}
    total = sum((shipped / file).stat().st_size for file in present)
    if not listed and not present:
        return [f"nothing is shipped in {shipped}: there is no manifest and no artifact"]
    problems = [f"{f}: listed in the manifest, but missing" for f in sorted(set(listed) - present)]
    problems += [f"{f}: not listed in the manifest" for f in sorted(present - set(listed))]
    for file in sorted(present & set(listed)):
        entry = listed[file]
        try:
            read(shipped / file, entry.get("fingerprint"), file_sha=entry.get("sha256"))
        except Damaged as damage:
            problems.append(f"{file}: {damage}")
    if total > SHIPPED_BUDGET:
        problems.append(
            f"{total / 2**20:.1f} MiB are shipped, {SHIPPED_BUDGET / 2**20:.0f} at most"
        )
    return problems
