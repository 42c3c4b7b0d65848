"""What lies in a cache, and taking away what is no longer needed."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from polyrot.store.file import SUFFIX
from polyrot.store.place import REMEASURE, RETRAIN

DAY = 86_400.0
_KEY = re.compile(r"([0-9a-f]{16})")


@dataclass(frozen=True)
class Kept:
    """One file of a cache. role: "artifact", "checkpoint" of an unfinished build, or "leftover", a
    lock or a temporary file. key: the first 16 digits of its artifact's fingerprint."""

    path: Path
    kind: str
    role: str
    key: str
    size: int
    modified: float

    @property
    def in_use(self) -> bool:
        """Whether some process holds the lock of its key: it builds the artifact just now."""
        lock = self.path.parent / f".lock-{self.key}"
        if not lock.exists():
            return False
        try:
            FileLock(lock).acquire(timeout=0).lock.release()
        except Timeout:
            return True
        return False


def kept(root: Path) -> list[Kept]:
    """Every file that the store has made below `root`, directories of --retrain and --remeasure
    among them, by kind and name. Files of anyone else are not listed. Raises OSError."""
    return sorted(_kept(Path(root)), key=lambda each: (each.kind, each.role, each.path.name))


def _kept(root: Path) -> Iterator[Kept]:
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not folder.is_dir():
            continue
        if re.fullmatch(rf"({RETRAIN}|{REMEASURE})(-\d+)?", folder.name):
            yield from _kept(folder)
            continue
        for path in folder.iterdir():
            role = _role(path.name)
            key = _KEY.findall(path.name)
            if role and key and path.is_file() and not path.is_symlink():
                state = path.stat()
                yield Kept(path, folder.name, role, key[-1], state.st_size, state.st_mtime)


def _role(name: str) -> str:
    if name.startswith(".checkpoint-"):
        return "checkpoint"
    if name.startswith((".lock-", ".tmp-")):
        return "leftover"
    return "artifact" if re.search(rf"(^|-)[0-9a-f]{{16}}{re.escape(SUFFIX)}$", name) else ""


def superfluous(
    files: Collection[Kept],
    *,
    shipped: Collection[str] = (),
    kinds: Collection[str] = (),
    older_than: float | None = None,
    unfinished: bool = False,
) -> list[Kept]:
    """Those that nobody needs: leftovers; artifacts whose key is among those `shipped`; where it is
    asked for, artifacts of `kinds`, or (of these, or of all) not written for `older_than` days, and
    checkpoints. What is in use stays."""
    now = time.time()
    asked = bool(kinds) or older_than is not None

    def wanted(each: Kept) -> bool:
        if each.role == "leftover":
            return True
        if each.role == "checkpoint" and not unfinished:
            return False
        if each.role == "artifact" and each.key in shipped:
            return True
        old = older_than is None or now - each.modified >= older_than * DAY
        of_kind = not kinds or each.kind in kinds
        return old and of_kind and (asked or each.role == "checkpoint")

    return [each for each in files if wanted(each) and not each.in_use]


def by_kind(files: Collection[Kept]) -> list[str]:
    """A line for each kind and role: how many files, how large, how long ago the last was written;
    a total below."""
    groups: dict[tuple[str, str], list[Kept]] = {}
    for each in files:
        groups.setdefault((each.kind, each.role), []).append(each)
    lines = [
        f"{len(found):>6} {sum(each.size for each in found) / 1e6:>10.1f} MB"
        f"  {time.strftime('%Y-%m-%d', time.localtime(max(each.modified for each in found)))}"
        f"  {kind}{'' if role == 'artifact' else f' ({role}s)'}"
        for (kind, role), found in groups.items()
    ]
    return [*lines, f"{len(files):>6} {sum(each.size for each in files) / 1e6:>10.1f} MB  in all"]
