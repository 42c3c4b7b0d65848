"""How many threads are taken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from polyrot.haar import orthogonal, spectrum
from polyrot.runtime import threads


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def _two_to_begin_with() -> Iterator[None]:
    with threadpool_limits(limits=2, user_api="blas"):
        assert blas_threads() == {2}
        yield


def test_small_matrices_take_one_thread_and_give_the_others_back() -> None:
    with threads.blas_for(512):
        assert blas_threads() == {1}
    assert blas_threads() == {2}
    with threads.blas_for(threads.ONE_THREAD_BELOW):
        assert blas_threads() == {2}


@pytest.mark.parametrize("draw", ["orthogonal", "spectrum", "polar"])
def test_haar_matrices_are_drawn_and_taken_apart_on_one(
    draw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spy(function):  # type: ignore[no-untyped-def]
        def called(*arguments, **more):  # type: ignore[no-untyped-def]
            seen.append(blas_threads())
            return function(*arguments, **more)

        return called

    r = orthogonal.sample_haar(8, 2, np.random.default_rng(0))
    if draw == "orthogonal":
        sampler = orthogonal.ortho_group
        monkeypatch.setattr(sampler, "rvs", spy(sampler.rvs))
        orthogonal.sample_haar(8, 2, np.random.default_rng(0))
    elif draw == "spectrum":
        monkeypatch.setattr(np.linalg, "eigvalsh", spy(np.linalg.eigvalsh))
        spectrum.angles(r)
    else:
        monkeypatch.setattr(np.linalg, "svd", spy(np.linalg.svd))
        orthogonal.polar(r)
    assert seen == [{1}]


def test_a_program_settles_both(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        threads.settle(2)
        assert torch.get_num_threads() == 2
        assert blas_threads() == {1}
        assert threads.fair_share() == 2
        assert threads.fair_share(workers=2) == 1
        assert threads.fair_share(workers=8) == 1
        threads.settle(1)
        assert threads.fair_share() == 1, "what the environment or the user limits stays limited"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("given", "taken"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_told_otherwise(given: str | None, taken: str) -> None:
    """Of the whole suite: its plugins say so before torch is there."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    code = (
        "import os, sys; import fixtures.early; "
        "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert said.stdout.split() == [taken, "False"]
