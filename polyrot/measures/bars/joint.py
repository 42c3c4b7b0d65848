"""One rotation for weights and activations at once: is there a trade-off, and does it have basins?

Both errors are made comparable: 0 is agreement and about 1 is what an anchor of zeros would score.
The *weight error* is the mean over tensors of the mean squared difference, over the mean over
tensors of the anchor's mean square. The *activation error* is the mean over internal sites of the
squared difference of activations, over the anchor's variance around its mean vector.

With 0 <= lambda <= 1 the joint loss is (1 - lambda) weight error + lambda activation error. A
descent that starts at an end point never ends above that end point's loss, so it cannot end worse
on *both* errors than it: whatever "worsens both at once" was not minimising such a loss. The
published loss, whose weight term is negative for lambda > 1, is minimised beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from polyrot.measures.bars.alignment import fit_inside, settle, tensor_mse
from polyrot.measures.bars.overlap import Overlap, best_rotation, descend, weight_overlap
from polyrot.toy.folding import TENSORS, Folded
from polyrot.toy.symmetry import Element, act, act_inside, rotate

WEIGHTINGS = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)
"""The registration's lambdas; those strictly between 0 and 1 are judged for basins."""
PUBLISHED_WEIGHTINGS = (0.0, 0.1, 1.0, 10.0, 100.0)
"""The paper's lambdas: above 1 its weight term is maximised."""
ENDS = ("weight-optimal", "activation-optimal")


