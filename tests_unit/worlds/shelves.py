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

from polyrot.dictionaries.sae import Dictionary
from polyrot.dictionaries.sparsity import Choice
from polyrot.measured import PairSite
from polyrot.measures import cosine
from polyrot.measures.cosine import Agreement, BySite
from polyrot.measures.shared_start import AlongTraining, along_training
from polyrot.runtime.seeding import torch_generator
from tests_unit.worlds.evidence import Evidence
from tests_unit.worlds.planted import WORLDS, World, rotated, same

Columns = Literal["features", "start", "strangers"]
PER_DIMENSION = 2
STEPS = (2000, 4000, 6000)
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
    anchor. choice: of the sparse ones' sparsity, and what they give. leaving: columns of a shared
    start leave it between the readings. last: what siblings' columns are at the last site."""

    name: str
    world: str
    published: Columns
    own: Columns
    noise: Columns
    again: Columns = "features"
    choice: Choice = AS_REGISTERED
    leaving: bool = False
    last: Columns | None = None


SHELVES = {
    shelf.name: shelf
    for shelf in (
        Shelf("dictionaries of features", "rotated", "features", "features", "strangers"),
        Shelf("the anchor's features", "the anchor itself", "features", "features", "strangers"),
        Shelf("dictionaries at their start", "rotated", "start", "strangers", "start"),
        Shelf(
            "dictionaries that leave their start",
            "rotated",
            "start",
            "strangers",
            "start",
            leaving=True,
        ),
        Shelf(
            "dictionaries that part at the last site",
            "the anchor itself",
            "features",
            "features",
            "strangers",
            last="strangers",
        ),
        Shelf(
            "the anchor's features at the last site too",
            "the anchor itself",
            "features",
            "features",
            "strangers",
            last="features",
        ),
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


def _with_intermediate_sites(world: World) -> World:
    """The same, the paper reporting cosines before the last site, as it does of language models."""
    made = replace(world)
    object.__setattr__(made, "named_sites", world.internal[:-1])
    return made


class Shelved(Evidence):
    """What is measured on a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        world = WORLDS[shelf.world]
        super().__init__(world if shelf.last is None else _with_intermediate_sites(world))
        self.shelf = shelf

    def _columns(self, kind: Columns, model: int, site: str, moved: float = 0.2) -> Tensor:
        d = self.cohort.width
        g = torch_generator(0, "features of dictionaries", site)
        columns = torch.randn(d, PER_DIMENSION * d, generator=g)
        columns /= columns.norm(dim=0)
        g = torch_generator(0, kind, model, site)
        if kind == "strangers":
            drawn = torch.randn(columns.shape, generator=g)
            return drawn / drawn.norm(dim=0)
        if kind == "start":
            drawn = columns + moved * torch.randn(columns.shape, generator=g) / d**0.5
            return drawn / drawn.norm(dim=0)
        order = torch.arange(2 * d).roll(model)  # a sibling's columns all have another index
        r = MAPS[self.shelf.world](self.cohort, model, site) if model else torch.eye(d)
        return r.T @ columns[:, order]

    def _saes(self, kind: Columns, moved: float = 0.2, last: Columns | None = None) -> BySite:
        final = self.cohort.sites[-1]
        return {
            (m, site): of_columns(
                self._columns(
                    "features" if m == 0 else (last or kind) if site == final else kind,
                    m,
                    site,
                    moved,
                )
            )
            for m in range(len(self.cohort.seeds))
            for site in self.cohort.sites
        }

    @cached_property
    def along_training(self) -> AlongTraining:
        moved = dict.fromkeys(STEPS, 0.2) | ({6000: 3.0} if self.shelf.leaving else {})
        kind, last, cohort = self.shelf.published, self.shelf.last, self.cohort
        return along_training(
            cohort,
            {step: self._saes(kind, far, last) for step, far in moved.items()},
            {step: self._saes(self.shelf.noise, far) for step, far in moved.items()},
            list(dict.fromkeys((*cohort.named_sites, cohort.sites[-1]))),
            STEPS[1:],
        )

    @cached_property
    def naive_readings(self) -> dict[int, PairSite]:
        return dict.fromkeys(STEPS[1:], self.transfer.naive_ev)

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
    def rotation_gain(self) -> PairSite:
        saes, sites = self._saes(self.shelf.own), self.cohort.internal
        found = cosine.gain_by_rotation(self.cohort, saes, self.fits, sites)
        perfect = cosine.perfect_gain(self._anchors, self._again, sites)
        return replace(found, ceiling=perfect.values[0])

    @cached_property
    def between_starts(self) -> PairSite:
        kind = self.shelf.again
        more = {
            start: {s: of_columns(self._columns(kind, start, s)) for s in self.cohort.internal}
            for start in (5, 6)
        }
        if kind == "features":  # of one model: the same columns, in the anchor's own basis
            more = dict.fromkeys((5, 6), self._anchors)
        return cosine.between_starts(self.cohort, {0: self._anchors, **more})

    @cached_property
    def universality(self) -> PairSite:
        again, choices = self._again, dict.fromkeys(self.cohort.internal, self.shelf.choice)
        saes = {key: sae for key, sae in self._saes(self.shelf.own).items() if key[1] in again}
        return cosine.universality(self.cohort, saes, again, self.fits, choices)
