"""Weights stored as 8-bit integers with one scale a row: a quarter of float32's space.

What is stored is what is judged: a cohort's models are the rounded ones wherever they are used, and
their losses are recorded after rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".scale"


def pack(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices [rows, columns] as int8 and `name.scale` [rows]; anything else stays float32.

    A row's largest magnitude becomes 127, so its entries move by at most 1/254 of that.
    Raises ValueError for a weight that is not finite.
    """
    out: dict[str, Tensor] = {}
    for name, weight in weights.items():
        w = weight.detach().cpu().float()
        if not bool(w.isfinite().all()):
            raise ValueError(f"{name} holds values that are not finite: the training diverged")
        if w.ndim != 2:
            out[name] = w.contiguous()
            continue
        scale = (w.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        out[name] = (w / scale[:, None]).round().to(torch.int8)
        out[name + SCALE] = scale
    return out


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that `pack` stored, float32."""
    return {
        name: w.float() * packed[name + SCALE][:, None] if w.dtype == torch.int8 else w.clone()
        for name, w in packed.items()
        if not name.endswith(SCALE)
    }
