"""Where a store writes: whether it can, and which of several `--retrain` runs writes where."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from polyrot.runtime.files import READ_ONLY, Unwritable, check_file, check_folder, unwritable
from polyrot.store.file import ELSEWHERE, SUFFIX, refused

RETRAIN = "retrain"
REMEASURE = "remeasure"
_RUN = ".lock-run"  # in a directory of retraining: locked while a run works in it
_MOST_RUNS = 64


def only_readable(root: Path) -> str:
    """Why artifacts can be read below `root` but not kept, "" where they can be.

    A directory that is not there is made. Raises Unwritable where neither is possible, and for a
    directory in the place of an artifact, a checkpoint or a lock, before anything is built for it.
    """
    found = ""
    try:
        check_folder(root, ELSEWHERE)
    except Unwritable as error:
        if error.errno not in READ_ONLY or not _allowed(root, os.R_OK | os.X_OK):
            raise
        found = str(error)
    for folder in _folders(root):
        if not _allowed(folder, os.W_OK | os.X_OK):
            denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            found = found or str(unwritable(folder, denied, ELSEWHERE))
        for path in _inside(folder):
            if path.name.startswith((".lock-", ".checkpoint-", ".tmp-")) or path.suffix == SUFFIX:
                check_file(path, "Nothing was built")
    return found


def check_writable(root: Path) -> None:
    """Raise Unwritable unless artifacts can be kept below `root`, as a command that trains must."""
    if why := only_readable(root):
        raise Unwritable(errno.EACCES, why)


def _allowed(folder: Path, mode: int) -> bool:
    return os.access(folder, mode, effective_ids=os.access in os.supports_effective_ids)


def _folders(root: Path) -> list[Path]:
    return [path for path in _inside(root) if path.is_dir()]


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise Unwritable(
            error.errno or errno.EIO,
            f"{folder} cannot be looked into: {error.strerror or error}. {ELSEWHERE}",
        ) from error


@dataclass(frozen=True)
class Retraining:
    """The directory that one `--retrain` or `--remeasure` run has to itself, below the cache, as
    long as it is not released. A later run whose process finds it released, and unfinished, goes on
    there."""

    folder: str
    lock: FileLock

    def release(self) -> None:
        """Leave it to the next run."""
        self.lock.release()


def begin_retraining(root: Path, name: str = RETRAIN) -> Retraining:
    """A directory of retraining, or of remeasuring by that name, below `root` that no other run
    works in: one in which a run that was stopped has left something before an empty one. Raises
    Unwritable."""
    names = [name, *(f"{name}-{n}" for n in range(2, _MOST_RUNS))]
    unfinished = [name for name in names if _holds_something(root / name)]
    for name in [*unfinished, *(name for name in names if name not in unfinished)]:
        path = root / name / _RUN
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(timeout=0)
        except Timeout:
            continue
        except OSError as error:
            raise refused(path, error) from error
        return Retraining(name, lock)
    raise Unwritable(
        errno.EBUSY, f"{_MOST_RUNS} runs with --{name} work on {root} already. {ELSEWHERE}"
    )


def _holds_something(folder: Path) -> bool:
    return any(True for pattern in (f"*/*{SUFFIX}", f"*/.*{SUFFIX}") for _ in folder.glob(pattern))
