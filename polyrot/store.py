"""Artifacts on disk: trained seeds, dictionaries, whatever is dear to make.

One artifact is one `.safetensors` file, `<kind>/<name>-<first 16 of its fingerprint>.safetensors`.
Its header holds kind, fingerprint, recipe, meta and a sha256 over all of them and the tensors, so
that a damaged file, or one made for something else, is never used unseen.

Where an artifact is looked for, in order:

1. the shipped directory, read-only (damage there is an error: `DamagedArtifact`);
2. the cache (damage there is a `StoreWarning`, and the artifact is built again);
3. else it is built, under a lock per key, so that two processes build it once.

With `retrain` the directory `retrain/` below the cache stands in for both, and it begins empty.
What one run builds there is found again by its other processes (pytest-xdist), and by the next
`--retrain` run if this one was killed. `Store.finish_retrain`, called once at the end of a run that
was not interrupted, moves it into the cache, so that the `--retrain` after that begins anew. What
is unfinished stays: checkpoints, and, while another run is building there, everything.

`python -m polyrot.store --help` lists, verifies and ships artifacts.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import logging
import os
import platform
import re
import sys
import time
import tomllib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import AcquireReturnProxy, FileLock, Timeout

from polyrot.artifact_file import (
    JSON,
    SUFFIX,
    Artifact,
    Damaged,
    StoreFull,
    fingerprint,
    from_stored,
    on_cpu,
    plain,
    read,
    store_full,
    write,
)
from polyrot.progress import Progress, silent

__all__ = [
    "JSON",
    "Artifact",
    "Checkpoint",
    "DamagedArtifact",
    "Store",
    "StoreFull",
    "StoreWarning",
    "fingerprint",
    "read_manifest",
    "ship",
    "verify",
    "write_manifest",
]

SHIPPED_BUDGET = 40 * 2**20
_MANIFEST = "manifest.toml"
_log = logging.getLogger(__name__)


class StoreWarning(UserWarning):
    """A file of the store could not be used; the message names it and says what happens."""


class DamagedArtifact(RuntimeError):
    """A shipped file is not what it should be; the message names it and says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """Where an unfinished build of one artifact keeps its progress. Deleted when it is finished."""

    path: Path
    head: Mapping[str, Any]

    def load(self) -> Artifact | None:
        """The last state saved for this very recipe, or None."""
        if not self.path.exists():
            return None
        try:
            return from_stored(*read(self.path, self.head["fingerprint"], role="checkpoint"))
        except Damaged as damage:
            _warn(self.path, damage, "the build starts from its beginning")
            return None

    def save(self, state: Artifact) -> None:
        """Replace the saved state, atomically. Raises StoreFull, keeping the previous one."""
        meta = plain(state.meta, "meta")
        write(self.path, {**self.head, "role": "checkpoint", "meta": meta}, on_cpu(state.tensors))


def _warn(path: Path, damage: Damaged, then: str) -> None:
    warnings.warn(f"{path} is not used: {damage}; {then}", StoreWarning, stacklevel=2)


def _artifacts(directory: Path, fp: str = "", below: str = "") -> list[Path]:
    # `*` matches hidden files too: checkpoints are none of these.
    found = directory.glob(f"{below}*{fp[:16]}{SUFFIX}")
    return sorted(p for p in found if not p.name.startswith("."))


