"""Maps between the activations of two models: rotation, affine, shift, principal axes.

All are fitted on rows of one set of tokens and are to be scored on others. Orientation throughout:
`a` is the sibling, `b` the anchor, rows are tokens, and (a - mean_a) @ r + mean_b ~ b.

Everything is worked out from first and second moments (`Moments`), which are gathered in one pass
over batches: memory is O(d^2) whatever the number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import TypeVar

from polyrot.maps.arrays import Array, Given, read
from polyrot.maps.checks import (
    BadActivations,
    check_matrix,
    check_orthogonal,
    check_pair,
    check_square,
)
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.moments import MomentAccumulator, Moments, check_fit, pair_moments
from polyrot.maps.null_space import completed

#: What a map is held in: torch tensors, unless NumPy was fitted.
A = TypeVar("A", Tensor, NDArray[np.float64], default=Tensor)
#: Activations as they are given, and given back.
X = TypeVar("X", Tensor, NDArray[Any])


class ActivationMap(Protocol):
    """Anything that carries activations of one model to those of another."""

    def apply(self, x: Tensor, /) -> Tensor:
        """[..., d] to [..., d], on x's device, in its dtype or float32, whichever is wider."""
        ...


@dataclass(frozen=True)
class Rotation(Generic[A]):
    """x -> (x - mean_a) @ r + mean_b with r in O(d), or SO(d) where reflections were excluded.

    r [d, d], mean_a [d] and mean_b [d] are float64: NumPy arrays where NumPy was fitted, torch
    tensors otherwise. `singular_values` [d], descending, are those of the cross-covariance (for
    principal axes: the products of matched standard deviations) and `rank` counts those above
    rounding. Where rank < d, r is arbitrary on d - rank dimensions: the solver's choice, or a Haar
    draw where the fit was given a generator.
    """

    r: A
    mean_a: A
    mean_b: A
    singular_values: A
    rank: int

    def apply(self, x: X) -> X:
        """Rotate activations [..., d]: NumPy or torch as given (on x's device), in x's dtype or
        float32, whichever is wider.

        Raises BadActivations: another width than d, dtypes that are not floating.
        """
        return _carried(x, self.mean_a, self.mean_b, self.r)

    @property
    def det(self) -> float:
        """+1.0 or -1.0."""
        return float(torch.linalg.slogdet(torch.as_tensor(self.r)).sign)


@dataclass(frozen=True)
class Affine:
    """x -> (x - mean_a) @ w + mean_b, w [d_a, d_b] unconstrained; `rank` is that of a's covariance.

    On directions in which `a` did not vary w is 0.
    """

    w: Tensor
    mean_a: Tensor
    mean_b: Tensor
    rank: int

    def apply(self, x: X) -> X:
        """Map activations [..., d_a] to [..., d_b]; otherwise as `Rotation.apply`."""
        return _carried(x, self.mean_a, self.mean_b, self.w)


@dataclass(frozen=True)
class Shift:
    """x -> x - mean_a + mean_b: the mean replaced, nothing else."""

    mean_a: Tensor
    mean_b: Tensor

    def apply(self, x: X) -> X:
        """Shift activations [..., d]; otherwise as `Rotation.apply`."""
        return _carried(x, self.mean_a, self.mean_b)


def _carried(x: Any, mean_a: Any, mean_b: Any, matrix: Any = None) -> Any:
    """(x - mean_a) @ matrix + mean_b; x [..., d] of the map's own width, none that broadcasts."""
    given = read(x, where=("activations to map",))
    rows, before, after = given.tensors[0], torch.as_tensor(mean_a), torch.as_tensor(mean_b)
    if rows.ndim == 0 or rows.shape[-1] != len(before):
        raise BadActivations(
            f"activations to map: shape {list(rows.shape)} where [..., {len(before)}] is expected; "
            "the map was fitted on another width of model"
        )
    # Half-precision activations are for storage: an orthogonal matrix is not orthogonal in them.
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    if matrix is None:
        return given.back(wide - before.to(wide) + after.to(wide))
    return given.back((wide - before.to(wide)) @ torch.as_tensor(matrix).to(wide) + after.to(wide))


