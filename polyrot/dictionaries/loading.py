"""Dictionaries in directories: this project's own, and those that SAELens has written.

A directory holds `cfg.json` and `sae_weights.safetensors`, in the format of SAELens
(github.com/decoderesearch/SAELens), in which this project saves its own too: either reads the
other's. Of SAELens's architectures `standard`, `jumprelu` (as which BatchTopK is saved) and `topk`
are read; whatever would reconstruct otherwise than SAELens does is refused by name.

`python -m polyrot.dictionaries.loading --help` saves a trained dictionary of a store.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from polyrot.dictionaries.collection import KIND
from polyrot.dictionaries.sae import CHUNK, Dictionary, unstack
from polyrot.store.file import Damaged, read

CONFIGURATION = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
FORMAT = "6.0.0"
"""SAELens's version whose format is written."""
ARCHITECTURES = ("standard", "jumprelu", "topk")

Norm = Literal["none", "layer_norm", "constant_norm_rescale"]


class BadDictionary(ValueError):
    """A directory that holds no dictionary that can be used; the message says why."""


@dataclass(frozen=True)
class LoadedDictionary(Dictionary):
    """A dictionary that someone else may have trained: f = act((norm(x) - b_in) w_enc + b_enc).

    threshold: [features], a pre-activation must be above it (JumpReLU). k: so many of the largest
    pre-activations are kept (TopK). norm: done to each token before, and undone after. Rows of
    w_dec need not have unit norm.
    """

    threshold: Tensor | None = None
    k: int | None = None
    norm: Norm = "none"

    def encode(self, x: Tensor) -> Tensor:
        """See `Dictionary.encode`; x are the activations themselves."""
        self._check_width(x)
        return self._features(self._normed(x)[0])

    def __call__(self, x: Tensor, chunk: int = CHUNK) -> Tensor:
        """See `Dictionary.__call__`."""
        self._check_width(x)
        return torch.cat([self._reconstruct(part) for part in x.split(chunk)])

    def to(self, device: torch.device | str) -> LoadedDictionary:
        """The same on a device."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            n: v.to(device) if isinstance(v, Tensor) else v for n, v in values.items()
        }
        return LoadedDictionary(**moved)

    def _check_width(self, x: Tensor) -> None:
        if x.shape[-1] != self.d_in:
            raise ValueError(
                f"this dictionary reads width {self.d_in}, the activations have {x.shape[-1]}: "
                "it belongs to another model or site"
            )

    def _reconstruct(self, x: Tensor) -> Tensor:
        normed, centre, scale = self._normed(x)
        return (self._features(normed) @ self.w_dec + self.b_out) * scale + centre

    def _features(self, x: Tensor) -> Tensor:
        hidden = (x - self.b_in) @ self.w_enc + self.b_enc
        if self.k is not None:
            kept = hidden.topk(self.k, dim=-1)
            return torch.zeros_like(hidden).scatter(-1, kept.indices, kept.values.relu())
        if self.threshold is not None:
            return torch.where(hidden > self.threshold, hidden.relu(), 0.0)
        return hidden.relu()

    def _normed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x as the encoder wants it, and what to add and to multiply by afterwards."""
        if self.norm == "layer_norm":
            centre = x.mean(-1, keepdim=True)
            scale = (x - centre).std(-1, keepdim=True)
            return (x - centre) / (scale + 1e-5), centre, scale
        zero, one = x.new_zeros(()), x.new_ones(())
        if self.norm == "constant_norm_rescale":
            scale = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
            return x / scale, zero, scale
        return x, zero, one


@dataclass(frozen=True)
class Saved:
    """A dictionary from a directory. site: as `polyrot.language.sites` has it. model: the name of
    the model that it was trained on, as far as it is named. otherwise: what it was trained on that
    is otherwise here, a phrase each."""

    dictionary: Dictionary
    site: str
    model: str
    otherwise: tuple[str, ...] = ()


def save_sae(directory: Path | str, dictionary: Dictionary, site: str, model: str = "") -> None:
    """Write a dictionary of residual site `site` into `directory`, which is made if need be.

    Both files are written whole, and a kill between them leaves no configuration, so that weights
    are never read by another's.
    Raises BadDictionary for a transcoder (biases that differ) and for a site without a name in
    SAELens.
    """
    if dictionary.b_in.shape != dictionary.b_out.shape or not torch.equal(
        dictionary.b_in, dictionary.b_out
    ):
        raise BadDictionary("input and output bias differ: only autoencoders are saved")
    if type(dictionary) is not Dictionary:
        raise BadDictionary(f"a {type(dictionary).__name__} is kept where it came from")
    configuration = {
        "architecture": "standard",
        "d_in": dictionary.d_in,
        "d_sae": dictionary.n_features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": FORMAT,
            "model_name": model,
            "hook_name": hook_of(site),
            "trained_by": "polyrot",
        },
    }
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "W_enc": dictionary.w_enc,
        "b_enc": dictionary.b_enc,
        "W_dec": dictionary.w_dec,
        "b_dec": dictionary.b_out,
    }
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder) as made:
        weights, text = Path(made) / WEIGHTS, Path(made) / CONFIGURATION
        save_file({n: t.detach().cpu().float().contiguous() for n, t in tensors.items()}, weights)
        text.write_text(json.dumps(configuration, indent=1) + "\n", encoding="utf-8")
        (folder / CONFIGURATION).unlink(missing_ok=True)
        os.replace(weights, folder / WEIGHTS)
        os.replace(text, folder / CONFIGURATION)


