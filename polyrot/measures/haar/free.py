"""R on the directions that the architecture leaves free: the battery there, and its control.

Some directions of the residual stream are the same in every model whatever it learned (a cohort's
`fixed_directions`): all-ones behind a LayerNorm, the position buffer of the toy. On them R is no
draw. Here the activations of all models are taken to an orthonormal basis of what is left, the one
nearest to the coordinate axes (`polyrot.maps.null_space.free_basis`), and R is refitted there. Its
entries, of which half of the battery's statistics are made, are those in that basis.

The control asks whether the battery could say otherwise: each sibling is replaced by the anchor's
own activations, turned by one Haar block on a random half of the basis and another on the other
half, with as much isotropic noise as makes them as poor a prediction of the anchor as the sibling
is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, CohortDefaults, Split
from polyrot.haar.battery import BatteryResult, Direction, haar_batteries, holm
from polyrot.haar.nulls import DEFAULT_DRAWS, NULL_SEED, Store
from polyrot.haar.orthogonal import FloatArray
from polyrot.maps.null_space import free_basis, haar_block
from polyrot.maps.procrustes import fit_rotation, pointwise_ev
from polyrot.measured import Figure, Measured, PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits, fit_all
from polyrot.measures.haar.calibrated import (
    BATTERY_STEPS,
    PValues,
    monte_carlo_range,
    rejected,
)
from polyrot.measures.haar.rotations import (
    LEVEL,
    Which,
    at_identified,
    ceiling,
    labels,
    not_identified,
    rotation_stack,
    without_map,
)
from polyrot.runtime.seeding import torch_generator

RECIPE_VERSION = 1  # raise when a change of code changes what is measured
FEW = 3.7
"""A p-value with no draw beyond it is known to this factor (`polyrot.haar.nulls.Tail`)."""
FIXED = 1e-6
"""An axis of which no larger share than this is free is none to look along."""


class FreeCohort(CohortDefaults):
    """A cohort's activations in the free basis of each site, [models, tokens, free dimensions]."""

    def __init__(self, cohort: Cohort) -> None:
        self._cohort = cohort
        self.scale, self.seeds, self.trained = cohort.scale, cohort.seeds, cohort.trained
        self.facts, self.sites, self.skip = cohort.facts, tuple(cohort.sites), cohort.skip
        self.bases: Mapping[str, Tensor] = {site: basis_of(cohort, site) for site in cohort.sites}
        self.width = self.bases[self.sites[0]].shape[1]
        self.fingerprint = f"{cohort.fingerprint} on its free directions"

    def activations(self, split: Split, site: str) -> Tensor:
        """See `Cohort`."""
        x = self._cohort.activations(split, site)
        return x @ self.bases[site].to(x)

    def sequences(self, split: Split) -> Tensor:
        """See `Cohort`."""
        return self._cohort.sequences(split)

    def named_directions(self, site: str) -> dict[str, Direction]:
        """For ONE: the anchor's mean and its axis of largest variance, in the free basis; of the
        fit split, and of the anchor alone, as in `polyrot.measures.haar.calibrated`.

        Axes that are fixed are left out: of one that was projected away rounding is all that is
        left.
        """
        x = self._cohort.activations("fit", site)[0]
        basis = self.bases[site].to(x.device)
        variance, mean = torch.var_mean(x.double(), dim=0)
        variance[~free_axes(basis)] = -1.0
        found = {"mean": mean @ basis, "largest variance": basis[int(variance.argmax())]}
        return {name: v.cpu().numpy() for name, v in found.items()}


def basis_of(cohort: Cohort, site: str) -> Tensor:
    """Orthonormal [width, free dimensions], float64: nearest to the axes; the axes themselves where
    nothing is fixed."""
    fixed = cohort.fixed_directions(site)
    if fixed is None:
        return torch.eye(cohort.width, dtype=torch.float64)
    return free_basis(fixed)


def free_axes(basis: Tensor) -> Tensor:
    """bool [width]: which axes are free, on a basis of `basis_of`; of one that was projected away
    rounding is all that is left."""
    return basis.square().sum(1) > FIXED


def draws_to_decide(matrices: int) -> int:
    """Draws of null tables with which so many matrices can all fall below LEVEL after Holm beyond
    Monte-Carlo error: FEW times as many as `null_draws` asks for the p-values alone.

    On one core the tables take 20 seconds for the 12 of toy_b (58 dimensions), 2 minutes for the 28
    of neox (127) and 50 minutes for the 56 of pythia (511), once.
    """
    wanted = 1.05 * FEW * BATTERY_STEPS * matrices / LEVEL
    return max(DEFAULT_DRAWS, math.ceil(round(wanted, 6)))


