"""What a run costs beside `import torch` on the same machine: to collect, to ask for one family,
and for everything, the first time and again. Least of two or three, as a single run varies by a
third on a machine that others use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
GIB = 2**30


def cost(*arguments: str, cwd: Path = CHECKOUT) -> tuple[float, int]:
    """CPU seconds of a Python process and the bytes of memory that it had at most, descendants that
    it waited for included."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(
        [sys.executable, *arguments], cwd=cwd, env=environment, stdout=subprocess.DEVNULL
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def claims(*arguments: str) -> tuple[str, ...]:
    return ("-m", "pytest", "claims", "-q", "-p", "no:cacheprovider", *arguments)


@pytest.fixture(scope="module")
def torch_seconds() -> float:
    """Of `import torch`, least of three."""
    return min(cost("-c", "import torch")[0] for _ in range(3))


def test_collecting_costs_less_than_two_imports_of_torch(
    benchmark: Any, torch_seconds: float
) -> None:
    cost(*claims("--co"))  # writes byte code
    seconds = min(cost(*claims("--co"))[0] for _ in range(3))
    benchmark.extra_info |= {"cpu_seconds": seconds, "import_torch": torch_seconds}
    benchmark.pedantic(cost, claims("--co"), rounds=1)
    assert seconds < 2 * torch_seconds


def test_a_default_run_stays_within_memory_and_one_family_costs_less_than_half(
    benchmark: Any, torch_seconds: float, tmp_path: Path
) -> None:
    caches = [f"--artifacts={tmp_path / str(run)}" for run in range(3)]
    family = claims("-k", "haar", "--scale", "toy_a", caches[0])
    # In turn, so that what else the machine does meets both.
    cold, warm = zip(*((cost(*claims(c)), cost(*claims(c))) for c in caches), strict=True)
    asked = [cost(*family) for _ in range(2)]
    seconds = {
        "cold": min(cold)[0],
        "warm": min(warm)[0],
        "one family": min(asked)[0],
        "import_torch": torch_seconds,
    }
    memory = max(used for _, used in cold + warm)
    benchmark.extra_info |= seconds | {"most memory, GiB": memory / GIB}
    benchmark.pedantic(cost, family, rounds=1)
    assert memory < 4 * GIB
    assert seconds["warm"] <= 1.2 * seconds["cold"]
    assert seconds["one family"] < seconds["warm"] / 2
