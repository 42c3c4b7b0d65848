"""The symmetry group of the folded toy: what may be done to its weights without changing a logit.

Per layer: permute the heads; rotate each head's queries and keys together, and, apart from these,
its values and outputs; permute the neurons; scale each neuron's input up and its output down by the
same positive factor. And rotate the residual stream, which moves the embedding, the position
features, and every weight that reads or writes it. (arXiv 2605.24577, Methods. Queries and keys
even allow any invertible map; the paper's group has the rotations.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from polyrot.maps.null_space import haar_block
from polyrot.toy.folding import TENSORS, WRITERS, Folded
from polyrot.toy.transformer import D_HEAD, D_MLP, D_MODEL, N_HEADS, N_LAYERS


@dataclass(frozen=True)
class Element:
    """Group elements, one per model of a batch of n.

    heads: int64 [n, layer, head]; head i of the result is head heads[i] of the model.
    qk, vo: [n, layer, head, 16, 16] orthogonal, indexed by head of the result.
    neurons: int64 [n, layer, 256]; as heads.
    scales: [n, layer, 256] positive, indexed by neuron of the result: input times, output over.
    residual: [n, 64, 64] orthogonal; activations x of the model become x @ residual.
    """

    heads: Tensor
    qk: Tensor
    vo: Tensor
    neurons: Tensor
    scales: Tensor
    residual: Tensor

    def __len__(self) -> int:
        return len(self.heads)

    def select(self, models: Sequence[int] | Tensor) -> Element:
        """The chosen elements, in that order."""
        index = torch.as_tensor(models, device=self.heads.device)
        return Element(*(getattr(self, f.name)[index] for f in fields(self)))

    def then(self, second: Element) -> Element:
        """The element that acts as this one and then `second`."""
        heads = second.heads
        return Element(
            self.heads.gather(-1, heads),
            _take(self.qk, heads) @ second.qk,
            _take(self.vo, heads) @ second.vo,
            self.neurons.gather(-1, second.neurons),
            self.scales.gather(-1, second.neurons) * second.scales,
            self.residual @ second.residual,
        )

    def inverse(self) -> Element:
        """The element that undoes this one."""
        heads, neurons = self.heads.argsort(-1), self.neurons.argsort(-1)
        return Element(
            heads,
            _take(self.qk, heads).mT,
            _take(self.vo, heads).mT,
            neurons,
            1 / self.scales.gather(-1, neurons),
            self.residual.mT,
        )

    def put(self, index: Tensor, part: Element) -> Element:
        """The same with the elements at `index` int64 [k] exchanged for `part` [k]."""
        changed = {}
        for f in fields(self):
            value = getattr(self, f.name).clone()
            value[index] = getattr(part, f.name)
            changed[f.name] = value
        return Element(**changed)

    def where(self, condition: Tensor, other: Element) -> Element:
        """`other` where condition bool [n], else this one."""
        index = condition.nonzero()[:, 0]
        return self.put(index, other.select(index))

    def to(self, to: torch.dtype | torch.device | str) -> Element:
        """In another floating dtype or on another device."""
        if isinstance(to, torch.dtype):
            moved = {n: getattr(self, n).to(to) for n in ("qk", "vo", "scales", "residual")}
            return replace(self, **moved)
        return Element(*(getattr(self, f.name).to(to) for f in fields(self)))


def identity(
    n: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Element:
    """n times the element that changes nothing."""
    eye_head = torch.eye(D_HEAD, device=device, dtype=dtype)
    per_head = eye_head.expand(n, N_LAYERS, N_HEADS, -1, -1).clone()
    return Element(
        torch.arange(N_HEADS, device=device).expand(n, N_LAYERS, -1).clone(),
        per_head,
        per_head.clone(),
        torch.arange(D_MLP, device=device).expand(n, N_LAYERS, -1).clone(),
        torch.ones(n, N_LAYERS, D_MLP, device=device, dtype=dtype),
        torch.eye(D_MODEL, device=device, dtype=dtype).expand(n, -1, -1).clone(),
    )


PARTS = ("heads", "qk", "vo", "neurons", "scales", "residual")


def random(n: int, generator: torch.Generator, parts: Sequence[str] = PARTS) -> Element:
    """n random elements, on the CPU, that differ from the identity in `parts` only.

    Permutations uniform, rotations Haar on O(16) and O(64), scales log-uniform on [1/4, 4].
    Raises ValueError for a part that is none of `PARTS`.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ValueError(f"no such part of the group: {', '.join(unknown)}; have {PARTS}")

    def permutations(k: int) -> Tensor:
        return torch.rand(n, N_LAYERS, k, generator=generator).argsort(-1)

    by_head = n, N_LAYERS, N_HEADS
    drawn = {
        "heads": permutations(N_HEADS),
        "qk": haar_block(D_HEAD, generator, batch=by_head).float(),
        "vo": haar_block(D_HEAD, generator, batch=by_head).float(),
        "neurons": permutations(D_MLP),
        "scales": 16 ** (torch.rand(n, N_LAYERS, D_MLP, generator=generator) - 0.5),
        "residual": haar_block(D_MODEL, generator, batch=(n,)).float(),
    }
    return replace(identity(n), **{name: drawn[name] for name in parts})


