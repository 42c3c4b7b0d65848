"""Configurations and tensors of other tools' files, read with every check they have in common.

Nothing that can run code is read: JSON, safetensors, arrays without pickled objects, and PyTorch
files of tensors alone.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from polyrot.dictionaries.loading.values import BadDictionary, LoadedDictionary
from polyrot.runtime.documents import BadDocument, read_json
from polyrot.runtime.schema import against_schema


def configuration(path: Path, tool: str) -> dict[str, Any]:
    """The table in a JSON file of a tool. Raises BadDictionary: not there, not to be read, none, or
    with values of other kinds than its schema, `<tool>.schema.json` beside this file, has."""
    if not path.exists():
        raise BadDictionary(f"{path.parent} has no {path.name}")
    try:
        found = read_json(path)
    except BadDocument as error:
        raise BadDictionary(str(error)) from error
    if not isinstance(found, dict):
        raise BadDictionary(f"{path} is no configuration: it holds a {type(found).__name__}")
    if wrong := against_schema(found, Path(__file__).with_name(f"{tool}.schema.json")):
        raise BadDictionary(f"{path}: {wrong}")
    return found


def table(of: Mapping[str, Any], name: str, file: str) -> dict[str, Any]:
    """The table `name` of a configuration, empty where it has none."""
    found = of.get(name) or {}
    if not isinstance(found, dict):
        raise BadDictionary(f"{name} in {file} is {found!r}, not a table of names")
    return found


def flag(of: Mapping[str, Any], name: str, file: str, default: bool = False) -> bool:
    """A yes or no of a configuration; `default` where it is left out or null. A string is neither:
    "false" would pass for true."""
    found = of.get(name)
    if found is None:
        return default
    if not isinstance(found, bool):
        raise BadDictionary(f"{name} in {file} is {found!r}, neither true nor false")
    return found


def whole(of: Mapping[str, Any], name: str, file: str) -> int:
    """A whole number, 1 or more, of a configuration."""
    found = of.get(name)
    if type(found) is not int or found < 1:
        raise BadDictionary(f"{name} in {file} is {found!r}, no whole number above 0")
    return found


def safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, in its own dtype."""
    try:
        return dict(load_file(path))
    except FileNotFoundError as error:
        raise BadDictionary(
            f"{path.parent} has no {path.name}; its weights are read from safetensors alone"
        ) from error
    except (SafetensorError, OSError) as error:
        raise BadDictionary(f"{path} is damaged: {error}") from error


def torch_file(path: Path) -> dict[str, Tensor]:
    """Every tensor of a PyTorch file that holds a table of tensors and nothing else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadDictionary(f"{path.parent} has no {path.name}") from error
    except OSError as error:
        raise BadDictionary(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch's own message advises to load it unsafely
        raise BadDictionary(
            f"{path} is damaged, or holds more than tensors, such as a pickled module, which could "
            "run code: save its state_dict"
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise BadDictionary(f"{path} holds no table of tensors: save the module's state_dict")
    return {str(name): tensor for name, tensor in found.items()}


def npz(path: Path) -> dict[str, Tensor]:
    """Every array of a .npz file."""
    try:
        with zipfile.ZipFile(path):  # says it more plainly than NumPy where it is none
            pass
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
    except FileNotFoundError as error:
        raise BadDictionary(f"{path.parent} has no {path.name}") from error
    except Exception as error:  # of a header: any, from Python's parser to zip's and memory's
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BadDictionary(f"{path} is damaged, or holds more than arrays ({first})") from error


def as_float32(tensors: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """The same in float32, from whatever precision. Raises BadDictionary naming a tensor of whole
    numbers or with values that are not finite."""
    found = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise BadDictionary(f"{name} in {file} is of {tensor.dtype}, not of floating numbers")
        found[name] = tensor.float()
        if not found[name].isfinite().all():
            raise BadDictionary(f"{name} in {file} has values that are NaN or infinite")
    return found


def expect(tensors: Mapping[str, Tensor], wanted: set[str], file: str, what: str) -> None:
    """Raise BadDictionary unless these are the tensors that `what` asks for."""
    if tensors.keys() != wanted:
        raise BadDictionary(
            f"{file} holds {', '.join(sorted(tensors)) or 'nothing'}, but {what} asks for "
            f"{', '.join(sorted(wanted))}"
        )


def made(
    *,
    w_enc: Tensor,
    b_enc: Tensor,
    w_dec: Tensor,
    b_dec: Tensor,
    file: str,
    subtracted: bool,
    threshold: Tensor | None = None,
    k: int | None = None,
) -> LoadedDictionary:
    """The dictionary of these tensors, all of them [in, out]. subtracted: b_dec from the input.

    Raises BadDictionary for shapes that do not fit: there is no saying which of them is wrong.
    """
    shapes = {"encoder": w_enc, "decoder": w_dec}
    if any(matrix.ndim != 2 for matrix in shapes.values()) or w_enc.shape != w_dec.T.shape:
        told = " and ".join(f"{name} {list(found.shape)}" for name, found in shapes.items())
        raise BadDictionary(f"{file}: {told}, as [in, out], do not belong together")
    if threshold is not None and threshold.ndim == 0:
        threshold = threshold.expand(w_enc.shape[1]).clone()
    d_in, features = w_enc.shape
    for name, vector, n in (
        ("encoder's bias", b_enc, features),
        ("decoder's bias", b_dec, d_in),
        ("threshold", threshold, features),
    ):
        if vector is not None and list(vector.shape) != [n]:
            raise BadDictionary(
                f"{file}: the {name} is {list(vector.shape)}, where its matrices ask for [{n}]"
            )
    if k is not None and k > features:
        raise BadDictionary(f"topk with k = {k} of {features} features")
    return LoadedDictionary(
        w_enc.contiguous(),
        b_enc,
        w_dec.contiguous(),
        b_in=b_dec if subtracted else torch.zeros_like(b_dec),
        b_out=b_dec,
        threshold=threshold,
        k=k,
    )
