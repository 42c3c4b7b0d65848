"""Where a run took place: versions, device, commit, state of the artifact cache."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("polyrot", "torch", "transformers", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Versions of what the figures depend on, Python first."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def device_name(device: str) -> str:
    """The name of the card for "cuda", otherwise of the processor with its number of cores."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    n = torch.get_num_threads()
    return f"{platform.machine()}, {n} thread{'' if n == 1 else 's'}"


def commit(root: Path) -> str:
    """Short hash of the checkout at `root`, "-dirty" if changed; "unknown" outside of git."""
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip() or "unknown"


def options_line(options: Mapping[str, str]) -> str:
    """ "--schedule shipped, --tokens 65536", or "none"."""
    return ", ".join(f"{name} {value}" for name, value in options.items()) or "none"


def of_run(
    root: Path, device: str, scales: Sequence[str], options: Mapping[str, str], started: float
) -> dict[str, Any]:
    """What a report says of a run that ends now. options: those that decide what was judged, by
    name; `started` by time.monotonic()."""
    return {
        "versions": versions(),
        "device": device,
        "device_name": device_name(device),
        "scales": list(scales),
        "options": dict(options),
        "date": date.today().isoformat(),
        "commit": commit(root),
        "duration_s": round(time.monotonic() - started, 1),
    }


def cache_state(folder: Path) -> str:
    """ "~/.cache/polyrot (12 files, 34.5 MB)"."""
    sizes = []
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            if path.is_file():
                sizes.append(path.stat().st_size)
        except OSError:  # another run may be renaming its temporary files
            continue
    return f"{folder} ({len(sizes)} files, {sum(sizes) / 1e6:.1f} MB)"
