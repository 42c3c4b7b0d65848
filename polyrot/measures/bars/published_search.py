"""The paper's own search for a symmetry that carries one folded toy onto another.

Another order and other starts than ours in `alignment`: in each of six rounds first the residual
rotation (every entry of every tensor alike, the neurons still as the round before left them), then
layer by layer heads, their rotations, neurons and scales; from random head permutations, each with
and without the residual rotation. The pipeline applies the transpose of the rotation that it fits;
so does this, and beside it stands what the rotation itself would give. Kept is the best state on
the way, starts included, by the largest per-tensor MSE. Heads are matched as they stand, neurons by
the cosine of their in- and out-weights one after the other; nothing is polished afterwards. (arXiv
2605.24577, Methods, and its public pipeline.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from polyrot.measures.bars.alignment import assign, fit_heads, tensor_mse
from polyrot.measures.bars.overlap import best_rotation
from polyrot.toy import symmetry
from polyrot.toy.folding import TENSORS, WRITERS, Folded
from polyrot.toy.symmetry import Element, act_inside, head_columns, head_rows, rotate
from polyrot.toy.transformer import N_HEADS, N_LAYERS

STILL, BACKWARD, FORWARD = range(3)
"""How the residual stream is turned: not at all; by the transpose of the rotation that was fitted,
as the pipeline does it (its fit makes M r ~ M', and what it applies is M r^T); by that rotation."""


@dataclass(frozen=True)
class PublishedSearch:
    """What was found of n pairs.

    mse: float64 [n, T], per tensor of `TENSORS`, of the best start of all, the residual rotation
    applied as the pipeline applies it. without_rotation: of the best start whose residual stream
    stays as it is. forward: of the best start, the rotation applied the way it was fitted.
    """

    mse: Tensor
    without_rotation: Tensor
    forward: Tensor

    @property
    def largest(self) -> Tensor:
        """[n], the largest per-tensor MSE."""
        return self.mse.amax(1)

    def to_tensors(self) -> dict[str, Tensor]:
        """For the store."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def search(
    siblings: Folded,
    anchor: Folded,
    generator: torch.Generator,
    *,
    starts: int = 16,
    rounds: int = 6,
) -> PublishedSearch:
    """Search for each of `siblings` [n, ...] and `anchor` [1, ...], in float64.

    generator: draws the starts' head permutations, on the CPU. Raises ValueError for another number
    of anchors than one.
    """
    if len(anchor) != 1:
        raise ValueError(f"one anchor, not {len(anchor)}")
    n, device = len(siblings), siblings.position.device
    heads = torch.rand(starts, N_LAYERS, N_HEADS, generator=generator).argsort(-1).to(device)
    heads[0] = torch.arange(N_HEADS, device=device)  # the first start is the models as they are
    ways = torch.tensor([STILL, BACKWARD, FORWARD], device=device).repeat_interleave(starts)
    siblings, anchor = siblings.to(torch.float64), anchor.to(torch.float64)
    best: list[Tensor] = []
    for i in range(n):  # one pair's starts at a time keep memory small
        sibling = siblings.select([i] * 3 * starts)
        goal = anchor.select([0] * 3 * starts)
        mse = _descend(sibling, goal, heads.repeat(3, 1, 1), ways, rounds)
        still, backward, forward = (part[part.amax(1).argmin()] for part in mse.split(starts))
        either = torch.stack([still, backward])
        best.append(torch.stack([either[either.amax(1).argmin()], still, forward]))
    return PublishedSearch(*torch.stack(best, 1).cpu())


def _descend(moved: Folded, anchors: Folded, heads: Tensor, ways: Tensor, rounds: int) -> Tensor:
    """[n, T]: per-tensor MSE of the best state on the way of n problems' coordinate descent, each
    step of which changes the models as the one before left them.

    heads: int64 [n, layer, head], the starts; ways: int64 [n], how problems rotate the
    stream.
    """
    nothing = symmetry.identity(len(moved), moved.position.device, moved.position.dtype)
    moved = act_inside(replace(nothing, heads=heads), moved)
    best = tensor_mse(moved, anchors)
    for _ in range(rounds):
        fitted = best_rotation(_cross(moved, anchors))
        turns = torch.stack([nothing.residual, fitted.mT, fitted], 1)
        moved = rotate(turns[torch.arange(len(ways), device=ways.device), ways], moved)
        best = _better(best, tensor_mse(moved, anchors))
        for layer in range(N_LAYERS):
            for fit in (_heads, _turns, _neurons):
                moved = act_inside(fit(nothing, moved, anchors, layer), moved)
                best = _better(best, tensor_mse(moved, anchors))
    return best


def _better(best: Tensor, found: Tensor) -> Tensor:
    """Of two states' errors [n, T] the smaller: by the largest, then by the sum."""
    now, then = (torch.stack([x.amax(1), x.sum(1)]) for x in (found, best))
    smaller = (now[0] < then[0]) | ((now[0] == then[0]) & (now[1] < then[1]))
    return torch.where(smaller[:, None], found, best)


def _cross(siblings: Folded, anchors: Folded) -> Tensor:
    """[n, 64, 64]: what the residual rotation is fitted to, every entry of every tensor alike."""
    products = [
        b.mT @ a if name in WRITERS else b @ a.mT
        for name, a, b in ((name, anchors[name], siblings[name]) for name in TENSORS)
    ]
    return torch.stack(products).sum(0)


def _in_layer(nothing: Element, layer: int, **parts: Tensor) -> Element:
    """The element that changes these parts of one layer alone."""
    changed = {}
    for name, part in parts.items():
        whole = getattr(nothing, name).clone()
        whole[:, layer] = part
        changed[name] = whole
    return replace(nothing, **changed)


def _heads(nothing: Element, siblings: Folded, anchors: Folded, layer: int) -> Element:
    """Heads as they stand, by the distance of all four of their matrices."""
    both = []
    for model in (anchors, siblings):
        parts = [head_columns(model, name, layer) for name in "qkv"]
        both.append(torch.cat([p.flatten(2) for p in (*parts, head_rows(model, layer))], -1))
    return _in_layer(nothing, layer, heads=assign(-torch.cdist(both[0], both[1]).square()))


def _turns(nothing: Element, siblings: Folded, anchors: Folded, layer: int) -> Element:
    """Rotations within heads."""
    _, qk, vo = fit_heads(siblings, anchors, layer, nothing.heads[:, layer])
    return _in_layer(nothing, layer, qk=qk, vo=vo)


def _neurons(nothing: Element, siblings: Folded, anchors: Folded, layer: int) -> Element:
    """Order and scales of the neurons."""
    order, scales = fit_neurons(siblings, anchors, layer)
    return _in_layer(nothing, layer, neurons=order, scales=scales)


def fit_neurons(siblings: Folded, anchors: Folded, layer: int) -> tuple[Tensor, Tensor]:
    """Assignment and scales [n, 256]: by the cosine of concatenated in- and out-weights, and by the
    geometric mean of the two ratios of norms."""
    features, norms = [], []
    for model in (anchors, siblings):
        parts = (model[f"w_in_{layer}"].mT, model[f"w_out_{layer}"])
        whole = torch.cat(parts, -1)
        features.append(whole / whole.norm(dim=-1, keepdim=True).clamp(min=1e-12))
        norms.append(torch.stack([p.norm(dim=-1).clamp(min=1e-12) for p in parts]))
    order = assign(features[0] @ features[1].mT)
    ratio = norms[0] / norms[1].gather(-1, order.expand(2, -1, -1))  # in, out
    return order, (ratio[0] / ratio[1]).sqrt()
