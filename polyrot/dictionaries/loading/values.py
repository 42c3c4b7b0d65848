"""What is read from a directory: a dictionary of someone else's, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from polyrot.dictionaries.sae import CHUNK, Dictionary

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

    @property
    def architecture(self) -> str:
        """As SAELens calls it."""
        if self.k is not None:
            return "topk"
        return "standard" if self.threshold is None else "jumprelu"

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
    is otherwise here, a phrase each. format: whose files they are. files: what was read."""

    dictionary: LoadedDictionary
    site: str
    model: str
    otherwise: tuple[str, ...] = ()
    format: str = "SAELens"
    files: tuple[Path, ...] = ()

    def account(self) -> str:
        """What was read, in a line: "TopK (k = 32) of sparsify, 512 features of width 16 at
        resid_post_3"."""
        d = self.dictionary
        kind = {"topk": f"TopK (k = {d.k})", "jumprelu": "JumpReLU", "standard": "standard (ReLU)"}
        normed = "" if d.norm == "none" else f" after {d.norm}"
        return (
            f"{kind[d.architecture]}{normed} of {self.format}, {d.n_features} features of width "
            f"{d.d_in} at {self.site}"
        )
