"""Artifacts on disk: trained seeds, dictionaries, whatever takes long to make.

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
is unfinished stays: checkpoints, and, while another process is building there, everything. A second
run beside the first has a directory of its own (`polyrot.store.place`), `retrain-2/`.

With `remeasure` the same holds of what is measured, in `remeasure/`; what is trained or drawn (see
TRAINED) is read as ever.

A cache that can only be read serves all the same: with `instead` what is built goes there.

`python -m polyrot.store --help` lists, verifies and ships artifacts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from polyrot.runtime.files import check_file
from polyrot.runtime.progress import Progress, silent
from polyrot.store.file import (
    SUFFIX,
    Artifact,
    Damaged,
    fingerprint,
    from_stored,
    on_cpu,
    plain,
    read,
    refused,
    write,
)
from polyrot.store.place import REMEASURE, RETRAIN
from polyrot.store.shipped import DamagedArtifact, artifacts_in, read_manifest, restore_advice

TRAINED = ("dictionaries", "haar-null-", "language-", "sparsity", "toy-seeds", "transcoders")
"""How the kinds begin of what is no measurement: models and dictionaries, their text, null tables.
"""
_LONGEST_NAME = 100
_log = logging.getLogger(__name__)


class StoreWarning(UserWarning):
    """A file of the store could not be used; the message names it and says what happens."""


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
        """Replace the saved state, atomically. Raises Unwritable, keeping the previous one."""
        meta = plain(state.meta, "meta")
        write(self.path, {**self.head, "role": "checkpoint", "meta": meta}, on_cpu(state.tensors))


def _remove(path: Path) -> None:
    """Clear away what is no longer needed; what cannot be removed harms nobody."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _warn(path: Path, damage: Damaged, then: str) -> None:
    warnings.warn(f"{path} is not used: {damage}; {then}", StoreWarning, stacklevel=2)


@dataclass(frozen=True)
class Tally:
    """Which measurements a run has read and which it has made, each by its kind and fingerprint."""

    read: set[tuple[str, str]] = field(default_factory=set)
    measured: set[tuple[str, str]] = field(default_factory=set)
    _watching: list[set[tuple[str, str]]] = field(default_factory=list)

    def note(self, kind: str, fp: str, *, read: bool) -> None:
        """What was measured in this run and then read again was measured."""
        if kind.startswith(TRAINED):
            return
        for seen in self._watching:
            seen.add((kind, fp))
        if (kind, fp) not in self.measured:
            (self.read if read else self.measured).add((kind, fp))

    @contextlib.contextmanager
    def watched(self) -> Iterator[set[tuple[str, str]]]:
        """A set that fills with what is read and made until the context is left."""
        self._watching.append(set())
        try:
            yield self._watching[-1]
        finally:
            self._watching.pop()

    def take(self, given: Sequence[Sequence[Sequence[str]]]) -> None:
        """Another process's, as lists: what it read and what it measured."""
        read, measured = ({(kind, fp) for kind, fp in found} for found in given)
        self.measured.update(measured)
        self.read.update(read)
        self.read.difference_update(self.measured)

    def by_kind(self) -> dict[str, dict[str, int]]:
        """How many of each kind were read, and measured."""
        return {
            name: dict(sorted(Counter(kind for kind, _ in found).items()))
            for name, found in (("read", self.read), ("measured", self.measured))
        }

    def sentence(self) -> str:
        """For the end of a run."""
        return (
            f"tables behind the figures: {len(self.read)} read, as they were kept, and "
            f"{len(self.measured)} measured in this run; --remeasure measures them all"
        )


