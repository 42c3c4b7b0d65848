"""Spectra and battery of 56 matrices at d = 512, beside the general eigensolver.

Without pytest-benchmark's `--benchmark-enable` or `--benchmark-only` two matrices are taken.
"""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from polyrot.haar import angles, haar_batteries, null_table, sample_haar

D, MATRICES = 512, 56
#: Tables are drawn once and kept: their cost is measured apart, at few draws.
DRAWS = 100


@pytest.fixture(scope="module")
def rotations(pytestconfig):
    timed = any(pytestconfig.getoption(f"benchmark_{name}") for name in ("enable", "only"))
    return sample_haar(D, MATRICES if timed else 2, np.random.default_rng(61))


@pytest.fixture(scope="module")
def general_seconds(rotations):
    """Wall time of the plain path: all complex eigenvalues by the general eigensolver."""
    start = time.perf_counter()
    for r in rotations:
        np.sort(np.abs(np.angle(np.linalg.eigvals(r))))
    return time.perf_counter() - start


def test_benchmark_spectra(benchmark, rotations, general_seconds):
    benchmark.pedantic(angles, args=(rotations,), rounds=1)
    _report(benchmark, general_seconds)


def test_benchmark_battery(benchmark, rotations, general_seconds):
    for det in (1, -1):
        null_table(D, det, DRAWS)
    null_table(D, 1, DRAWS, kind="entry")
    benchmark.pedantic(haar_batteries, args=(rotations,), kwargs={"draws": DRAWS}, rounds=1)
    _report(benchmark, general_seconds)


@pytest.mark.parametrize("kind", ["class", "entry", "permutation"])
def test_benchmark_null_table(benchmark, kind):
    seed = 62  # apart from every other table, so that it is drawn and not found
    benchmark.pedantic(
        null_table, args=(D, 1, DRAWS, seed), kwargs={"kind": kind}, rounds=1, iterations=1
    )
    if benchmark.stats is not None:
        benchmark.extra_info["milliseconds_per_draw"] = 1e3 * benchmark.stats.stats.min / DRAWS


def _report(benchmark, general_seconds):
    if benchmark.stats is None:  # --benchmark-disable
        return
    ours = benchmark.stats.stats.min
    benchmark.extra_info["general_eigensolver_seconds"] = general_seconds
    benchmark.extra_info["times_faster"] = general_seconds / ours


def test_small_draws_cost_no_more_beside_busy_processes():
    """Where BLAS has two threads: those that wait for each other took 23 ms of CPU a draw where one
    took 1.3."""

    def cpu_seconds():
        start = time.process_time()
        angles(sample_haar(128, 60, np.random.default_rng(63)))
        return time.process_time() - start

    def least():
        return min(cpu_seconds() for _ in range(3))

    endless = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(endless) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            one = least()
        with threadpool_limits(limits=2, user_api="blas"):
            ours = least()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert ours < 1.5 * one
