"""Whether the anchor's features fire on the same tokens of a sibling, untouched and mapped.

The anchor's dictionary encodes the anchor's stream and a sibling's on the same held-out tokens; of
each feature Pearson's r is taken between the two over tokens (paper, section 8.5). Nothing of shape
[tokens, features] is ever whole: one pass over batches of tokens gathers sums by feature, for all
maps at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries.sae import CHUNK, Dictionary
from polyrot.maps.feature_correlation import FeatureCorrelations
from polyrot.maps.procrustes import ActivationMap, Rotation
from polyrot.measured import Measured, PairSite, Unit
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits, fit_all, seeds_used
from polyrot.measures.transfer import ExactCopies
from polyrot.runtime.seeding import derive, torch_generator

VERSION = 1  # of what is kept; raise when a change of code changes what is measured
HALF = 0.5
COPIES = 2
"""Exact copies of the anchor, whose mean is the ceiling: through R they differ by rounding."""
DIRECTIONS = 64
"""Random directions whose thresholds are sought at once: [tokens, DIRECTIONS] is held."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Published:
    """What the paper states of mean r (section 8.5), lowest to highest site. of: whose they are.
    above_half: by way, of the share of features above 0.5; the toy's are not stated."""

    of: str
    naive: Range
    rotated: Range
    above_half: Mapping[str, Range]


PUBLISHED = {
    False: Published("the paper's toy", (0.03, 0.51), (0.27, 0.74), {}),
    True: Published(
        "Pythia-70m",
        (0.009, 0.075),
        (0.252, 0.437),
        {"naive": (0.0, 0.083), "rotated": (0.151, 0.508)},
    ),
}
"""By whether the models are language models."""


def random_features(
    dictionary: Dictionary, x: Tensor, generator: torch.Generator, chunk: int = CHUNK
) -> Dictionary:
    """As many random unit directions, rectified so that on x [tokens, d] each fires at the rate of
    the dictionary's feature of the same number.

    `generator` draws on the CPU. A direction's threshold lies half way between the projections that
    its rate parts; of a feature that never fires, at the largest one.

    >>> x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    >>> sae = Dictionary(torch.eye(3), torch.full((3,), -1.0), torch.eye(3), *[torch.zeros(3)] * 2)
    >>> drawn = random_features(sae, x, torch.Generator().manual_seed(1))
    >>> [(each.encode(x) > 0).sum(0).tolist() for each in (sae, drawn)]
    [[53, 61, 71], [53, 61, 71]]
    """
    n, d, m = len(x), dictionary.d_in, dictionary.n_features
    fires = torch.zeros(m, dtype=torch.int64, device=x.device)
    for part in x.split(chunk):
        fires += (dictionary.encode(part) > 0).sum(0)
    directions = torch.randn(d, m, generator=generator)
    directions = (directions / directions.norm(dim=0)).to(x)
    centre = x.mean(0)
    thresholds = x.new_empty(m)
    for i in range(0, m, DIRECTIONS):
        along = ((x - centre) @ directions[:, i : i + DIRECTIONS]).sort(0).values
        below = n - fires[None, i : i + DIRECTIONS]  # so many tokens stay silent
        over = along.gather(0, below.clamp(max=n - 1))[0]
        under = along.gather(0, (below - 1).clamp(min=0))[0]
        always = along[0] - (along[-1] - along[0]) / n  # below the smallest
        thresholds[i : i + DIRECTIONS] = torch.where(
            below[0] == 0, always, torch.where(below[0] == n, along[-1], (over + under) / 2)
        )
    return Dictionary(directions, -thresholds, directions.T, centre, centre)


@dataclass(frozen=True)
class Overlap:
    """How far features fire on the same tokens, by pair and site.

    mean: mean r over live features, those that fire on the anchor's score tokens; one that is
    silent on the sibling counts 0. over_all: over all features, a silent one counts 0. above_half:
    share of the live ones whose r is above 0.5.
    """

    mean: PairSite
    over_all: PairSite
    above_half: PairSite