@dataclass(frozen=True)
class Store:
    """Artifacts below `root`, after those of `shipped`. See the module's text for `retrain`.
    progress: shown by builds that are handed no display of their own. instead: where to write where
    `root` can only be read. folder: that of this run's retraining or remeasuring. tally: of what
    was asked for."""

    root: Path
    shipped: Path | None = None
    retrain: bool = False
    progress: Progress = field(default=silent, compare=False)
    instead: Path | None = None
    folder: str = RETRAIN
    remeasure: bool = False
    tally: Tally = field(default_factory=Tally, compare=False)

    def anew(self, kind: str) -> bool:
        """Whether artifacts of a kind are made anew, whatever lies shipped or in the cache."""
        return self.retrain or (self.remeasure and not kind.startswith(TRAINED))

    @property
    def _root(self) -> Path:
        return Path(self.root if self.instead is None else self.instead)

    @property
    def directory(self) -> Path:
        """Where this run writes what it trains, and reads it."""
        return self._root / self.folder if self.retrain else self._root

    def _directory(self, kind: str) -> Path:
        """The same of one kind."""
        return (self._root / self.folder if self.anew(kind) else self._root) / kind

    def _caches(self, kind: str) -> list[Path]:
        """Where this run reads its cache of a kind."""
        below = [] if self.anew(kind) or self.instead is None else [Path(self.root) / kind]
        return [self._directory(kind), *below]

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
        Raises ValueError (recipe or meta is not JSON), DamagedArtifact, Unwritable, StoreFull.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", kind) or kind.startswith((RETRAIN, REMEASURE)):
            raise ValueError(f"{kind!r} is no kind of artifact: use a-z, 0-9, _ and -")
        fp = fingerprint(kind, recipe)
        found = None if self.anew(kind) else self._from_shipped(kind, fp)
        if found or (found := self._from_cache(kind, fp, quiet=True)):
            self.tally.note(kind, fp, read=not self.anew(kind))
            return found
        self.tally.note(kind, fp, read=False)
        with self._lock(kind, fp):
            # Another process may have built it while this one waited.
            if found := self._from_cache(kind, fp, quiet=False):
                self._unlock(kind, fp)
                return found
            head = {"kind": kind, "name": name, "fingerprint": fp}
            built = self._build({**head, "recipe": plain(recipe, "recipe")}, build)
            self._unlock(kind, fp)
            return built

    def _build(self, head: dict[str, Any], build: Callable[[Checkpoint], Artifact]) -> Artifact:
        import torch

        kind, fp = head["kind"], head["fingerprint"]
        directory = self._directory(kind)
        # Every writer of this key holds its lock, so its temporary files are left from a kill.
        checkpoint = Checkpoint(directory / f".checkpoint-{fp[:16]}{SUFFIX}", head)
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", head["name"]).lstrip(".")[:_LONGEST_NAME]
        path = directory / f"{readable}-{fp[:16]}{SUFFIX}".lstrip("-")
        for file in (checkpoint.path, path):
            check_file(file, "Nothing was built")
        for stale in directory.glob(f".tmp-{fp[:16]}-*"):
            _remove(stale)
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
        write(path, {**head, "role": "artifact", "meta": dict(done.meta)}, done.tensors)
        for other in artifacts_in(directory, fp):
            if other != path:  # damaged, or it would have been used
                _remove(other)
        _remove(checkpoint.path)
        return done

    def _from_shipped(self, kind: str, fp: str) -> Artifact | None:
        if self.shipped is None:
            return None
        shipped = Path(self.shipped)
        listed = read_manifest(shipped)
        for path in artifacts_in(shipped / kind, fp):
            entry = listed.get(path.relative_to(shipped).as_posix(), {})
            try:
                return from_stored(*read(path, fp, file_sha=entry.get("sha256")))
            except Damaged as damage:
                raise DamagedArtifact(restore_advice(path, damage)) from damage
        for file, entry in listed.items():
            if entry.get("fingerprint") == fp:
                _warn(shipped / file, Damaged("the manifest lists it, but it is missing"),
                      "it is looked for in the cache, or built")  # fmt: skip
        return None

    def _from_cache(self, kind: str, fp: str, quiet: bool) -> Artifact | None:
        for path in (p for cache in self._caches(kind) for p in artifacts_in(cache, fp)):
            try:
                return from_stored(*read(path, fp))
            except Damaged as damage:
                if not quiet:
                    _warn(path, damage, "it is built again")
        return None

    def _unlock(self, kind: str, fp: str) -> None:
        """Take the lock's file away, while it is held and the artifact is there: whoever waits for
        it, or makes one anew, finds the artifact."""
        _remove(self._directory(kind) / f".lock-{fp[:16]}")

    def _lock(self, kind: str, fp: str) -> contextlib.AbstractContextManager[object]:
        """The key's lock, held until its context is left."""
        path = self._directory(kind) / f".lock-{fp[:16]}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_file(path, "Nothing was built")
            lock = FileLock(path)
            try:
                return lock.acquire(timeout=1)
            except Timeout:
                _log.warning("another process is building %s %s; waiting for it", kind, fp[:16])
                return lock.acquire()
        except OSError as error:
            raise refused(path, error) from error

    def has(self, kind: str, recipe: Mapping[str, Any]) -> bool:
        """Whether the artifact is there, shipped or cached; damage to it is not looked for."""
        fp, shipped = fingerprint(kind, recipe), None if self.anew(kind) else self.shipped
        places = [*self._caches(kind), *([] if shipped is None else [Path(shipped) / kind])]
        return any(artifacts_in(place, fp) for place in places)

    def state(self) -> tuple[int, int]:
        """Number of artifacts in this run's cache, and their bytes."""
        sizes = [p.stat().st_size for p in artifacts_in(self.directory, below="*/")]
        return len(sizes), sum(sizes)

    def finish_retrain(self) -> int:
        """Move what a `retrain` or `remeasure` run built into the cache; number of files. Call it
        once, at the end of a run that was not interrupted, and from one process. Checkpoints and
        locks stay; nothing is moved while another process is building there: it will look for it.
        Raises Unwritable."""
        made = self._root / self.folder
        if not (self.retrain or self.remeasure) or self._is_building(made):
            return 0
        built = artifacts_in(made, below="*/")
        for path in built:
            target = Path(self.root) / path.relative_to(made)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # another process moved it just now
                    os.replace(path, target)
            except OSError as error:
                raise refused(target, error) from error
        return len(built)

    @staticmethod
    def _is_building(folder: Path) -> bool:
        for path in folder.glob("*/.lock-*"):
            try:
                FileLock(path).acquire(timeout=0).lock.release()
            except Timeout:
                return True
        return False
