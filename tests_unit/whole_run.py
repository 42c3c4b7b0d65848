"""How all of tests_unit is run at once: shared among processes, and without what is marked slow.

A run of one folder or file of it takes all that is there, in one process.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from fixtures.asked import NARROWING
from fixtures.workers import is_worker

MOST_WORKERS = 8
"""Each takes a second or more to start and up to a gigabyte."""
IN_ONE_PROCESS = ("collectonly", "usepdb", "benchmark_only", "benchmark_enable")
"""Options, by their names in pytest's namespace, that shared tests do not serve, as benchmarks'."""


def asks_for_all(config: pytest.Config) -> bool:
    """Whether the folder itself is to be collected, and not some of its tests."""
    folder = config.rootpath / "tests_unit"
    asked = [(config.invocation_params.dir / str(each)).resolve() for each in config.args]
    return any(folder.is_relative_to(path) for path in asked)


def workers(config: pytest.Config) -> int:
    """So many processes of pytest-xdist serve a run, 0 for none."""
    option = config.option
    given = getattr(option, "numprocesses", 0)  # 0 without pytest-xdist, None where not given
    narrowed = any(getattr(option, name, None) for name in NARROWING if name != "markexpr")
    alone = any(getattr(option, name, None) for name in IN_ONE_PROCESS)
    # A worker is asked as well, and must not start workers of its own.
    inside = is_worker(config) or "PYTEST_XDIST_WORKER" in os.environ
    if given is not None or inside or narrowed or alone or not asks_for_all(config):
        return 0
    cores: int = config.hook.pytest_xdist_auto_num_workers(config=config)
    return min(cores, MOST_WORKERS) if cores > 1 else 0


def leaves_slow_out(config: pytest.Config) -> bool:
    """Unless `-m` or pytest-benchmark says what is wanted."""
    option = config.option
    wanted = option.markexpr or any(getattr(option, name, None) for name in IN_ONE_PROCESS[2:])
    return not wanted and asks_for_all(config)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads its options
def pytest_cmdline_main(config: pytest.Config) -> None:
    count = workers(config)
    if count:
        # By file: what a file measures once is measured in one process.
        config.option.numprocesses, config.option.dist = count, "loadfile"
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))


def pytest_report_header(config: pytest.Config) -> list[str]:
    return ["unit tests: without those marked slow, which -m slow runs"] * leaves_slow_out(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    if leaves_slow_out(config):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
