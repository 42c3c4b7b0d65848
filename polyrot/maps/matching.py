"""How well the decoder columns of two sparse autoencoders match, and what chance would give."""

from __future__ import annotations

import math
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from polyrot.maps.arrays import Array, read

#: Which axis of a decoder counts features: "columns", [d, features], or "rows", [features, d].
Features = Literal["columns", "rows"]


@overload
def max_cosine(  # type: ignore[overload-overlap]  # a Tensor is what NumPy can read, too
    dec_a: Tensor,
    dec_b: Tensor,
    live_a: Tensor | None = ...,
    live_b: Tensor | None = ...,
    chunk: int = ...,
    *,
    features: Features | None = ...,
) -> Tensor: ...
@overload
def max_cosine(
    dec_a: Array,
    dec_b: Array,
    live_a: Array | None = ...,
    live_b: Array | None = ...,
    chunk: int = ...,
    *,
    features: Features | None = ...,
) -> NDArray[Any]: ...
def max_cosine(
    dec_a: Array,
    dec_b: Array,
    live_a: Array | None = None,
    live_b: Array | None = None,
    chunk: int = 4096,
    *,
    features: Features | None = None,
) -> Any:
    """For each feature of `dec_a` the largest (signed) cosine with any feature of `dec_b`.

    dec_a: [d, f], dec_b: [d, g], a feature's direction a column, of any norm: `Dictionary.decoder`
    and the `weight` of a torch.nn.Linear(features, d). `features="rows"` takes [f, d], [g, d], as
    SAELens has its W_dec. Without `features`, columns are meant, and decoders that could be either
    (square, or with no more columns than rows) are refused: say which.
    live_a [f], live_b [g]: boolean masks; features outside them are left out, as are their
    results, so that the result is [f] or [live_a.sum()], in the order of the features; cosines in
    [-1, 1], NumPy or torch as the decoders were. `chunk` features of each are compared at a time,
    so that memory is O(chunk^2 + d (f + g)). Not symmetric: two features of `dec_a` may match one
    of `dec_b`. To compare through a rotation with a @ r ~ b, pass `r.T @ dec_a`. Source: the
    decoder cosine of arXiv 2605.24577.
    Raises ValueError: orientation not clear, widths or masks that do not fit, dtypes, nothing live,
    features not finite or zero.

    >>> import numpy as np
    >>> dec = np.array([[1.0, 0.0, 0.6], [0.0, 2.0, 0.8]])
    >>> max_cosine(dec, dec[:, ::-1]).round(6).tolist()
    [1.0, 1.0, 1.0]
    >>> max_cosine(dec, -dec[:, :2], features="columns").round(6).tolist()
    [0.0, 0.0, -0.6]
    >>> max_cosine(dec.T, dec.T, features="rows").round(6).tolist()
    [1.0, 1.0, 1.0]
    """
    given = read(dec_a, dec_b, where=("first decoder", "second decoder"), error=ValueError)
    first, second = given.tensors
    first, second = _as_columns(first, second, features)
    unit_a = _unit_columns(first, live_a, "first decoder")
    unit_b = _unit_columns(second, live_b, "second decoder").to(unit_a)
    best = unit_a.new_full((unit_a.shape[1],), -math.inf)
    for i in range(0, unit_a.shape[1], chunk):
        rows = unit_a[:, i : i + chunk].T
        for j in range(0, unit_b.shape[1], chunk):
            found = (rows @ unit_b[:, j : j + chunk]).amax(1)
            best[i : i + chunk] = torch.maximum(best[i : i + chunk], found)
    return given.back(best.clamp(-1, 1))


def _as_columns(a: Tensor, b: Tensor, features: Features | None) -> tuple[Tensor, Tensor]:
    """Both decoders as [d, features]. Raises ValueError: see `max_cosine`."""
    if features not in (None, "columns", "rows"):
        raise ValueError(f'features must be "columns" or "rows", not {features!r}')
    shapes = f"{list(a.shape)} and {list(b.shape)}"
    wanted = "[features, d]" if features == "rows" else "[d, features]"
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"decoders must be {wanted} of one width d, not {shapes}")
    if features == "rows":
        a, b = a.T, b.T
    if a.shape[0] != b.shape[0]:
        turned = ""
        if a.shape[1] == b.shape[1]:
            other = "columns" if features == "rows" else "rows"
            turned = f': with features="{other}" they have one width'
        elif a.shape[0] == b.shape[1] or a.shape[1] == b.shape[0]:
            turned = ": one of them is the wrong way round, transpose it"
        raise ValueError(f"decoders must be {wanted} of one width d, not {shapes}{turned}")
    if features is None:
        for x, which in ((a, "first"), (b, "second")):
            if x.shape[0] >= x.shape[1] > 0:
                raise ValueError(
                    f"{which} decoder: {list(x.shape)} may be [d, features] or [features, d]; say "
                    'features="columns" where a column is a feature, features="rows" where a row is'
                )
    return a, b


def _unit_columns(decoder: Tensor, mask: Array | None, where: str) -> Tensor:
    if mask is not None:
        live = mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
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
    """Share of the best cosines [f] above `threshold`. Raises ValueError where there are none, or
    one of them or the threshold is NaN, which lies on no side.

    >>> matched_fraction(torch.tensor([0.9, 0.2, 0.6, 0.4]))
    0.5
    """
    if cosines.numel() == 0:
        raise ValueError("matched fraction of no features")
    if cosines.isnan().any() or math.isnan(threshold):
        raise ValueError(
            f"matched fraction: {int(cosines.isnan().sum())} of {cosines.numel()} cosines are NaN "
            f"(threshold {threshold}); leave out the features that are zero or not finite"
        )
    return float((cosines > threshold).double().mean())


def best_match(dec_a: Tensor, dec_b: Tensor) -> Tensor:
    """int64 [f]: for each column of dec_a [d, f] which column of dec_b [d, g] has the largest
    cosine with it. Raises as `max_cosine`.

    >>> best_match(torch.eye(3)[:, [2, 0]], torch.eye(3)).tolist()
    [2, 0]
    """
    return _cosines(dec_a, dec_b).argmax(1)


def one_to_one(dec_a: Tensor, dec_b: Tensor) -> Tensor:
    """For each column of dec_a [d, f] its cosine with its partner among those of dec_b [d, f], in
    the matching of largest total cosine, in which no two share a partner (the assignment problem;
    Crouse 2016, doi:10.1109/TAES.2016.140952). [f], float64 on the CPU. Raises as `max_cosine`.

    >>> a = torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    >>> [round(cosine, 3) for cosine in one_to_one(a, torch.eye(2)).tolist()]
    [1.0, 0.6]
    """
    cosines = _cosines(dec_a, dec_b).double().cpu()
    rows, columns = linear_sum_assignment(cosines.numpy(), maximize=True)
    return cosines[torch.from_numpy(rows), torch.from_numpy(columns)]


def _cosines(dec_a: Tensor, dec_b: Tensor) -> Tensor:
    """[f, g], of columns."""
    first, second = _as_columns(dec_a, dec_b, "columns")
    unit_a = _unit_columns(first, None, "first decoder")
    return unit_a.T @ _unit_columns(second, None, "second decoder").to(unit_a)


__all__ = ["Features", "best_match", "matched_fraction", "max_cosine", "one_to_one"]
