"""Dictionaries whose columns are known: what decoder cosines must come to.

The anchor's columns are features, twice as many as dimensions. A sibling's may be those features,
carried by the map that made its activations; the anchor's own columns hardly moved, as of
dictionaries that never left a start they share; or unrelated ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from polyrot.dictionaries.collection import Choice
from polyrot.dictionaries.sae import Dictionary
from polyrot.measured import PairSite
from polyrot.measures import cosine
from polyrot.measures.cosine import Agreement, BySite
from polyrot.runtime.seeding import torch_generator
from tests_unit.worlds.evidence import Evidence
from tests_unit.worlds.planted import WORLDS, rotated, same

Columns = Literal["features", "start", "strangers"]
PER_DIMENSION = 2
AS_REGISTERED = Choice(l1=0.01, l0=6.0, ev=0.95, admissible=True)
TOO_LITTLE = Choice(l1=0.5, l0=6.0, ev=0.85, admissible=False)


def of_columns(columns: Tensor) -> Dictionary:
    """A dictionary of these columns [d, f], every one of them active on some token."""
    d, f = columns.shape
    return Dictionary(columns, torch.zeros(f), columns.T, torch.zeros(d), torch.zeros(d))


@dataclass(frozen=True)
class Shelf:
    """published: what siblings' dictionaries from the anchor's start are. own: those from starts of
    their own, dense and sparse alike. noise: the one that saw noise. again: a second start on the
    anchor. choice: of the sparse ones' sparsity, and what they give."""

    name: str
    world: str
    published: Columns
    own: Columns
    noise: Columns
    again: Columns = "features"
    choice: Choice = AS_REGISTERED


SHELVES = {
    shelf.name: shelf
    for shelf in (
        Shelf("dictionaries of features", "rotated", "features", "features", "strangers"),
        Shelf("the anchor's features", "the anchor itself", "features", "features", "strangers"),
        Shelf("dictionaries at their start", "rotated", "start", "strangers", "start"),
        Shelf(
            "dictionaries that two starts decide",
            "rotated",
            "strangers",
            "strangers",
            "strangers",
            "strangers",
        ),
        Shelf(
            "dictionaries that reconstruct too little",
            "rotated",
            "features",
            "features",
            "strangers",
            choice=TOO_LITTLE,
        ),
    )
}
MAPS = {"rotated": rotated, "the anchor itself": same}


class Shelved(Evidence):
    """What is measured on a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(WORLDS[shelf.world])
        self.shelf = shelf

    def _columns(self, kind: Columns, model: int, site: str) -> Tensor:
        d = self.cohort.width
        g = torch_generator(0, "features of dictionaries", site)
        columns = torch.randn(d, PER_DIMENSION * d, generator=g)
        columns /= columns.norm(dim=0)
        g = torch_generator(0, kind, model, site)
        if kind == "strangers":
            drawn = torch.randn(columns.shape, generator=g)
            return drawn / drawn.norm(dim=0)
        if kind == "start":
            drawn = columns + 0.2 * torch.randn(columns.shape, generator=g) / d**0.5
            return drawn / drawn.norm(dim=0)
        order = torch.randperm(columns.shape[1], generator=g) if model else torch.arange(2 * d)
        r = MAPS[self.shelf.world](self.cohort, model, site) if model else torch.eye(d)
        return r.T @ columns[:, order]

    def _saes(self, kind: Columns) -> BySite:
        return {
            (m, site): of_columns(self._columns(kind if m else "features", m, site))
            for m in range(len(self.cohort.seeds))
            for site in self.cohort.sites
        }

    @cached_property
    def published_agreement(self) -> Agreement:
        saes = self._saes(self.shelf.published)
        return cosine.agreement(self.cohort, saes, self.cohort.named_sites).below()

    @cached_property
    def own_agreement(self) -> Agreement:
        sites = self.cohort.named_sites
        found = cosine.agreement(self.cohort, self._saes(self.shelf.own), sites)
        return found.below(cosine.one_other(self._anchors, self._again, sites, "again")[0])

    @cached_property
    def _anchors(self) -> dict[str, Dictionary]:
        return {s: of_columns(self._columns("features", 0, s)) for s in self.cohort.internal}

    @cached_property
    def _again(self) -> dict[str, Dictionary]:
        kind = self.shelf.again
        return {s: of_columns(self._columns(kind, 0, s)) for s in self.cohort.internal}

    @cached_property
    def noise_agreement(self) -> tuple[PairSite, Tensor]:
        return cosine.noise_agreement(self._saes(self.shelf.noise), self.cohort.internal)

    @cached_property
    def rotation_gain(self) -> PairSite:
        saes, sites = self._saes(self.shelf.own), self.cohort.internal
        found = cosine.gain_by_rotation(self.cohort, saes, self.fits, sites)
        perfect = cosine.perfect_gain(self._anchors, self._again, sites)
        return replace(found, ceiling=perfect.values[0])

    @cached_property
    def universality(self) -> PairSite:
        again, choices = self._again, dict.fromkeys(self.cohort.internal, self.shelf.choice)
        saes = {key: sae for key, sae in self._saes(self.shelf.own).items() if key[1] in again}
        return cosine.universality(self.cohort, saes, again, self.fits, choices)
