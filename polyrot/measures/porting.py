"""What belongs to A, carried to B and written down: maps, a dictionary, steering vectors.

Orientation throughout: B is the sibling, A the anchor, (b - mean_of_b) @ r ~ a - mean_of_a.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries.carried import carried
from polyrot.dictionaries.loading import Saved, save_sae
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.procrustes import ActivationMap, pointwise_ev
from polyrot.measures.answers import in_words
from polyrot.measures.fits import Fits
from polyrot.measures.frontier import Frontier
from polyrot.runtime.files import write_atomically

MAPS, VECTORS, ACCOUNT = "maps.safetensors", "steering.safetensors", "port.json"
ROTATED, SCALED = "sae_rotated", "sae_scaled"
ORIENTATION = "(b - mean_of_b) @ r ~ a - mean_of_a; rows are tokens"


class BadVector(ValueError):
    """A steering vector that cannot be carried; the message says why."""


@dataclass(frozen=True)
class Port:
    """The maps of one pair at one site, by which things of A are carried to B. names: A's, B's."""

    names: tuple[str, str]
    site: str
    cohort: Cohort
    fits: Fits

    @property
    def scale(self) -> float:
        """The one scale that fits best beside r: |a| / |b|, so far as r explains it."""
        rotation, scaled = self.fits.matched[self.site][0], self.fits.scaled[self.site][0]
        return float((scaled.w * rotation.r).sum() / len(rotation.r))

    def maps(self) -> dict[str, Tensor]:
        """Those by which a stream of B is stitched into A, in float32: r, scale, affine (in place
        of scale * r), mean_of_a, mean_of_b."""
        rotation, affine = self.fits.matched[self.site][0], self.fits.affine[self.site][0]
        found = {
            "r": rotation.r,
            "scale": torch.tensor(self.scale),
            "affine": affine.w,
            "mean_of_b": rotation.mean_a,
            "mean_of_a": rotation.mean_b,
        }
        return {name: tensor.cpu().float().contiguous() for name, tensor in found.items()}

    def quality(self) -> dict[str, float]:
        """How well B's activations, mapped, predict A's on held-out tokens: explained variance."""
        a, b = self.cohort.activations("score", self.site)
        arms: dict[str, Mapping[str, Sequence[ActivationMap]]] = {
            "rotated": self.fits.matched,
            "scaled": self.fits.scaled,
            "affine": self.fits.affine,
            "shuffled": self.fits.shuffled,
        }
        return {
            f"pointwise_ev_{name}": pointwise_ev(found[self.site][0], b, a)
            for name, found in arms.items()
        }

    def write_maps(self, folder: Path) -> None:
        """maps.safetensors."""
        told = {"site": self.site, "a": self.names[0], "b": self.names[1], "is": ORIENTATION}
        _write(folder / MAPS, self.maps(), told)

    def write_dictionary(self, folder: Path, sae: Saved, found: Frontier) -> dict[str, Any]:
        """A's dictionary in B's basis in SAELens's format, through r alone and with the scale; of
        each what is recorded with it. Raises BadDictionary for one that cannot be carried."""
        b = self.cohort.activations("score", self.site)[1]
        row = found.by_site[self.site]
        written = {}
        for name, scale in ((ROTATED, 1.0), (SCALED, self.scale)):
            made = carried(sae.dictionary, self.fits.matched[self.site][0], scale).to(b.device)
            told = {
                "ported_by": "polyrot",
                "ported_from": self.names[0],
                "trained_by": sae.format,
                "scale": scale,
                "ev_on_b": explained_variance(b, made(b)),
                "ev_on_b_of_the_original": row["naive_ev"],
                "ev_on_a_of_the_original": row["self_ev"],
                "held_out_tokens": len(b),
            }
            save_sae(folder / name, made, self.site, self.names[1], told)
            written[name] = told
        return written

    def write_vectors(self, folder: Path, given: Tensor) -> dict[str, Any]:
        """steering.safetensors: A's directions [d] or [n, d] in B's basis, through r alone and with
        the scale, as it is added to B's stream. Raises BadVector."""
        rotation = self.fits.matched[self.site][0]
        vectors = checked(given, len(rotation.r)).to(rotation.r)
        turned = vectors @ rotation.r.T
        told = {
            "scale": self.scale,
            "norm_on_a": vectors.norm(dim=-1).tolist(),
            "norm_on_b": turned.norm(dim=-1).tolist(),
            "norm_on_b_scaled": (turned / self.scale).norm(dim=-1).tolist(),
            "cosine_with_the_original": torch.cosine_similarity(turned, vectors, -1).tolist(),
            **self.quality(),
        }
        tensors = {"rotated": turned, "scaled": turned / self.scale}
        _write(
            folder / VECTORS,
            {name: t.cpu().float().contiguous() for name, t in tensors.items()},
            {"site": self.site, "a": self.names[0], "b": self.names[1], "told": json.dumps(told)},
        )
        return told

    def write(
        self, folder: Path, sae: Saved | None, found: Frontier | None, vectors: Tensor | None
    ) -> None:
        """Everything, and port.json last, which says what lies there."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ACCOUNT).unlink(missing_ok=True)
        account: dict[str, Any] = {
            "a": self.names[0],
            "b": self.names[1],
            "site": self.site,
            "orientation": ORIENTATION,
            "scale": self.scale,
            "maps": self.quality(),
        }
        self.write_maps(folder)
        if sae is not None and found is not None:
            account["dictionary"] = sae.account()
            account["verdict"] = in_words(found.answers())
            account["written"] = self.write_dictionary(folder, sae, found)
        if vectors is not None:
            account["steering"] = self.write_vectors(folder, vectors)
        write_atomically(folder / ACCOUNT, json.dumps(account, indent=1, allow_nan=False) + "\n")


def checked(given: Tensor, d: int) -> Tensor:
    """Steering vectors as they are. Raises BadVector: another width than d, values that are not
    finite or no numbers, a vector of zeros."""
    if not given.is_floating_point():
        raise BadVector(f"the vector is of {given.dtype}, not of floating numbers")
    if given.ndim not in (1, 2) or given.shape[-1] != d or not given.numel():
        raise BadVector(f"the vector is {list(given.shape)}, where [{d}] or [n, {d}] is expected")
    if not given.isfinite().all():
        raise BadVector("the vector has values that are NaN or infinite")
    if not given.reshape(-1, d).any(1).all():
        raise BadVector("the vector is zero: it has no direction")
    return given


def _write(path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> None:
    write_atomically(path, save(dict(tensors), metadata=dict(told)))
