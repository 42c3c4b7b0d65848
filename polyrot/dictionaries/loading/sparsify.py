"""sparsify's format (github.com/EleutherAI/sparsify): `cfg.json` and `sae.safetensors`.

The directory's name is the hook: layers.3, h.3. All of them are TopK.
"""

from __future__ import annotations

from pathlib import Path

from polyrot.dictionaries.loading import checked
from polyrot.dictionaries.loading.hooks import site_of
from polyrot.dictionaries.loading.values import BadDictionary, Saved

NAME = "sparsify"
CONFIGURATION, WEIGHTS = "cfg.json", "sae.safetensors"


def load(folder: Path) -> Saved:
    """See `polyrot.dictionaries.loading.load_sae`."""
    configuration = checked.configuration(folder / CONFIGURATION, "sparsify")
    site = site_of(folder.resolve().name)
    activation = configuration.get("activation", "topk")
    if activation != "topk":
        raise BadDictionary(f"activation {activation} is not supported, only topk")
    for name, what in (
        ("transcode", "a transcoder reads one activation and writes another"),
        ("skip_connection", "its skip connection is no part of a dictionary"),
        ("signed", "features of both signs"),
    ):
        if checked.flag(configuration, name, CONFIGURATION):
            raise BadDictionary(f"{name} is not supported: {what}")
    k = checked.whole(configuration, "k", CONFIGURATION)
    tensors = checked.safetensors(folder / WEIGHTS)
    wanted = {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}
    checked.expect(tensors, wanted, WEIGHTS, "a TopK")
    tensors = checked.as_float32(tensors, WEIGHTS)
    dictionary = checked.made(
        w_enc=tensors["encoder.weight"].T,
        b_enc=tensors["encoder.bias"],
        w_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        file=WEIGHTS,
        subtracted=True,
        k=k,
    )
    told = configuration.get("d_in")
    if told is not None and told != dictionary.d_in:
        raise BadDictionary(f"{WEIGHTS} is {dictionary.d_in} wide, but d_in is {told!r}")
    return Saved(dictionary, site, "", (), NAME)
