"""Planted siblings for the paper's own scores, for what a rotation leaves, and along training."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Split, pair_labels
from polyrot.measured import PairSite
from polyrot.measures import (
    chain as chains,
    growth as growths,
    published_scores as scores,
    scaled as scales,
)
from polyrot.measures.published_scores import PublishedScores
from polyrot.runtime.seeding import torch_generator
from tests_unit.worlds.evidence import Evidence
from tests_unit.worlds.planted import WORLDS, Sibling, World, haar, mapped, rotated

STEPS = tuple(range(1000, 9000, 1000))


def stretched(world: World, i: int, site: str) -> Tensor:
    """Turned, and along half of the directions thrice as large: no rotation with one scalar."""
    sizes = torch.ones(world.width)
    sizes[: world.width // 2] = 3
    return sizes[:, None] * rotated(world, i, site)


def among_siblings(world: World, i: int, site: str, split: Split, x: Tensor) -> Tensor:
    """Siblings are nearly rotations of each other, by what the anchor has nothing of; what it has,
    a tenth as large, lies in each in another way."""
    shared = world.law(site).draw(len(x), split, site, "what siblings share")
    other = haar(world.width, "what siblings have of the anchor", i, site)
    return shared @ rotated(world, i, site) + 0.1 * x @ other


def noisy(share: float) -> Sibling:
    """A rotation, and noise of `share` of the activations' size."""

    def sibling(world: World, i: int, site: str, split: Split, x: Tensor) -> Tensor:
        g = torch_generator(0, "noise at a step", split, site, i)
        return x @ rotated(world, i, site) + share * x.std() * torch.randn(x.shape, generator=g)

    return sibling


MORE = {
    world.name: world
    for world in (
        World("stretched", mapped(stretched)),
        World("nearer to each other than to the anchor", among_siblings),
    )
}
NOISE: dict[str, Callable[[int], float]] = {
    "ever more alike": lambda k: 0.5 / (1 + k),
    "ever less alike": lambda k: 0.1 * (1 + k),
    "as alike as before": lambda k: (0.3, 0.1, 0.5, 0.2, 0.4, 0.6, 0.15, 0.25)[k % len(STEPS)],
    "alike, at few steps": lambda k: 0.5 / (1 + k),
}
FEW = STEPS[:-1]


class Scored(Evidence):
    """What the paper's scores, a scalar and a chain make of a world. A reading of 6,000 steps is of
    dictionaries that overshoot `spoiled` times as far as those of 4,000."""

    def __init__(self, world: World, untrained: World | None = None, spoiled: float = 1) -> None:
        super().__init__(world, untrained)
        self._spoiled = spoiled

    @cached_property
    def scores_as_published(self) -> PublishedScores:
        world = self.cohort
        saes = {"4000 steps": world.saes(), "6000 steps": world.saes(0.5 * self._spoiled)}
        return PublishedScores(
            {name: scores.published_scores(world, each) for name, each in saes.items()}
        )

    @cached_property
    def scaled(self) -> scales.Scaled:
        saes = self.cohort.saes()
        return scales.measure_scaled(
            self.cohort, self.fits, {site: saes[site] for site in self.cohort.internal}
        )

    @cached_property
    def chain(self) -> chains.Chain:
        return chains.measure_chain(self.cohort, self.fits, self.cohort.internal)


class Growing:
    """A cohort along its training: noise beside the rotation falls or rises."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cohort = WORLDS["rotated"]

    @cached_property
    def growth(self) -> growths.Growth:
        steps = (500, *(FEW if self.name == "alike, at few steps" else STEPS))
        saes, sites, pairs = self.cohort.saes(), self.cohort.internal, pair_labels(self.cohort)
        none = PairSite(np.zeros((len(pairs), len(sites))), pairs, sites)  # it has no outputs
        along = (
            growths.Step(
                step,
                World(f"{self.name} {step}", noisy(NOISE[self.name](k))),
                saes,
                none,
                [0.9 + step / 1e5] * len(self.cohort.seeds),
            )
            for k, step in enumerate(steps)
        )
        return growths.measure_growth(along, self.cohort.internal)
