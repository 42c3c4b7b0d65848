"""Disks and directories that refuse, made for real: by mode and user, and where the system lets the
tests mount one, small and read-only file systems."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534


@contextlib.contextmanager
def as_another_user() -> Iterator[None]:
    """Within it root is nobody, whom permissions hold back; any other user stays itself."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def closed(folder: Path, mode: int = 0o555) -> Iterator[None]:
    """Within it `folder` has this mode, for a user whom that concerns."""
    for above in (folder, *folder.parents):  # pytest's own directories are root's alone
        if above.stat().st_uid == os.geteuid() and above != folder and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o055)
    before = folder.stat().st_mode
    folder.chmod(mode)
    try:
        with as_another_user():
            yield
    finally:
        folder.chmod(before)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory at `folder`, with the options of mount. Skips where it is not to be
    had."""
    folder.mkdir(exist_ok=True)
    command = shutil.which("mount")
    if command is None or os.geteuid() != 0:
        pytest.skip("needs mount: run as root on Linux, with the right to mount a tmpfs")
    done = subprocess.run(
        [command, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def read_only(folder: Path) -> None:
    """Mount again so that nothing can be written."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
