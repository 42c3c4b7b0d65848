"""Dictionaries that all begin at one start: how they match, and what of it is the start's.

The paper trains every dictionary from one and the same random start. Then a column of one and the
column of the same place in another have begun as one, and match for as long as neither has moved
far. So the match is followed along training, beside it how often a best match keeps its place and
how far columns are from where they began, and beside all of it a dictionary that saw noise alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, NotOffered, pair_labels
from polyrot.dictionaries.groups import SHARED_START
from polyrot.dictionaries.sae import Dictionary
from polyrot.dictionaries.training import initialise
from polyrot.maps.matching import best_match, matched_fraction, one_to_one
from polyrot.measured import Measured, PairSite, Unit, favourable, favoured
from polyrot.measures.cosine import Agreement, BySite, agreement, noise_agreement
from polyrot.measures.fits import seeds_used
from polyrot.measures.transfer import misled_fraction

THRESHOLD = 0.5
UNITS: Mapping[str, Unit] = {
    "fraction": "fraction",
    "mean": "correlation",
    "live_fraction": "fraction",
    "one_to_one": "fraction",
    "same_index": "fraction",
    "to_start": "correlation",
}
"""Tables of a step: those of `Agreement`; the share of columns whose partner of the one-to-one
matching lies above 0.5; the share whose best match has their own index; the mean cosine of a
sibling's column to its own start."""


@dataclass(frozen=True)
class AlongTraining:
    """What dictionaries from one start agree on after each of some steps of their training.

    tables: by step, a table [pairs, sites] for each of UNITS. noise: by step, the fraction of the
    anchor's columns that an SAE of noise matches, [1, sites]. read: the steps at which claims are
    read. cosines, noise_cosines: the best cosines at the last step, [pairs, sites, columns] and [1,
    sites, columns].
    """

    read: tuple[int, ...]
    tables: Mapping[int, Mapping[str, PairSite]]
    noise: Mapping[int, PairSite]
    cosines: Tensor
    noise_cosines: Tensor

    def to_tables(self) -> tuple[dict[str, PairSite], dict[str, Tensor]]:
        """Plain tables and tensors, to be kept; `from_tables` is the inverse."""
        tables = {f"{s} {name}": x for s, found in self.tables.items() for name, x in found.items()}
        noise = {f"{s} noise": x for s, x in self.noise.items()}
        return {**tables, **noise}, {"cosines": self.cosines, "noise_cosines": self.noise_cosines}

    @classmethod
    def from_tables(
        cls, tables: Mapping[str, PairSite], tensors: Mapping[str, Tensor], read: Sequence[int]
    ) -> AlongTraining:
        """What `to_tables` gave."""
        found: dict[int, dict[str, PairSite]] = {}
        for key, table in tables.items():
            step, name = key.split(" ")
            found.setdefault(int(step), {})[name] = table
        noise = {step: each.pop("noise") for step, each in found.items()}
        return cls(tuple(read), found, noise, tensors["cosines"], tensors["noise_cosines"])

    def beside_turned(self, turned: Mapping[int, Mapping[str, PairSite]]) -> AlongTraining:
        """The same with what an exact copy of the anchor gives whose stream is turned by a Haar
        matrix (`cosine.one_other` of it, by step), recorded beside fractions and means."""
        tables = {step: dict(found) for step, found in self.tables.items()}
        for step, found in turned.items():
            for name in ("fraction", "mean"):
                tables[step][name] = tables[step][name].also(**_at_each("turned_copy", found[name]))
        return replace(self, tables=tables)

    def noise_at(self, step: int, sites: Sequence[str]) -> dict[str, float]:
        """The fraction that a dictionary of noise matches after so many steps, to be recorded
        beside what siblings match: where it is as high, the match says nothing of siblings."""
        known = [site for site in sites if site in self.noise[step].sites]
        return _at_each("matched_by_noise", self.noise[step].at(known))

    @property
    def steps(self) -> tuple[int, ...]:
        """In their order."""
        return tuple(sorted(self.tables))

    @property
    def last(self) -> Mapping[str, PairSite]:
        """The tables at the end."""
        return self.tables[self.steps[-1]]

    def readings(self, name: str, sites: Sequence[str]) -> dict[str, Measured]:
        """One quantity at these sites, mean over pairs, by the steps at which it is read."""
        return {
            f"{step} steps": self.tables[step][name].at(sites).mean_over_pairs()
            for step in self.read
        }


