"""Sparse dictionaries: the value type of SAEs and transcoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import linear

from polyrot.maps.explained_variance import explained_variance

CHUNK = 2048
"""Tokens at a time. Larger arrays of features are mapped into memory anew at each use, which takes
a CPU longer than computing them."""


@dataclass(frozen=True)
class Dictionary:
    """One ReLU dictionary: f = ReLU((x - b_in) w_enc + b_enc), output = f w_dec + b_out.

    w_enc [d_in, features], b_enc [features], w_dec [features, d_out], b_in [d_in], b_out [d_out].
    A sparse autoencoder has b_in = b_out = b_pre; a transcoder reads one activation and writes
    another. Rows of w_dec have unit norm: the paper's decoder columns.
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_in: Tensor
    b_out: Tensor

    def __post_init__(self) -> None:
        d_in, features = self.w_enc.shape
        d_out = self.w_dec.shape[1]
        wanted: dict[str, tuple[int, ...]] = {
            "b_enc": (features,),
            "b_in": (d_in,),
            "b_out": (d_out,),
        }
        wanted["w_dec"] = (features, d_out)
        for name, shape in wanted.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(
                    f"{name} is {tuple(getattr(self, name).shape)}, but w_enc "
                    f"{tuple(self.w_enc.shape)} asks for {shape}"
                )

    @property
    def d_in(self) -> int:
        """Width of what it reads."""
        return self.w_enc.shape[0]

    @property
    def n_features(self) -> int:
        """How many features it has."""
        return self.w_enc.shape[1]

    @property
    def decoder(self) -> Tensor:
        """Decoder directions as columns, [d_out, features]."""
        return self.w_dec.T

    def encode(self, x: Tensor) -> Tensor:
        """Activations x [tokens, d_in] to features [tokens, features].

        Raises ValueError if x has another width than the dictionary.
        """
        if x.shape[-1] != self.d_in:
            raise ValueError(
                f"this dictionary reads width {self.d_in}, the activations have {x.shape[-1]}: "
                "it belongs to another model or site"
            )
        return linear(x - self.b_in, self.w_enc.T, self.b_enc).relu_()

    def __call__(self, x: Tensor, chunk: int = CHUNK) -> Tensor:
        """Reconstruct x [tokens, d_in] as [tokens, d_out], a chunk of tokens at a time."""
        return torch.cat(
            [linear(self.encode(part), self.w_dec.T, self.b_out) for part in x.split(chunk)]
        )

    def to(self, device: torch.device | str) -> Dictionary:
        """The same on a device."""
        return Dictionary(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True)
class Quality:
    """How good a dictionary is on given activations.

    ev: explained variance. l0: mean number of active features a token. dead: share of features
    active on none of the tokens. live: bool [features].
    """

    ev: float
    l0: float
    dead: float
    live: Tensor


def quality(
    dictionary: Dictionary, x: Tensor, target: Tensor | None = None, chunk: int = CHUNK
) -> Quality:
    """Judge a dictionary on x [tokens, d_in] (target [tokens, d_out], default x)."""
    active = torch.zeros(dictionary.n_features, dtype=torch.float64, device=x.device)
    for part in x.split(chunk):
        active += (dictionary.encode(part) > 0).sum(0)
    ev = explained_variance(x if target is None else target, dictionary(x))
    live = active > 0
    return Quality(ev, float(active.sum()) / len(x), 1 - float(live.double().mean()), live)


def stack(dictionaries: Sequence[Dictionary]) -> dict[str, Tensor]:
    """Equal-shaped dictionaries as tensors with a leading dimension, for the store.

    Raises TypeError for one of another kind than `Dictionary`: these tensors know no threshold, no
    k and no norm, and what came back would be another function.
    """
    for other in (d for d in dictionaries if type(d) is not Dictionary):
        raise TypeError(f"{type(other).__name__} is more than its weights, and cannot be stacked")
    names = [f.name for f in fields(Dictionary)]
    return {n: torch.stack([getattr(d, n) for d in dictionaries]) for n in names}


def unstack(tensors: Mapping[str, Tensor]) -> list[Dictionary]:
    """The inverse of `stack`."""
    names = [f.name for f in fields(Dictionary)]
    return [Dictionary(**{n: tensors[n][i] for n in names}) for i in range(len(tensors["w_enc"]))]
