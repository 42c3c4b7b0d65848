"""Linear CKA: how alike two models' activations are, whatever rotation and scale lie between."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from polyrot.maps.arrays import Array, read
from polyrot.maps.checks import BadActivations, check_pair, out_of_range
from polyrot.maps.moments import MomentAccumulator, Moments

#: The debiased estimate divides by tokens - 3.
FEWEST_TOKENS = 4
_LARGEST = 1e150  # sums of squares from its inverse to it have squares in double precision


class CKAAccumulator:
    """Linear CKA of rows (a, b), gathered batch by batch; memory O((d_a + d_b)^2).

    With centred rows x_i, y_i, the Gram matrices K = X X^T and L = Y Y^T are [tokens, tokens], but
    all that CKA needs of them are ||X^T Y||_F^2, from the moments, and sums over tokens of
    products of the squared norms k_i = ||x_i||^2 and l_i = ||y_i||^2. Those are gathered around
    the provisional means of `MomentAccumulator`, and moved to the true ones at the end.
    """

    def __init__(self, where: str = "linear CKA") -> None:
        self._where = where
        self._moments = MomentAccumulator(auto=True, where=where)
        self._products: dict[str, Tensor] = {}
        self._tokens = 0

    def update(self, a: Tensor, b: Tensor) -> None:
        """Add rows a [tokens, d_a], b [tokens, d_b]; row i of both is one token.

        Raises BadActivations: shapes, token counts, values that are not finite.
        """
        self._moments.update([a], b)
        shift_b, shift_a = self._moments.provisional_means()
        x, y = a.to(shift_a) - shift_a, b.to(shift_b) - shift_b
        k, m = x.square().sum(1), y.square().sum(1)
        for name, term in {
            "kk": k @ k,
            "km": k @ m,
            "mm": m @ m,
            "kx": k @ x,
            "ky": k @ y,
            "mx": m @ x,
            "my": m @ y,
        }.items():
            self._products[name] = self._products.get(name, torch.zeros_like(term)) + term
        self._tokens += len(a)

    def value(self, debiased: bool = True) -> float:
        """See `linear_cka`. Raises BadActivations: too few tokens, activations that do not vary."""
        return self.parts(debiased).value

    def parts(self, debiased: bool = True) -> CKAParts:
        """What the value is made of. Raises BadActivations as `value` does."""
        if debiased and self._tokens < FEWEST_TOKENS:
            raise BadActivations(
                f"{self._where}: {self._tokens} tokens; the debiased estimate needs at least "
                f"{FEWEST_TOKENS}, and means something from some times the dimensions"
            )
        moments = self._moments.moments()[0]
        n, p = moments.tokens, self._products
        shift_b, shift_a = self._moments.provisional_means()
        sums = [n * float(variance.sum()) for variance in (moments.var_a, moments.var_b)]
        within = all(x == 0 or 1 / _LARGEST < x < _LARGEST for x in sums)
        if not within or not all(bool(term.isfinite().all()) for term in p.values()):
            raise out_of_range(self._where)
        off_a, off_b = moments.mean_a - shift_a, moments.mean_b - shift_b
        auto_a, auto_b = moments.auto_a, moments.auto_b
        assert auto_a is not None
        assert auto_b is not None
        total_a, total_b = sums
        a, b = _Offset(off_a, total_a, n), _Offset(off_b, total_b, n)
        between = _about_means(p["km"], p["ky"], p["mx"], moments.cross, a, b)
        within_a = _about_means(p["kk"], p["kx"], p["kx"], auto_a, a, a)
        within_b = _about_means(p["mm"], p["my"], p["my"], auto_b, b, b)

        def hsic(product: Tensor, norms: float, totals: float) -> float:
            """n (n - 3) times the estimate: Song's equation 5 where the rows of K, L add to 0."""
            whole = float((n * product).square().sum())
            if not debiased:
                return whole
            return whole - n / (n - 2) * norms + totals / ((n - 1) * (n - 2))

        shared = hsic(moments.cross, between, total_a * total_b)
        own_a = hsic(auto_a, within_a, total_a**2)
        own_b = hsic(auto_b, within_b, total_b**2)
        for own, side in ((own_a, "first"), (own_b, "second")):
            if not own > 0:
                raise BadActivations(
                    f"{self._where}, {side}: {n} tokens are too few to tell what varies from "
                    "noise, or nothing does; use more tokens, or check the site"
                )
        return CKAParts(moments, shared, own_a, own_b)


@dataclass(frozen=True)
class CKAParts:
    """Moments of both sides, and n (n - 3) times HSIC(K, L), HSIC(K, K) and HSIC(L, L)."""

    moments: Moments
    shared: float
    own_a: float
    own_b: float

    @property
    def value(self) -> float:
        """See `linear_cka`."""
        return self.shared / math.sqrt(self.own_a) / math.sqrt(self.own_b)

    def pull(self, a: Tensor, b: Tensor) -> Tensor:
        """How far each token moves the value: float64 [tokens], for a [tokens, d_a], b [tokens,
        d_b]; to first order what it gains if the token's weight rises from 1 to 2.

        With C the covariances, the derivative of ||C_ab||^2 is 2 / n (x_i C_ab y_i - ||C_ab||^2),
        from which, as from the debiased estimate, the token's product with itself is taken out.
        """
        m, n = self.moments, self.moments.tokens
        x, y = a.to(m.mean_a) - m.mean_a, b.to(m.mean_b) - m.mean_b
        k, norm_b = x.square().sum(1), y.square().sum(1)
        assert m.auto_a is not None
        assert m.auto_b is not None
        between = ((x @ m.cross) * y).sum(1) - k * norm_b / n
        within_a = ((x @ m.auto_a) * x).sum(1) - k * k / n
        within_b = ((y @ m.auto_b) * y).sum(1) - norm_b * norm_b / n
        both = math.sqrt(self.own_a) * math.sqrt(self.own_b)
        half = self.value / 2
        pulled = between / both - half * (within_a / self.own_a + within_b / self.own_b)
        return 2 * n * pulled


