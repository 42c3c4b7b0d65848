"""Lens 1: what the weights say. QK and OV circuits of each head, and where it attends.

The circuits are W_q W_k^T and W_v W_o of the folded model, 64 x 64 of rank 16 (Elhage et al. 2021,
"A Mathematical Framework for Transformer Circuits").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyrot.toy import task
from polyrot.toy.folding import Folded
from polyrot.toy.symmetry import head_columns, head_rows
from polyrot.toy.transformer import D_HEAD, N_LAYERS

CHUNK = 128


@dataclass(frozen=True)
class Circuits:
    """Of the 8 heads of one model, in the order of `HEAD_NAMES`.

    qk, ov: [8, 16], singular values of the circuits, descending. entropy: [8], mean attention
    entropy as a share of the uniform pattern's, over positions from the second on.
    """

    qk: Tensor
    ov: Tensor
    entropy: Tensor

    @property
    def qk_norm(self) -> Tensor:
        """[8], Frobenius."""
        return self.qk.norm(dim=1)

    @property
    def ov_norm(self) -> Tensor:
        """[8], Frobenius."""
        return self.ov.norm(dim=1)


def measure_circuits(folded: Folded, tokens: Tensor) -> Circuits:
    """Circuits of one folded model; attention on tokens [batch, position]."""
    qk, ov = [], []
    for layer in range(N_LAYERS):
        q, k, v = (head_columns(folded, name, layer)[0].double() for name in "qkv")
        qk.append(torch.linalg.svdvals(q @ k.mT)[:, :D_HEAD])
        ov.append(torch.linalg.svdvals(v @ head_rows(folded, layer)[0].double())[:, :D_HEAD])
    return Circuits(torch.cat(qk), torch.cat(ov), attention_entropy(folded, tokens))


@torch.no_grad()
def attention_entropy(folded: Folded, tokens: Tensor) -> Tensor:
    """[8], float64: entropy of each head's attention over log(keys it may look at), averaged.

    The first position, which can only look at itself, and padding are left out. One model.
    """
    names = [f"pattern_{layer}" for layer in range(N_LAYERS)]
    total, n = torch.zeros((), dtype=torch.float64, device=tokens.device), 0
    for chunk in tokens.split(CHUNK):
        captured = folded.run(chunk, capture=names).captured
        pattern = torch.cat([captured[name][0] for name in names], 1)  # [batch, 8, query, key]
        entropy = -torch.xlogy(pattern, pattern).sum(-1)[..., 1:]
        uniform = torch.arange(2, chunk.shape[1] + 1, device=chunk.device).log()
        keep = (chunk != task.PAD)[:, 1:]
        total = total + ((entropy / uniform) * keep[:, None]).double().sum((0, 2))
        n += int(keep.sum())
    return total / n
