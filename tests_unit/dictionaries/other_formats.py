"""Dictionaries as other tools write them, from plain tensors, and what those tools make of them.

Each function writes a directory below `folder` and returns it. The tensors are ours: w_enc [d,
features], b_enc, w_dec [features, d], b_dec.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from polyrot.dictionaries.sae import Dictionary


@dataclass(frozen=True)
class Weights:
    """See the head of this file; threshold [features]."""

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor
    threshold: Tensor

    @classmethod
    def drawn(cls, d: int = 8, features: int = 16, seed: int = 0) -> Weights:
        drawn = torch.Generator().manual_seed(seed)
        shapes = [(d, features), (features,), (features, d), (d,), (features,)]
        first, *rest = (torch.randn(shape, generator=drawn) / 2 for shape in shapes)
        return cls(first, *rest[:-1], rest[-1].abs())

    @classmethod
    def of(cls, sae: Dictionary) -> Weights:
        """Of one of ours, with thresholds of zero: whatever the format, the same function."""
        return cls(sae.w_enc, sae.b_enc, sae.w_dec, sae.b_out, torch.zeros(sae.n_features))


def dictionary_learning(
    folder: Path, w: Weights, made: str = "AutoEncoder", k: int = 3, **trainer: Any
) -> Path:
    """ae.pt and config.json; `trainer` adds to the latter's table."""
    modules = {"encoder.weight": w.w_enc.T, "encoder.bias": w.b_enc, "decoder.weight": w.w_dec.T}
    threshold = w.threshold.mean()
    tensors = {
        "AutoEncoder": modules | {"bias": w.b_dec},
        "AutoEncoderNew": modules | {"decoder.bias": w.b_dec},
        "AutoEncoderTopK": modules
        | {"b_dec": w.b_dec, "k": torch.tensor(k, dtype=torch.int), "threshold": threshold},
        "BatchTopKSAE": modules
        | {"b_dec": w.b_dec, "k": torch.tensor(k, dtype=torch.int), "threshold": threshold},
        "JumpReluAutoEncoder": {
            "W_enc": w.w_enc,
            "b_enc": w.b_enc,
            "W_dec": w.w_dec,
            "b_dec": w.b_dec,
            "threshold": w.threshold,
        },
    }[made]
    told = {"dict_class": made, "layer": 1, "lm_name": "owner/A", **trainer}
    told = {"submodule_name": "resid_post_layer_1", **told}
    told |= {"k": k} if "TopK" in made else {}
    folder.mkdir(parents=True)
    torch.save({n: t.clone() for n, t in tensors.items()}, folder / "ae.pt")
    config = {"trainer": told, "buffer": {"ctx_len": 128}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def sparsify(folder: Path, w: Weights, k: int = 3, hook: str = "layers.1", **config: Any) -> Path:
    """cfg.json and sae.safetensors, in the directory of its hook."""
    made = folder / hook
    made.mkdir(parents=True)
    tensors = {"encoder.weight": w.w_enc.T, "encoder.bias": w.b_enc}
    tensors |= {"W_dec": w.w_dec, "b_dec": w.b_dec}
    save_file({n: t.contiguous() for n, t in tensors.items()}, made / "sae.safetensors")
    told = {"activation": "topk", "k": k, "d_in": len(w.b_dec), "transcode": False, **config}
    (made / "cfg.json").write_text(json.dumps(told))
    return made


def gemma_scope(folder: Path, w: Weights, layer: str = "layer_1") -> Path:
    """params.npz, in the directories of its layer, width and L0."""
    made = folder / "gemma-scope-2b-pt-res" / layer / "width_16k" / "average_l0_82"
    made.mkdir(parents=True)
    arrays = {"W_enc": w.w_enc, "b_enc": w.b_enc, "W_dec": w.w_dec, "b_dec": w.b_dec}
    arrays |= {"threshold": w.threshold}
    np.savez(made / "params.npz", **{n: a.numpy() for n, a in arrays.items()})
    return made


def expected(w: Weights, x: Tensor, made: str, k: int = 3) -> tuple[Tensor, Tensor]:
    """Features and reconstruction, as the tools' own sources have it, written out plainly."""
    centred = made not in ("AutoEncoderNew", "JumpReluAutoEncoder", "gemma_scope")
    before = (x - w.b_dec if centred else x) @ w.w_enc + w.b_enc
    f = before.clamp_min(0)
    if made in ("JumpReluAutoEncoder", "gemma_scope"):
        f = f * (before > w.threshold)
    elif made == "BatchTopKSAE":
        f = f * (f > w.threshold.mean())
    elif made in ("AutoEncoderTopK", "sparsify"):
        f = f * (f >= f.sort(dim=-1).values[:, -k, None])
    return f, f @ w.w_dec + w.b_dec
