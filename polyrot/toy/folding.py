"""Folding: every RMSNorm gain multiplied into the weights that read it, exactly.

RMSNorm without a gain commutes with rotations of the residual stream, so the folded model has the
symmetries of `polyrot.toy.symmetry`. A rotation also moves the position features, which is why the
folded model carries them as a matrix of its own rather than as the fixed buffer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyrot.toy import task, transformer
from polyrot.toy.transformer import N_LAYERS, Edit, Params, Run

READERS: dict[str, tuple[str, ...]] = {
    **{f"norm_attn_{i}": (f"w_q_{i}", f"w_k_{i}", f"w_v_{i}") for i in range(N_LAYERS)},
    **{f"norm_mlp_{i}": (f"w_in_{i}",) for i in range(N_LAYERS)},
    "norm_final": tuple(f"unembed_{head}" for head in task.HEADS),
}
"""Gain -> the weights that read the stream behind it, their rows being residual dimensions."""

WRITERS = ("embed", "position", *(f"w_{n}_{i}" for i in range(N_LAYERS) for n in ("o", "out")))
"""Tensors whose columns are residual dimensions."""

TENSORS = (*WRITERS, *(name for readers in READERS.values() for name in readers))
"""Every tensor of a folded model, the position features among them."""


@dataclass(frozen=True)
class Folded:
    """Folded models, one or many.

    params: as in `transformer`, every gain 1, leading dimension [model].
    position: [model, context, d_model], the position features in the model's own residual basis.
    """

    params: Params
    position: Tensor

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, name: str) -> Tensor:
        """One of `TENSORS`, [model, ...]."""
        return self.position if name == "position" else self.params[name]

    def select(self, models: Sequence[int] | Tensor) -> Folded:
        """The chosen models, in that order; one may be chosen many times."""
        index = torch.as_tensor(models, device=self.position.device)
        return Folded({n: p[index] for n, p in self.params.items()}, self.position[index])

    def replace(self, tensors: Mapping[str, Tensor]) -> Folded:
        """The same with some of `TENSORS` exchanged."""
        changed = dict(tensors)
        position = changed.pop("position", self.position)
        return Folded({**self.params, **changed}, position)

    def to(self, to: torch.dtype | torch.device | str) -> Folded:
        """In another dtype or on another device."""
        return Folded({n: p.to(to) for n, p in self.params.items()}, self.position.to(to))

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of all of `TENSORS`."""
        return ((name, self[name]) for name in TENSORS)

    def run(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        bias: Tensor | None = None,
        edits: Mapping[str, Edit] | None = None,
        capture: Sequence[str] = (),
    ) -> Run:
        """`transformer.forward` of the folded model; its own position features take the place of
        the buffer. Raises KeyError as there."""
        if positions is None:
            here = self.position[:, None, : tokens.shape[-1]]
        else:
            each = positions.expand(len(self), *positions.shape[-2:])
            model = torch.arange(len(self), device=each.device)[:, None, None]
            here = self.position[model, each]
        own: dict[str, Edit] = {"position": lambda _: here}
        return transformer.forward(
            self.params,
            tokens,
            positions=positions,
            segments=segments,
            bias=bias,
            edits={**own, **(edits or {})},
            capture=capture,
        )


def joined(each: Sequence[Folded]) -> Folded:
    """Several folded models as one batch."""
    params = {name: torch.cat([one.params[name] for one in each]) for name in each[0].params}
    return Folded(params, torch.cat([one.position for one in each]))


def fold(params: Mapping[str, Tensor]) -> Folded:
    """Multiply each gain into the rows of the weights that read it and set it to 1.

    params: [model, ...] as in `transformer`. The logits do not change beyond rounding: with
    y = x / rms(x), (y * g) @ w = y @ (diag(g) w). (arXiv 2605.24577, Methods.)
    """
    out = dict(params)
    for gain, readers in READERS.items():
        for name in readers:
            out[name] = params[gain][:, :, None] * params[name]
        out[gain] = torch.ones_like(params[gain])
    n_models = len(params["embed"])
    position = transformer.position_buffer(params["embed"].device).to(params["embed"].dtype)
    return Folded(out, position.expand(n_models, -1, -1).clone())


def largest_logit_change(a: Run, b: Run, keep: Tensor) -> Tensor:
    """[model]: largest |logit difference| of two runs over kept positions and all heads.

    keep: bool [batch, position].
    """
    gaps = [(a.logits[h] - b.logits[h])[:, keep].abs().flatten(1).amax(1) for h in task.HEADS]
    return torch.stack(gaps).amax(0)
