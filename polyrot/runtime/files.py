"""Files written whole or not at all, and one clear error for whatever keeps them from being so."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
"""No room, for bytes or for one more file."""
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What may still be read, perhaps."""
_ROOM = 4096  # bytes of the trial: a full disk may well have room for an empty file


class Unwritable(OSError):
    """A file or directory that cannot be written. The message says which, why, and what to do;
    `errno` is the system's number."""

    def __str__(self) -> str:
        return str(self.strerror)


def unwritable(path: Path, error: OSError, advice: str = "") -> Unwritable:
    """The error for `path` of what the system said of it; an Unwritable stays as it is."""
    if isinstance(error, Unwritable):
        return error
    after = f". {advice}" if advice else ""
    return Unwritable(
        error.errno or errno.EIO, f"{path} cannot be written: {_why(path, error)}{after}"
    )


def _why(path: Path, error: OSError) -> str:
    if error.errno in FULL:
        return room(path)
    if error.errno == errno.EROFS:
        return "its disk is mounted read-only"
    if error.errno in READ_ONLY:
        return f"you may not write in {_there(path)}{_owner(_there(path))}"
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENOTEMPTY):
        return _in_the_way(path) or error.strerror or str(error)
    if error.errno == errno.ENAMETOOLONG:
        return "its name is too long for the disk"
    if error.errno == errno.ELOOP:
        return "a link on the way leads back to itself"
    return error.strerror or str(error)


def _there(path: Path) -> Path:
    """The nearest directory on the way to `path` that is there."""
    for part in (path, *path.absolute().parents):
        try:
            if part.is_dir():
                return part
        except OSError:
            continue
    return path


def _owner(folder: Path) -> str:
    try:
        owner = folder.stat().st_uid
    except OSError:
        return ""
    mine = not hasattr(os, "geteuid") or owner == os.geteuid()
    return "" if mine else f", which belongs to user {owner}"


def _in_the_way(path: Path) -> str:
    for part in reversed(path.absolute().parents):
        if part.is_symlink() and not part.exists():
            return f"{part} is a link to nothing"
        if part.exists() and not part.is_dir():
            return f"{part} is a file where a directory should be"
    if path.is_symlink() and not path.exists():
        return "it is a link to nothing"
    if path.is_dir():
        return "it is a directory where a file should be; move it away"
    return "it is a file where a directory should be" if path.exists() else ""


def room(path: Path) -> str:
    """What is said of a disk that has none left: bytes free, or that it has no more files."""
    folder = _there(path)
    try:
        free = shutil.disk_usage(folder).free
        files = os.statvfs(folder) if hasattr(os, "statvfs") else None
    except OSError:
        return f"no space left in {folder}"
    if files is not None and files.f_files and not files.f_favail:
        return f"no space left in {folder}: the disk can hold no more files (inodes)"
    return f"no space left in {folder}, {free / 2**20:.1f} MiB are free"


def check_folder(folder: Path, advice: str = "") -> None:
    """Make `folder` unless it is there, and try whether a file can be written in it. Raises
    Unwritable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(folder, error, advice) from error


def check_file(path: Path, advice: str = "") -> None:
    """Raise Unwritable where `path` is something else than a file, which no file can replace."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise unwritable(path, error, advice) from error
    if stat.S_ISDIR(kind):
        found = IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise unwritable(path, found, advice)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write UTF-8 text, or bytes, to a temporary file beside `path`, then rename it.

    Raises Unwritable, leaving nothing behind and what was there as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temporary, 0o644)  # mkstemp's own mode would hide the file from other users
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error) from error
