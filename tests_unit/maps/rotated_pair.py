"""A toy anchor with strong random weights, and a copy that an exact symmetry carries over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polyrot.maps.procrustes import Rotation, fit_rotation
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import symmetry, task, transformer
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import Folded, fold
from polyrot.toy.transformer import Params

SITES = ("resid_mid_1", "resid_post_1")


def strong_params(seed: int = 0, scale: float = 8.0) -> Params:
    """Random weights far from the linear regime of a fresh start."""
    fresh = transformer.initialise([seed])
    return {n: p if n.startswith("norm") else scale * p for n, p in fresh.items()}


class RotatedPair(ToyCohort):
    """Seeds 0 and 1; seed 1 is seed 0 as `parts` of the symmetry group, drawn, change it."""

    def __init__(self, parts: Sequence[str] = ("residual",), sequences: int = 192) -> None:
        params = strong_params()
        doubled = {n: torch.cat([p, p]) for n, p in params.items()}
        super().__init__("toy_a", (0, 1), doubled, ["rotated pair"])
        self._tokens = {split: x[:sequences] for split, x in self._tokens.items()}
        self._tokens["dictionary"] = ToyCohort.tokens(self, "dictionary")[: 3 * sequences]
        element = symmetry.random(1, torch_generator(1, "planted"), parts)
        self.q = element.residual[0]
        """The copy's stream is the anchor's times q, so that a @ q.T is the anchor's."""
        self.pair = (fold(params), symmetry.act(element, fold(params)))

    def folded(self, model: int) -> Folded:
        return self.pair[model]

    @torch.no_grad()
    def _run(self, tokens: Tensor) -> dict[str, Tensor]:
        keep = tokens != task.PAD
        runs = [folded.run(tokens, capture=self.sites).captured for folded in self.pair]
        return {s: torch.cat([run[s][:, keep] for run in runs]) for s in self.sites}

    def rotations(self) -> dict[str, list[Rotation]]:
        """Fitted on the fit split."""
        return {site: [fit_rotation(*self.activations("fit", site).flip(0))] for site in SITES}