def act(element: Element, folded: Folded) -> Folded:
    """The models [n, ...] as the elements [n] change them; every logit stays what it was.

    Order: permute, then rotate and scale within heads and neurons, then rotate the residual stream.
    Raises ValueError if there are not as many elements as models.
    """
    if len(element) != len(folded):
        raise ValueError(f"{len(element)} group elements for {len(folded)} models")
    return rotate(element.residual, act_inside(element, folded))


def act_inside(element: Element, folded: Folded) -> Folded:
    """`act` without the residual rotation."""
    changed: dict[str, Tensor] = {}
    for layer in range(N_LAYERS):
        for name, turns in (("q", element.qk), ("k", element.qk), ("v", element.vo)):
            heads = _take(head_columns(folded, name, layer), element.heads[:, layer])
            turned = heads @ turns[:, layer]
            changed[f"w_{name}_{layer}"] = turned.transpose(1, 2).flatten(2)
        heads = _take(head_rows(folded, layer), element.heads[:, layer])
        changed[f"w_o_{layer}"] = (element.vo[:, layer].mT @ heads).flatten(1, 2)
        order, scale = element.neurons[:, layer], element.scales[:, layer]
        w_in, w_out = folded[f"w_in_{layer}"], folded[f"w_out_{layer}"]
        changed[f"w_in_{layer}"] = _take(w_in.mT, order).mT * scale[:, None, :]
        changed[f"w_out_{layer}"] = _take(w_out, order) / scale[:, :, None]
    return folded.replace(changed)


def rotate(residual: Tensor, folded: Folded) -> Folded:
    """The models [n, ...] with the residual stream turned: x becomes x @ residual [n, 64, 64]."""
    return folded.replace({name: turned(name, x, residual) for name, x in folded.items()})


def turned(name: str, weight: Tensor, turns: Tensor) -> Tensor:
    """A weight as it is where the residual stream is `x @ turns`: rows of what reads the stream and
    columns of what writes to it are turned; gains of the norms, which scale coordinates, stay.

    weight: [model, ...] as in `polyrot.toy.transformer`; turns: [model, d, d], orthogonal.

    >>> swap = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    >>> turned("embed", torch.tensor([[[1.0, 2.0]]]), swap)
    tensor([[[2., 1.]]])
    """
    if name in WRITERS:
        return weight @ turns
    return turns.mT @ weight if name in TENSORS else weight


def head_columns(folded: Folded, name: str, layer: int) -> Tensor:
    """w_q, w_k or w_v by head, [n, head, 64, 16]."""
    return folded[f"w_{name}_{layer}"].unflatten(2, (N_HEADS, D_HEAD)).transpose(1, 2)


def head_rows(folded: Folded, layer: int) -> Tensor:
    """w_o by head, [n, head, 16, 64]."""
    return folded[f"w_o_{layer}"].unflatten(1, (N_HEADS, D_HEAD))


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x [..., k, *rest] at index [..., k] of dimension index.ndim - 1."""
    extra = x.ndim - index.ndim
    wide = index.reshape(*index.shape, *[1] * extra).expand_as(x)
    return x.gather(index.ndim - 1, wide)


__all__ = [
    "PARTS",
    "TENSORS",
    "Element",
    "act",
    "act_inside",
    "head_columns",
    "head_rows",
    "identity",
    "random",
    "rotate",
    "turned",
]