@overload
def fit_rotation(  # type: ignore[overload-overlap]  # a Tensor is what NumPy can read, too
    a: Tensor,
    b: Tensor,
    allow_reflection: bool = ...,
    generator: torch.Generator | None = ...,
) -> Rotation: ...
@overload
def fit_rotation(
    a: Array,
    b: Array,
    allow_reflection: bool = ...,
    generator: torch.Generator | None = ...,
) -> Rotation[NDArray[np.float64]]: ...
def fit_rotation(
    a: Array,
    b: Array,
    allow_reflection: bool = True,
    generator: torch.Generator | None = None,
) -> Rotation[Any]:
    """The orthogonal r that minimises ||(a - mean_a) r - (b - mean_b)||_F, so that a @ r ~ b.

    a, b: activations [tokens, d] of a sibling and of the anchor, row i of both the same token, any
    device and floating dtype; moments and SVD in float64, on b's device. NumPy arrays and lists
    give a `Rotation` of NumPy arrays, torch tensors one of tensors, detached. With C = (a -
    mean_a)^T (b - mean_b) = U S V^T, r = U V^T, in O(d) (Schoenemann 1966,
    doi:10.1007/BF02289451); without reflections the last column of U changes its sign where det
    would be -1, which is the optimum in SO(d) (Kabsch 1976, doi:10.1107/S0567739476001873).
    Judge the fit on rows that it has not seen; `polyrot.compare` does.
    Raises BadActivations: shapes, dtypes, values that are not finite, fewer tokens than dimensions,
    a constant dimension.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> a = rng.standard_normal((200, 3))
    >>> turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    >>> fit = fit_rotation(a, a @ turn + 5)
    >>> np.allclose(fit.r, turn), np.allclose(fit.apply(a), a @ turn + 5), fit.rank
    (True, True, 3)
    """
    given = read(a, b, where=("Procrustes fit, sibling", "Procrustes fit, anchor"))
    sibling, anchor = given.tensors
    moments = _moments(sibling, anchor, "Procrustes fit")
    generators = None if generator is None else [generator]
    found = fit_from_moments([moments], allow_reflection, generators)[0]
    return as_given(found, given)


def as_given(rotation: Rotation, given: Given) -> Rotation[Any]:
    """A rotation in tensors, as the caller gave the arrays."""
    return Rotation(
        given.back(rotation.r),
        given.back(rotation.mean_a),
        given.back(rotation.mean_b),
        given.back(rotation.singular_values),
        rotation.rank,
    )


def fit_from_moments(
    moments: Sequence[Moments],
    allow_reflection: bool = True,
    generators: Sequence[torch.Generator] | None = None,
) -> list[Rotation]:
    """`fit_rotation` of many pairs of one width d at once, by one batched SVD.

    generators: one for each pair, to draw what is not determined (see `fit_rotation`).
    Raises BadActivations: fewer tokens than dimensions, a constant dimension.
    """
    if not moments:
        return []
    for each in moments:
        check_fit(each, "Procrustes fit")
        check_square(each.cross, "Procrustes fit")
    u, s, vh = torch.linalg.svd(torch.stack([m.cross for m in moments]))
    r = u @ vh
    if not allow_reflection:
        flip = torch.linalg.slogdet(r).sign
        u = torch.cat([u[..., :-1], u[..., -1:] * flip[:, None, None]], -1)
        r = u @ vh
    ranks = [_rank(s[i], m.rtol) for i, m in enumerate(moments)]
    if generators is not None:
        drawn = zip(r, u, ranks, generators, strict=True)
        r = torch.stack([completed(x, v[:, k:], g, allow_reflection) for x, v, k, g in drawn])
    return [Rotation(r[i], m.mean_a, m.mean_b, s[i], ranks[i]) for i, m in enumerate(moments)]