def load_sae(directory: Path | str) -> Saved:
    """The dictionary in a directory, on the CPU, in float32.

    Raises BadDictionary naming the directory and what cannot be used: a missing or damaged file, an
    architecture, an activation function, a normalisation that is not in the weights, a hook that is
    no residual site, tensors that do not fit.
    """
    folder = Path(directory)
    configuration = _configuration(folder)
    tensors = _tensors(folder)
    try:
        described = {**configuration, **_table(configuration, "metadata")}
        site = site_of(str(described.get("hook_name") or described.get("hook_point")))
        if described.get("hook_head_index") is not None:
            raise BadDictionary(f"it reads head {described['hook_head_index']} alone")
        dictionary = _dictionary(configuration, tensors)
    except (BadDictionary, ValueError) as error:
        raise BadDictionary(f"{folder}: {error}") from error
    return Saved(dictionary, site, str(described.get("model_name") or ""), _otherwise(described))


def _otherwise(described: Mapping[str, Any]) -> tuple[str, ...]:
    """How the activations it was trained on differ from those of here, by what SAELens records."""
    found = []
    if described.get("prepend_bos"):
        found.append("sequences that begin with BOS (prepend_bos); here none does")
    if described.get("exclude_special_tokens"):
        found.append("no special tokens (exclude_special_tokens); here every token counts")
    if any(end is not None for end in described.get("seqpos_slice") or ()):
        found.append(
            f"positions {described['seqpos_slice']} (seqpos_slice); here every position counts"
        )
    loaded_with = described.get("model_from_pretrained_kwargs")
    changed = {k: v for k, v in loaded_with.items() if v} if isinstance(loaded_with, dict) else {}
    if changed:
        settings = ", ".join(f"{name}={value}" for name, value in changed.items())
        found.append(f"a model loaded with {settings}; here it is taken as it is")
    return tuple(found)


