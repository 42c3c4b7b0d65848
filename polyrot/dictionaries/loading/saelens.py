"""SAELens's format (github.com/decoderesearch/SAELens), in which this project saves, too.

`cfg.json` and `sae_weights.safetensors`. Of its architectures `standard`, `jumprelu` (as which
BatchTopK is saved) and `topk` are read; whatever would reconstruct otherwise than SAELens does is
refused by name.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from polyrot.dictionaries.loading import checked
from polyrot.dictionaries.loading.hooks import hook_of, site_of
from polyrot.dictionaries.loading.values import BadDictionary, LoadedDictionary, Saved
from polyrot.dictionaries.sae import Dictionary
from polyrot.runtime.files import unwritable

CONFIGURATION = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
FORMAT = "6.0.0"
"""SAELens's version whose format is written."""
ARCHITECTURES = ("standard", "jumprelu", "topk")


def save_sae(
    directory: Path | str,
    dictionary: Dictionary,
    site: str,
    model: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a dictionary of residual site `site` into `directory`, which is made if need be.

    metadata: more to record, plain values by name. Both files are written whole, and a kill between
    them leaves no configuration, so that weights are never read by another's.
    Raises BadDictionary for a transcoder (biases that differ, the input's not zero) and for a site
    without a name in SAELens; Unwritable.
    """
    subtracted = dictionary.b_in.shape == dictionary.b_out.shape and torch.equal(
        dictionary.b_in, dictionary.b_out
    )
    if not subtracted and (dictionary.b_in.any() or dictionary.d_in != len(dictionary.b_out)):
        raise BadDictionary("input and output bias differ: only autoencoders are saved")
    tensors = {
        "W_enc": dictionary.w_enc,
        "b_enc": dictionary.b_enc,
        "W_dec": dictionary.w_dec,
        "b_dec": dictionary.b_out,
    }
    architecture: dict[str, Any] = {"architecture": "standard"}
    if isinstance(dictionary, LoadedDictionary):
        architecture = {"architecture": dictionary.architecture}
        if dictionary.k is not None:
            architecture |= {"k": dictionary.k, "rescale_acts_by_decoder_norm": False}
        elif dictionary.threshold is not None:
            tensors["threshold"] = dictionary.threshold
    configuration = {
        **architecture,
        "d_in": dictionary.d_in,
        "d_sae": dictionary.n_features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": subtracted,
        "normalize_activations": getattr(dictionary, "norm", "none"),
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": FORMAT,
            "model_name": model,
            "hook_name": hook_of(site),
            "trained_by": "polyrot",
            **(metadata or {}),
        },
    }
    folder = Path(directory)
    # As bytes: what safetensors itself makes of a full disk is no OSError.
    blob = save({n: t.detach().cpu().float().contiguous() for n, t in tensors.items()})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder) as made:
            weights, text = Path(made) / WEIGHTS, Path(made) / CONFIGURATION
            weights.write_bytes(blob)
            text.write_text(json.dumps(configuration, indent=1) + "\n", encoding="utf-8")
            (folder / CONFIGURATION).unlink(missing_ok=True)
            os.replace(weights, folder / WEIGHTS)
            os.replace(text, folder / CONFIGURATION)
    except OSError as error:
        raise unwritable(folder, error) from error


def load(folder: Path) -> Saved:
    """See `polyrot.dictionaries.loading.load_sae`."""
    configuration = checked.configuration(folder / CONFIGURATION, "saelens")
    tensors = checked.safetensors(folder / WEIGHTS)
    described = {**configuration, **_table(configuration, "metadata")}
    site = site_of(str(described.get("hook_name") or described.get("hook_point")))
    if described.get("hook_head_index") is not None:
        raise BadDictionary(f"it reads head {described['hook_head_index']} alone")
    dictionary = _dictionary(configuration, tensors)
    return Saved(dictionary, site, str(described.get("model_name") or ""), _otherwise(described))


def _table(configuration: Mapping[str, Any], name: str) -> dict[str, Any]:
    return checked.table(configuration, name, CONFIGURATION)


def _otherwise(described: Mapping[str, Any]) -> tuple[str, ...]:
    """How the activations it was trained on differ from those of here, by what SAELens records."""
    found = []
    if checked.flag(described, "prepend_bos", CONFIGURATION):
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


def _dictionary(configuration: Mapping[str, Any], found: dict[str, Tensor]) -> LoadedDictionary:
    settings = _settings(configuration)
    wanted = {"W_enc", "b_enc", "W_dec", "b_dec"}
    if settings["architecture"] == "jumprelu":
        wanted.add("threshold")
    tensors = checked.as_float32(found, WEIGHTS)
    scaling = tensors.pop("scaling_factor", None)  # of versions before 6; all ones changes nothing
    if scaling is not None and not bool((scaling == 1).all()):
        raise BadDictionary("scaling_factor is not supported: fold it into the decoder")
    checked.expect(tensors, wanted, WEIGHTS, settings["architecture"])
    w_enc, w_dec, b_dec = tensors["W_enc"], tensors["W_dec"], tensors["b_dec"]
    b_enc, threshold = tensors["b_enc"], tensors.get("threshold")
    d_in, d_sae = (checked.whole(configuration, name, CONFIGURATION) for name in ("d_in", "d_sae"))
    shapes = {"W_enc": [d_in, d_sae], "b_enc": [d_sae], "W_dec": [d_sae, d_in], "b_dec": [d_in]}
    for name, shape in {**shapes, "threshold": [d_sae]}.items():
        if name in tensors and list(tensors[name].shape) != shape:
            raise BadDictionary(
                f"{name} is {list(tensors[name].shape)}, but {CONFIGURATION} says d_in and d_sae "
                f"{[d_in, d_sae]}"
            )
    if settings["rescale"]:
        # What SAELens does at each run: the same function with decoder rows of unit norm.
        norm = w_dec.norm(dim=-1).clamp_min(1e-8)
        w_enc, b_enc, w_dec = w_enc * norm, b_enc * norm, w_dec / norm[:, None]
    made = checked.made(
        w_enc=w_enc,
        b_enc=b_enc,
        w_dec=w_dec,
        b_dec=b_dec,
        file=WEIGHTS,
        subtracted=settings["subtract"],
        threshold=threshold,
        k=settings["k"],
    )
    return replace(made, norm=settings["norm"])


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
        "subtract": checked.flag(configuration, "apply_b_dec_to_input", CONFIGURATION, True),
        "rescale": checked.flag(configuration, "rescale_acts_by_decoder_norm", CONFIGURATION),
    }
