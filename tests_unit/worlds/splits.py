"""A cohort whose splits can be told apart: law, map and noise are another in each.

Where a measure reads the wrong split, or the sibling for the anchor, its figure is another's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from polyrot.cohorts.cohort import SPLITS, CohortDefaults, Split
from polyrot.dictionaries.sae import Dictionary
from polyrot.runtime.seeding import torch_generator
from tests_unit.worlds.planted import Law, dictionary, haar

D, MAJOR = 16, 8
TOKENS: dict[str, int] = {"dictionary": 1500, "fit": 2000, "score": 1000}
SITES = ("resid_pre_0", "resid_post_0")
NOISE: dict[str, float] = {"dictionary": 0.02, "fit": 0.05, "score": 0.1}


def law_of(split: Split, site: str) -> Law:
    """Of a split: features, sizes and origin of its own."""
    size = 1.0 + SPLITS.index(split)
    scales = torch.cat([torch.linspace(1.0, 0.5, MAJOR), torch.full((D - MAJOR,), 0.1)]) * size
    origin = torch.randn(D, generator=torch_generator(0, "origin of a split", split, site))
    return Law(haar(D, "features of a split", split, site), scales, origin, MAJOR)


def map_of(split: Split, site: str, i: int) -> Tensor:
    """What sibling i's activations of a split are, from the anchor's: x @ map_of(..)."""
    return haar(D, "map of a split", split, site, i)


@dataclass(frozen=True)
class Apart(CohortDefaults):
    """asked: every split and site that was read, in order."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    scale, sites, width = "toy_b", SITES, D
    seeds: tuple[int, ...] = (0, 1, 2)
    fingerprint, trained = "splits apart", True

    def activations(self, split: Split, site: str) -> Tensor:
        self.asked.append((split, site))
        n = TOKENS[split]
        x = law_of(split, site).draw(n, split, site)
        g = torch_generator(0, "noise of a split", split, site)
        others = [
            x @ map_of(split, site, i) + NOISE[split] * torch.randn(n, D, generator=g)
            for i in (1, 2)
        ]
        return torch.stack([x, *others])

    def read(self) -> set[str]:
        """The splits that were asked for since the last call."""
        found = {split for split, _ in self.asked}
        self.asked.clear()
        return found

    def saes(self) -> dict[str, Dictionary]:
        """The anchor's, that know the dictionary split's features."""
        return {site: dictionary(law_of("dictionary", site)) for site in self.sites}
