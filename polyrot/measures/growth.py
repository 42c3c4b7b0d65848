"""Do siblings become rotations of each other as they train? At equal steps of their trainings.

At every step that all seeds of a cohort kept, R is fitted on the fit split and scored on the score
split, as it is of the trained models; how well the anchor goes on from the sibling's rotated stream
(`polyrot.measures.stitching`) is recorded beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, pair_labels
from polyrot.dictionaries.sae import Dictionary
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.procrustes import fit_from_moments, pair_moments
from polyrot.measured import Measured, PairSite, Unit
from polyrot.measures.fits import NULL_DRAWS_SEED, full_ranks, seeds_used
from polyrot.runtime.seeding import torch_generator

FIRST_STEP, LEAST_STEPS = 1000, 8
"""The registration's: at least so many steps, from this one on."""
OF_STEP: Mapping[str, Unit] = {
    "pointwise_ev": "ev",
    "rotated_ev": "ev",
    "variances": "positive",
    "recovered": "real",
}
"""What is measured at a step, and what kind of number it is."""


@dataclass(frozen=True)
class Growth:
    """By step, earliest first: pairs by sites of pointwise EV through R, of rotated EV of the
    dictionary of the anchor at that step, of the sibling's total variance over the anchor's, and of
    the recovered loss through R; accuracies: of each model the lowest over heads and distributions,
    [steps, models].

    reading, departures: which seeds these are, where they are not those of the run, and how their
    training departs from the paper's. stand_in: for which they stand in, in words.
    """

    steps: tuple[int, ...]
    pointwise_ev: tuple[PairSite, ...]
    rotated_ev: tuple[PairSite, ...]
    variances: tuple[PairSite, ...]
    recovered: tuple[PairSite, ...]
    accuracies: np.ndarray
    reading: str = ""
    departures: tuple[str, ...] = ()
    stand_in: str = ""

    def trend(self, sites: Sequence[str]) -> Measured:
        """Spearman correlation of step and pointwise EV of each pair, by site, mean over pairs.

        Without a ceiling: exact copies are alike from the first step on, and have no trend. Where
        EV does not change at all the correlation is 0. Out of reach with fewer than LEAST_STEPS
        steps. Recorded beside, at the first and the last step: means over pairs and sites, and the
        lowest accuracy; at how many sites R is not determined at some step, unless the tables were
        kept before that was.
        """
        first, *rest = (each.at(sites) for each in self.pointwise_ev)
        ranks = _centred_ranks(np.array([each.values for each in (first, *rest)]))
        of_steps = _centred_ranks(np.array(self.steps, dtype=np.float64))
        norm = np.sqrt((ranks**2).sum(0) * (of_steps**2).sum())
        found = np.divide(
            np.tensordot(of_steps, ranks, 1), norm, out=np.zeros_like(norm), where=norm > 0
        )
        table = replace(
            sum(rest, first),  # identified where it is at every step
            values=found.clip(-1, 1),
            unit="correlation",
            resamples=None,
            ceiling=None,
        )
        unmet = (
            f"{len(self.steps)} steps from {FIRST_STEP:,} on at which every seed kept its weights; "
            f"{LEAST_STEPS} are asked for"
        )
        return (
            table.also(steps=float(len(self.steps)), **self._ends(sites))
            .mean_over_pairs()
            .unless(unmet if len(self.steps) < LEAST_STEPS else "")
            .on(self.stand_in)
        )

    def _ends(self, sites: Sequence[str]) -> dict[str, float | str]:
        beside: dict[str, float | str] = {"reading": self.reading} if self.reading else {}
        for k in (0, -1):
            for name in OF_STEP:
                mean = float(getattr(self, name)[k].at(sites).values.mean())
                beside[f"{name}_at_step_{self.steps[k]}"] = mean
            beside[f"lowest_accuracy_at_step_{self.steps[k]}"] = float(self.accuracies[k].min())
        return beside

    def to_tables(self) -> tuple[dict[str, PairSite], dict[str, Tensor]]:
        """Plain tables, by "step quantity", and the accuracies; `from_tables` is the inverse."""
        tables = {
            f"{step} {name}": getattr(self, name)[k]
            for k, step in enumerate(self.steps)
            for name in OF_STEP
        }
        return tables, {"accuracies": torch.from_numpy(self.accuracies)}

    @staticmethod
    def from_tables(tables: Mapping[str, PairSite], tensors: Mapping[str, Tensor]) -> Growth:
        """What `to_tables` gave."""
        steps = tuple(sorted({int(key.split(" ")[0]) for key in tables}))
        found = {
            name: tuple(_in_units(name, tables[f"{step} {name}"]) for step in steps)
            for name in OF_STEP
        }
        return _growth(steps, found, tensors["accuracies"].numpy())