def scaled_from_moments(rotation: Rotation, moments: Moments) -> Affine:
    """The rotation with the one scale s that fits best: (a - mean_a) s r + mean_b.

    s = tr(r^T C) / ||a - mean_a||_F^2 with C = (a - mean_a)^T (b - mean_b), which is the least-
    squares scale of any fixed r (Schoenemann and Carroll 1970, doi:10.1007/BF02291266).
    """
    scale = (rotation.r * moments.cross).sum() / moments.var_a.sum()
    return Affine(scale * rotation.r, moments.mean_a, moments.mean_b, rotation.rank)


def split_half_share(r1: Array, r2: Array) -> float:
    """tr(r_1^T r_2) / d: the share of r that two disjoint halves of the tokens agree on.

    r1, r2: [d, d], orthogonal, each fitted on one half. 1 if they give the same r, 0 in expectation
    if r is noise; about rank / d with activations of that rank. ||r_1 - r_2||_F / sqrt(2 d) =
    sqrt(1 - share). Raises ValueError: shapes, dtypes, a matrix that is not orthogonal.

    >>> import numpy as np
    >>> split_half_share(np.eye(4), np.diag([1.0, 1.0, 1.0, -1.0]))
    0.5
    """
    where = "split-half share"
    first, second = read(
        r1, r2, where=(f"{where}, first", f"{where}, second"), error=ValueError
    ).tensors
    for r in (first, second):
        check_orthogonal(r, where)
    if first.shape != second.shape:
        raise ValueError(f"{where}: of one width, not {list(first.shape)}, {list(second.shape)}")
    return float((first.double() * second.to(first.device).double()).sum() / len(first))


def affine_least_squares(a: Tensor, b: Tensor) -> Affine:
    """The affine map that minimises ||(a - mean_a) w - (b - mean_b)||_F, w unconstrained.

    a: [tokens, d_a], b: [tokens, d_b]. Of all minimisers the one of least norm, where a's
    covariance is rank-deficient. Raises as `fit_rotation`.
    """
    return affine_from_moments(_moments(a, b, "affine fit", auto=True, same_width=False))


def affine_from_moments(moments: Moments) -> Affine:
    """`affine_least_squares` from moments gathered with `auto=True`."""
    check_fit(moments, "affine fit")
    values, axes = torch.linalg.eigh(_auto(moments.auto_a))
    keep = values > values[-1] * moments.rtol
    kept = axes[:, keep]
    w = (kept / values[keep]) @ (kept.T @ moments.cross)
    return Affine(w, moments.mean_a, moments.mean_b, int(keep.sum()))


def shift_only(a: Tensor, b: Tensor) -> Shift:
    """The map that replaces the mean of `a` [tokens_a, d] by that of `b` [tokens_b, d]."""
    check_matrix(a, "shift, first")
    check_matrix(b, "shift, second", d=a.shape[1])
    return Shift(a.double().mean(0), b.double().mean(0))


def principal_axes_map(a: Tensor, b: Tensor, generator: torch.Generator) -> Rotation:
    """Principal axes of `a` onto those of `b` by rank of their variance, signs drawn at random.

    a, b: [tokens, d]. A control: it knows means and covariances and no pairing of tokens, so that
    permuting the rows of either changes nothing. `generator` draws the d signs.
    Raises as `fit_rotation`.
    """
    return principal_axes_from_moments(_moments(a, b, "principal axes", auto=True), generator)


def principal_axes_from_moments(moments: Moments, generator: torch.Generator) -> Rotation:
    """`principal_axes_map` from moments gathered with `auto=True` (`cross` unused)."""
    check_fit(moments, "principal axes")
    values_a, axes_a = _principal(_auto(moments.auto_a))
    values_b, axes_b = _principal(_auto(moments.auto_b))
    bits = torch.randint(2, values_a.shape, generator=generator, device=generator.device)
    signs = (2 * bits - 1).to(values_a)
    s = (values_a.clamp_min(0) * values_b.clamp_min(0)).sqrt()
    return Rotation(
        (axes_a * signs) @ axes_b.T, moments.mean_a, moments.mean_b, s, _rank(s, moments.rtol)
    )


