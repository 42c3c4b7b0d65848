"""What the suite's fixtures are for a trained scale, for a planted world: by the same names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

from fixtures.keep import called
from polyrot.cohorts.interventions import InterventionCohort
from polyrot.measured import PairSite
from polyrot.measures import (
    drift,
    editing,
    fits as rotations,
    frontier as frontiers,
    overlaps as pinned,
    steering as dose_curves,
    transfer as transfers,
)
from polyrot.measures.attribution import Table, tabulate
from polyrot.measures.convergence import AlongRun, along_run
from polyrot.measures.drift import Drift
from polyrot.measures.editing import Edits
from polyrot.measures.firing import Firing, measure_firing
from polyrot.measures.fits import Fits
from polyrot.measures.frontier import Frontier
from polyrot.measures.overlaps import Overlaps
from polyrot.measures.published_attribution import Signs
from polyrot.measures.reconstructions import Reconstructions, half_way_to_last, reconstruct
from polyrot.measures.similarity import Similarity, measure_similarity
from polyrot.measures.steering import Perfect, Steering
from polyrot.measures.stitching import Stitching, measure_stitching
from polyrot.measures.transfer import Transfer
from tests_unit.worlds.losses import LOSSES
from tests_unit.worlds.networks import NETWORKS
from tests_unit.worlds.planted import WORLDS, World
from tests_unit.worlds.runs import RUNS, Run


class Keeping:
    """`keep` of the suite, which here keeps nothing: see fixtures/keep.py."""

    def keep(self, function: Callable[..., Any], sites: str = "") -> Any:
        return called(function, lambda name: getattr(self, name), sites)


class Evidence(Keeping):
    """Measured when asked for, once. untrained: the world that stands for untrained siblings."""

    store = None  # null tables are kept in the process
    independent_siblings = None  # see fixtures/stitching.py
    transfer_of_pipeline = None  # see fixtures/pipeline.py

    def __init__(self, world: World, untrained: World | None = None) -> None:
        self.cohort = world
        self._untrained = untrained

    @property
    def scale(self) -> str:
        return self.cohort.scale

    @cached_property
    def fits(self) -> Fits:
        return rotations.fit_all(self.cohort)

    @property
    def sites_not_identified(self) -> float:
        return float(len(self.fits.sites) - len(self.fits.identified_sites))

    @cached_property
    def transfer(self) -> Transfer:
        return transfers.measure_transfer(self.cohort, self.fits, self.cohort.saes())

    @cached_property
    def wide_transfer(self) -> Transfer:
        fits = self.fits.at(self.cohort.internal)
        return transfers.measure_transfer(self.cohort, fits, self.cohort.saes())

    @cached_property
    def untrained_transfer(self) -> Transfer:
        assert self._untrained is not None
        return Evidence(self._untrained).transfer

    @cached_property
    def firing(self) -> Firing:
        return measure_firing(self.cohort, self.fits, self.cohort.saes(), copies=1)

    @cached_property
    def untrained_firing(self) -> Firing:
        assert self._untrained is not None
        return Evidence(self._untrained).firing

    @cached_property
    def similarity(self) -> Similarity:
        return measure_similarity(self.cohort)

    @cached_property
    def untrained_similarity(self) -> Similarity:
        assert self._untrained is not None
        return measure_similarity(self._untrained)

    @cached_property
    def frontier(self) -> Frontier:
        pair = replace(self.cohort, seeds=self.cohort.seeds[:2])
        saes = pair.saes()
        return frontiers.measure_frontier(pair, rotations.fit_all(pair), saes, saes)


class Attributions(Keeping):
    """Of models whose components can be moved; they stand for untrained ones as well."""

    def __init__(self, cohort: Any) -> None:
        self.cohort = cohort

    @cached_property
    def attributions(self) -> Table:
        return tabulate(self.cohort)

    @property
    def untrained_attributions(self) -> Table:
        return self.attributions

    @property
    def patching_signs(self) -> Signs:
        return self.attributions.signs()

    @cached_property
    def attributions_along_run(self) -> AlongRun:
        return along_run(self.cohort)


class Interventions(Attributions):
    """Of a cohort of networks."""

    cohort: InterventionCohort

    independent_siblings = None  # no pair: see fixtures/stitching.py

    @property
    def scale(self) -> str:
        return self.cohort.scale

    @cached_property
    def fits(self) -> Fits:
        return rotations.fit_all(self.cohort)

    @cached_property
    def stitching(self) -> Stitching:
        return measure_stitching(self.cohort, self.fits, tokens=300, copies=2)

    @cached_property
    def steering(self) -> Steering:
        rotation = self.fits.matched[self.cohort.steering_site]
        return dose_curves.measure_steering(self.cohort, rotation, n_sequences=64, n_random=16)

    @cached_property
    def perfect_steering(self) -> Perfect:
        return dose_curves.measure_perfect(self.cohort, n_sequences=64, n_random=16)

    @cached_property
    def overlaps(self) -> Overlaps:
        return pinned.overlaps(self.cohort, n_sequences=32)

    @cached_property
    def edits(self) -> Edits:
        return editing.measure_edits(self.cohort, self.fits.matched, n_sequences=64)


class Drifts:
    """Of one run's checkpoints."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def drifts(self) -> Drift:
        return drift.measure_drift(self.run)

    @cached_property
    def reconstructions(self) -> Reconstructions:
        return reconstruct(self.run, self.run.dictionaries())

    @cached_property
    def half_way(self) -> dict[str, PairSite]:
        return half_way_to_last(self.run, self.run.dictionaries())


Measurable = Evidence | Attributions | Drifts


def of(name: str) -> Measurable:
    """Of a world by its name; "a against untrained b" is world a with b for untrained siblings, and
    "a with eight siblings" is what it says."""
    if name in RUNS:
        return Drifts(RUNS[name])
    if name in LOSSES:
        return Attributions(LOSSES[name])
    if name in NETWORKS:
        return Interventions(NETWORKS[name])
    name, eight, _ = name.partition(" with eight siblings")
    world, _, untrained = name.partition(" against untrained ")
    planted = replace(WORLDS[world], seeds=tuple(range(9))) if eight else WORLDS[world]
    return Evidence(planted, WORLDS[untrained] if untrained else None)
