"""dictionary_learning's format (github.com/saprmarks/dictionary_learning).

`ae.pt`, a state_dict, and `config.json` with the tables `trainer` and `buffer`. Its activation
scale is in the weights that it saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyrot.dictionaries.loading import checked
from polyrot.dictionaries.loading.hooks import site_of
from polyrot.dictionaries.loading.values import BadDictionary, LoadedDictionary, Saved

NAME = "dictionary_learning"
CONFIGURATION, WEIGHTS = "config.json", "ae.pt"
MODULES = {"encoder.weight", "encoder.bias", "decoder.weight"}
MATRICES = {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}
CLASSES: Mapping[str, set[str]] = {
    "AutoEncoder": MODULES | {"bias"},
    "AutoEncoderNew": MODULES | {"decoder.bias"},
    "AutoEncoderTopK": MODULES | {"b_dec", "k"},
    "BatchTopKSAE": MODULES | {"b_dec", "k", "threshold"},
    "JumpReluAutoEncoder": MATRICES,
}
"""Its classes that are read, and their tensors; a later AutoEncoderTopK has a threshold more, which
it does not use by itself. BatchTopK encodes with its threshold, as a JumpReLU."""


def load(folder: Path) -> Saved:
    """See `polyrot.dictionaries.loading.load_sae`."""
    configuration = checked.configuration(folder / CONFIGURATION, "dictionary_learning")
    trainer = checked.table(configuration, "trainer", CONFIGURATION)
    buffer = checked.table(configuration, "buffer", CONFIGURATION)
    made = str(trainer.get("dict_class"))
    if made not in CLASSES:
        raise BadDictionary(
            f"dict_class {made} in {CONFIGURATION} is not supported, only {', '.join(CLASSES)}"
        )
    site, otherwise = _site(trainer)
    if checked.flag(buffer, "remove_bos", CONFIGURATION):
        otherwise += ("no first tokens (remove_bos); here every token counts",)
    dictionary = _dictionary(made, trainer, checked.torch_file(folder / WEIGHTS))
    model = str(trainer.get("lm_name") or "")
    return Saved(dictionary, site, model, otherwise, NAME)


def _site(trainer: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The site, and what is to be said of it."""
    module = trainer.get("submodule_name")
    if module:
        return site_of(str(module)), ()
    layer = trainer.get("layer")
    if type(layer) is not int or layer < 0:
        raise BadDictionary(
            f"trainer in {CONFIGURATION} says neither submodule_name nor layer: of which site is "
            "it? Write submodule_name there, such as resid_post_layer_3"
        )
    site = f"resid_post_{layer}"
    return site, (f"layer {layer}, without a word of what of it; it is taken for {site}",)


def _dictionary(
    made: str, trainer: Mapping[str, Any], found: dict[str, Tensor]
) -> LoadedDictionary:
    wanted = CLASSES[made]
    saved, k = found.pop("k", None), None
    if made == "AutoEncoderTopK":
        found.pop("threshold", None)
        k = _k(trainer, saved)
    checked.expect(found, wanted - {"k"}, WEIGHTS, made)
    tensors = checked.as_float32(found, WEIGHTS)
    if "W_enc" in tensors:
        encoder, decoder, b_enc = tensors["W_enc"], tensors["W_dec"], tensors["b_enc"]
    else:
        encoder, decoder = tensors["encoder.weight"].T, tensors["decoder.weight"].T
        b_enc = tensors["encoder.bias"]
    b_dec = next(tensors[n] for n in ("b_dec", "bias", "decoder.bias") if n in tensors)
    return checked.made(
        w_enc=encoder,
        b_enc=b_enc,
        w_dec=decoder,
        b_dec=b_dec,
        file=WEIGHTS,
        subtracted=made not in ("AutoEncoderNew", "JumpReluAutoEncoder"),
        threshold=tensors.get("threshold"),
        k=k,
    )


def _k(trainer: Mapping[str, Any], found: Tensor | None) -> int:
    """Of a TopK: in the weights, and in the configuration."""
    told = checked.whole(trainer, "k", f"trainer of {CONFIGURATION}") if "k" in trainer else None
    saved = None if found is None else int(torch.as_tensor(found).reshape(-1)[0])
    k = told if saved is None else saved
    if k is None:
        raise BadDictionary(f"neither {WEIGHTS} nor {CONFIGURATION} says k of its TopK")
    if told is not None and told != k:
        raise BadDictionary(f"k is {k} in {WEIGHTS} and {told} in {CONFIGURATION}")
    if k < 1:
        raise BadDictionary(f"topk with k = {k}")
    return k
