"""Pearson's correlation, with its intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import spearmanr
from torch import Tensor


@dataclass(frozen=True)
class Correlation:
    """Pearson's r of n points with two 95 % intervals: Fisher's, and by bootstrap over points."""

    r: float
    n: int
    fisher: tuple[float, float]
    bootstrap: tuple[float, float]


def fisher_interval(r: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a Pearson correlation `r` of `n` points (Fisher 1921): tanh(atanh r +- z / sqrt(n
    - 3)), for points of a bivariate normal. Raises ValueError unless n > 3 and |r| <= 1."""
    if n <= 3 or not abs(r) <= 1:
        raise ValueError(f"no Fisher interval for r = {r} of {n} points: needs n > 3, |r| <= 1")
    if abs(r) == 1:
        return r, r
    half = float(ndtri(0.5 + level / 2)) / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def pearson(
    predicted: Tensor, measured: Tensor, generator: np.random.Generator, draws: int = 2000
) -> Correlation:
    """Correlation of predicted with measured effects, both [components].

    `generator` draws the bootstrap's resamples; those in which either side is constant are left
    out. Raises ValueError: shapes, fewer than four components, a constant side, not finite.
    """
    x, y = (np.asarray(v.detach().cpu().double()) for v in (predicted, measured))
    if x.shape != y.shape or x.ndim != 1 or len(x) < 4:
        raise ValueError(
            f"a correlation needs two vectors of four or more, not {x.shape} {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("effects to correlate are not finite")
    r = float(pearson_rows(x[None], y[None])[0])
    if math.isnan(r):
        raise ValueError("no correlation: one side has the same effect for every component")
    rows = generator.integers(len(x), size=(draws, len(x)))
    drawn = pearson_rows(x[rows], y[rows])
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975])
    return Correlation(r, len(x), fisher_interval(r, len(x)), (float(low), float(high)))


def pearson_rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r of x and y [rows, points], row by row; NaN where a row is constant."""
    x, y = (v - v.mean(1, keepdims=True) for v in (x, y))
    norm = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (x * y).sum(1) / norm
    return np.where(norm > 0, r.clip(-1, 1), np.nan)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation of x and y [points], to 12 decimals.

    >>> spearman(np.array([1, 2, 3]), np.array([0.1, 0.5, 0.2]))
    0.5
    """
    # With five sites -0.9 is one of few possible values, and a bar: rounding must not decide it.
    return round(float(spearmanr(x, y).statistic), 12)
