"""The best symmetry that carries one folded toy onto another: Bar P.

Coordinate descent over heads, neurons, scales and the residual rotation, from many random head
permutations, each with and without the rotation; all starts of all pairs run as one batch. Then
the rotation is refined on O(64) against the largest per-tensor error itself, in both determinant
classes. (arXiv 2605.24577, section 10 and Methods.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from polyrot.measures.bars.overlap import Overlap, best_rotation, descend, weight_overlap
from polyrot.toy import symmetry
from polyrot.toy.folding import READERS, TENSORS, Folded
from polyrot.toy.symmetry import Element, act, act_inside, head_columns, head_rows, rotate
from polyrot.toy.transformer import N_HEADS, N_LAYERS

FREE_OF_HEADS = ("embed", "position", *READERS["norm_final"])
"""Tensors on which only the residual rotation acts: the first guess of it is made from these."""

STANDSTILL = 1e-7  # largest change of an entry of the residual rotation in a round
POLISH = 30  # more rounds at most, for the best start of each pair only
NEGLIGIBLE = 1e-12  # a largest per-tensor MSE below this is rounding
SHARPNESS = 8  # of the smooth maximum that the refinement follows


@dataclass(frozen=True)
class Alignment:
    """The best elements found for n pairs, and how well they do.

    element: acts on the sibling. mse: [n, T], per tensor of `TENSORS`, after the refinement.
    difference: [n], largest |entry difference|. searched: [n], largest per-tensor MSE before the
    refinement. unaligned: [n], the same of the sibling as it is. rotated: bool [n], whether the
    best one found by the search had a residual rotation.
    """

    element: Element
    mse: Tensor
    difference: Tensor
    searched: Tensor
    unaligned: Tensor
    rotated: Tensor

    @property
    def largest(self) -> Tensor:
        """[n], the largest per-tensor MSE: the figure of Bar P."""
        return self.mse.amax(1)

    def worst_tensor(self, pair: int) -> str:
        """The tensor that sets `largest`."""
        return TENSORS[int(self.mse[pair].argmax())]


def tensor_mse(a: Folded, b: Folded) -> Tensor:
    """[n, T], mean squared difference per tensor of `TENSORS`."""
    return torch.stack([(a[n] - b[n]).square().mean((1, 2)) for n in TENSORS], 1)


def largest_difference(a: Folded, b: Folded) -> Tensor:
    """[n], the largest |entry difference| over all tensors."""
    return torch.stack([(a[n] - b[n]).abs().amax((1, 2)) for n in TENSORS], 1).amax(1)


def align(
    siblings: Folded,
    anchor: Folded,
    generator: torch.Generator,
    *,
    starts: int = 16,
    rounds: int = 6,
    steps: int = 400,
    rate: float = 5e-2,
) -> Alignment:
    """Align each of `siblings` [n, ...] with `anchor` [n, ...] or [1, ...].

    generator: draws the starts' head permutations, on the CPU. steps, rate: of the refinement.
    The result is in float64.
    Raises ValueError if there are neither as many anchors as siblings nor one.
    """
    n = len(siblings)
    if len(anchor) not in (1, n):
        raise ValueError(f"{len(anchor)} anchors for {n} siblings: one, or as many")
    anchor = anchor.select([0] * n) if len(anchor) == 1 else anchor
    # In single precision a planted rotation comes back to 1e-4 only: the position features make
    # the overlaps ill-conditioned.
    siblings, anchor = siblings.to(torch.float64), anchor.to(torch.float64)
    heads = torch.rand(starts, N_LAYERS, N_HEADS, generator=generator).argsort(-1)
    elements, scores = search(siblings, anchor, heads, rounds=rounds)
    # The best with and the best without the rotation both go on to the refinement.
    best = scores.argmin(2)
    of_pair = torch.arange(n, device=best.device).repeat_interleave(2)
    turned = torch.tensor([False, True], device=best.device).repeat(n)
    flat = (torch.arange(2 * n, device=best.device) * starts) + best.flatten()
    polished = _rounds(siblings, anchor, elements.select(flat), of_pair, turned, POLISH)
    before = torch.stack(
        [scores.amin(2).flatten(), largest_mse(polished, siblings, anchor, of_pair)]
    )
    candidates = elements.select(flat).where(before[1] < before[0], polished)
    searched = before.amin(0).reshape(n, 2)
    # Where the search has undone a symmetry to rounding there is nothing to refine.
    unfinished = (searched.amin(1) > NEGLIGIBLE).repeat_interleave(2).nonzero()[:, 0]
    refined, reached = candidates, searched.flatten().clone()
    if len(unfinished):
        pair = of_pair[unfinished]
        better, reached[unfinished] = refine(
            siblings.select(pair),
            anchor.select(pair),
            candidates.select(unfinished),
            steps=steps,
            rate=rate,
        )
        refined = candidates.put(unfinished, better)
    final = refined.select(
        reached.reshape(n, 2).argmin(1) + 2 * torch.arange(n, device=best.device)
    )
    moved = act(final, siblings)
    return Alignment(
        final,
        tensor_mse(moved, anchor),
        largest_difference(moved, anchor),
        searched.amin(1),
        tensor_mse(siblings, anchor).amax(1),
        searched.argmin(1) == 1,
    )


def search(
    siblings: Folded, anchors: Folded, heads: Tensor, *, rounds: int = 6
) -> tuple[Element, Tensor]:
    """Coordinate descent of every pair from every start, without and with the rotation, at once.

    siblings, anchors: [n, ...]; heads: int64 [starts, layer, head], the permutations to start from.
    Returns elements of the flattened [n, 2, starts] problems (without the rotation first) and their
    largest per-tensor MSE [n, 2, starts].
    """
    n, starts = len(siblings), len(heads)
    device, dtype = siblings.position.device, siblings.position.dtype
    of_pair = torch.arange(n, device=device).repeat_interleave(2 * starts)
    element = replace(
        symmetry.identity(len(of_pair), device, dtype), heads=heads.to(device).repeat(2 * n, 1, 1)
    )
    turned = torch.tensor([False, True], device=device).repeat_interleave(starts).repeat(n)
    element = _rounds(siblings, anchors, element, of_pair, turned, rounds, first=True)
    return element, largest_mse(element, siblings, anchors, of_pair).reshape(n, 2, starts)


def _rounds(
    siblings: Folded,
    anchors: Folded,
    element: Element,
    of_pair: Tensor,
    turned: Tensor,
    rounds: int,
    *,
    first: bool = False,
) -> Element:
    """Rounds of coordinate descent of every problem until it stands still.

    A round is a function of what it starts from: where it changed nothing, the next will not.
    """
    active = torch.arange(len(of_pair), device=of_pair.device)
    for step in range(rounds):
        if not len(active):
            break
        before, pair = element.select(active), of_pair[active]
        given = first and step == 0
        after = one_round(
            siblings.select(pair), anchors.select(pair), before, turned[active], first=given
        )
        element = element.put(active, after)
        still = (after.residual - before.residual).abs().amax((1, 2)) > STANDSTILL
        for name in ("heads", "neurons"):
            still |= (getattr(after, name) != getattr(before, name)).flatten(1).any(1)
        active = active if given else active[still]
    return element


def settle(siblings: Folded, anchors: Folded, element: Element) -> Element:
    """Coordinate descent of n pairs, rotation and all, from `element` [n] until it stands still."""
    n = len(element)
    pair = torch.arange(n, device=element.heads.device)
    turned = torch.ones(n, dtype=torch.bool, device=pair.device)
    return _rounds(siblings, anchors, element, pair, turned, POLISH)


def one_round(
    siblings: Folded, anchors: Folded, element: Element, turned: Tensor, *, first: bool = False
) -> Element:
    """One round of coordinate descent of n problems: rotation, heads, neurons, scales.

    turned: bool [n], which problems may change their residual rotation. In the first round the
    rotation is guessed from tensors that have neither heads nor neurons, and heads stay as given.
    """
    residual = element.residual
    if bool(turned.any()):
        guess = FREE_OF_HEADS if first else TENSORS
        inside = siblings if first else act_inside(element, siblings)
        fitted = best_rotation(weight_overlap(inside, anchors, guess).cross.sum(1))
        residual = torch.where(turned[:, None, None], fitted, residual)
    seen = rotate(residual, siblings)
    return replace(
        fit_inside(seen, anchors, heads=element.heads if first else None), residual=residual
    )


def fit_inside(siblings: Folded, anchors: Folded, heads: Tensor | None = None) -> Element:
    """Heads, head rotations, neurons and scales that fit `siblings` to `anchors`, both [n, ...].

    heads: int64 [n, layer, head] to keep, else the best assignment: that of the largest overlap
    after the best rotations, a sum of nuclear norms. The residual rotation is the identity.
    """
    n = len(siblings)
    out = symmetry.identity(n, siblings.position.device, siblings.position.dtype)
    found: dict[str, list[Tensor]] = {n: [] for n in symmetry.PARTS if n != "residual"}
    for layer in range(N_LAYERS):
        order = None if heads is None else heads[:, layer]
        for name, value in zip(
            ("heads", "qk", "vo"), fit_heads(siblings, anchors, layer, order), strict=True
        ):
            found[name].append(value)
        for name, value in zip(
            ("neurons", "scales"), _fit_neurons(siblings, anchors, layer), strict=True
        ):
            found[name].append(value)
    return replace(out, **{name: torch.stack(values, 1) for name, values in found.items()})


def fit_heads(
    siblings: Folded, anchors: Folded, layer: int, order: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Assignment [n, head] and rotations [n, head, 16, 16] twice; i of the anchor from j."""
    a = {name: head_columns(anchors, name, layer) for name in "qkv"}
    b = {name: head_columns(siblings, name, layer) for name in "qkv"}
    a["o"], b["o"] = head_rows(anchors, layer).mT, head_rows(siblings, layer).mT

    def cross(x: str, y: str) -> Tensor:
        """[n, i, j, 16, 16]: what the rotation of head j is fitted to, were it matched with i."""
        left, right = (torch.cat([m[x], m[y]], 2) for m in (b, a))  # [n, head, 128, 16]
        return torch.einsum("njdr,nids->nijrs", left, right)

    both = torch.stack([cross("q", "k"), cross("v", "o")], 1)  # [n, 2, i, j, 16, 16]
    if order is None:
        gain = torch.linalg.svdvals(both).sum((1, -1))
        order = assign(gain)
    index = order[:, None, :, None, None, None].expand(-1, 2, -1, 1, *both.shape[-2:])
    polar = best_rotation(both.gather(3, index).squeeze(3))
    return order, polar[:, 0], polar[:, 1]


