"""Matrices in files that people have: .npy, .npz, .safetensors. Nothing that can run code."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

SUFFIXES = (".npy", ".npz", ".safetensors")


class BadFile(ValueError):
    """A file that holds no array that can be read; the message says which and why."""


def read_array(path: Path, name: str | None = None) -> Tensor | NDArray[Any]:
    """The array in a file, of the file's own dtype and shape: .safetensors give a torch tensor on
    the CPU, .npy and .npz a NumPy array.

    name: which one, where a .npz or .safetensors file holds several. Pickled objects are refused.
    Raises BadFile: no such file, another kind of file, a damaged one, no array of that name, or
    several and no name.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise BadFile(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise BadFile(f"{path}: {'this is a directory' if path.is_dir() else 'no such file'}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as tensors:
                tensor: Tensor = tensors.get_tensor(_named(path, tensors.keys(), name))
                return tensor
        if path.suffix == ".npz":
            with zipfile.ZipFile(path):  # says it more plainly than NumPy where it is none
                pass
            with np.load(path, allow_pickle=False) as arrays:
                found: NDArray[Any] = arrays[_named(path, arrays.files, name)]
                return found
        if name is not None:
            raise BadFile(f"{path}: a .npy file holds one array, which has no name; leave it out")
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        return array
    except BadFile:
        raise
    except Exception as error:  # of a header: any, from Python's parser to zip's and memory's
        raise BadFile(f"{path}: cannot be read as {path.suffix} ({_first(error)})") from error


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _named(path: Path, names: Iterable[str], name: str | None) -> str:
    have = list(names)
    shown = ", ".join(have[:8]) + (", ..." if len(have) > 8 else "")
    if not have:
        raise BadFile(f"{path}: holds no array")
    if name is None and len(have) > 1:
        raise BadFile(f"{path}: holds {len(have)} arrays ({shown}); name one of them")
    if name is not None and name not in have:
        raise BadFile(f"{path}: has no array {name!r}; it has {shown}")
    return have[0] if name is None else name


__all__ = ["SUFFIXES", "BadFile", "read_array"]
