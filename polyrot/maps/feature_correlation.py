"""Pearson's r of many columns at once, gathered batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


class FeatureCorrelations:
    """Pearson's r between features here and the same features elsewhere, in several ways at once,
    gathered batch by batch: memory O(ways x features).

    Sums are taken around the first batch's means, so that features which are nearly always on lose
    no digits: within a batch in the features' own precision, over batches in float64.

    >>> here = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0]])
    >>> sums = FeatureCorrelations(2)
    >>> sums.update(here, [2 * here, here.flip(0)])
    >>> sums.r().round(decimals=6).tolist(), sums.live().tolist()
    ([[1.0, 1.0], [-1.0, -0.5]], [True, True])
    """

    def __init__(self, ways: int) -> None:
        self._ways = ways
        self._tokens = 0
        self._here: _Side | None = None
        self._elsewhere: list[_Side] = []
        self._fired = torch.empty(0)
        self._products: list[Tensor] = []

    def update(self, here: Tensor, elsewhere: Iterable[Tensor]) -> None:
        """Add a batch: both [tokens, features], row i of both one token; elsewhere: one for each
        way, taken one after another. Raises ValueError for another number of ways or shape."""
        if self._here is None:
            self._here = _Side.begin(here)
            self._fired = torch.zeros(here.shape[1], dtype=torch.int64, device=here.device)
        centred = self._here.add(here)
        self._fired += (here > 0).sum(0)
        self._tokens += len(here)
        given = 0
        for given, other in enumerate(elsewhere, start=1):
            if other.shape != here.shape or given > self._ways:
                raise ValueError(
                    f"{self._ways} ways of shape {list(here.shape)} are expected, not a "
                    f"{given}. of {list(other.shape)}"
                )
            if len(self._elsewhere) < given:
                self._elsewhere.append(_Side.begin(other))
                self._products.append(torch.zeros_like(self._here.total))
            there = self._elsewhere[given - 1].add(other)
            self._products[given - 1] += _sum(centred * there)
        if given != self._ways:
            raise ValueError(f"{self._ways} ways are expected, not {given}")

    def r(self) -> Tensor:
        """float64 [ways, features]; 0 where a feature is the same on every token of either side, as
        where it is silent."""
        assert self._here is not None, "no tokens were added"
        n, mine = self._tokens, self._here
        found = []
        for there, product in zip(self._elsewhere, self._products, strict=True):
            covariance = product - mine.total * there.total / n
            spread = (mine.spread(n) * there.spread(n)).sqrt()
            r = torch.where(spread > 0, covariance / spread, 0.0)
            found.append(r.clamp(-1, 1))
        return torch.stack(found)

    def live(self) -> Tensor:
        """bool [features]: which fire here on some token."""
        return self._fired > 0


@dataclass
class _Side:
    """Sums of features around `shift` [features]."""

    shift: Tensor
    total: Tensor
    squares: Tensor

    @classmethod
    def begin(cls, features: Tensor) -> _Side:
        zeros = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
        return cls(features.mean(0), zeros, zeros.clone())

    def add(self, features: Tensor) -> Tensor:
        """A batch around the shift; its sums are added."""
        centred = features - self.shift
        self.total += _sum(centred)
        self.squares += _sum(centred * centred)
        return centred

    def spread(self, n: int) -> Tensor:
        """Sum of squares around the mean, 0 where it is the rounding of the values themselves."""
        found = self.squares - self.total.square() / n
        mean = self.shift.double() + self.total / n
        return torch.where(found > 1e-12 * (found + n * mean.square()), found, 0.0)


def _sum(x: Tensor) -> Tensor:
    """Column sums of a batch in its own precision, to be added in float64. As a product: a column
    sum takes a CPU several times longer."""
    return (x.new_ones(len(x)) @ x).double()


__all__ = ["FeatureCorrelations"]