def _fit_neurons(siblings: Folded, anchors: Folded, layer: int) -> tuple[Tensor, Tensor]:
    """Assignment and scales [n, 256].

    Matched by the cosine of concatenated in- and out-weights, each neuron first brought to equal
    norms of the two, since its scale is not known yet. Then scaled by the geometric mean of the
    two norm ratios.
    """
    features, norms = [], []
    for model in (anchors, siblings):
        parts = (model[f"w_in_{layer}"].mT, model[f"w_out_{layer}"])
        size = torch.stack([p.norm(dim=-1).clamp(min=1e-12) for p in parts])
        features.append(torch.cat([p / s[..., None] for p, s in zip(parts, size, strict=True)], -1))
        norms.append(size)
    order = assign(features[0] @ features[1].mT)
    of_sibling = norms[1].gather(-1, order.expand(2, -1, -1))
    ratio = norms[0] / of_sibling  # in, out
    return order, (ratio[0] / ratio[1]).sqrt()


def rescaled(moved: Folded, anchors: Folded) -> Tensor:
    """[n], the largest per-tensor MSE of aligned siblings once their neurons' scales are chosen
    for it, in place of by the geometric mean of norm ratios.

    A positive scale s of a neuron multiplies its in-weights and divides its out-weights. Each layer
    weighs the two tensors' errors against one another, from one alone to the other alone, and takes
    the best weighting. (The alternative search that a claim to be out of reach has to withstand.)
    """
    mse = tensor_mse(moved, anchors)
    scale = torch.linspace(-1, 1, 401, dtype=torch.float64, device=mse.device).exp()[:, None, None]
    for layer in range(N_LAYERS):
        names = (f"w_in_{layer}", f"w_out_{layer}")
        errors = []  # [scales, pair, neuron], each neuron's share of its tensor's MSE
        for name, factor in zip(names, (scale, 1 / scale), strict=True):
            a, b = anchors[name], moved[name]
            along = 1 if name == names[0] else 2  # the residual dimension
            square, cross = b.square().sum(along), (a * b).sum(along)
            error = a.square().sum(along) - 2 * factor * cross + factor**2 * square
            errors.append(error / a[0].numel())
        columns = [TENSORS.index(name) for name in names]
        for weight in torch.linspace(0, 1, 101).tolist():
            chosen = torch.lerp(errors[1], errors[0], weight).argmin(0, keepdim=True)
            found = torch.stack([e.gather(0, chosen)[0].sum(-1) for e in errors], 1)
            better = found.amax(1) < mse[:, columns].amax(1)
            mse[:, columns] = torch.where(better[:, None], found, mse[:, columns])
    return mse.amax(1)