@dataclass(frozen=True)
class Firing:
    """Overlaps of the anchor's features on the anchor and on a sibling.

    naive: the sibling as it is. rotated: centred, rotated, with the anchor's mean. uncentred: the
    same without the anchor's mean, as the paper does at its toy. shuffled, principal: through the
    rotations of the controls. random: as rotated, of random directions that are rectified at the
    same firing rates. All but naive and principal have ceilings: what exact copies of the anchor
    give.
    """

    naive: Overlap
    rotated: Overlap
    uncentred: Overlap
    shuffled: Overlap
    principal: Overlap
    random: Overlap

    def to_tables(self) -> dict[str, PairSite]:
        """Every table by name, for the store."""
        return {
            f"{way.name} {what.name}": getattr(getattr(self, way.name), what.name)
            for way in fields(self)
            for what in fields(Overlap)
        }

    @classmethod
    def from_tables(cls, tables: Mapping[str, PairSite]) -> Firing:
        """What `to_tables` gave."""
        return cls(
            **{
                way.name: Overlap(
                    **{what.name: tables[f"{way.name} {what.name}"] for what in fields(Overlap)}
                )
                for way in fields(cls)
            }
        )

    def beside_reading(self, steps: int, other: Firing) -> Firing:
        """The same with what dictionaries of so many steps give through R recorded beside it: a
        setting of the paper's pipeline that the registration does not judge by."""
        means = {f"{site}_after_{steps}_steps": x for site, x in _means(other.rotated.mean).items()}
        rotated = replace(self.rotated, mean=self.rotated.mean.also(**means))
        return replace(self, rotated=rotated)

    def raw(self, cohort: Cohort) -> Measured:
        """Mean r untouched at the sites that are judged, mean over pairs. Of difference: without
        a ceiling."""
        return self._told(cohort, "naive")

    def recovered(self, cohort: Cohort) -> Measured:
        """Mean r through R at the sites that are judged, mean over pairs."""
        return self._told(cohort, "rotated")

    def beyond_shuffled(self, sites: Sequence[str]) -> PairSite:
        """Mean r through R less that through a rotation of shuffled tokens."""
        return (self.rotated.mean - self.shuffled.mean).at(sites)

    def beyond_untrained(self, untrained: Firing, sites: Sequence[str]) -> PairSite:
        """Mean r through R less that of `untrained` siblings.

        Without a ceiling, as in `Transfer.recovery_beyond`: how far the untrained ones overlap is
        what is asked, and no bound of it.
        """
        found = (self.rotated.mean - untrained.rotated.mean).at(sites)
        return replace(found, ceiling=None)

    def beyond_random(self, sites: Sequence[str]) -> PairSite:
        """Mean r through R less that of random directions.

        Without a ceiling: likeness raises both, to 1 and 1 in an exact copy, so no copy bounds the
        difference.
        """
        found = (self.rotated.mean - self.random.mean).at(sites)
        beside = {f"random_{s}": x for s, x in _means(self.random.mean).items() if s in sites}
        return replace(found.also(**beside), ceiling=None)

    def _told(self, cohort: Cohort, way: str) -> Measured:
        """Mean r one way at the judged sites; beside it, at every site, the lowest and highest
        pair, the mean over all features, the share above a half, at those that are not judged the
        mean, and the paper's range."""
        overlap: Overlap = getattr(self, way)
        judged = sites_of(cohort)
        known = PUBLISHED[cohort.facts.language]
        ranges = {f"paper_{way}": getattr(known, way)}
        if way in known.above_half:
            ranges[f"paper_{way}_above_half"] = known.above_half[way]
        beside: dict[str, float | str] = {
            name: f"{low:g} to {high:g} ({known.of})" for name, (low, high) in ranges.items()
        }
        table = overlap.mean
        others = {site: x for site, x in _means(table).items() if site not in judged}
        beside |= {f"mean_{site}": x for site, x in others.items()}
        for j, site in enumerate(table.sites):
            beside[f"lowest_pair_{site}"] = float(table.values[:, j].min())
            beside[f"highest_pair_{site}"] = float(table.values[:, j].max())
        for name, each in (("over_all", overlap.over_all), ("above_half", overlap.above_half)):
            beside |= {f"{name}_{site}": x for site, x in _means(each).items()}
        if way == "rotated":
            for name in ("uncentred", "shuffled", "principal", "random"):
                found = _means(getattr(self, name).mean)
                beside |= {f"{name}_{site}": x for site, x in found.items()}
        return table.also(**beside).at(judged).mean_over_pairs()


def sites_of(cohort: Cohort) -> tuple[str, ...]:
    """The sites at which firing patterns are judged: the paper's, or every one."""
    return cohort.facts.firing_sites or tuple(cohort.sites)


def _means(table: PairSite) -> dict[str, float]:
    return dict(zip(table.sites, table.values.mean(0).tolist(), strict=True))


Way = Callable[[int, int], Tensor]
"""Activations of the tokens from one number to another, in the anchor's basis."""


