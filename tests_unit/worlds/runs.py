"""Training runs with a planted drift: how far each checkpoint has turned at each site is known.

At step s a site's activations are the anchor's tokens times a rotation by the angle speed * s in
each of d/2 planes, so that from step s to step t ||R - I||_F / sqrt(2 d) = sqrt(1 - cos(speed *
(t - s))), steps in units of the whole run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from polyrot.cohorts.cohort import CohortDefaults, Split
from polyrot.dictionaries.sae import Dictionary
from tests_unit.worlds.planted import SITES, TOKENS, D, Law, dictionary, haar, law

STEPS = (20, 100, 250, 500, 1000)


def by_planes(angle: float, site: str) -> Tensor:
    """A rotation by one angle in every plane of a basis of the site's own."""
    axes = haar(D, "planes", site)
    block = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return axes @ torch.block_diag(*[block] * (D // 2)) @ axes.T


def steadily(*speeds: float) -> Callable[[int, str], Tensor]:
    return lambda step, site: by_planes(speeds[SITES.index(site)] * step / STEPS[-1], site)


def early(step: int, site: str) -> Tensor:
    """Nearly all of the turn in the first steps: distances to the last checkpoint fall from step to
    step, while two late checkpoints, however many steps apart, are close."""
    return by_planes(1.2 * math.log(step / STEPS[0]) / math.log(STEPS[-1] / STEPS[0]), site)


def afresh(step: int, site: str) -> Tensor:
    """A Haar rotation of its own at every step."""
    return haar(D, "checkpoint", step, site, special=True)


def still(step: int, site: str) -> Tensor:
    return torch.eye(D)


def fading_at_last(step: int, site: str) -> Tensor:
    """At the last step the features that dictionaries know are a twentieth of what they were, which
    no rotation undoes."""
    if step < STEPS[-1]:
        return torch.eye(D)
    at = _law(site, None)
    known = torch.linalg.qr(at.features[:, : at.major].double()).Q.float()
    return torch.eye(D) - 0.95 * known @ known.T


@dataclass(frozen=True)
class Run(CohortDefaults):
    """A cohort whose seeds are the steps of one run. shift: how far the mean moves in the run."""

    name: str
    turned: Callable[[int, str], Tensor]
    rank: int | None = None
    shift: float = 0.0

    scale, seeds, sites, width = "toy_a", STEPS, SITES, D
    trained = True

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return self.name

    def activations(self, split: Split, site: str) -> Tensor:
        at = _law(site, self.rank)
        tokens = []
        for step in STEPS:
            # From the codes, so that rounding is no copy of another checkpoint's.
            r = self.turned(step, site)
            own = Law(r.T @ at.features, at.scales, at.origin @ r, at.major)
            moved = self.shift * step / STEPS[-1]
            tokens.append(own.draw(TOKENS[split], split, site) + moved)
        return torch.stack(tokens)

    def dictionaries(self) -> dict[tuple[int, str], Dictionary]:
        """Of every checkpoint but the last, by its number and site."""
        found = {}
        for i, step in enumerate(STEPS[:-1]):
            for site in SITES:
                at, r = dictionary(_law(site, self.rank)), self.turned(step, site)
                centre = at.b_in @ r + self.shift * step / STEPS[-1]
                found[i, site] = Dictionary(r.T @ at.w_enc, at.b_enc, at.w_dec @ r, centre, centre)
        return found


@cache
def _law(site: str, rank: int | None) -> Law:
    return law(site, D, rank)


RUNS = {
    run.name: run
    for run in (
        Run("a run that turns half as far, less toward the output", steadily(0.9, 0.74, 0.5)),
        Run("a run that turns more toward the output", steadily(0.5, 0.74, 0.9)),
        Run("a run that turns early, then little", early),
        Run("a run of fresh bases", afresh),
        Run("a run whose mean alone moves", still, shift=3.0),
        Run("a run that stands still", still),
        Run("a run whose known features fade", fading_at_last),
        Run(
            "a run that turns less toward the output, of low rank",
            steadily(0.9, 0.74, 0.5),
            rank=D // 2,
        ),
    )
}
