"""Streaming moments on drawn rows: what is planted is found, and what is broken is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from polyrot.maps.moments import MomentAccumulator
from polyrot.streaming import simulation
from polyrot.streaming.budget import fit_operations
from polyrot.streaming.ranks import Ranks

WIDTH = 48


def found(**more: Any) -> simulation.Found:
    made = simulation.simulate(Ranks(), WIDTH, **{"tokens": 4096, "batches": 2, **more})
    assert made is not None
    return made


@pytest.mark.parametrize("covariances", [True, False])
@pytest.mark.parametrize(("precision", "rounding"), [("float64", 1e-13), ("float32", 1e-5)])
def test_the_planted_rotation_is_found(precision: str, rounding: float, covariances: bool) -> None:
    made = found(precision=precision, covariances=covariances)
    assert made.error < rounding
    assert made.planted_error < 6
    assert made.gflops > 0
    assert made.gflops_bare > 0


@pytest.mark.parametrize(
    "broken",
    [
        lambda update: lambda self, s, a: update(self, s, a * 1.01),
        lambda update: lambda self, s, a: update(self, [s[0].roll(1, 1)], a),
        lambda update: lambda self, s, a: update(self, [s[0][:-9]], a[:-9]),
    ],
    ids=["another scale", "columns moved", "rows lost"],
)
def test_a_pass_that_gathers_wrongly_is_seen(
    broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MomentAccumulator, "update", broken(MomentAccumulator.update))
    assert found().error > 1e-6


def test_rows_of_two_batches_are_not_the_same() -> None:
    first, second = (simulation.Planted.of(WIDTH).rows(i, 8) for i in range(2))
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"batches": 0}, {"precision": "float16"}])
def test_what_cannot_be_simulated_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1 each; precision one of float32, float64"):
        found(**wrong)


@pytest.mark.parametrize("covariances", [True, False])
def test_a_fit_is_timed_that_finds_the_planted_rotation(covariances: bool) -> None:
    made = simulation.fitted(WIDTH, rounds=3, covariances=covariances)
    assert made.found > 0.8
    assert made.gflops == pytest.approx(
        fit_operations(WIDTH, covariances) / made.seconds / 1e9
    )  # of one site
    assert made.gflops_bare > 0


def test_a_fit_of_something_else_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    update = MomentAccumulator.update
    monkeypatch.setattr(
        MomentAccumulator, "update", lambda self, s, a: update(self, [s[0].roll(1, 0)], a)
    )
    assert abs(simulation.fitted(WIDTH, rounds=1).found) < 0.5


@pytest.mark.parametrize("wrong", [{"width": 0}, {"width": 8, "rounds": 0}])
def test_what_cannot_be_fitted_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="rounds: at least 1 each"):
        simulation.fitted(**wrong)


def test_the_command_times_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulation.main(["--width", "16", "--fit", "--batches", "2", "--no-affine"]) == 0
    row, document = capsys.readouterr().out.strip().splitlines()
    made = json.loads(document)
    share = made["gflops"] / made["gflops_bare"]
    assert row.startswith("| 16 | no | 2 | ")
    assert row.endswith(f" {share:.0%} |")


def test_the_command_says_what_it_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulation.main(["--width", "0"]) == 2
    assert "error: width 0" in capsys.readouterr().err


@pytest.mark.slow  # two processes of torch
def test_two_ranks_gather_what_all_rows_give() -> None:
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    asked = ("-m", simulation.__name__, "--width", "64", "--tokens", "512", "--batches", "3")
    result = subprocess.run(
        [sys.executable, *torchrun, *asked],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    row, document = result.stdout.strip().splitlines()
    made = json.loads(document)
    assert row.startswith("| 64 | float64 | yes | 2 | 3,072 |")
    assert made["error"] < 1e-13
    assert made["planted_error"] < 6
