"""Attribution patching along a run: its trend, the interval of it, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyrot.measures import convergence
from polyrot.measures.convergence import AlongRun, along_run
from polyrot.runtime.seeding import numpy_generator
from polyrot.store import Runtime, Store
from tests_unit.worlds.losses import ALTERNATING, LOSSES, SIZES, SLOPES, STEPS

BENDS: Any = LOSSES["a run that bends"]


def planted(r: list[float], noise: float, blocks: int = 8) -> AlongRun:
    """Effects of 40 components that correlate by r at each checkpoint; without a block of sequences
    by as much, give or take `noise`."""
    drawn = numpy_generator(0, "planted along a run")
    x, e = np.linalg.qr(np.c_[np.ones(40), drawn.normal(size=(40, 2))])[0][:, 1:].T

    def of(r: float) -> np.ndarray:
        return r * x + (1 - r**2) ** 0.5 * e

    predicted, measured = np.tile(x, (len(r), 1)), np.array([of(one) for one in r])
    without = np.array(
        [
            [np.stack([x, of(np.tanh(np.arctanh(one) + z))]) for z in noise * drawn.normal(size=8)]
            for one in r
        ]
    )
    steps = tuple(2**k for k in range(len(r)))
    return AlongRun(steps, tuple(map(str, range(40))), predicted, measured, without[:, :blocks], 64)


def test_correlations_are_those_of_the_planted_curves() -> None:
    found = along_run(BENDS)
    wanted = [
        np.corrcoef(SLOPES, np.array(SLOPES) + size * np.array(ALTERNATING))[0, 1] for size in SIZES
    ]
    np.testing.assert_allclose(found.r, wanted, atol=1e-5)
    measured = found.convergence()
    assert measured.values[0] == -1
    assert measured.beside[f"r_{STEPS[0]}"] == pytest.approx(wanted[0])
    assert measured.counts["checkpoints"] == len(STEPS)


def test_a_trend_within_the_noise_of_sequences_is_open() -> None:
    falling = [0.8, 0.6, 0.4, 0.2, 0.0, -0.2]
    sure, unsure = (planted(falling, noise).convergence() for noise in (1e-3, 0.3))
    for found in (sure, unsure):
        assert found.values[0] == -1
    narrow, wide = sure.interval(0), unsure.interval(0)
    assert narrow is not None
    assert wide is not None
    assert narrow == (-1, -1, "sequences")
    assert wide.low == -1
    assert wide.high > -0.8
    for end, r in zip(planted(falling, 0.3).intervals(), falling, strict=True):
        assert end.low < r < end.high
    flat = planted([0.5, 0.501, 0.499, 0.5005, 0.502, 0.4995], 0.1).convergence().interval(0)
    assert flat is not None
    assert flat.low < -0.5 < 0.5 < flat.high


def test_kept_effects_are_read_and_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(Store(tmp_path))
    first = along_run(BENDS, runtime)
    monkeypatch.setattr(convergence, "patching_by_block", None)
    again = along_run(BENDS, runtime)
    np.testing.assert_array_equal(first.without, again.without)
    assert (again.steps, again.components, again.sequences) == (STEPS, BENDS.components, 4)


def test_too_few_checkpoints_and_equal_effects_are_named() -> None:
    with pytest.raises(ValueError, match="needs 5 checkpoints, not 4"):
        planted([0.1] * 4, 0.1).convergence()
    with pytest.raises(ValueError, match=r"r is 0.1 at every checkpoint"):
        replace(
            planted([0.1] * 5, 0.1), measured=np.tile(planted([0.1], 0.1).measured, (5, 1))
        ).convergence()
    found = planted([0.1] * 5, 0.1)
    found.measured[2] = 1.0
    with pytest.raises(ValueError, match="no correlation at step 4"):
        found.convergence()