@dataclass(frozen=True)
class FreeDirections:
    """The battery on the free directions, [pairs, sites], at identified sites; at all of them where
    there is none, of which `unidentified` says so.

    p, error: family p-values before Holm, and their Monte-Carlo errors. without_one: the same
    without ONE. copies: Holm-adjusted p-values of exact copies of the anchor, elementwise the
    median of their cohorts. shuffled: p-values of fits on shuffled tokens. planted, planted_error:
    of the control. pointwise_ev: what the refitted R explains of the anchor on the score split, to
    which the control's noise goes down.
    Why nothing is judged, in words, beside p: unidentified, no_map.
    """

    p: PairSite
    error: PairSite
    without_one: PairSite
    copies: PairSite
    shuffled: PairSite
    planted: PairSite
    planted_error: PairSite
    pointwise_ev: PairSite

    @classmethod
    def of(cls, tables: Mapping[str, PairSite]) -> FreeDirections:
        """From its tables by name, as they are kept."""
        return cls(**{each.name: tables[each.name] for each in fields(cls)})

    @property
    def tables(self) -> dict[str, PairSite]:
        """By name, to be kept."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @cached_property
    def tested(self) -> PValues:
        """Of the refitted R."""
        return _p_values(self.p, self.error)

    @cached_property
    def control(self) -> PValues:
        """Of the planted block rotations."""
        return _p_values(self.planted, self.planted_error)

    @property
    def unidentified(self) -> str:
        """Why no site is judged; empty where some are."""
        return str(self.p.beside["unidentified"])

    @property
    def no_map(self) -> str:
        """Why the law of R says nothing; empty where it does."""
        return str(self.p.beside["no_map"])

    @property
    def counts(self) -> dict[str, float]:
        """Free dimensions, and sites that are not identified, for the record."""
        names = ("free_dimensions", "sites_not_identified")
        return {name: float(self.p.beside[name]) for name in names}


def _p_values(p: PairSite, error: PairSite) -> PValues:
    names = tuple(f"{pair} {site}" for pair in p.pairs for site in p.sites)
    return PValues(p.values.ravel(), error.values.ravel(), names, p.sites * len(p.pairs))


def measure_free(cohort: Cohort, fits: Fits, store: Store | None) -> FreeDirections:
    """Refit every R on the free directions and put it to the battery, with its copies, its shuffled
    fits and the control.

    fits: of the whole stream, for the sites at which R is determined: full rank there is what the
    registration calls identified. Null tables are of the free dimensions, and kept in `store`.
    """
    free = FreeCohort(cohort)
    judged, unidentified = at_identified(fits)
    refitted = fit_all(free).at(judged.sites)
    along = {site: free.named_directions(site) for site in judged.sites}
    draws = draws_to_decide(len(labels(judged)))

    def test(stack: FloatArray, sites: Sequence[str]) -> list[BatteryResult]:
        vectors = [along[site] for site in sites]
        return haar_batteries(stack, vectors=vectors, draws=draws, store=store)

    def of(each: Fits, which: Which = "matched") -> list[BatteryResult]:
        return test(rotation_stack(each, which), each.sites * len(each.pairs))

    ev = _pointwise(free, refitted)
    planted = test(_planted_stack(free, refitted, ev), judged.sites * len(judged.pairs))
    own, shuffled = of(refitted), of(refitted, "shuffled")
    copies = ceiling(refitted, lambda each: holm([r.p_value for r in of(each)]))
    beside: dict[str, Figure] = {
        "unidentified": unidentified,
        "no_map": without_map(refitted),
        "free_dimensions": float(free.width),
        **not_identified(fits),
    }

    def table(values: Sequence[float] | FloatArray) -> PairSite:
        shaped = np.reshape(np.asarray(values), (len(judged.pairs), len(judged.sites)))
        seeds = {"null": NULL_DRAWS_SEED, "null tables": NULL_SEED}
        return PairSite(shaped, judged.pairs, judged.sites, beside, seeds, {"draws": draws})

    return FreeDirections(
        p=table([r.p_value for r in own]),
        error=table([r.p_error for r in own]),
        without_one=table([r.p_along() for r in own]),
        copies=table(copies),
        shuffled=table([r.p_value for r in shuffled]),
        planted=table([r.p_value for r in planted]),
        planted_error=table([r.p_error for r in planted]),
        pointwise_ev=table(ev),
    )


def _pointwise(free: FreeCohort, refitted: Fits) -> FloatArray:
    """Explained variance of the anchor by every sibling through its R on the score split, [pairs,
    sites]."""
    found = np.zeros((len(refitted.pairs), len(refitted.sites)))
    for j, site in enumerate(refitted.sites):
        x = free.activations("score", site)
        for i, rotation in enumerate(refitted.matched[site]):
            found[i, j] = pointwise_ev(rotation, x[i + 1], x[0])
    return found


def _planted_stack(free: FreeCohort, refitted: Fits, ev: FloatArray) -> FloatArray:
    """R of every planted sibling, [pairs * sites, d, d], pair by pair as in `labels`."""
    found: dict[tuple[int, int], FloatArray] = {}
    for j, site in enumerate(refitted.sites):
        anchor = free.activations("fit", site)[0].double()
        for i, pair in enumerate(refitted.pairs):
            drawn = torch_generator(NULL_DRAWS_SEED, "planted block rotation", site, pair)
            sibling = planted_sibling(anchor, float(ev[i, j]), drawn)
            found[i, j] = fit_rotation(sibling, anchor).r.cpu().numpy()
    pairs, sites = range(len(refitted.pairs)), range(len(refitted.sites))
    return np.stack([found[i, j] for i in pairs for j in sites])


def planted_sibling(anchor: Tensor, ev: float, generator: torch.Generator) -> Tensor:
    """The anchor's activations [tokens, d], turned by two Haar blocks on a random half of the
    dimensions and on the other half, with isotropic noise, float64.

    The noise is so large that of the anchor the turn back explains the share `ev` of the variance:
    of that variance V it leaves (1 - ev) V unexplained, as much in every dimension.
    """
    d = anchor.shape[1]
    order = torch.randperm(d, generator=generator)
    turn = torch.zeros(d, d, dtype=torch.float64)
    for half in (order[: d // 2], order[d // 2 :]):
        turn[half[:, None], half] = haar_block(len(half), generator)
    wide = anchor.double()
    size = math.sqrt(max(0.0, 1 - ev) * float(wide.var(0, correction=0).mean()))
    noise = torch.randn(wide.shape, generator=generator, dtype=torch.float64)
    return wide @ turn.T.to(wide) + size * noise.to(wide)


# ------------------------------------------------------------------ what claims read off the tables


def battery_on_free_directions(found: FreeDirections) -> Measured:
    """Holm-adjusted family p-value of the battery for each R that was refitted.

    Its ceiling is that of exact copies of the anchor. Beside it how many fall, with and without
    ONE, and of the shuffled fits.
    """
    tested, missed = found.tested, rejected(found.p.values)
    adjusted = holm(found.without_one.values)
    measured = Measured(
        holm(tested.p),
        tested.labels,
        beside={
            "rejected": float(missed.sum()),
            "rejected_share": float(missed.mean()),
            "rejected_without_one": float((adjusted < LEVEL).sum()),
            "smallest_without_one": float(adjusted.min()),
            "shuffled_rejected_share": float(rejected(found.shuffled.values).mean()),
            "lowest_pointwise_ev": float(found.pointwise_ev.values.min()),
            **found.counts,
        },
        seeds=found.p.seeds,
        counts={"pairs": len(found.p.pairs), "sites": len(found.p.sites), **found.p.counts},
        intervals=tested.intervals(),
        unit="fraction",
    ).below(found.copies.values.ravel())
    return measured.unless(found.unidentified or found.no_map)


def planted_rejections(found: FreeDirections) -> Measured:
    """Share of pairs and sites at which a planted block rotation is rejected, Holm-adjusted.

    A range where Monte-Carlo error leaves it open which are.
    """
    control = found.control
    adjusted = holm(control.p)
    return Measured(
        np.array([float((adjusted < LEVEL).mean())]),
        ("",),
        beside={
            "largest_p": float(adjusted.max()),
            "lowest_pointwise_ev": float(found.pointwise_ev.values.min()),
            **found.counts,
        },
        seeds=found.p.seeds,
        counts={"pairs": len(found.p.pairs), "sites": len(found.p.sites), **found.p.counts},
        intervals=monte_carlo_range(*control.rejected_range()),
        unit="fraction",
    ).unless(found.unidentified)
