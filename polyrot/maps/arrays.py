"""The one way in for arrays: NumPy in, NumPy out; torch in, torch out; lists come back as NumPy.

Every public function reads its arrays by `read`. Real floating-point numbers are welcome, of any
precision and on any device; anything else is refused in one sentence that says what to do.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from polyrot.maps.checks import BadActivations

#: What public functions take: a torch tensor, a NumPy array, nested lists, what NumPy can read.
Array = Tensor | ArrayLike


@dataclass(frozen=True)
class Given:
    """Arrays as torch tensors, and how their results go back to the caller."""

    tensors: tuple[Tensor, ...]
    torch_given: bool
    """Whether any of them came as a torch tensor: then results are tensors too."""

    def back(self, result: Tensor) -> Any:
        """A result as the caller gave the arrays: a tensor as it is, or a NumPy array."""
        return result if self.torch_given else result.detach().cpu().numpy()


def read(*arrays: Array, where: Sequence[str], error: type[ValueError] = BadActivations) -> Given:
    """Arrays as detached torch tensors of a floating dtype; `where` names each in messages.

    Tensors keep their device and dtype. NumPy arrays share their memory, and go to the device of
    the first tensor where one is given beside them. Lists of numbers are read as float64.
    Raises `error`: integers (token ids? round-off?), booleans, complex numbers, objects, text,
    sparse, masked, nested or meta arrays, ragged lists.
    """
    found = [_read(x, name, error) for x, name in zip(arrays, where, strict=True)]
    given = [x for x in arrays if isinstance(x, Tensor)]
    if given:
        found = [
            t if isinstance(x, Tensor) else t.to(given[0].device)
            for t, x in zip(found, arrays, strict=True)
        ]
    return Given(tuple(found), bool(given))


def read_numpy(x: Array, where: str, error: type[ValueError] = BadActivations) -> NDArray[Any]:
    """One array as `read` would, as a NumPy array on the CPU; bfloat16 becomes float32."""
    tensor = _read(x, where, error).cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _read(x: Array, where: str, error: type[ValueError]) -> Tensor:
    return _tensor(x, where, error) if isinstance(x, Tensor) else _numpy(x, where, error)


def _tensor(x: Tensor, where: str, error: type[ValueError]) -> Tensor:
    if x.is_nested:
        raise error(f"{where}: a nested tensor has no one shape; give its rows as one tensor")
    if x.layout != torch.strided:
        raise error(f"{where}: a sparse tensor ({x.layout}) is not read; call .to_dense() on it")
    if x.is_meta:
        raise error(f"{where}: a tensor on the meta device has no values; load the weights first")
    if x.is_complex():
        raise error(_not_real(where, x.dtype))
    if not x.is_floating_point():
        raise error(_not_floating(where, x.dtype, "x.float()"))
    return x.detach()


def _numpy(x: Any, where: str, error: type[ValueError]) -> Tensor:
    if scipy.sparse.issparse(x):
        raise error(f"{where}: a sparse matrix is not read; call .toarray() on it")
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise error(f"{where}: {int(x.mask.sum())} values are masked; leave out their rows")
    try:
        found = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as reason:
        raise error(f"{where}: this is no array of numbers ({reason})") from reason
    if isinstance(x, (list, tuple)) and found.dtype.kind in "iu":
        found = found.astype(np.float64)  # numbers in a list have no precision of their own
    if found.dtype.kind == "c":
        raise error(_not_real(where, found.dtype))
    if found.dtype.kind in "iub":
        raise error(_not_floating(where, found.dtype, "x.astype(float)"))
    if found.dtype.kind != "f":
        raise error(f"{where}: expected floating-point numbers, got {_kind(x, found)}")
    if found.dtype.itemsize > 8:  # torch has no wider one
        found = found.astype(np.float64)
    if not found.dtype.isnative or any(stride < 0 for stride in found.strides):
        found = found.astype(found.dtype.newbyteorder("="), order="C")
    with warnings.catch_warnings():
        # Nothing here writes into what it was given.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(found)


def _kind(x: Any, found: NDArray[Any]) -> str:
    if found.dtype.kind == "O" and found.ndim == 0:
        return f"a {type(x).__name__}"
    return f"an array of dtype {found.dtype}"


def _not_real(where: str, dtype: object) -> str:
    return (
        f"{where}: expected real numbers, got complex ones ({dtype}); "
        "take the real part, or stack real and imaginary parts as dimensions"
    )


def _not_floating(where: str, dtype: object, remedy: str) -> str:
    return (
        f"{where}: expected floating-point numbers, got {dtype}; if these are activations and no "
        f"token ids, convert them: {remedy}"
    )


__all__ = ["Array", "Given", "read", "read_numpy"]
