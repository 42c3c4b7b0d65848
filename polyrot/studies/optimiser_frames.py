"""Activations in a frame of each model's own, and what is measured of them there.

A frame is an orthonormal basis of the directions that the position features leave free, one a
model: that nearest to the coordinate axes, that nearest to the basis in which a model's optimiser
steps, or one that nothing chose. Kurtosis and the entries of R are those in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, CohortDefaults, Split
from polyrot.haar.battery import BatteryResult, haar_batteries, holm
from polyrot.haar.nulls import Store
from polyrot.haar.orthogonal import FloatArray
from polyrot.maps.null_space import free_basis, haar_block
from polyrot.maps.procrustes import fit_rotation, frobenius_distance, pointwise_ev
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits, fit_all
from polyrot.measures.haar.calibrated import PValues, named_directions
from polyrot.measures.haar.free import basis_of, draws_to_decide
from polyrot.measures.haar.privileged import first_of_sequences, kurtosis
from polyrot.measures.haar.rotations import (
    LEVEL,
    at_identified,
    labels,
    rotation_stack,
    without_map,
)
from polyrot.runtime.seeding import torch_generator
from polyrot.store import digest, fingerprint
from polyrot.studies.record import Row

ROTATIONS = 32
"""Random frames that kurtosis is compared with."""
ENTRIES = ("S4", "MX")
"""The battery's statistics of single entries of R, which a shared privileged basis raises."""


class Framed(CohortDefaults):
    """A cohort's activations in a frame of each model, [models, tokens, free directions].

    frames: [models, width, k], orthonormal columns. `change` is put to the activations of a model
    in its frame, with its number and the site (for what is planted); `planted` says in words what
    it does, and goes into the fingerprint. Raises ValueError for one of the two alone.
    """

    def __init__(
        self,
        cohort: Cohort,
        frames: Tensor,
        change: Callable[[Tensor, int, str, Split], Tensor] | None = None,
        planted: str = "",
    ) -> None:
        if (change is None) == bool(planted):
            raise ValueError("say in words what is planted where something is, and only there")
        self._cohort, self._frames, self._change = cohort, frames, change
        self.scale, self.seeds, self.facts = cohort.scale, cohort.seeds, cohort.facts
        self.sites, self.width, self.skip = tuple(cohort.sites), frames.shape[2], cohort.skip
        self.fingerprint = fingerprint(
            "framed",
            {"cohort": cohort.fingerprint, "frames": digest(frames), "planted": planted},
        )

    def activations(self, split: Split, site: str) -> Tensor:
        """See `Cohort`."""
        x = self._cohort.activations(split, site)
        framed = x @ self._frames.to(x)
        if self._change is None:
            return framed
        return torch.stack([self._change(a, m, site, split) for m, a in enumerate(framed)])

    def sequences(self, split: Split) -> Tensor:
        """See `Cohort`."""
        return self._cohort.sequences(split)


def axes(cohort: Cohort) -> Tensor:
    """[models, width, free]: the frame nearest to the coordinate axes, the same for every model."""
    return basis_of(cohort, cohort.sites[0]).expand(len(cohort.seeds), -1, -1)


def nearest_to(cohort: Cohort, turns: Tensor) -> Tensor:
    """[models, width, free]: of each model the frame nearest to the columns of its `turns`.

    turns: [models, width, width], orthogonal.
    """
    fixed = cohort.fixed_directions(cohort.sites[0])
    wide = turns.double()
    if fixed is None:
        return wide
    return torch.stack([q @ free_basis(fixed.double() @ q) for q in wide])


def over(values: FloatArray, what: str, arm: str, where: str, of: str, *, log: bool = False) -> Row:
    """The mean of `values` [n], one for each of what it is an interval `of`, with Student's t
    interval; log: of logarithms, so that the row is a geometric mean."""
    n, mean = len(values), float(np.mean(values))
    half = float(stdtrit(n - 1, 0.975)) * float(np.std(values, ddof=1)) / n**0.5
    value, low, high = (math.exp(x) if log else x for x in (mean, mean - half, mean + half))
    return Row(what, arm, value, low, high, of, n, where)


def kurtosis_rows(framed: Framed, arm: str, frame: str) -> list[Row]:
    """Mean and largest kurtosis over the frame's directions, over the same in ROTATIONS random
    frames: over internal sites, and at each. On the score split, position 0 left out."""
    first = first_of_sequences(framed)
    found = np.zeros((2, len(framed.seeds), len(framed.internal)))  # logarithms
    k = framed.width
    for j, site in enumerate(framed.internal):
        drawn = torch_generator(NULL_DRAWS_SEED, "random frames", site)
        turns = [haar_block(k, drawn) for _ in range(ROTATIONS)]
        directions = torch.cat([torch.eye(k, dtype=torch.float64), *turns], 1)
        for m, x in enumerate(framed.activations("score", site)):
            each = kurtosis(x, directions, first)[0].cpu().reshape(1 + ROTATIONS, k)
            for i, by_frame in enumerate((each.mean(1), each.amax(1))):
                found[i, m, j] = float(torch.log(by_frame[0] / by_frame[1:].mean()))
    rows = []
    for what, logs in zip(("mean_kurtosis", "largest_kurtosis"), found, strict=True):
        rows.append(over(logs.mean(1), what, arm, frame, "models", log=True))
        rows += [
            over(logs[:, j], what, arm, f"{frame}, {site}", "models", log=True)
            for j, site in enumerate(framed.internal)
        ]
    return rows