def measure_firing(
    cohort: Cohort,
    fits: Fits,
    saes: Mapping[str, Dictionary],
    seed: int = NULL_DRAWS_SEED,
    *,
    copies: int = COPIES,
    chunk: int = CHUNK,
) -> Firing:
    """Overlaps of the anchor's dictionaries `saes` (by site) at every site of `fits`, score split.

    seed: draws random directions and copies. copies: of the anchor, whose overlaps by the same code
    are the ceilings; 0 leaves ceilings out. chunk: tokens at a time.
    """
    perfect = ExactCopies(cohort, fits.sites, copies, derive(seed, "exact copies"))
    exact = fit_all(perfect, derive(seed, "fits of exact copies")) if copies else None
    # The fit split is left before the score split is begun: a large cohort holds one at a time.
    drawn = {}
    for site in fits.sites:
        generator = torch_generator(seed, "random features", site)
        x = cohort.activations("fit", site)[0]
        drawn[site] = random_features(saes[site], x, generator, chunk)
    ways = [way.name for way in fields(Firing)]
    n, m = len(fits.pairs), len(fits.sites)
    cells = {(way, what): np.zeros((n, m)) for way in ways for what in _SCORES}
    ceilings = {(way, what): np.zeros(m) for way in ways for what in _SCORES}
    tokens, features = 0, 0
    for j, site in enumerate(fits.sites):
        x, sae = cohort.activations("score", site), saes[site]
        found = _at_site(x[0], x[1:], fits, site, sae, drawn[site], chunk, ways)
        for (way, i), scores in found.items():
            for what, value in scores.items():
                cells[way, what][i, j] = value
        tokens, features = x.shape[1], sae.n_features
        if exact is not None:
            turned = perfect.beside(x[0], site)[1:]
            found = _at_site(x[0], turned, exact, site, sae, drawn[site], chunk, _OF_LIKENESS)
            for (way, _), scores in found.items():
                for what, value in scores.items():
                    ceilings[way, what][j] += value / copies
    counts = {"tokens": tokens, "features": features}

    def table(way: str, what: str) -> PairSite:
        likeness = exact is not None and way in _OF_LIKENESS
        return PairSite(
            cells[way, what],
            fits.pairs,
            fits.sites,
            seeds=seeds_used(cohort, seed),
            counts=counts,
            unit=_SCORES[what],
            ceiling=ceilings[way, what] if likeness else None,
        )

    return Firing(**{way: Overlap(**{what: table(way, what) for what in _SCORES}) for way in ways})


_SCORES: dict[str, Unit] = {
    "mean": "correlation",
    "over_all": "correlation",
    "above_half": "fraction",
}
"""Fields of Overlap."""
_OF_LIKENESS = ("rotated", "uncentred", "shuffled", "random")
"""Ways with a ceiling: those of which statements of likeness are made, and beside them."""


def _at_site(
    anchor: Tensor,
    siblings: Tensor,
    fits: Fits,
    site: str,
    sae: Dictionary,
    random: Dictionary,
    chunk: int,
    wanted: Sequence[str],
) -> dict[tuple[str, int], dict[str, float]]:
    """Scores by way (of those `wanted`) and sibling; anchor [tokens, d], siblings [pairs, tokens,
    d]."""

    def carried(i: int, by: ActivationMap | None) -> Way:
        return lambda a, b: siblings[i, a:b] if by is None else by.apply(siblings[i, a:b])

    learned: dict[tuple[str, int], Way] = {}
    for i in range(len(siblings)):
        maps: dict[str, ActivationMap | None] = {
            "naive": None,
            "rotated": fits.matched[site][i],
            "uncentred": _without_mean(fits.matched[site][i]),
            "shuffled": fits.shuffled[site][i],
            "principal": fits.principal[site][i],
        }
        learned |= {(way, i): carried(i, by) for way, by in maps.items() if way in wanted}
    drawn = {("random", i): carried(i, fits.matched[site][i]) for i in range(len(siblings))}
    passes = [
        (dictionary, ways, FeatureCorrelations(len(ways)))
        for dictionary, ways in ((sae, learned), (random, drawn))
    ]
    for start in range(0, len(anchor), chunk):
        end = start + chunk
        for dictionary, ways, sums in passes:
            here = dictionary.encode(anchor[start:end])
            sums.update(here, (dictionary.encode(way(start, end)) for way in ways.values()))
    found = {}
    for _, ways, sums in passes:
        live = sums.live()
        for key, r in zip(ways, sums.r(), strict=True):
            # Of a dictionary none of whose features fires, nothing overlaps.
            of_live = r[live] if live.any() else r.new_zeros(1)
            found[key] = {
                "mean": float(of_live.mean()),
                "over_all": float(r.mean()),
                "above_half": float((of_live > HALF).double().mean()),
            }
    return found


def _without_mean(rotation: Rotation) -> Rotation:
    return replace(rotation, mean_b=torch.zeros_like(rotation.mean_b))
