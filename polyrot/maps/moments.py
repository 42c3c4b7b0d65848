"""First and second moments of paired activations, gathered batch by batch in O(d^2) memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyrot.maps.checks import (
    BadActivations,
    check_enough_tokens,
    check_finite,
    check_not_constant,
    check_pair,
    out_of_range,
)

# Relative size below which a singular value is rounding, by the precision of the products.
_RTOL = {torch.float64: 1e-11, torch.float32: 1e-6}

_LEAST_VARIANCE = 1e-200  # below, squares lose their digits on the way to 0

_BLOCK = 1024
_PROVISIONAL = "provisional"


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

    def begin(self, shift: Tensor) -> None:
        """Empty sums around `shift` [d], on its device."""
        d, device = len(shift), shift.device
        self.shift = shift
        self.sum = torch.zeros(d, dtype=torch.float64, device=device)
        self.squares = torch.zeros(d, dtype=torch.float64, device=device)
        self.auto = (
            torch.zeros(d, d, dtype=torch.float64, device=device) if self.auto_wanted else None
        )

    def centred(self, x: Tensor, dtype: torch.dtype, first_token: int) -> Tensor:
        """Rows around the provisional mean; their sums are added."""
        assert self.shift is not None
        rows = x.to(self.shift.device, dtype) - self.shift
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
            _add_product(self.auto, rows, rows)
        return rows

    def tensors(self) -> dict[str, Tensor]:
        """Everything but `eps`, by name; empty before `begin`."""
        if self.shift is None:
            return {}
        named = {_PROVISIONAL: self.shift, "sum": self.sum, "squares": self.squares}
        return named if self.auto is None else {**named, "auto": self.auto}


def _add_product(into: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a^T b to `into` [d_a, d_b], float64; a, b: [tokens, d_a], [tokens, d_b], of one dtype."""
    if a.dtype == torch.float64:
        into.addmm_(a.T, b)
        return
    # By blocks: widened as a whole, a product would need another two matrices of this size.
    for i in range(0, len(into), _BLOCK):
        into[i : i + _BLOCK] += a[:, i : i + _BLOCK].T @ b


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
        if not self._cross:
            # Any rows near the mean will do; the sums correct for it exactly.
            self.begin([x[:256].to(self._precision).mean(0) for x in (anchor, *siblings)])
        elif self._cross[0].device != anchor.device:  # restored
            self.restore({name: t.to(anchor.device) for name, t in self.state().items()})
        b_rows = self._anchor.centred(anchor, self._precision, self._tokens)
        for side, cross, a in zip(self._siblings, self._cross, siblings, strict=True):
            _add_product(cross, side.centred(a, self._precision, self._tokens), b_rows)
        self._tokens += anchor.shape[0]

    def begin(self, means: Sequence[Tensor]) -> None:
        """Start with no rows, around provisional means [d]: the anchor's, then the siblings'.

        All sums are kept on the anchor's device. Without this, the first rows give the means.
        """
        first = means[0]
        for side, mean in zip(self._sides().values(), means, strict=True):
            side.begin(mean.to(first.device, self._precision))
        self._cross = [
            torch.zeros(len(mean), len(first), dtype=torch.float64, device=first.device)
            for mean in means[1:]
        ]
        self._tokens = 0

    def provisional_means(self) -> list[Tensor]:
        """What it began with; empty before that."""
        return [side.shift for side in self._sides().values() if side.shift is not None]

    def state(self) -> dict[str, Tensor]:
        """All it knows, by name, for `restore`; empty before it began.

        The tensors are its own, not copies, but for `tokens` [1] and `eps`. Those for which
        `adds_up` may be added to those of another one that began with the same means.
        """
        if not self._cross:
            return {}
        sides = self._sides()
        named = {f"{s}.{n}": t for s, side in sides.items() for n, t in side.tensors().items()}
        named |= {f"sibling.{i}.cross": cross for i, cross in enumerate(self._cross)}
        named["tokens"] = torch.tensor([self._tokens])
        named["eps"] = torch.tensor([side.eps for side in sides.values()], dtype=torch.float64)
        return named

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the `state` of an accumulator that was made alike; its tensors are taken over.

        Raises KeyError where that one was made otherwise.
        """
        for (name, side), eps in zip(self._sides().items(), state["eps"].tolist(), strict=True):
            side.shift = state[f"{name}.{_PROVISIONAL}"]
            side.sum, side.squares = state[f"{name}.sum"], state[f"{name}.squares"]
            side.auto = state[f"{name}.auto"] if side.auto_wanted else None
            side.eps = eps
        self._cross = [state[f"sibling.{i}.cross"] for i in range(len(self._siblings))]
        self._tokens = int(state["tokens"])

    def _sides(self) -> dict[str, _Side]:
        named = {f"sibling.{i}": side for i, side in enumerate(self._siblings)}
        return {"anchor": self._anchor, **named}

    def moments(self) -> list[Moments]:
        """One for each sibling. Raises BadActivations where no rows were added, or squares of them
        are beyond double precision."""
        n = self._tokens
        if n == 0:
            raise BadActivations(f"{self._where}: no rows were added; check the token mask")
        b = self._anchor
        mean_b, shift_b, var_b, auto_b = _finish(b, n)
        result = []
        for side, cross in zip(self._siblings, self._cross, strict=True):
            mean_a, shift_a, var_a, auto_a = _finish(side, n)
            centred = (cross / n).addr_(shift_a, shift_b, alpha=-1)
            spread = [float(variance.max()) for variance in (var_a, var_b)]
            within = all(x == 0 or x > _LEAST_VARIANCE for x in spread)  # 0: said by `check_fit`
            if not within or not (centred.sum() + sum(spread)).isfinite():
                raise out_of_range(self._where)
            rtol, eps = _RTOL[self._precision], max(side.eps, b.eps)
            result.append(
                Moments(n, mean_a, mean_b, var_a, var_b, centred, auto_a, auto_b, rtol, eps)
            )
        return result


def adds_up(name: str) -> bool:
    """Whether the tensor of this name in an accumulator's state is a sum over rows."""
    return name != "eps" and not name.endswith(_PROVISIONAL)