@dataclass(frozen=True)
class Joint:
    """What joint alignment of n pairs finds. The last dimension: weight error, activation error,
    largest per-tensor MSE.

    ends: [n, 2, 3], at the `ENDS`. convex: [n, weighting, 2 starts, 3], from each end. loss:
    [n, weighting, 2], the convex loss reached. bound: [n, weighting, 2], the lowest loss of any
    rotation in O(64) with heads and neurons as they were at the start. published:
    [n, published weighting, 2, 3]. distance: [n], ||R_w - R_a||_F of the end points' rotations.
    """

    ends: Tensor
    convex: Tensor
    loss: Tensor
    bound: Tensor
    published: Tensor
    distance: Tensor

    def curve(self) -> Tensor:
        """[n, weighting, 3]: the better of the two starts, by the loss."""
        best = self.loss.argmin(2)[:, :, None, None].expand(-1, -1, 1, 3)
        return self.convex.gather(2, best)[:, :, 0]

    def smallest_largest_mse(self) -> Tensor:
        """[n]: the lowest largest per-tensor MSE over all weightings and both starts."""
        return self.convex[..., 2].flatten(1).amin(1)

    def worse_on_both(self) -> Tensor:
        """[n]: share of weightings strictly between 0 and 1 whose best solution is worse on both
        errors than both end points."""
        inner = [i for i, weight in enumerate(WEIGHTINGS) if 0 < weight < 1]
        return _worse(self.curve()[:, inner], self.ends)

    def published_worse_on_both(self) -> Tensor:
        """[n, published weighting]: whether the published loss ends so, from either start."""
        worst = self.ends[..., :2].amax(1)[:, None, None]
        return (self.published[..., :2] > worst + MARGIN).all(-1).any(-1)

    def to_tensors(self) -> dict[str, Tensor]:
        """For the store."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Joint:
        """The inverse of `to_tensors`."""
        return cls(**{f.name: tensors[f.name] for f in fields(cls)})


MARGIN = 1e-7  # differences of errors below this are rounding


def _worse(points: Tensor, ends: Tensor) -> Tensor:
    worst = ends[..., :2].amax(1)[:, None]
    return (points[..., :2] > worst + MARGIN).all(-1).double().mean(1)


def weight_error(siblings: Folded, anchors: Folded) -> Overlap:
    """The weight error of n pairs as a function of the residual rotation."""
    mean_square = torch.stack([anchors[n].square().mean((1, 2)) for n in TENSORS], 1).mean(1)
    return weight_overlap(siblings, anchors).mean().scaled(1 / mean_square)


def align_jointly(
    siblings: Folded,
    anchors: Folded,
    element: Element,
    activations: Overlap,
    mean_square: Sequence[float] | Tensor,
    *,
    steps: int = 400,
    rate: float = 5e-2,
) -> Joint:
    """Minimise both losses at every weighting from both end points, all as one batch.

    siblings, anchors: [n, ...]; element: [n], the best weight alignment, from which the
    weight-optimal end is reached. activations: `activation_overlap` of the internal sites.
    mean_square: per site, the anchor's variance per entry, which turns the activation error back
    into the mean squared error of the published loss.
    Raises ValueError if the numbers of pairs differ.
    """
    n = len(siblings)
    if not n == len(anchors) == len(element) == len(activations.constant):
        raise ValueError("siblings, anchors, elements and activations are not of as many pairs")
    siblings, anchors = siblings.to(torch.float64), anchors.to(torch.float64)
    fvu = activations.mean()
    per_site = torch.as_tensor(mean_square, dtype=torch.float64, device=fvu.cross.device)
    raw = Overlap(
        activations.names,
        activations.constant * per_site,
        activations.cross * per_site[:, None, None],
    ).mean()

    weight_end = settle(siblings, anchors, element.to(torch.float64))
    turn = best_rotation(fvu.cross[:, 0])
    activation_end = replace(fit_inside(rotate(turn, siblings), anchors), residual=turn)
    ends = [weight_end, activation_end]

    def errors(e: Element, pair: Tensor) -> Tensor:
        """[problems, 3]"""
        s, a = siblings.select(pair), anchors.select(pair)
        weight = weight_error(act_inside(e, s), a).errors(e.residual)[:, 0]
        activation = fvu.select(pair).errors(e.residual)[:, 0]
        return torch.stack([weight, activation, tensor_mse(act(e, s), a).amax(1)], 1)

    everyone = torch.arange(n, device=siblings.position.device)
    at_ends = torch.stack([errors(e, everyone) for e in ends], 1)
    convex, loss, bound = [], [], []
    published = []
    for end in ends:
        inside = act_inside(end, siblings)
        weight = weight_error(inside, anchors)
        raw_weight = weight_overlap(inside, anchors).mean()
        mixed = [_mix(weight, fvu, value) for value in WEIGHTINGS]
        negative = [_mix(raw_weight, raw, value) for value in PUBLISHED_WEIGHTINGS]
        problems = mixed + negative
        cross = torch.cat([m.cross[:, 0] for m in problems])
        constant = torch.cat([m.constant[:, 0] for m in problems])
        start = end.residual.repeat(len(problems), 1, 1)
        reached = descend(start, _loss(cross, constant), steps=steps, rate=rate)
        reached = best_rotation(reached)  # polar: exactly orthogonal again
        value = _loss(cross, constant)(reached)
        lowest = _loss(cross, constant)(best_rotation(cross))
        pair = everyone.repeat(len(problems))
        found = replace(end.select(pair), residual=reached)
        k = n * len(WEIGHTINGS)
        refitted, anew = _refit(found.select(range(k)), siblings, anchors, pair[:k], fvu, value[:k])
        convex.append(errors(refitted, pair[:k]).reshape(len(WEIGHTINGS), n, 3))
        loss.append(anew.reshape(len(WEIGHTINGS), n))
        bound.append(lowest[:k].reshape(len(WEIGHTINGS), n))
        rest = list(range(k, len(pair)))
        published.append(
            errors(found.select(rest), pair[rest]).reshape(len(PUBLISHED_WEIGHTINGS), n, 3)
        )
    return Joint(
        at_ends,
        torch.stack(convex, 2).transpose(0, 1),
        torch.stack(loss, 2).transpose(0, 1),
        torch.stack(bound, 2).transpose(0, 1),
        torch.stack(published, 2).transpose(0, 1),
        (weight_end.residual - activation_end.residual).norm(dim=(1, 2)),
    )


def _mix(weight: Overlap, activation: Overlap, value: float) -> Overlap:
    """(1 - value) weight + value activation."""
    n = len(weight.constant)
    share = torch.full((n,), value, dtype=torch.float64, device=weight.constant.device)
    return weight.scaled(1 - share) + activation.scaled(share)


def _loss(cross: Tensor, constant: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda r: constant - 2 * (cross * r).sum((1, 2))


def _refit(
    found: Element, siblings: Folded, anchors: Folded, pair: Tensor, fvu: Overlap, value: Tensor
) -> tuple[Element, Tensor]:
    """Heads and neurons fitted to the rotations reached, where that lowers the convex loss."""
    s, a = siblings.select(pair), anchors.select(pair)
    anew = replace(fit_inside(rotate(found.residual, s), a), residual=found.residual)
    lam = torch.tensor(WEIGHTINGS, dtype=torch.float64, device=value.device)
    lam = lam.repeat_interleave(len(pair) // len(WEIGHTINGS))
    weight = weight_error(act_inside(anew, s), a).errors(anew.residual)[:, 0]
    activation = fvu.select(pair).errors(anew.residual)[:, 0]
    again = (1 - lam) * weight + lam * activation
    better = again < value
    # At lambda = 1 heads and neurons leave the loss as it is: there the fit to the weights stays.
    better |= lam == 1
    merged = found.where(better, anew)
    return merged, torch.where(better, again, value)