def _configuration(folder: Path) -> dict[str, Any]:
    path = folder / CONFIGURATION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadDictionary(
            f"{folder} has no {CONFIGURATION}: name the directory that SAELens's `save_model` or "
            "polyrot's `save_sae` wrote"
        ) from error
    except ValueError as error:
        raise BadDictionary(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadDictionary(f"{path} is no configuration: it holds a {type(found).__name__}")
    return found


def _table(configuration: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = configuration.get(name) or {}
    if not isinstance(found, dict):
        raise BadDictionary(f"{name} in {CONFIGURATION} is {found!r}, not a table of names")
    return found


def _tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise BadDictionary(f"{folder} has no {WEIGHTS}; weights are read from safetensors alone")
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise BadDictionary(f"{path} is damaged: {error}") from error


def _dictionary(configuration: Mapping[str, Any], tensors: dict[str, Tensor]) -> LoadedDictionary:
    settings = _settings(configuration)
    wanted = {"W_enc", "b_enc", "W_dec", "b_dec"}
    if settings["architecture"] == "jumprelu":
        wanted.add("threshold")
    scaling = tensors.pop("scaling_factor", None)  # of versions before 6; all ones changes nothing
    if scaling is not None and not bool((scaling == 1).all()):
        raise BadDictionary("scaling_factor is not supported: fold it into the decoder")
    if tensors.keys() != wanted:
        raise BadDictionary(
            f"{WEIGHTS} holds {', '.join(sorted(tensors))}, but {settings['architecture']} asks "
            f"for {', '.join(sorted(wanted))}"
        )
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise BadDictionary(f"{bad[0]} in {WEIGHTS} has values that are NaN or infinite")
    w_enc, w_dec, b_dec = tensors["W_enc"], tensors["W_dec"], tensors["b_dec"]
    b_enc, threshold = tensors["b_enc"], tensors.get("threshold")
    d_in, d_sae = configuration.get("d_in"), configuration.get("d_sae")
    shapes = {"W_enc": [d_in, d_sae], "b_enc": [d_sae], "W_dec": [d_sae, d_in], "b_dec": [d_in]}
    for name, shape in {**shapes, "threshold": [d_sae]}.items():
        if name in tensors and list(tensors[name].shape) != shape:
            raise BadDictionary(
                f"{name} is {list(tensors[name].shape)}, but {CONFIGURATION} says d_in and d_sae "
                f"{[d_in, d_sae]}"
            )
    k = settings["k"]
    if k is not None and k > d_sae:
        raise BadDictionary(f"topk with k = {k} of {d_sae} features")
    if settings["rescale"]:
        # What SAELens does at each run: the same function with decoder rows of unit norm.
        norm = w_dec.norm(dim=-1).clamp_min(1e-8)
        w_enc, b_enc, w_dec = w_enc * norm, b_enc * norm, w_dec / norm[:, None]
    return LoadedDictionary(
        w_enc,
        b_enc,
        w_dec,
        b_in=b_dec if settings["subtract"] else torch.zeros_like(b_dec),
        b_out=b_dec,
        threshold=threshold,
        k=k,
        norm=settings["norm"],
    )


def _settings(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how it reconstructs; refuses by name what is not supported."""
    architecture = configuration.get("architecture", "standard")
    # Before version 6 TopK was an activation function of the standard architecture.
    activation = configuration.get("activation_fn_str") or configuration.get("activation_fn")
    older = _table(configuration, "activation_fn_kwargs")
    if architecture == "standard" and activation == "topk":
        architecture = "topk"
    elif activation not in (None, "relu", "topk"):
        raise BadDictionary(f"activation function {activation} is not supported, only relu")
    if architecture not in ARCHITECTURES:
        raise BadDictionary(
            f"architecture {architecture} is not supported, only {', '.join(ARCHITECTURES)}"
        )
    k = configuration.get("k", older.get("k")) if architecture == "topk" else None
    if architecture == "topk" and (type(k) is not int or k < 1):
        raise BadDictionary(f"topk with k = {k}")
    norm = configuration.get("normalize_activations") or "none"
    if norm is True or norm in ("expected_average_only_in", "covariance_whitening"):
        raise BadDictionary(
            f"normalize_activations {norm} is not in the weights: SAELens folds it into them at "
            "the end of a training (fold_activation_norm_scaling_factor); save the folded one"
        )
    if norm not in ("none", "layer_norm", "constant_norm_rescale"):
        raise BadDictionary(f"normalize_activations {norm} is not supported")
    shape = configuration.get("reshape_activations") or "none"
    if shape != "none":
        raise BadDictionary(f"reshape_activations {shape}: it reads no residual site")
    return {
        "architecture": architecture,
        "k": k,
        "norm": norm,
        "subtract": configuration.get("apply_b_dec_to_input", True),
        "rescale": bool(configuration.get("rescale_acts_by_decoder_norm", False)),
    }


def site_of(hook: str) -> str:
    """Our site of a hook name: blocks.0.hook_resid_pre is resid_pre_0, blocks.3.hook_resid_pre and
    blocks.2.hook_resid_post are resid_post_2. Raises BadDictionary for any other."""
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", hook)
    if found is None:
        raise BadDictionary(
            f"hook {hook} is no residual site between blocks (blocks.N.hook_resid_pre or "
            "blocks.N.hook_resid_post)"
        )
    block, side = int(found[1]), found[2]
    if side == "post":
        return f"resid_post_{block}"
    return f"resid_post_{block - 1}" if block else "resid_pre_0"


def hook_of(site: str) -> str:
    """The inverse of `site_of`. Raises BadDictionary for a site that has no such hook."""
    found = re.fullmatch(r"resid_(pre|post)_(\d+)", site)
    if found is None:
        raise BadDictionary(f"site {site} has no name in SAELens between blocks")
    return f"blocks.{found[2]}.hook_resid_{found[1]}"


def read_group(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of the dictionaries of a group in a store. Raises BadDictionary naming a
    file that is damaged, or holds something else."""
    try:
        head, tensors = read(file)
    except Damaged as damage:
        raise BadDictionary(f"{file}: {damage}") from damage
    if head["kind"] != KIND:
        raise BadDictionary(f"{file} is of kind {head['kind']}, not {KIND}: name a group's file")
    return head, tensors


def main(arguments: list[str] | None = None) -> None:
    """Command line: one dictionary of a group in a store, saved as a directory."""
    parser = argparse.ArgumentParser(
        prog="python -m polyrot.dictionaries.loading",
        description="Save a dictionary that was trained here as a directory, which `pytest claims "
        "--sae DIR` and SAELens both read.",
    )
    parser.add_argument("file", type=Path, help="dictionaries/....safetensors of a store")
    parser.add_argument("directory", type=Path, help="where to save it")
    parser.add_argument("--site", required=True, help="such as resid_post_2")
    parser.add_argument("--model", type=int, default=0, help="number in its cohort (default 0)")
    options = parser.parse_args(arguments)
    try:
        head, tensors = read_group(options.file)
    except BadDictionary as error:
        parser.error(str(error))
    specs = [(int(spec[0]), str(spec[1])) for spec in head["recipe"]["specs"]]
    if (options.model, options.site) not in specs:
        parser.error(
            f"{options.file} has no dictionary of model {options.model} at {options.site}; it has "
            + ", ".join(f"{model} at {site}" for model, site in specs)
        )
    found = unstack({name: tensor.float() for name, tensor in tensors.items()})
    dictionary = found[specs.index((options.model, options.site))]
    try:
        save_sae(options.directory, dictionary, options.site)  # a group is of no named model
    except BadDictionary as error:
        parser.error(str(error))
    print(options.directory)


if __name__ == "__main__":
    main()
