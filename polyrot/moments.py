"""First and second moments of paired activations, gathered batch by batch in O(d^2) memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyrot.checks import BadActivations, check_finite, check_pair

# Relative size below which a singular value is rounding, by the precision of the products.
_RTOL = {torch.float64: 1e-11, torch.float32: 1e-6}


@dataclass(frozen=True)
class Moments:
    """Moments of rows (a, b), float64, per token: `cross` is (a - mean_a)^T (b - mean_b) / tokens.

    `auto_a` and `auto_b` are the covariances, [d_a, d_a] and [d_b, d_b], where they were asked for.
    """

    tokens: int
    mean_a: Tensor
    """[d_a]"""
    mean_b: Tensor
    """[d_b]"""
    var_a: Tensor
    """[d_a]"""
    var_b: Tensor
    """[d_b]"""
    cross: Tensor
    """[d_a, d_b]"""
    auto_a: Tensor | None
    auto_b: Tensor | None
    rtol: float
    """Relative size below which a singular value is rounding."""
    eps: float
    """Rounding unit of the activations themselves."""


class _Side:
    """Sums over one model's rows, taken around a provisional mean against cancellation."""

    def __init__(self, auto: bool, where: str) -> None:
        self.where = where
        self.auto_wanted = auto
        self.shift: Tensor | None = None
        self.eps = 0.0

    def centred(self, x: Tensor, dtype: torch.dtype, first_token: int) -> Tensor:
        """Rows around the provisional mean; their sums are added."""
        if self.shift is None:
            d, device = x.shape[1], x.device
            # Any row near the mean will do; the sums below correct for it exactly.
            self.shift = x[:256].to(dtype).mean(0)
            self.sum = torch.zeros(d, dtype=torch.float64, device=device)
            self.squares = torch.zeros(d, dtype=torch.float64, device=device)
            self.auto = (
                torch.zeros(d, d, dtype=torch.float64, device=device) if self.auto_wanted else None
            )
        rows = x.to(dtype) - self.shift
        total = rows.sum(0)
        if not total.sum().isfinite():
            check_finite(x, self.where, first_token)
        # Half precision is not coarser here: a dimension that takes two neighbouring values varies.
        both = torch.float64 if x.dtype == dtype == torch.float64 else torch.float32
        self.eps = max(self.eps, torch.finfo(both).eps)
        self.sum += total
        # As a product: a column sum of squares takes several times longer.
        self.squares += rows.new_ones(len(rows)) @ (rows * rows)
        if self.auto is not None:
            self.auto += rows.T @ rows
        return rows


class MomentAccumulator:
    """Moments of several siblings against one anchor, batch by batch.

    The anchor's rows are centred once for all siblings. Products of a batch are taken in
    `precision` and summed over batches in float64: float32 is several times faster and determines a
    rotation to about 1e-6; the unconstrained affine map of ill-conditioned activations wants
    float64, the default. `auto` also gathers the covariances.
    """

    def __init__(
        self,
        siblings: int = 1,
        auto: bool = False,
        precision: torch.dtype = torch.float64,
        where: str = "moments",
    ) -> None:
        if precision not in _RTOL:
            raise ValueError(f"precision must be torch.float32 or torch.float64, not {precision}")
        if siblings < 1:
            raise ValueError("at least one sibling is needed")
        self._precision = precision
        self._where = where
        self._anchor = _Side(auto, f"{where}, anchor")
        self._siblings = [_Side(auto, f"{where}, sibling {i}") for i in range(siblings)]
        self._cross: list[Tensor] = []
        self._tokens = 0

    def update(self, siblings: Sequence[Tensor], anchor: Tensor) -> None:
        """Add rows: each sibling [tokens, d_a], the anchor [tokens, d_b]; row i is one token.

        Raises BadActivations: shapes, token counts, values that are not finite. The accumulator is
        not to be used after that.
        """
        if len(siblings) != len(self._siblings):
            raise BadActivations(
                f"{self._where}: {len(siblings)} siblings where {len(self._siblings)} are expected"
            )
        for i, a in enumerate(siblings):
            where = f"{self._where}, sibling {i} (first) and anchor (second)"
            check_pair(a, anchor, where, same_width=False, finite=False)
            if self._cross and list(self._cross[i].shape) != [a.shape[1], anchor.shape[1]]:
                raise BadActivations(f"{where}: the width differs from that of earlier batches")
        b_rows = self._anchor.centred(anchor, self._precision, self._tokens)
        for i, (side, a) in enumerate(zip(self._siblings, siblings, strict=True)):
            product = side.centred(a, self._precision, self._tokens).T @ b_rows
            if len(self._cross) <= i:
                self._cross.append(product.double())
            else:
                self._cross[i] += product
        self._tokens += anchor.shape[0]

    def moments(self) -> list[Moments]:
        """One for each sibling. Raises BadActivations where no rows were added."""
        n = self._tokens
        if n == 0:
            raise BadActivations(f"{self._where}: no rows were added; check the token mask")
        b = self._anchor
        mean_b, shift_b, var_b, auto_b = _finish(b, n)
        result = []
        for side, cross in zip(self._siblings, self._cross, strict=True):
            mean_a, shift_a, var_a, auto_a = _finish(side, n)
            centred = cross / n - torch.outer(shift_a, shift_b)
            rtol, eps = _RTOL[self._precision], max(side.eps, b.eps)
            result.append(
                Moments(n, mean_a, mean_b, var_a, var_b, centred, auto_a, auto_b, rtol, eps)
            )
        return result


def _finish(side: _Side, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Mean, its distance from the provisional one, variance, covariance."""
    assert side.shift is not None
    off = side.sum / n
    auto = None if side.auto is None else side.auto / n - torch.outer(off, off)
    variance = (side.squares / n - off.square()).clamp_min(0)
    return side.shift.double() + off, off, variance, auto


def pair_moments(
    siblings: Sequence[Tensor],
    anchor: Tensor,
    auto: bool = False,
    precision: torch.dtype = torch.float64,
    chunk: int = 4096,
    where: str = "moments",
) -> list[Moments]:
    """Moments of each sibling [tokens, d_a] against one anchor [tokens, d_b], `chunk` rows a time.

    See `MomentAccumulator` for `auto` and `precision`. Raises BadActivations, naming `where`.
    """
    for i, a in enumerate(siblings):
        check_pair(a, anchor, f"{where}, sibling {i} (first) and anchor (second)", False, False)
    accumulator = MomentAccumulator(len(siblings), auto, precision, where)
    for i in range(0, anchor.shape[0], chunk):
        accumulator.update([a[i : i + chunk] for a in siblings], anchor[i : i + chunk])
    return accumulator.moments()


__all__ = ["MomentAccumulator", "Moments", "pair_moments"]