@dataclass(frozen=True)
class Rotations:
    """The rotations of a framed cohort at identified sites, and what the battery says of them.
    unmet: why they say nothing, or empty."""

    fits: Fits
    results: tuple[BatteryResult, ...]
    unmet: str


def rotations(framed: Framed, store: Store | None) -> Rotations:
    """Fit every sibling to the anchor and put R to the battery; its null tables are kept."""
    judged, unmet = at_identified(fit_all(framed))
    unmet = unmet or without_map(judged)
    along = {site: named_directions(framed, site) for site in judged.sites}
    results = haar_batteries(
        rotation_stack(judged),
        vectors=[along[site] for _ in judged.pairs for site in judged.sites],
        draws=draws_to_decide(len(judged.pairs) * len(framed.sites)),
        store=store,
    )
    return Rotations(judged, tuple(results), unmet)


def rotation_rows(found: Rotations, arm: str, frame: str) -> list[Row]:
    """How many rotations the battery rejects, Holm-adjusted, as a range where Monte-Carlo error
    leaves it open; and S4 and MX in standard deviations of their Haar law."""
    fits, results = found.fits, found.results
    p = PValues(
        np.array([r.p_value for r in results]),
        np.array([r.p_error for r in results]),
        labels(fits),
        fits.sites * len(fits.pairs),
    )
    rejected, possibly, surely = (int(n) for n in (_adjusted(p) < LEVEL).sum(0))
    rows = [Row("battery", arm, rejected, surely, possibly, "Monte Carlo", len(results), frame)]
    shape = len(fits.pairs), len(fits.sites)
    for name in ENTRIES:
        each = [result[name] for result in results]
        z = np.array([(s.value - s.null_mean) / s.null_sd for s in each]).reshape(shape)
        rows.append(over(z.mean(1), name, arm, frame, "pairs"))
        rows += [
            over(z[:, j], name, arm, f"{frame}, {site}", "pairs")
            for j, site in enumerate(fits.sites)
        ]
    return rows


def drift_of(half: Framed, end: Framed) -> tuple[FloatArray, FloatArray]:
    """||R - I||_F from half-way to the end over sqrt(2 k), which a Haar draw is expected to have,
    and whether R is determined: [models, sites] both."""
    shape = len(end.seeds), len(end.sites)
    share, determined = np.zeros(shape), np.zeros(shape, bool)
    for j, site in enumerate(end.sites):
        pairs = zip(half.activations("fit", site), end.activations("fit", site), strict=True)
        for m, (a, b) in enumerate(pairs):
            fit = fit_rotation(a, b)
            share[m, j] = frobenius_distance(fit.r) / (2 * end.width) ** 0.5
            determined[m, j] = fit.rank == end.width
    return share, determined


# ---------------------------------------------------------------- what is planted, to be found


def heavier(power: float) -> Callable[[Tensor, int, str, Split], Tensor]:
    """A planted privileged basis: every coordinate, in standard deviations about its mean, is
    raised to `power` with its sign kept, which makes its tails heavier and turns nothing."""

    def change(x: Tensor, _model: int, _site: str, _split: Split) -> Tensor:
        wide = x.double()
        z = (wide - wide.mean(0)) / wide.std(0).clamp_min(1e-12)
        return (z.sign() * z.abs() ** power * wide.std(0)).to(x)

    return change


def shared_axes(
    anchor: Framed, shared: int, ev: dict[str, float]
) -> Callable[[Tensor, int, str, Split], Tensor]:
    """Planted siblings that share a privileged basis with the anchor: its own activations,
    so many of their coordinates permuted and given signs, the others turned by a Haar draw, with
    isotropic noise that leaves of them what a sibling explains, `ev` by site."""

    def change(x: Tensor, model: int, site: str, split: Split) -> Tensor:
        base = anchor.activations(split, site)[0].double()
        if model == 0:
            return base.to(x)
        drawn = torch_generator(NULL_DRAWS_SEED, "planted axes", site, model)
        k, kept = base.shape[1], shared
        order, target = torch.randperm(k, generator=drawn), torch.randperm(k, generator=drawn)
        turn = torch.zeros(k, k, dtype=torch.float64)
        signs = torch.randint(0, 2, (kept,), generator=drawn, dtype=torch.float64) * 2 - 1
        turn[order[:kept], target[:kept]] = signs
        rest = haar_block(k - kept, drawn)
        turn[order[kept:, None], target[None, kept:]] = rest
        noisy = torch_generator(NULL_DRAWS_SEED, "noise on planted axes", site, model, split)
        size = math.sqrt(max(0.0, 1 - ev[site]) * float(base.var(0, correction=0).mean()))
        noise = torch.randn(base.shape, generator=noisy, dtype=torch.float64)
        return (base @ turn + size * noise).to(x)

    return change


def explained(framed: Framed, fits: Fits, sites: Sequence[str]) -> dict[str, float]:
    """Variance of the anchor that siblings explain through R on the score split, mean by site."""
    found = {}
    for site in sites:
        x = framed.activations("score", site)
        each = [pointwise_ev(r, x[i + 1], x[0]) for i, r in enumerate(fits.matched[site])]
        found[site] = float(np.mean(each))
    return found


def _adjusted(p: PValues) -> FloatArray:
    """[n, 3]: each Holm-adjusted p-value, and the ends of its interval."""
    values = holm(p.p)
    ends = [
        (v, v) if interval is None else (interval.low, interval.high)
        for v, interval in zip(values, p.intervals(), strict=True)
    ]
    return np.column_stack([values, np.array(ends).reshape(-1, 2)])