def _at_each(name: str, table: PairSite) -> dict[str, float]:
    return {
        f"{name}_{site}": float(value)
        for site, value in zip(table.sites, table.values[0], strict=True)
    }


def column_starts(width: int, features: int) -> Tensor:
    """[width, features]: where the decoder columns of dictionaries of the shared start began."""
    return initialise([SHARED_START], width, width, features)["w_dec"][0].T


def to_start(dictionary: Dictionary) -> float:
    """Mean cosine of a dictionary's columns to where they began, at the shared start."""
    columns = dictionary.decoder
    begun = column_starts(*columns.shape).to(columns)
    return float(torch.nn.functional.cosine_similarity(columns, begun, dim=0).mean())


def at_step(
    cohort: Cohort, saes: BySite, sites: Sequence[str]
) -> tuple[dict[str, PairSite], Agreement]:
    """The tables of UNITS of dictionaries from one start, by model and site, and the agreement that
    three of them are of."""
    found = agreement(cohort, saes, sites)
    models = range(1, len(cohort.seeds))

    def cell(model: int, site: str) -> tuple[float, float, float]:
        a, b = saes[0, site].decoder, saes[model, site].decoder
        kept_place = best_match(a, b) == torch.arange(a.shape[1], device=a.device)
        return (
            matched_fraction(one_to_one(a, b), THRESHOLD),
            float(kept_place.double().mean()),
            to_start(saes[model, site]),
        )

    cells = np.array([[cell(m, s) for s in sites] for m in models])
    names = ("one_to_one", "same_index", "to_start")
    own = {
        name: PairSite(cells[..., k], pair_labels(cohort), tuple(sites), seeds=seeds_used(cohort))
        for k, name in enumerate(names)
    }
    of_agreement = {name: getattr(found, name) for name in ("fraction", "mean", "live_fraction")}
    return {**of_agreement, **own}, found


def with_units(tables: Mapping[str, PairSite]) -> dict[str, PairSite]:
    """The tables of a step, each of its kind of number."""
    return {name: replace(tables[name], unit=unit) for name, unit in UNITS.items()}


def along_training(
    cohort: Cohort,
    by_step: Mapping[int, BySite],
    noise: Mapping[int, BySite],
    sites: Sequence[str],
    read: Sequence[int],
) -> AlongTraining:
    """Measure dictionaries from one start after each step. noise: the anchor's and, as model 1, the
    one that saw noise, at the sites the paper names."""
    tables, last = {}, max(by_step)
    of_noise, cosines, noise_cosines = {}, torch.empty(0), torch.empty(0)
    for step in sorted(by_step):
        found, agreed = at_step(cohort, by_step[step], sites)
        tables[step] = with_units(found)
        fraction, best = noise_agreement(noise[step], cohort.named_sites)
        of_noise[step] = fraction
        if step == last:
            cosines, noise_cosines = agreed.cosines, best
    return AlongTraining(tuple(read), tables, of_noise, cosines, noise_cosines)


# ---------------------------------------------------------------- what claims read off the tables


def matched(along: AlongTraining, cohort: Cohort, name: str = "fraction") -> Measured:
    """One quantity of a match, the reading that favours the paper; a second dictionary of the
    anchor from its own start would be the anchor's very one, so that the ceiling is 1."""
    sites = cohort.named_sites
    readings = {
        reading: found.also(
            live_columns_alone=float(along.tables[step]["live_fraction"].at(sites).values.mean()),
            **along.noise_at(step, sites),
        )
        for step, (reading, found) in zip(
            along.read, along.readings(name, sites).items(), strict=True
        )
    }
    return favourable(readings).below(1.0)


