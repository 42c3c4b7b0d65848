"""Disks and directories that refuse, made for real: by mode and user, and where the system lets the
tests mount one, small and read-only file systems."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534


@contextlib.contextmanager
def as_another_user() -> Iterator[None]:
    """Within it root is nobody, whom permissions hold back; any other user stays itself. Skips
    where nobody may not even read what Python itself is made of."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        if not os.access(pytest.__file__, os.R_OK, effective_ids=True):
            pytest.skip(f"needs an environment that others than root may read, not {sys.prefix}")
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def closed(*folders: Path, mode: int = 0o555) -> Iterator[None]:
    """Within it the `folders` have this mode, for a user whom that concerns."""
    before = {folder: folder.stat().st_mode for folder in folders}
    for above in folders[0].parents:  # pytest's own directories are its user's alone
        if above != Path(above.anchor) and above.stat().st_uid == os.geteuid():
            before[above] = above.stat().st_mode
            above.chmod(before[above] | 0o055)
    for folder in folders:
        folder.chmod(mode)
    try:
        with as_another_user():
            yield
    finally:
        for folder, was in before.items():
            folder.chmod(was)


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
