"""Rotations on free directions, tails along the basis and their controls: world x claim -> verdict.

The worlds have directions that are the same in every model, as architectures fix some: four axes,
as the toy's position buffer, or all-ones, as behind a LayerNorm. Siblings differ on the rest alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property

import pytest
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Split
from polyrot.maps.null_space import free_basis
from polyrot.measures.haar import free, privileged, whitened
from polyrot.measures.haar.free import FreeDirections
from polyrot.measures.haar.privileged import Tails
from polyrot.measures.haar.whitened import Whitened
from polyrot.runtime.seeding import torch_generator
from tests_unit.worlds.asked import HELD, OUT, REFUTED, Case, parameters
from tests_unit.worlds.evidence import Evidence
from tests_unit.worlds.planted import (
    SEQUENCE,
    WORLDS,
    Law,
    Sibling,
    World,
    haar,
    mapped,
    rotated,
    second_moments,
    turned_features,
)

FREE = 16
AXES = torch.eye(FREE + 4)[:4]
ONES = torch.ones(1, FREE + 1)
BURST = 6.0
"""In standard deviations: much more, and every direction would be as heavy with it."""


@dataclass(frozen=True)
class FreeWorld(World):
    """A world in which `fixed` [k, width] are directions that its architecture fixes.

    heavy: features along the axes, where all tails are then. burst: tokens are Gaussian, but that
    at one position of each sequence one coordinate is BURST larger.
    """

    fixed: Tensor | None = None
    heavy: bool = False
    burst: tuple[int, int] | None = None

    def fixed_directions(self, site: str) -> Tensor | None:
        return self.fixed

    def law(self, site: str) -> Law:
        found = super().law(site)
        # By rows as by columns some axis is a feature of the law, and others rest.
        axes = torch.eye(self.width).roll(self.width // 2, 1)
        return replace(found, features=axes) if self.heavy else found

    def anchor(self, split: Split, site: str) -> Tensor:
        x = super().anchor(split, site)
        if self.burst is not None:
            position, axis = self.burst
            x = torch.randn(x.shape, generator=torch_generator(0, "Gaussian", split, site))
            x[position::SEQUENCE, axis] += BURST
        return x


def where_free(inner: Callable[[int, int, str], Tensor]) -> Sibling:
    """The identity on the fixed directions and inner(free dimensions, i, site) on the rest, in
    their basis."""

    def matrix(world: World, i: int, site: str) -> Tensor:
        fixed = world.fixed_directions(site)
        assert fixed is not None
        basis = free_basis(fixed).float()
        eye = torch.eye(world.width)
        return eye + basis @ (inner(basis.shape[1], i, site) - torch.eye(basis.shape[1])) @ basis.T

    return mapped(matrix)


def haar_there(d: int, i: int, site: str) -> Tensor:
    return haar(d, "free", i, site)


def two_blocks(d: int, i: int, site: str) -> Tensor:
    order = torch.randperm(d, generator=torch_generator(0, "halves", i, site))
    found = torch.zeros(d, d)
    for n, half in enumerate((order[: d // 2], order[d // 2 :])):
        found[half[:, None], half] = haar(len(half), "block", n, i, site)
    return found


def permuted_there(d: int, i: int, site: str) -> Tensor:
    order = torch.randperm(d, generator=torch_generator(0, "free order", i, site))
    return torch.eye(d)[order]


def same_there(d: int, i: int, site: str) -> Tensor:
    return torch.eye(d)


def at_axes(name: str, sibling: Sibling, **more: object) -> FreeWorld:
    return FreeWorld(name, sibling, width=len(AXES.T), fixed=AXES, **more)  # type: ignore[arg-type]


def behind_norm(name: str, sibling: Sibling, **more: object) -> FreeWorld:
    return FreeWorld(name, sibling, width=len(ONES.T), fixed=ONES, **more)  # type: ignore[arg-type]


FREE_WORLDS = {
    world.name: world
    for world in (
        at_axes("turned", where_free(haar_there)),
        behind_norm("turned behind a norm", where_free(haar_there)),
        at_axes("two blocks", where_free(two_blocks)),
        behind_norm("two blocks behind a norm", where_free(two_blocks)),
        at_axes("permuted", where_free(permuted_there)),
        at_axes("the anchor itself", where_free(same_there)),
        at_axes("second moments", second_moments),
        at_axes("of low rank", turned_features, rank=12),
        FreeWorld("nothing fixed", mapped(rotated), width=FREE),
        at_axes("heavy axes", where_free(same_there), heavy=True),
        at_axes("heavy axes, permuted", where_free(permuted_there), heavy=True),
        behind_norm("heavy axes behind a norm", where_free(same_there), heavy=True),
        at_axes("burst at position 0", where_free(same_there), burst=(0, -1)),
        at_axes("burst where fixed", where_free(same_there), burst=(1, 0)),
        at_axes("burst", where_free(same_there), burst=(1, -1)),
        at_axes("strangers", WORLDS["unrelated"].sibling),
    )
}


class Haar(Evidence):
    """By the names of fixtures/haar.py."""

    @cached_property
    def free_directions(self) -> FreeDirections:
        return free.measure_free(self.cohort, self.fits, None)

    @cached_property
    def tails(self) -> Tails:
        return privileged.measure_tails(self.cohort)

    @cached_property
    def whitened(self) -> Whitened:
        return whitened.whitened_maps(self.cohort, None, self.cohort.internal)

    @property
    def untrained_whitened(self) -> Whitened:
        assert self._untrained is not None
        return Haar(self._untrained).whitened


BATTERY, CONTROL = "haar.battery_on_free_directions", "haar.free_directions_control"
PRIVILEGED = "haar.basis_is_not_privileged"
SHUFFLED, UNTRAINED = "haar.shuffled_frobenius_control", "haar.untrained_features_control"
CASES = [
    Case(BATTERY, "turned", HELD, "Haar was planted, on the free axes alone"),
    Case(BATTERY, "turned behind a norm", HELD, "Haar was planted, but for all-ones"),
    Case(BATTERY, "nothing fixed", HELD, "Haar was planted, everywhere"),
    Case(BATTERY, "two blocks", REFUTED, "the halves do not mix"),
    Case(BATTERY, "two blocks behind a norm", REFUTED, "the halves do not mix"),
    Case(BATTERY, "permuted", REFUTED, "a permutation is not Haar"),
    Case(BATTERY, "the anchor itself", REFUTED, "R is the identity"),
    Case(BATTERY, "second moments", OUT, "R is the noise of the fit"),
    Case(BATTERY, "of low rank", OUT, "R is nowhere determined"),
    Case(CONTROL, "turned", HELD, "blocks are seen without noise"),
    Case(CONTROL, "turned behind a norm", HELD, "blocks are seen without noise"),
    Case(CONTROL, "second moments", REFUTED, "in as much noise R is the noise's"),
    Case(CONTROL, "of low rank", OUT, "R is nowhere determined"),
    Case(PRIVILEGED, "turned", HELD, "features lie across the axes"),
    Case(PRIVILEGED, "turned behind a norm", HELD, "features lie across the axes"),
    Case(PRIVILEGED, "heavy axes", REFUTED, "axes are the features"),
    Case(PRIVILEGED, "heavy axes, permuted", REFUTED, "of each model, whichever they are"),
    Case(PRIVILEGED, "heavy axes behind a norm", REFUTED, "axes are the features"),
    Case(PRIVILEGED, "burst", REFUTED, "one axis is enough"),
    Case(PRIVILEGED, "burst at position 0", HELD, "position 0 does not count"),
    Case(PRIVILEGED, "burst where fixed", HELD, "what is fixed does not count"),
    Case(PRIVILEGED, "second moments", HELD, "of each model alone"),
    Case(SHUFFLED, "rotated", REFUTED, "the range holds what noise gives"),
    Case(SHUFFLED, "rotated, twice as wide", HELD, "at this width noise lies beyond the range"),
    Case(UNTRAINED, "turned against untrained strangers", HELD, "only trained ones share"),
    Case(UNTRAINED, "turned against untrained turned", REFUTED, "untrained ones share as much"),
    Case(UNTRAINED, "strangers against untrained strangers", REFUTED, "none shares anything"),
]


@cache
def measured(name: str) -> Haar:
    world, _, untrained = name.partition(" against untrained ")
    worlds = FREE_WORLDS if world in FREE_WORLDS else WORLDS
    return Haar(worlds[world], worlds[untrained] if untrained else None)


@pytest.mark.parametrize("case", parameters(CASES))
def test_the_verdict_is_the_planted_one(case: Case) -> None:
    case.check(measured(case.world))