def _finish(side: _Side, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Mean, its distance from the provisional one, variance, covariance."""
    assert side.shift is not None
    off = side.sum / n
    auto = None if side.auto is None else (side.auto / n).addr_(off, off, alpha=-1)
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


def check_fit(moments: Moments, where: str, sides: tuple[str, str] = ("first", "second")) -> None:
    """Whether these moments determine a map; `sides` names the sibling's and the anchor's rows.

    Raises BadActivations, naming `where`: fewer tokens than dimensions, a constant dimension.
    """
    check_enough_tokens(moments.tokens, len(moments.mean_a), where)
    for side, variance, mean in zip(
        sides, (moments.var_a, moments.var_b), (moments.mean_a, moments.mean_b), strict=True
    ):
        check_not_constant(variance, mean, moments.eps, f"{where}, {side}")


BLOCKS = 16
"""Of sequences at most, each left out once, for the jackknife of what is fitted to moments."""


def blocks_of(x: Tensor, sequence: Tensor) -> list[Tensor]:
    """The rows of x [.., tokens, d] in BLOCKS parts, or one for each sequence where there are
    fewer, each sequence whole in one of them.

    sequence: int64 [tokens], which sequence each token is of, 0 on.
    """
    n = min(BLOCKS, int(sequence.max()) + 1)
    return [x[..., sequence % n == block, :] for block in range(n)]


def cross_without_each(blocks: Sequence[Moments]) -> list[Tensor]:
    """The cross-covariance of all blocks' rows but one's, for each one: [d_a, d_b], float64; of a
    single block none."""
    if len(blocks) < 2:
        return []
    n = torch.tensor([block.tokens for block in blocks], dtype=torch.float64)
    a, b = (
        torch.stack([getattr(block, side) * block.tokens for block in blocks])
        for side in ("mean_a", "mean_b")
    )
    products = torch.stack([m.tokens * torch.addr(m.cross, m.mean_a, m.mean_b) for m in blocks])
    found = []
    for i in range(len(blocks)):
        rest, sum_a, sum_b = float(n.sum() - n[i]), a.sum(0) - a[i], b.sum(0) - b[i]
        found.append(
            torch.addr((products.sum(0) - products[i]) / rest, sum_a / rest, -sum_b / rest)
        )
    return found


__all__ = [
    "BLOCKS",
    "MomentAccumulator",
    "Moments",
    "adds_up",
    "blocks_of",
    "cross_without_each",
    "pair_moments",
]
