"""Spectra and battery of 56 matrices at d = 512, beside the general eigensolver."""

import time

import numpy as np
import pytest

from polyrot.haar import angles, haar_batteries, null_table, sample_haar

D, MATRICES = 512, 56
#: Tables are drawn once and kept: their cost is measured apart, at few draws.
DRAWS = 100


@pytest.fixture(scope="module")
def rotations():
    return sample_haar(D, MATRICES, np.random.default_rng(61))


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
