"""A dictionary of one model in the basis of another."""

from __future__ import annotations

import torch
from torch import Tensor

from polyrot.dictionaries.loading.values import BadDictionary, LoadedDictionary
from polyrot.dictionaries.sae import Dictionary
from polyrot.maps.procrustes import Rotation


def carried(dictionary: Dictionary, rotation: Rotation, scale: float = 1.0) -> LoadedDictionary:
    """A's dictionary as one of B: it makes of B's activations what A's makes of them when they are
    carried to A, and carries its output back.

    rotation: from B to A, (b - mean_b) @ r ~ a - mean_a, of which mean_b is its `mean_a`. scale: of
    r, where one was fitted beside it. Features have the values that they have on A. Explained
    variance on B is that of the carried activations, as r is orthogonal.
    Raises BadDictionary: one that normalises each token, which it does in A's basis alone.
    """
    norm = getattr(dictionary, "norm", "none")
    if norm != "none":
        raise BadDictionary(
            f"it normalises every token ({norm}) in A's basis; no dictionary of this format does "
            "the same in B's"
        )
    if not dictionary.b_in.any():
        subtracted = False
    elif torch.equal(dictionary.b_in, dictionary.b_out):
        subtracted = True
    else:
        raise BadDictionary("input and output bias differ: only autoencoders are carried")
    r, of_b, of_a = (
        torch.as_tensor(each).cpu().double() * by
        for each, by in ((rotation.r, scale), (rotation.mean_a, 1), (rotation.mean_b, 1))
    )
    back = r.T / scale**2  # the inverse of scale * an orthogonal matrix

    def wide(tensor: Tensor) -> Tensor:
        return tensor.detach().cpu().double()

    w_enc, b_enc = r @ wide(dictionary.w_enc), wide(dictionary.b_enc)
    b_out = (wide(dictionary.b_out) - of_a) @ back + of_b
    if not subtracted:
        b_enc = b_enc + (of_a - of_b @ r) @ wide(dictionary.w_enc)
    return LoadedDictionary(
        w_enc.float(),
        b_enc.float(),
        (wide(dictionary.w_dec) @ back).float(),
        b_in=b_out.float() if subtracted else torch.zeros_like(b_out).float(),
        b_out=b_out.float(),
        threshold=None if (t := getattr(dictionary, "threshold", None)) is None else t.cpu(),
        k=getattr(dictionary, "k", None),
    )
