"""How well the decoder columns of two sparse autoencoders match, and what chance would give."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def max_cosine(
    dec_a: Tensor,
    dec_b: Tensor,
    live_a: Tensor | None = None,
    live_b: Tensor | None = None,
    chunk: int = 4096,
) -> Tensor:
    """For each column of `dec_a` the largest (signed) cosine with any column of `dec_b`.

    dec_a: [d, f], dec_b: [d, g]; columns need not be of unit norm. live_a [f], live_b [g]: boolean
    masks; columns outside them are left out, as are their results, so that the result is [f] or
    [live_a.sum()], in the order of the columns. `chunk` columns of each are compared at a time, so
    that memory is O(chunk^2 + d (f + g)). Not symmetric: two columns of `dec_a` may match one of
    `dec_b`. To compare through a rotation with a @ r ~ b, pass `r.T @ dec_a`.
    Raises ValueError: widths or masks that do not fit, nothing live, columns not finite or zero.
    """
    if dec_a.ndim != 2 or dec_b.ndim != 2 or dec_a.shape[0] != dec_b.shape[0]:
        raise ValueError(
            f"decoders must be [d, features] of one width d, not {list(dec_a.shape)} and "
            f"{list(dec_b.shape)}"
        )
    unit_a = _unit_columns(dec_a, live_a, "first decoder")
    unit_b = _unit_columns(dec_b, live_b, "second decoder").to(unit_a)
    best = unit_a.new_full((unit_a.shape[1],), -math.inf)
    for i in range(0, unit_a.shape[1], chunk):
        rows = unit_a[:, i : i + chunk].T
        for j in range(0, unit_b.shape[1], chunk):
            found = (rows @ unit_b[:, j : j + chunk]).amax(1)
            best[i : i + chunk] = torch.maximum(best[i : i + chunk], found)
    return best.clamp(-1, 1)


def _unit_columns(decoder: Tensor, live: Tensor | None, where: str) -> Tensor:
    if live is not None:
        if live.shape != decoder.shape[1:] or live.dtype != torch.bool:
            raise ValueError(
                f"{where}: the live mask must be bool [{decoder.shape[1]}], not {live.dtype} "
                f"{list(live.shape)}"
            )
        decoder = decoder[:, live.to(decoder.device)]
    if decoder.shape[1] == 0:
        raise ValueError(f"{where}: no live features; the dictionary is dead, lower its l1")
    norms = torch.linalg.vector_norm(decoder, dim=0)
    bad = (~(norms.isfinite() & (norms > 0))).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"{where}: columns {bad[:8]} are zero or not finite ({len(bad)} in all); "
            "leave them out with the live mask"
        )
    return decoder / norms


def matched_fraction(cosines: Tensor, threshold: float = 0.5) -> float:
    """Share of the best cosines [f] above `threshold`. Raises ValueError where there are none."""
    if cosines.numel() == 0:
        raise ValueError("matched fraction of no features")
    return float((cosines > threshold).double().mean())


__all__ = ["matched_fraction", "max_cosine"]