def judged_steps(
    along: AlongTraining, naive: Mapping[int, PairSite], cohort: Cohort
) -> tuple[int, ...]:
    """The steps at which the claims that noise controls are judged, one if all agree: `matched` by
    fraction and by mean, and `misled`. Each is met by high values."""
    by_claim = [
        along.readings("fraction", cohort.named_sites),
        along.readings("mean", cohort.named_sites),
        _misled(along, naive, cohort),
    ]
    return tuple(sorted({int(favoured(each, "high").split()[0]) for each in by_claim}))


def matched_by_noise(
    along: AlongTraining, naive: Mapping[int, PairSite], cohort: Cohort
) -> Measured:
    """What an SAE of noise matches, by site, at every step at which a claim that it controls is
    judged (`judged_steps`); the other steps beside."""
    judged = judged_steps(along, naive, cohort)
    found = {
        step: dict(zip(table.sites, table.values[0].tolist(), strict=True))
        for step, table in along.noise.items()
    }
    values = {
        site if len(judged) == 1 else f"{site} {step} steps": found[step][site]
        for step in judged
        for site in cohort.named_sites
    }
    every = {f"{site} {s} steps": x for s, each in found.items() for site, x in each.items()}
    reading = " and ".join(map(str, judged))
    return Measured.of(values).also(reading=f"{reading} steps", **every)


def kept_index(along: AlongTraining, cohort: Cohort) -> Measured:
    """The share of best matches that keep their index, at the end; beside it how near columns are
    to their start."""
    near = along.last["to_start"].at(cohort.named_sites).mean_over_pairs()
    cosines = {
        f"to_start_{site}": float(value)
        for site, value in zip(near.labels, near.values, strict=True)
    }
    return along.last["same_index"].at(cohort.named_sites).also(**cosines).mean_over_pairs()


def change_over_training(along: AlongTraining, cohort: Cohort) -> Measured:
    """Matched fraction at the end less that at a third of the training, by site, mean over pairs;
    the curve beside. Two dictionaries of one model from one start are the same at every step, so
    that the ceiling is 0."""
    last = along.steps[-1]
    third = min(along.steps, key=lambda step: abs(step - last / 3))
    gap = along.tables[last]["fraction"] - along.tables[third]["fraction"]
    curve = {
        f"{site} {step} steps": float(value)
        for step in along.steps
        for site, value in zip(
            cohort.named_sites,
            along.tables[step]["fraction"].at(cohort.named_sites).values.mean(0),
            strict=True,
        )
    }
    noise = along.noise_at(last, cohort.named_sites)
    return gap.at(cohort.named_sites).also(**curve, **noise).mean_over_pairs().below(0.0)


def last_site_less_lowest(along: AlongTraining, cohort: Cohort) -> Measured:
    """Matched fraction at the last block's output less the lowest of the intermediate blocks',
    means over pairs; the sample of its interval is the pairs' differences between the two sites.
    Raises NotOffered for models without an intermediate block."""
    table, last = along.last["fraction"], cohort.sites[-1]
    between = [site for site in cohort.named_sites if site != last]
    if not between:
        raise NotOffered(f"the models of scale {cohort.scale} have no intermediate block")
    lowest = between[int(table.at(between).values.mean(0).argmin())]
    of_pairs = (table.at([last]).values - table.at([lowest]).values)[:, 0]
    beside = {
        site: float(value) for site, value in zip(table.sites, table.values.mean(0), strict=True)
    }
    return Measured(
        np.array([of_pairs.mean()]),
        (f"{last} - {lowest}",),
        of_pairs[None],
        {**beside, **along.noise_at(along.steps[-1], cohort.named_sites)},
        dict(table.seeds),
        {"pairs": len(table.pairs)},
    )


def misled(along: AlongTraining, naive: Mapping[int, PairSite], cohort: Cohort) -> Measured:
    """`misled_fraction` by the reading that favours the paper. naive: naive EV [pairs, sites] of
    the anchor's dictionaries, by step."""
    return favourable(_misled(along, naive, cohort))


def _misled(
    along: AlongTraining, naive: Mapping[int, PairSite], cohort: Cohort
) -> dict[str, Measured]:
    return {
        f"{step} steps": misled_fraction(
            along.tables[step]["mean"].at(cohort.named_sites), naive[step].at(cohort.named_sites)
        )
        for step in along.read
    }
