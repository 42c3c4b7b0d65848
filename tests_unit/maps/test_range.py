"""Finite numbers whose squares are none: the right score, or one clear error, and never NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import polyrot
from polyrot.maps.checks import BadActivations
from polyrot.maps.explained_variance import EVSums, explained_variance, explained_variance_grand
from polyrot.maps.matching import matched_fraction

SCALES = (1e160, 1e200, 1e300, 1e-160, 1e-200)


def pair() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((200, 4)) + 0.5
    return x, x + 0.1 * generator.standard_normal((200, 4))


@pytest.mark.parametrize("scale", [*SCALES, 1e150, 1e-310])
@pytest.mark.parametrize("score", [explained_variance, explained_variance_grand])
def test_explained_variance_has_no_unit(score: object, scale: float) -> None:
    assert callable(score)
    x, x_hat = pair()
    assert score(x * scale, x_hat * scale) == pytest.approx(score(x, x_hat), rel=1e-9)


def test_the_score_of_what_lies_beyond_all_numbers_is_refused() -> None:
    x, x_hat = pair()
    with pytest.raises(BadActivations, match="so far from x that the score"):
        explained_variance(x, x_hat * 1e200)
    with pytest.raises(BadActivations, match="powers are beyond double precision"):
        EVSums.of(x * 1e160, x_hat * 1e160)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["fit_rotation", "linear_cka", "compare"])
def test_what_is_taken_from_moments_says_that_it_cannot(name: str, scale: float) -> None:
    x, y = pair()
    vanished = "is constant over all tokens|or nothing does"  # every square is 0
    with pytest.raises(BadActivations, match=vanished if scale == 1e-200 else "powers are beyond"):
        getattr(polyrot, name)(x * scale, y * scale)


@pytest.mark.parametrize("scale", [1e60, 1e-60])
def test_within_the_range_nothing_is_refused(scale: float) -> None:
    x, y = pair()
    found = polyrot.fit_rotation(x * scale, y * scale).r
    assert np.allclose(found, polyrot.fit_rotation(x, y).r, atol=1e-9)
    assert polyrot.linear_cka(x * scale, y * scale) == pytest.approx(polyrot.linear_cka(x, y))


@pytest.mark.parametrize("threshold", [0.5, math.nan])
def test_nan_matches_nothing_and_is_said(threshold: float) -> None:
    cosine = 0.1 if math.isnan(threshold) else math.nan
    with pytest.raises(ValueError, match="of 3 cosines are NaN"):
        matched_fraction(torch.tensor([0.9, cosine, 0.8]), threshold)
