"""What every function that takes activations asks of them, and how it says no.

Each message says what is wrong, where, and what to do about it.
"""

from __future__ import annotations

import torch
from torch import Tensor


class BadActivations(ValueError):
    """Activations that cannot be fitted or scored."""


def check_matrix(x: Tensor, where: str, d: int | None = None, finite: bool = True) -> None:
    """`x` must be finite floating-point [tokens, d] with at least one token.

    Raises BadActivations naming `where`, and row and column of the first value that is not finite;
    `finite=False` leaves that to a caller who sums the values anyway.
    """
    if x.ndim != 2:
        raise BadActivations(
            f"{where}: expected [tokens, d], got shape {list(x.shape)}; "
            "flatten batch and position into tokens"
        )
    if not x.is_floating_point():
        raise BadActivations(f"{where}: expected floating-point activations, got {x.dtype}")
    if x.shape[0] == 0 or x.shape[1] == 0:
        raise BadActivations(f"{where}: shape {list(x.shape)} is empty; check the token mask")
    if d is not None and x.shape[1] != d:
        raise BadActivations(
            f"{where}: {x.shape[1]} dimensions where {d} are expected; "
            "check that both come from one site and one width of model"
        )
    # The sum is not finite if an entry is not; it may also overflow, hence the second look.
    if finite and not x.sum().isfinite():
        check_finite(x, where)


def check_finite(x: Tensor, where: str, first_token: int = 0) -> None:
    """Raise BadActivations naming the first entry of [tokens, d] that is NaN or infinite.

    `first_token` is the number of row 0, where x is a part of more.
    """
    bad = (~x.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise BadActivations(
            f"{where}: {len(bad)} values are NaN or infinite, the first ({x[row, column].item()}) "
            f"at token {first_token + row}, dimension {column}; "
            "check the model's precision and the batch"
        )


def out_of_range(where: str) -> BadActivations:
    """The error for finite activations whose squares or fourth powers overflow or vanish."""
    return BadActivations(
        f"{where}: the values are finite, but so large or so small that their powers are beyond "
        "double precision; check the unit and the model's precision, or divide all by one number: "
        "nothing here depends on the scale"
    )


def check_pair(
    a: Tensor, b: Tensor, where: str, same_width: bool = True, finite: bool = True
) -> None:
    """Both as `check_matrix`, and row i of one belongs to row i of the other."""
    check_matrix(a, f"{where}, first", finite=finite)
    check_matrix(b, f"{where}, second", a.shape[1] if same_width else None, finite)
    if a.shape[0] != b.shape[0]:
        raise BadActivations(
            f"{where}: {a.shape[0]} tokens against {b.shape[0]}; "
            "row i of both must be the same token: run both models on the same batch and mask"
        )


def check_enough_tokens(tokens: int, d: int, where: str, parts: int = 1) -> None:
    """Raise BadActivations where there are fewer tokens than dimensions.

    parts: these tokens are one of so many parts, for all of which there must be enough.
    """
    if tokens < d:
        each = f", {d} for each of {parts} parts" if parts > 1 else ""
        raise BadActivations(
            f"{where}: {tokens} tokens for {d} dimensions leave the map undetermined; "
            f"use at least {parts * d} tokens{each}, better ten times as many"
        )


def check_not_constant(variance: Tensor, mean: Tensor, eps: float, where: str) -> None:
    """Raise BadActivations naming the dimensions [d] that do not vary beyond rounding (`eps`)."""
    constant = (variance <= (4 * eps * mean.abs()) ** 2).nonzero().flatten().tolist()
    if constant:
        shown = ", ".join(map(str, constant[:8])) + (", ..." if len(constant) > 8 else "")
        raise BadActivations(
            f"{where}: dimension {shown} is constant over all tokens ({len(constant)} of "
            f"{len(variance)}); drop it, use a more varied batch, or check the site"
        )


def check_square(r: Tensor, where: str) -> None:
    """Raise ValueError unless `r` is [d, d]."""
    if r.ndim != 2 or r.shape[0] != r.shape[1]:
        raise ValueError(f"{where}: expected [d, d], got shape {list(r.shape)}")


def check_orthogonal(r: Tensor, where: str, tolerance: float = 1e-4) -> None:
    """Raise ValueError unless `r` is [d, d], and |r^T r - I| nowhere above `tolerance`."""
    check_square(r, where)
    wide = r.double()
    off = float((wide.T @ wide - torch.eye(len(r), dtype=wide.dtype, device=r.device)).abs().max())
    if not off <= tolerance:
        raise ValueError(
            f"{where}: the matrix is not orthogonal, |r^T r - I| is as large as {off:.3g}; "
            "give the rotation of a fit"
        )


__all__ = [
    "BadActivations",
    "check_enough_tokens",
    "check_finite",
    "check_matrix",
    "check_not_constant",
    "check_orthogonal",
    "check_pair",
    "check_square",
    "out_of_range",
]