def assign(gain: Tensor) -> Tensor:
    """For each row of gain [n, k, k] its column in the assignment of the largest sum, [n, k]."""
    tables = gain.detach().cpu().double().numpy()
    columns = np.stack([linear_sum_assignment(t, maximize=True)[1] for t in tables])
    return torch.from_numpy(columns).to(gain.device)


def refine(
    siblings: Folded,
    anchors: Folded,
    element: Element,
    *,
    passes: int = 2,
    steps: int = 400,
    rate: float = 5e-2,
) -> tuple[Element, Tensor]:
    """Follow the largest per-tensor MSE over the residual rotation, both determinant classes.

    siblings, anchors: [n, ...]; element: [n], what to start from. Each pass refines the rotation
    and then fits heads and neurons to it anew; whatever was best is kept.
    Returns elements and their largest per-tensor MSE [n].
    """
    n = len(element)
    pair = torch.arange(n, device=element.heads.device)
    best = element
    lowest = largest_mse(element, siblings, anchors, pair)
    for _ in range(passes):
        for flip in (False, True):
            overlap = weight_overlap(act_inside(best, siblings), anchors)
            start = best.residual
            if flip:
                # The nearest rotation of the other class that costs the weights least.
                start = start @ best_rotation(start.mT @ overlap.cross.sum(1), flip=True)
                start = torch.where(
                    (torch.linalg.det(start) * torch.linalg.det(best.residual) < 0)[:, None, None],
                    start,
                    best_rotation(overlap.cross.sum(1)),
                )

            refined = descend(
                start,
                partial(_smooth_maximum, overlap),
                score=partial(_maximum, overlap),
                steps=steps,
                rate=rate,
            )
            tried = replace(best, residual=best_rotation(refined))  # polar: exactly orthogonal
            anew = replace(
                fit_inside(rotate(tried.residual, siblings), anchors), residual=tried.residual
            )
            for candidate in (tried, anew):
                value = largest_mse(candidate, siblings, anchors, pair)
                better = value < lowest
                best, lowest = best.where(better, candidate), torch.where(better, value, lowest)
    return best, lowest


def _maximum(overlap: Overlap, r: Tensor) -> Tensor:
    return overlap.errors(r).amax(1)


def _smooth_maximum(overlap: Overlap, r: Tensor) -> Tensor:
    errors = overlap.errors(r).clamp(min=NEGLIGIBLE)
    return errors.pow(SHARPNESS).sum(1).pow(1 / SHARPNESS)


def largest_mse(
    element: Element, siblings: Folded, anchors: Folded, of_pair: Tensor, chunk: int = 64
) -> Tensor:
    """[problems], largest per-tensor MSE, some problems at a time."""
    parts = []
    for index in torch.arange(len(of_pair), device=of_pair.device).split(chunk):
        pair = of_pair[index]
        moved = act(element.select(index), siblings.select(pair))
        parts.append(tensor_mse(moved, anchors.select(pair)).amax(1))
    return torch.cat(parts)