def _growth(
    steps: tuple[int, ...], tables: Mapping[str, tuple[PairSite, ...]], accuracies: np.ndarray
) -> Growth:
    return Growth(
        steps,
        tables["pointwise_ev"],
        tables["rotated_ev"],
        tables["variances"],
        tables["recovered"],
        accuracies,
    )


def _in_units(name: str, table: PairSite) -> PairSite:
    return replace(table, unit=OF_STEP[name])


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks along the first axis, ties sharing theirs, about their mean."""
    ranks = rankdata(values, axis=0)
    return ranks - ranks.mean(0)


@dataclass(frozen=True)
class Step:
    """The siblings at one step, what the anchor's dictionaries are there, by site, the recovered
    loss through R by pair and site, and the lowest accuracy of each model."""

    step: int
    cohort: Cohort
    saes: Mapping[str, Dictionary]
    recovered: PairSite
    accuracies: Sequence[float]


def measure_growth(
    along: Iterable[Step], sites: Sequence[str], seed: int = NULL_DRAWS_SEED
) -> Growth:
    """At the steps `along` training, in their order, at `sites`; those before FIRST_STEP are left
    out. seed: draws what activations do not determine of R."""
    steps, accuracies = [], []
    tables: dict[str, list[PairSite]] = {name: [] for name in OF_STEP}
    for each in along:
        if each.step < FIRST_STEP:
            continue
        steps.append(each.step)
        accuracies.append(list(each.accuracies))
        for name, table in _at(each, sites, seed).items():
            tables[name].append(_in_units(name, table))
    found = {name: tuple(of) for name, of in tables.items()}
    return _growth(tuple(steps), found, np.array(accuracies))


def _at(each: Step, sites: Sequence[str], seed: int) -> dict[str, PairSite]:
    cohort = each.cohort
    pairs = pair_labels(cohort)
    values = {n: np.zeros((len(pairs), len(sites))) for n in OF_STEP if n != "recovered"}
    determined = {}
    for j, site in enumerate(sites):
        fit, score = (cohort.activations(split, site) for split in ("fit", "score"))
        where = f"{cohort.scale}, {site}, step {each.step}"
        moments = pair_moments(list(fit[1:]), fit[0], auto=True, where=where)
        determined[site] = all(full_ranks(moments))
        null = [
            torch_generator(seed, "null space along training", each.step, site, i)
            for i in range(len(pairs))
        ]
        anchor, sae = score[0], each.saes[site]
        spread = anchor.double().var(0, correction=0).sum()
        for i, rotation in enumerate(fit_from_moments(moments, generators=null)):
            carried = rotation.apply(score[i + 1])
            values["pointwise_ev"][i, j] = explained_variance(anchor, carried)
            values["rotated_ev"][i, j] = explained_variance(carried, sae(carried))
            own = score[i + 1].double().var(0, correction=0).sum()
            values["variances"][i, j] = float(own / spread)
    counts = {"tokens": len(cohort.sequences("score"))}
    tables = {
        name: PairSite(found, pairs, tuple(sites), seeds=seeds_used(cohort, seed), counts=counts)
        for name, found in values.items()
    }
    tables["pointwise_ev"] = tables["pointwise_ev"].through(determined)
    return {**tables, "recovered": each.recovered.at(sites)}
