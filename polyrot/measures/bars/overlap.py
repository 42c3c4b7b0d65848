"""Squared errors of two models as functions of the residual rotation alone.

With everything else held, ||x r - y||^2 = ||x||^2 + ||y||^2 - 2 <r, x^T y>: every weight error and
every activation error is affine in r in O(d). A rotation is therefore judged, and optimised, from
one d x d matrix per tensor or site, and the best r for any positive weighting of the errors is the
polar factor of the weighted sum of these matrices (Schoenemann 1966, doi:10.1007/BF02289451).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from polyrot.toy.folding import TENSORS, WRITERS, Folded


@dataclass(frozen=True)
class Overlap:
    """Errors error_t(r) = constant_t - 2 <r, cross_t> of n problems.

    names: of the T errors. constant: [n, T]. cross: [n, T, d, d].
    """

    names: tuple[str, ...]
    constant: Tensor
    cross: Tensor

    def errors(self, r: Tensor) -> Tensor:
        """The errors [n, T] at rotations r [n, d, d]."""
        return self.constant - 2 * torch.einsum("ntij,nij->nt", self.cross, r)

    def mean(self) -> Overlap:
        """The mean of the errors, as one error."""
        return Overlap(("mean",), self.constant.mean(1, True), self.cross.mean(1, True))

    def select(self, problems: Sequence[int] | Tensor) -> Overlap:
        """The chosen problems, in that order."""
        index = torch.as_tensor(problems, device=self.constant.device)
        return Overlap(self.names, self.constant[index], self.cross[index])

    def scaled(self, by: Tensor) -> Overlap:
        """Every error of problem i times by[i]; by: [n]."""
        return Overlap(
            self.names, self.constant * by[:, None], self.cross * by[:, None, None, None]
        )

    def __add__(self, other: Overlap) -> Overlap:
        """Sum of two single errors."""
        return Overlap(("sum",), self.constant + other.constant, self.cross + other.cross)


def weight_overlap(sibling: Folded, anchor: Folded, names: Sequence[str] = TENSORS) -> Overlap:
    """Mean squared difference of each of `names` between sibling r and anchor, both [n, ...]."""
    constant, cross = [], []
    for name in names:
        a, b = anchor[name], sibling[name]
        product = b.mT @ a if name in WRITERS else b @ a.mT
        size = a[0].numel()
        cross.append(product / size)
        constant.append((a.square().sum((1, 2)) + b.square().sum((1, 2))) / size)
    return Overlap(tuple(names), torch.stack(constant, 1), torch.stack(cross, 1))


def activation_overlap(sites: Sequence[str], models: Sequence[Tensor]) -> Overlap:
    """Fraction of the anchor's variance that (sibling's activations) r leaves unexplained, by site.

    models: per site, [1 + n, tokens, d], the anchor first. No means are taken out: r acts on the
    stream itself, as it does on the weights. The variance is around the mean vector. In float64.
    """
    constant, cross = [], []
    for x in models:
        anchor, others = x[0].double(), x[1:].double()
        variance = (anchor - anchor.mean(0)).square().sum()
        cross.append(others.mT @ anchor / variance)
        constant.append((anchor.square().sum() + others.square().sum((1, 2))) / variance)
    return Overlap(tuple(sites), torch.stack(constant, 1), torch.stack(cross, 1))


def best_rotation(cross: Tensor, flip: bool = False) -> Tensor:
    """The orthogonal r [n, d, d] that maximises <r, cross>; with `flip` the best one of the other
    determinant (Kabsch 1976, doi:10.1107/S0567739476001873)."""
    u, _, vh = torch.linalg.svd(cross)
    if flip:
        u = torch.cat([u[..., :-1], -u[..., -1:]], -1)
    return u @ vh


class _Rotations(nn.Module):
    """n orthogonal matrices that follow a gradient on O(d), each in the class of its start."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.clone())
        parametrizations.orthogonal(self, "weight", orthogonal_map="cayley")


def descend(
    start: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    score: Callable[[Tensor], Tensor] | None = None,
    steps: int = 400,
    rate: float = 5e-2,
) -> Tensor:
    """Adam on the Cayley coordinates of n rotations at once, from `start` [n, d, d].

    loss, score: rotations [n, d, d] -> [n]; the iterate of the lowest score (default: the loss) is
    kept, the start among them, so that no problem ends worse than it began.
    """
    module = _Rotations(start)
    optimiser = torch.optim.Adam(module.parameters(), lr=rate)
    judge = score or loss
    best, lowest = start.clone(), judge(start)
    for _ in range(steps):
        optimiser.zero_grad()
        r = module.weight
        value = loss(r)
        value.sum().backward()
        optimiser.step()
        with torch.no_grad():
            # The rotation of this iterate is at hand; that of the step just taken comes next.
            now = value.detach() if score is None else judge(r)
            better = now < lowest
            lowest = torch.where(better, now, lowest)
            best = torch.where(better[:, None, None], r.detach(), best)
    return best
