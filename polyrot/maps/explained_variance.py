"""Explained variance: 1 is perfect, 0 is no better than predicting the mean activation.

Two definitions. `explained_variance` measures against the mean *vector*, as the paper's text has it
and as the registration fixes it. `explained_variance_grand` measures against the variance of all
entries around one scalar, as the paper's pipeline computes it (arXiv 2605.24577); it is never
lower, and predicting the mean vector scores above 0 wherever dimensions differ in their mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from polyrot.maps.arrays import Array, read
from polyrot.maps.checks import BadActivations, check_pair, out_of_range

_SAFE = 1e100  # largest entries between its inverse and it have squares in double precision


@dataclass(frozen=True)
class EVSums:
    """What both scores need of some rows, in float64; sums of disjoint rows are merged by `+`."""

    tokens: int
    mean: Tensor
    """[d], mean of x."""
    spread: Tensor
    """[d], sum over tokens of (x - mean)^2."""
    error: float
    """Sum over all entries of (x - x_hat)^2."""

    @classmethod
    def of(cls, x: Array, x_hat: Array) -> EVSums:
        """Sums over `x` and its reconstruction `x_hat`, both [tokens, d]. Raises BadActivations,
        also where squares are beyond double precision."""
        found = cls(*_sums(*_checked(x, x_hat)))
        if not math.isfinite(found.error + float(found.spread.sum())):
            raise out_of_range(_WHERE)
        return found

    def __add__(self, other: EVSums) -> EVSums:
        # Chan, Golub and LeVeque 1983 (doi:10.1080/00031305.1983.10483115): without cancellation.
        tokens = self.tokens + other.tokens
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.tokens / tokens)
        between = delta.square() * (self.tokens * other.tokens / tokens)
        spread = self.spread + other.spread + between
        return EVSums(tokens, mean, spread, self.error + other.error)

    @property
    def score(self) -> float:
        """1 - sum ||x - x_hat||^2 / sum ||x - mean||^2. Raises BadActivations for constant x."""
        return 1 - self.error / _positive(float(self.spread.sum()))

    @property
    def grand_score(self) -> float:
        """1 - mean squared error / variance of all entries around one scalar mean."""
        around = (self.mean - self.mean.mean()).square().sum() * self.tokens
        return 1 - self.error / _positive(float(self.spread.sum() + around))


_WHERE = "explained variance of x (first) by x_hat (second)"


def _checked(x: Array, x_hat: Array) -> tuple[Tensor, Tensor]:
    given, estimate = read(x, x_hat, where=(f"{_WHERE}, first", f"{_WHERE}, second")).tensors
    check_pair(given, estimate, _WHERE)
    return given, estimate


def _sums(x: Tensor, x_hat: Tensor) -> tuple[int, Tensor, Tensor, float]:
    """Tokens, mean, spread and error, as in `EVSums`."""
    wide = x.double()
    mean = wide.mean(0)
    # Both sums are taken alike, so that predicting `mean` gives their exact quotient 1.
    spread = (wide - mean).square_().sum(0)
    error = (wide - x_hat).square_().sum(0)
    return len(x), mean, spread, float(error.sum())


def _in_units_of_x(x: Array, x_hat: Array) -> EVSums:
    """Sums of both divided by one power of two where squares of x would leave double precision: no
    score depends on the unit."""
    given, estimate = _checked(x, x_hat)
    largest = float(given.abs().max())
    if largest and not 1 / _SAFE < largest < _SAFE:
        unit = 2.0 ** -max(-1000, min(math.frexp(largest)[1], 1000))
        given, estimate = given.double() * unit, estimate.double() * unit
    found = EVSums(*_sums(given, estimate))
    if not math.isfinite(found.error):
        raise BadActivations(
            f"{_WHERE}: x_hat is so far from x that the score, below -1e100, is no number; check "
            "what was reconstructed"
        )
    return found


def _positive(total: float) -> float:
    if not total > 0:
        raise BadActivations("explained variance: x does not vary at all; check the batch and site")
    return total


def explained_variance(x: Array, x_hat: Array) -> float:
    """1 - sum ||x - x_hat||^2 / sum ||x - mean(x)||^2, the mean taken per dimension.

    x: activations [tokens, d]; x_hat: their reconstruction or prediction, row i of both the same
    token; NumPy, torch or lists, any floating dtype, on one device; sums in float64. No unit: 1 is
    perfect, predicting the mean scores exactly 0, and worse than that is negative without bound.
    Source: the text of arXiv 2605.24577; `explained_variance_grand` is its pipeline's.
    Raises BadActivations (shapes, dtypes, values that are not finite, constant x).

    >>> explained_variance([[0.0, 1.0], [2.0, 3.0]], [[0.0, 1.0], [2.0, 3.0]])
    1.0
    >>> explained_variance([[0.0, 1.0], [2.0, 3.0]], [[1.0, 2.0], [1.0, 2.0]])
    0.0
    >>> explained_variance([[0.0, 1.0], [2.0, 3.0]], [[2.0, 3.0], [0.0, 1.0]])
    -3.0
    """
    return _in_units_of_x(x, x_hat).score


def explained_variance_grand(x: Array, x_hat: Array) -> float:
    """The pipeline's score: 1 - mean squared error / variance of all entries of x.

    x, x_hat: [tokens, d]. The variance is the population's, around one scalar mean. Raises as
    `explained_variance`.
    """
    return _in_units_of_x(x, x_hat).grand_score


__all__ = ["EVSums", "explained_variance", "explained_variance_grand"]
