"""Do fits of one rotation on disjoint tokens agree better than fits on unrelated tokens do?"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from torch import Tensor


class Agreement(NamedTuple):
    """tr(r_1^T r_2) of two fits on the directions in which the models vary, and its variance were
    they fits on unrelated tokens, where its mean is 0. At full rank trace / d is the identifiable
    share."""

    trace: float
    variance: float


def agreement(r1: Tensor, r2: Tensor, axes_a: Tensor, axes_b: Tensor) -> Agreement:
    """Of two rotations [d, d] between the same models, each fitted on tokens of its own.

    axes_a, axes_b: [d, rank], principal axes (columns) of either model's activations, those in
    which they vary. Where rows of the two models are unrelated, their cross-covariance is noise of
    a law that does not change when any principal axis of either model changes its sign, and so is
    the fitted r. In these axes tr(r_1^T r_2) is a sum of products m_ij = (r_1)_ij (r_2)_ij, and
    with s, t random signs the law of sum s_i m_ij t_j has mean 0 and variance sum m_ij^2: 1 for
    Haar matrices in any axes, more where spectra are graded.
    """
    first, second = (axes_a.T @ r.to(axes_a) @ axes_b for r in (r1, r2))
    products = first * second
    return Agreement(float(products.sum()), float(products.square().sum()))


def surplus(found: Sequence[Agreement]) -> float:
    """How many standard deviations the sum of several agreements lies above what fits on unrelated
    tokens give; about standard normal where they are unrelated."""
    variance = sum(each.variance for each in found)
    return sum(each.trace for each in found) / sqrt(variance)