@dataclass(frozen=True)
class Store:
    """Artifacts below `root`, after those of `shipped`. See the module's text for `retrain`.
    progress: told by builds that have no other way to be heard."""

    root: Path
    shipped: Path | None = None
    retrain: bool = False
    progress: Progress = field(default=silent, compare=False)

    @property
    def directory(self) -> Path:
        """Where this run reads and writes its cache."""
        return Path(self.root) / "retrain" if self.retrain else Path(self.root)

    def get_or_build(
        self,
        kind: str,
        recipe: Mapping[str, Any],
        build: Callable[[Checkpoint], Artifact],
        name: str = "",
    ) -> Artifact:
        """The artifact that `recipe` describes: shipped, cached, or built now.

        `recipe` must name everything that decides the result; `name` is for people and decides
        nothing. `build(checkpoint)` may resume from `checkpoint.load()` and call
        `checkpoint.save(...)`. Tensors come back on the CPU, fresh at each call.
        Raises ValueError (recipe or meta is not JSON), DamagedArtifact, StoreFull.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", kind) or kind == "retrain":
            raise ValueError(f"{kind!r} is no kind of artifact: use a-z, 0-9, _ and -")
        fp = fingerprint(kind, recipe)
        found = None if self.retrain else self._from_shipped(kind, fp)
        if found or (found := self._from_cache(kind, fp, quiet=True)):
            return found
        with self._lock(kind, fp):
            # Another process may have built it while this one waited.
            if found := self._from_cache(kind, fp, quiet=False):
                return found
            head = {"kind": kind, "name": name, "fingerprint": fp}
            return self._build({**head, "recipe": plain(recipe, "recipe")}, build)

    def _build(self, head: dict[str, Any], build: Callable[[Checkpoint], Artifact]) -> Artifact:
        kind, fp = head["kind"], head["fingerprint"]
        directory = self.directory / kind
        # Every writer of this key holds its lock, so its temporary files are left from a kill.
        for stale in directory.glob(f".tmp-{fp[:16]}-*"):
            stale.unlink(missing_ok=True)
        checkpoint = Checkpoint(directory / f".checkpoint-{fp[:16]}{SUFFIX}", head)
        start = time.monotonic()
        built = build(checkpoint)
        if not isinstance(built, Artifact):
            raise TypeError(f"the builder of {kind} returned a {type(built).__name__}, no Artifact")
        head["built"] = {
            "when": datetime.now(UTC).strftime("%Y-%m-%d"),
            "seconds": round(time.monotonic() - start, 1),
            "torch": torch.__version__,
        }
        done = Artifact(on_cpu(built.tensors), plain(built.meta, "meta"))
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", head["name"]).lstrip(".")
        path = directory / f"{readable}-{fp[:16]}{SUFFIX}".lstrip("-")
        write(path, {**head, "role": "artifact", "meta": dict(done.meta)}, done.tensors)
        for other in _artifacts(directory, fp):
            if other != path:  # damaged, or it would have been used
                other.unlink(missing_ok=True)
        checkpoint.path.unlink(missing_ok=True)
        return done

    def _from_shipped(self, kind: str, fp: str) -> Artifact | None:
        if self.shipped is None:
            return None
        shipped = Path(self.shipped)
        listed = read_manifest(shipped)
        for path in _artifacts(shipped / kind, fp):
            entry = listed.get(path.relative_to(shipped).as_posix(), {})
            try:
                return from_stored(*read(path, fp, file_sha=entry.get("sha256")))
            except Damaged as damage:
                raise DamagedArtifact(_remedy(path, damage)) from damage
        for file, entry in listed.items():
            if entry.get("fingerprint") == fp:
                _warn(shipped / file, Damaged("the manifest lists it, but it is missing"),
                      "it is looked for in the cache, or built")  # fmt: skip
        return None

    def _from_cache(self, kind: str, fp: str, quiet: bool) -> Artifact | None:
        for path in _artifacts(self.directory / kind, fp):
            try:
                return from_stored(*read(path, fp))
            except Damaged as damage:
                if not quiet:
                    _warn(path, damage, "it is built again")
        return None

    def _lock(self, kind: str, fp: str) -> AcquireReturnProxy:
        """The key's lock, held until its context is left."""
        path = self.directory / kind / f".lock-{fp[:16]}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise store_full(path, 0) from error
            raise
        lock = FileLock(path)
        try:
            return lock.acquire(timeout=1)
        except Timeout:
            _log.warning("another process is building %s %s; waiting for it", kind, fp[:16])
            return lock.acquire()

    def has(self, kind: str, recipe: Mapping[str, Any]) -> bool:
        """Whether the artifact is there, shipped or cached; damage to it is not looked for."""
        fp, shipped = fingerprint(kind, recipe), None if self.retrain else self.shipped
        places = [Path(place) for place in (self.directory, shipped) if place is not None]
        return any(_artifacts(place / kind, fp) for place in places)

    def state(self) -> tuple[int, int]:
        """Number of artifacts in this run's cache, and their bytes."""
        sizes = [p.stat().st_size for p in _artifacts(self.directory, below="*/")]
        return len(sizes), sum(sizes)

    def finish_retrain(self) -> int:
        """Move what a `retrain` run built into the cache; number of files. Call it once, at the
        end of a run that was not interrupted, and from one process. Checkpoints and locks stay;
        nothing is moved while another run is building there: it will look for it."""
        if not self.retrain or self._is_building():
            return 0
        built = _artifacts(self.directory, below="*/")
        for path in built:
            target = Path(self.root) / path.relative_to(self.directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another run finishes at this moment
                os.replace(path, target)
        return len(built)

    def _is_building(self) -> bool:
        for path in self.directory.glob("*/.lock-*"):
            try:
                FileLock(path).acquire(timeout=0).lock.release()
            except Timeout:
                return True
        return False


def _remedy(path: Path, damage: Damaged) -> str:
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
    for path in _artifacts(Path(shipped), below="*/"):
        try:
            head, _ = read(path)
        except Damaged as damage:
            raise DamagedArtifact(_remedy(path, damage)) from damage
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
        raise DamagedArtifact(_remedy(path, Damaged(f"it is not TOML ({error})"))) from error


def verify(shipped: Path) -> list[str]:
    """What is wrong with the shipped files, one line each; empty where all is well."""
    shipped = Path(shipped)
    try:
        listed = read_manifest(shipped)
    except DamagedArtifact as error:
        return [str(error)]
    present = {p.relative_to(shipped).as_posix() for p in _artifacts(shipped, below="*/")}
    total = sum((shipped / file).stat().st_size for file in present)
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


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 where all is well."""
    about = "Check, list and extend the artifacts that are shipped with the suite."
    parser = argparse.ArgumentParser(prog="python -m polyrot.store", description=about)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (
        ("verify", "check every shipped file against the manifest"),
        ("list", "list the shipped files"),
        ("ship", "copy artifacts of a cache into the shipped directory, rewrite the manifest"),
    ):
        sub = commands.add_parser(command, help=text, description=text)
        sub.add_argument("--shipped", type=Path, default=Path("fixtures/shipped"), metavar="DIR")
        if command == "ship":
            sub.add_argument("files", type=Path, nargs="+", metavar="FILE")
            sub.add_argument("--half", action="store_true", help="store float tensors as float16")
    options = parser.parse_args(arguments)
    try:
        if options.command == "verify":
            problems = verify(options.shipped)
            print("\n".join(problems) or f"{len(read_manifest(options.shipped))} files, all well")
            return int(bool(problems))
        if options.command == "ship":
            for file in options.files:
                print(ship(file, options.shipped, options.half))
            write_manifest(options.shipped)
        else:
            for file, entry in read_manifest(options.shipped).items():
                print(f"{entry['bytes']:>10}  {entry['when']}  {entry['seconds']:>8} s  {file}")
    except (DamagedArtifact, OverflowError, StoreFull) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
