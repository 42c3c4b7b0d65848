"""Tests of R that know Haar measure: the calibrated spectrum and the battery, at identified sites.

Every p-value that is compared over pairs and sites is Holm-adjusted over them, and has the error of
the finite number of draws that it was counted among.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from polyrot.cohorts.cohort import Cohort, NotOffered
from polyrot.haar.battery import BatteryResult, Direction, haar_batteries, holm
from polyrot.haar.frames import relative_rotations
from polyrot.haar.nulls import DEFAULT_DRAWS, Store
from polyrot.haar.orthogonal import FloatArray
from polyrot.haar.published import calibrated_ks, published_ks
from polyrot.measured import Interval, Measured, interval_about
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits
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
from polyrot.runtime.seeding import numpy_generator

RECIPE_VERSION = 1  # raise when a change of code changes what is measured

# N draws give a matrix beyond all of them a family p of 5 / (N + 1) in the battery and 2 / (N + 1)
# in the calibrated KS test. Holm over m matrices needs m * 5 / (N + 1) < 0.01, or N >= 500 m; the
# margin makes it 700 m, so that the default tables of 20,000 serve up to 28 matrices (toy_b has 20,
# neox 28) and 56 take tables of 39,200.
BATTERY_STEPS, MARGIN = 5, 1.4


def null_draws(matrices: int) -> int:
    """Draws of null tables with which each of so many matrices can fall below LEVEL after Holm.

    Whether it does so beyond Monte-Carlo error is another matter: a p-value with no draw beyond is
    known to a factor of 3.7, so that of 20,000 draws only 10 matrices can all be refuted by what
    is counted alone. Related claims of a cohort ask for the number of all its rotations, also where
    they test fewer, so that they share tables.
    """
    return max(DEFAULT_DRAWS, math.ceil(round(MARGIN * BATTERY_STEPS * matrices / LEVEL, 6)))


@dataclass(frozen=True)
class PValues:
    """One p-value a matrix, its Monte-Carlo error, a label, and the site it belongs to."""

    p: FloatArray
    errors: FloatArray
    labels: tuple[str, ...]
    sites: tuple[str, ...]
    results: tuple[BatteryResult, ...] = ()

    def at(self, sites: Sequence[str]) -> PValues:
        """Those of the given sites."""
        kept = [i for i, site in enumerate(self.sites) if site in sites]
        return PValues(
            self.p[kept],
            self.errors[kept],
            tuple(self.labels[i] for i in kept),
            tuple(self.sites[i] for i in kept),
            tuple(self.results[i] for i in kept if self.results),
        )

    def intervals(self) -> tuple[Interval | None, ...]:
        """Of the Holm-adjusted p-values: none where a p-value is exact.

        An adjusted p-value is a multiple of the one that decides it, and its error with it.
        """
        adjusted, order = holm(self.p), np.argsort(self.p, kind="stable")
        factors = np.arange(len(order), 0, -1.0)
        found: list[Interval | None] = [None] * len(order)
        deciding = 0
        for k, i in enumerate(order):
            if self.p[i] * factors[k] >= self.p[order[deciding]] * factors[deciding]:
                deciding = k
            error = float(self.errors[order[deciding]] * factors[deciding])
            if error:
                found[i] = interval_about(float(adjusted[i]), error, "Monte Carlo", "fraction")
        return tuple(found)

    def rejected_range(self) -> tuple[float, float]:
        """The share that is rejected at LEVEL, Holm-adjusted, with every one that Monte-Carlo error
        leaves undecided taken as not rejected, and with every such one taken as rejected."""
        ends = [
            (float(p), float(p)) if interval is None else (interval.low, interval.high)
            for p, interval in zip(holm(self.p), self.intervals(), strict=True)
        ]
        surely = float(np.mean([high < LEVEL for _, high in ends]))
        possibly = float(np.mean([low < LEVEL for low, _ in ends]))
        return surely, possibly


def monte_carlo_range(surely: float, possibly: float) -> tuple[Interval, ...]:
    """Of a share, or of a difference of shares, as `intervals`; none where both ends are one."""
    return (Interval(surely, possibly, "Monte Carlo"),) if surely < possibly else ()


def rejected(p_values: Sequence[float] | FloatArray) -> np.ndarray:
    """Which of several p-values reject, Holm-adjusted, at LEVEL: bool, of the same shape."""
    return holm(p_values) < LEVEL


def _judged(fits: Fits, draws: int, test: Callable[[Fits], PValues]) -> tuple[Measured, PValues]:
    """The Holm-adjusted p-values at identified sites with their ceilings, and what they are of.

    Beside them how many miss LEVEL, there and, as before the amendment, at all sites.
    """
    judged, unmet = at_identified(fits)
    everywhere = test(fits)
    tested = everywhere.at(judged.sites)
    missed = rejected(tested.p)
    found = Measured(
        holm(tested.p),
        tested.labels,
        beside={
            "rejected_share": float(missed.mean()),
            "rejected": float(missed.sum()),
            "rejected_at_all_sites": float(rejected(everywhere.p).sum()),
            "smallest_at_all_sites": float(holm(everywhere.p).min()),
            **not_identified(fits),
        },
        seeds={"null": NULL_DRAWS_SEED},
        counts={"draws": draws, "pairs": len(fits.pairs), "sites": len(judged.sites)},
        intervals=tested.intervals(),
        unit="fraction",
    )
    copies = ceiling(judged, lambda each: holm(test(each).p))
    return found.below(copies).unless(unmet or without_map(judged)), tested


def calibrated_spectrum(fits: Fits, store: Store | None) -> Measured:
    """Holm-adjusted p-value of each spectrum's distance to the exact Haar law, two-sided.

    Beside it the published test's smallest p-value on the same matrices.
    """
    draws = null_draws(len(labels(fits)))

    def test(each: Fits) -> PValues:
        found = calibrated_ks(rotation_stack(each), draws=draws, store=store)
        return PValues(found.p_values, found.p_errors, labels(each), each.sites * len(each.pairs))

    measured, tested = _judged(fits, draws, test)
    at = at_identified(fits)[0]
    published = published_ks(
        rotation_stack(at), numpy_generator(NULL_DRAWS_SEED, "published reference")
    )
    return measured.also(
        published_smallest_p=published.smallest_p,
        p_error_of_smallest=float(tested.errors[tested.p.argmin()]),
    )


def named_directions(cohort: Cohort, site: str) -> dict[str, Direction]:
    """Directions for ONE, v of v^T R v: all-ones, the anchor's mean activation and its dimension of
    largest variance, of the fit split.

    The anchor's alone, for they must be fixed before R: of a copy that a Haar rotation turned they
    say nothing. A sibling's own mean turns with its basis as R does, and R carries it to the
    anchor's wherever the two share a mean, whatever the law of R.
    """
    x = cohort.activations("fit", site)[0]
    variance, mean = torch.var_mean(x.double(), dim=0)
    loudest = torch.zeros_like(mean)
    loudest[variance.argmax()] = 1.0
    found = {"all-ones": torch.ones_like(mean), "mean": mean, "largest variance": loudest}
    return {name: v.cpu().numpy() for name, v in found.items()}


def _deciding(results: Sequence[BatteryResult]) -> dict[str, float]:
    """How many matrices fall without ONE, and with ONE along all-ones alone."""
    without = [r.p_along() for r in results]
    plain = [r.p_along("ONE[all-ones]") for r in results]
    return {
        "rejected_without_one": float(rejected(without).sum()),
        "smallest_without_one": float(holm(without).min()),
        "rejected_with_all_ones_alone": float(rejected(plain).sum()),
        "smallest_with_all_ones_alone": float(holm(plain).min()),
    }


def battery(cohort: Cohort, fits: Fits, store: Store | None) -> Measured:
    """Holm-adjusted family p-value of the battery for each rotation.

    ONE looks along the `named_directions`, as one statistic corrected for three. Beside the verdict
    stands what falls without ONE, with ONE along all-ones alone, and of the shuffled fits.
    """
    along = {site: named_directions(cohort, site) for site in fits.sites}
    draws = null_draws(len(labels(fits)))

    def test(each: Fits, which: Which = "matched") -> PValues:
        sites = each.sites * len(each.pairs)
        results = haar_batteries(
            rotation_stack(each, which),
            vectors=[along[site] for site in sites],
            draws=draws,
            store=store,
        )
        return _tested(results, labels(each), sites)

    measured, tested = _judged(fits, draws, test)
    shuffled = test(at_identified(fits)[0], "shuffled")
    without = [r.p_along() for r in shuffled.results]
    return measured.also(
        shuffled_rejected_share=float(rejected(shuffled.p).mean()),
        shuffled_rejected_without_one=float(rejected(without).sum()),
        **_deciding(tested.results),
    )


def relative(cohort: Cohort, fits: Fits, store: Store | None) -> Measured:
    """Holm-adjusted family p-values of R_b R_c^T along the chain of siblings, at every site.

    ONE as in `battery`. Raises NotOffered for a cohort with a single sibling.
    """
    if len(fits.pairs) < 2:
        raise NotOffered("a chain of siblings needs two, beside the anchor")
    along = {site: named_directions(cohort, site) for site in fits.sites}
    draws = null_draws(len(labels(fits)))

    def test(each: Fits) -> PValues:
        links = list(pairwise(each.pairs))
        results: list[BatteryResult] = []
        for site in each.sites:
            chain = relative_rotations([m.r for m in each.matched[site]])
            vectors = [along[site]] * len(chain)
            results += haar_batteries(chain, vectors=vectors, draws=draws, store=store)
        names = tuple(f"{b} {c} {site}" for site in each.sites for b, c in links)
        return _tested(results, names, tuple(site for site in each.sites for _ in links))

    measured, tested = _judged(fits, draws, test)
    return measured.also(**_deciding(tested.results))


def _tested(
    results: Sequence[BatteryResult], names: tuple[str, ...], sites: tuple[str, ...]
) -> PValues:
    p, errors = (np.array([getattr(r, key) for r in results]) for key in ("p_value", "p_error"))
    return PValues(p, errors, names, sites, tuple(results))