def pointwise_ev(mapping: ActivationMap, a: Tensor, b: Tensor) -> float:
    """Explained variance of `b` [tokens, d] by the mapped `a` [tokens, d], on rows of your choice.

    Honest only on tokens that the map was not fitted on.
    """
    check_pair(a, b, "pointwise explained variance", same_width=False)
    return explained_variance(b, mapping.apply(a))


def frobenius_distance(r: Tensor) -> float:
    """||r - I||_F of r [d, d]; sqrt(2 d) is expected of a Haar draw. Raises ValueError (shape)."""
    check_square(r, "distance from the identity")
    return float(torch.linalg.matrix_norm(r.double() - _eye_like(r)))


def principal_basis(covariance: Tensor, share: float = 0.999) -> Tensor:
    """Orthonormal [d, k]: the fewest principal axes of `covariance` [d, d] that hold `share` of it.

    Raises ValueError unless 0 < share <= 1 and the trace is positive.
    """
    check_square(covariance, "principal basis")
    values, axes = _principal(covariance.double())
    total = values.clamp_min(0).cumsum(0)
    if not 0 < share <= 1 or not total[-1] > 0:
        raise ValueError(f"no principal basis for a share of {share} of a variance of {total[-1]}")
    k = int((total < share * total[-1]).sum()) + 1
    return axes[:, : min(k, len(values))]


def restricted_distance(r: Tensor, basis: Tensor) -> float:
    """How far r moves the directions of `basis`, per dimension: ||basis^T (r - I)||_F / sqrt(k).

    r: [d, d] with a @ r ~ b; basis: orthonormal [d, k] in the space of `a`, as `principal_basis`
    gives it. 0 for the identity, sqrt(2) expected of a Haar draw, 2 for -I, whatever k. Directions
    in which `a` does not vary, on which r is arbitrary, do not enter.
    Raises ValueError (shapes, basis not orthonormal).
    """
    check_square(r, "restricted distance")
    if basis.ndim != 2 or basis.shape[0] != r.shape[0] or basis.shape[1] == 0:
        raise ValueError(f"basis must be [{r.shape[0]}, k], not {list(basis.shape)}")
    wide = basis.to(r.device).double()
    gram = wide.T @ wide
    if not torch.allclose(gram, _eye_like(gram), atol=1e-5):
        raise ValueError("the columns of basis are not orthonormal")
    return float(torch.linalg.matrix_norm(wide.T @ (r.double() - _eye_like(r)))) / (
        basis.shape[1] ** 0.5
    )


def _moments(
    a: Tensor, b: Tensor, where: str, auto: bool = False, same_width: bool = True
) -> Moments:
    check_pair(a, b, f"{where}, sibling (first) and anchor (second)", same_width, finite=False)
    return pair_moments([a], b, auto=auto, where=where)[0]


def _auto(covariance: Tensor | None) -> Tensor:
    if covariance is None:
        raise ValueError("this map needs both covariances: gather the moments with auto=True")
    return covariance


def _principal(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [d] descending, eigenvectors [d, d] as columns."""
    values, axes = torch.linalg.eigh(covariance)
    return values.flip(0), axes.flip(1)


def _rank(s: Tensor, rtol: float) -> int:
    return int((s > s[0] * rtol).sum())


def _eye_like(r: Tensor) -> Tensor:
    return torch.eye(r.shape[0], dtype=torch.float64, device=r.device)


__all__ = [
    "ActivationMap",
    "Affine",
    "MomentAccumulator",
    "Moments",
    "Rotation",
    "Shift",
    "affine_from_moments",
    "affine_least_squares",
    "as_given",
    "fit_from_moments",
    "fit_rotation",
    "frobenius_distance",
    "pair_moments",
    "pointwise_ev",
    "principal_axes_from_moments",
    "principal_axes_map",
    "principal_basis",
    "restricted_distance",
    "scaled_from_moments",
    "shift_only",
    "split_half_share",
]
