"""Gemma Scope's format (arXiv 2408.05147): `params.npz`, a JumpReLU, and nothing else.

Of which layer it is, and that it reads the residual stream, stands in the path alone:
gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82/params.npz. The encoder does not subtract the
decoder's bias; the scale of its training is in the weights.
"""

from __future__ import annotations

import re
from pathlib import Path

from polyrot.dictionaries.loading import checked
from polyrot.dictionaries.loading.values import BadDictionary, Saved

NAME = "Gemma Scope"
WEIGHTS = "params.npz"
OTHERS = {"-att": "attention's output", "-mlp": "an MLP's output", "-transcoders": "an MLP"}


def load(folder: Path) -> Saved:
    """See `polyrot.dictionaries.loading.load_sae`."""
    site, model = _site(folder)
    tensors = checked.npz(folder / WEIGHTS)
    wanted = {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}
    renamed = {name.replace("w_", "W_", 1): tensor for name, tensor in tensors.items()}
    checked.expect(renamed, wanted, WEIGHTS, "a JumpReLU")
    tensors = checked.as_float32(renamed, WEIGHTS)
    dictionary = checked.made(
        w_enc=tensors["W_enc"],
        b_enc=tensors["b_enc"],
        w_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        file=WEIGHTS,
        subtracted=False,
        threshold=tensors["threshold"],
    )
    return Saved(dictionary, site, model, (), NAME)


def _site(folder: Path) -> tuple[str, str]:
    """Site and model, as far as the path has them."""
    parts = folder.resolve().parts
    for part in parts:
        scope = re.search(r"gemma-scope[\w.-]*?(-att|-mlp|-transcoders)(?:-|$)", part)
        if scope:
            raise BadDictionary(f"{part}: it reads {OTHERS[scope[1]]}, no residual site")
    layers = [found[1] for part in parts if (found := re.fullmatch(r"layer_(\d+)", part))]
    if not layers:
        embedding = " (embedding is none: Gemma scales it before the first block)"
        raise BadDictionary(
            "no folder of its path names a layer, which no file does: keep Gemma Scope's own "
            f"folders, such as layer_12/width_16k/average_l0_82{embedding * ('embedding' in parts)}"
        )
    named = [m for part in parts if (m := re.search(r"gemma-scope-(2b|9b|27b)-(pt|it)", part))]
    model = f"gemma-2-{named[-1][1]}{'-it' * (named[-1][2] == 'it')}" if named else ""
    return f"resid_post_{int(layers[-1])}", model
