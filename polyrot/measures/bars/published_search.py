"""The paper's own search for a symmetry that carries one folded toy onto another.

Another order and other starts than ours in `alignment`: in each of six rounds heads, their
rotations, neurons, scales and, last, the residual rotation, from random head permutations, each
with and without the residual rotation, the best of all by the largest per-tensor MSE. Neurons are
matched by the cosine of their in- and out-weights as they stand, one after the other, whatever the
scale between the two; nothing is polished afterwards. (arXiv 2605.24577, Methods.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from polyrot.measures.bars.alignment import assign, fit_heads, tensor_mse
from polyrot.measures.bars.overlap import best_rotation, weight_overlap
from polyrot.toy import symmetry
from polyrot.toy.folding import TENSORS, Folded
from polyrot.toy.symmetry import Element, act, act_inside, rotate
from polyrot.toy.transformer import N_HEADS, N_LAYERS


@dataclass(frozen=True)
class PublishedSearch:
    """What was found of n pairs.

    mse: float64 [n, T], per tensor of `TENSORS`, of the best start of all; without_rotation: the
    same of the best start whose residual stream stays as it is.
    """

    mse: Tensor
    without_rotation: Tensor

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
    turned = torch.tensor([False, True], device=device).repeat_interleave(starts)
    siblings, anchor = siblings.to(torch.float64), anchor.to(torch.float64)
    best, unturned = [], []
    for i in range(n):  # one pair's starts at a time keep memory small
        sibling = siblings.select([i] * 2 * starts)
        goal = anchor.select([0] * 2 * starts)
        element = _descend(sibling, goal, heads.repeat(2, 1, 1), turned, rounds)
        mse = tensor_mse(act(element, sibling), goal)
        best.append(mse[mse.amax(1).argmin()])
        unturned.append(mse[:starts][mse[:starts].amax(1).argmin()])
    return PublishedSearch(torch.stack(best).cpu(), torch.stack(unturned).cpu())


def _descend(
    siblings: Folded, anchors: Folded, heads: Tensor, turned: Tensor, rounds: int
) -> Element:
    """Rounds of coordinate descent of n problems. heads: int64 [n, layer, head], kept in the first
    round; turned: bool [n], which problems rotate the residual stream."""
    n, device = len(siblings), siblings.position.device
    element = symmetry.identity(n, device, siblings.position.dtype)
    for step in range(rounds):
        seen = rotate(element.residual, siblings)
        inside = _fit_inside(seen, anchors, heads if step == 0 else None)
        moved = act_inside(inside, siblings)
        fitted = best_rotation(weight_overlap(moved, anchors, TENSORS).cross.sum(1))
        residual = torch.where(turned[:, None, None], fitted, element.residual)
        element = replace(inside, residual=residual)
    return element


def _fit_inside(siblings: Folded, anchors: Folded, heads: Tensor | None) -> Element:
    """Heads (those given, if any), head rotations, neurons and scales, in this order."""
    found: list[tuple[Tensor, ...]] = []
    for layer in range(N_LAYERS):
        given = None if heads is None else heads[:, layer]
        found.append(
            (*fit_heads(siblings, anchors, layer, given), *fit_neurons(siblings, anchors, layer))
        )
    parts = dict(
        zip(
            ("heads", "qk", "vo", "neurons", "scales"),
            (torch.stack(layers, 1) for layers in zip(*found, strict=True)),
            strict=True,
        )
    )
    identity = symmetry.identity(len(siblings), siblings.position.device, siblings.position.dtype)
    return replace(identity, **parts)


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