@dataclass(frozen=True)
class _Offset:
    """How far one side's true mean lies from the provisional one, [d]; its sum of squared norms
    around the true mean; the number of tokens."""

    mean: Tensor
    total: float
    tokens: int

    @property
    def square(self) -> float:
        return float(self.mean @ self.mean)

    @property
    def raw_total(self) -> float:
        """Sum of squared norms around the provisional mean."""
        return self.total + self.tokens * self.square


def _about_means(
    norms: Tensor, with_b: Tensor, with_a: Tensor, cross: Tensor, a: _Offset, b: _Offset
) -> float:
    """Sum over tokens of k_i l_i, squared norms around the true means, from provisional ones.

    norms: that sum around the provisional means. with_b: sum of k_i y_i [d_b]; with_a: of l_i x_i
    [d_a]. cross [d_a, d_b]: per token, around the true means. k_i becomes k_i - 2 x_i . off +
    ||off||^2, and the x_i add up to tokens times off.
    """
    n, squares = a.tokens, a.square * b.square
    return (
        float(norms)
        - 2 * float(with_b @ b.mean + with_a @ a.mean)
        + a.raw_total * b.square
        + b.raw_total * a.square
        + 4 * n * (float(a.mean @ cross @ b.mean) + squares)
        - 3 * n * squares
    )


def linear_cka(a: Array, b: Array, *, debiased: bool = True, chunk: int = 4096) -> float:
    """Linear CKA of activations a [tokens, d_a] and b [tokens, d_b], row i of both the same token.

    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of the linear kernels K = a a^T, L = b b^T: no unit, 1
    for activations that differ by a rotation, a scale and a shift, 0 in expectation where they are
    unrelated. Not changed by either. Symmetric; no map is fitted, so no rows are held back.

    debiased: HSIC is estimated without bias (Song et al. 2012, JMLR 13:1393, equation 5), so that
    unrelated activations score about 0, possibly a little below; the plain one grows with d /
    tokens (Murphy et al. 2024, arXiv 2405.01012). CKA: Kornblith et al. 2019, arXiv 1905.00414.
    chunk: rows at a time. Products are of features, [d_a, d_b], in float64: [tokens, tokens] is
    never formed.
    Raises BadActivations: shapes, token counts, dtypes, values that are not finite, fewer than
    four tokens, or too few to tell anything from noise.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> a = rng.standard_normal((500, 8))
    >>> turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    >>> round(linear_cka(a, 3 * a @ turn + 1), 6)
    1.0
    >>> abs(linear_cka(a, rng.standard_normal((500, 8)))) < 0.02
    True
    """
    x, y = read(a, b, where=("linear CKA, first", "linear CKA, second")).tensors
    return _gathered(x, y, chunk).value(debiased)


def linear_cka_over_sequences(
    a: Tensor, b: Tensor, sequence: Tensor, *, chunk: int = 4096
) -> tuple[float, float]:
    """Debiased linear CKA of a [tokens, d_a] and b [tokens, d_b], and its standard error, whose
    sample is sequences: int64 [tokens], which sequence each token is of.

    The error is that of the linearised value, summed by sequence (a cluster error; see
    `CKAParts.pull`), in a second pass over the rows: memory O((d_a + d_b)^2 + sequences). NaN where
    all tokens are of one sequence. Otherwise as `linear_cka`.

    >>> drawn = torch.Generator().manual_seed(0)
    >>> a, b = (torch.randn(600, 4, generator=drawn) for _ in "ab")
    >>> value, error = linear_cka_over_sequences(a, a + b, torch.arange(600) // 10)
    >>> round(value, 2), round(error, 2)
    (0.5, 0.01)
    """
    parts = _gathered(a, b, chunk).parts()
    n = int(sequence.max()) + 1
    pulls, tokens = (torch.zeros(n, dtype=torch.float64, device=a.device) for _ in "pt")
    for i in range(0, len(a), chunk):
        pull, of = parts.pull(a[i : i + chunk], b[i : i + chunk]), sequence[i : i + chunk]
        pulls.index_add_(0, of, pull)
        tokens.index_add_(0, of, torch.ones_like(pull))
    off = pulls - tokens * pulls.sum() / tokens.sum()
    if n < 2:
        return parts.value, math.nan
    return parts.value, math.sqrt(n / (n - 1) * float(off.square().sum()))


def _gathered(x: Tensor, y: Tensor, chunk: int) -> CKAAccumulator:
    check_pair(x, y, "linear CKA", same_width=False, finite=False)
    gathered = CKAAccumulator()
    for i in range(0, len(x), chunk):
        gathered.update(x[i : i + chunk], y[i : i + chunk])
    return gathered


__all__ = [
    "FEWEST_TOKENS",
    "CKAAccumulator",
    "CKAParts",
    "linear_cka",
    "linear_cka_over_sequences",
]
