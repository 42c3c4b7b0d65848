"""Every map between a cohort's models that the claims ask for, fitted on the fit split.

Orientation throughout: `a` is the sibling, `b` the anchor, `a @ r ~ b`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, pair_labels
from polyrot.maps.agreement import Agreement, agreement
from polyrot.maps.checks import check_enough_tokens
from polyrot.maps.moments import Moments, check_fit
from polyrot.maps.null_space import haar_block
from polyrot.maps.procrustes import (
    Affine,
    Rotation,
    Shift,
    affine_from_moments,
    fit_from_moments,
    pair_moments,
    principal_axes_from_moments,
    scaled_from_moments,
)
from polyrot.measured import PairSite
from polyrot.runtime.seeding import derive, torch_generator

NULL_DRAWS_SEED = 20260524
"""Of everything that is drawn for a null or a control; the null tables of `polyrot.haar` have
another."""
FULL_RANK_VERSION = 1  # of `full_rank` as it is kept; raise when a change of code changes it

COHORTS_OF_COPIES = 3
"""Exact copies are made in so many cohorts: of what is random in a statistic of them the median is
taken, and with a p-value that falls below 0.01 by chance in one cohort of a hundred it does in one
of three thousand."""


@dataclass(frozen=True)
class Fits:
    """Maps from each sibling to the anchor, by site: one per pair, in the order of `pairs`.

    matched: Procrustes on matched tokens. halves: the same on the two halves of the fit split,
    apart by sequence order. shuffled: on token pairs shuffled anew for each fit. Where activations
    have less than full rank, all of these are completed by a Haar block of their own.
    principal: axes matched by rank of variance, signs drawn. affine: unconstrained least squares.
    shift: the mean alone. scaled: matched, with the one scale that fits best. Of copies these maps
    and the shuffled ones are not fitted (no site).

    identified: by site, whether each pair's R is determined: both models' centred activations are
    of full rank, above rounding. agreement: of the two halves, in the models' principal axes.
    make_copies: see `copies`.
    """

    pairs: tuple[str, ...]
    sites: tuple[str, ...]
    matched: Mapping[str, tuple[Rotation, ...]]
    halves: Mapping[str, tuple[tuple[Rotation, ...], tuple[Rotation, ...]]]
    shuffled: Mapping[str, tuple[Rotation, ...]]
    principal: Mapping[str, tuple[Rotation, ...]]
    affine: Mapping[str, tuple[Affine, ...]]
    shift: Mapping[str, tuple[Shift, ...]]
    scaled: Mapping[str, tuple[Affine, ...]]
    identified: Mapping[str, tuple[bool, ...]]
    agreement: Mapping[str, tuple[Agreement, ...]]
    make_copies: Callable[[], tuple[Fits, ...]] = field(repr=False)

    def at(self, sites: Sequence[str]) -> Fits:
        """The same at fewer sites."""
        return replace(self, sites=tuple(sites))

    @property
    def identified_sites(self) -> tuple[str, ...]:
        """Those of `sites` at which R is determined for every pair."""
        return tuple(site for site in self.sites if all(self.identified[site]))

    @property
    def copies(self) -> tuple[Fits, ...]:
        """The fits of perfect siblings: COHORTS_OF_COPIES times as many as there are siblings.

        Each is the anchor's very activations, turned within SO(d), as the paper says of R, anew at
        every site: siblings' rotations differ from site to site, too. They are fitted as siblings
        are, from the moments of the turned tokens; made when first asked for.
        """
        return tuple(copies.at(self.sites) for copies in self.make_copies())


def _fitted(
    cohort: Cohort, moments: Sequence[Moments], where: str, null: Sequence[torch.Generator]
) -> tuple[Rotation, ...]:
    """One for each pair. Raises BadActivations naming `where`, the pair and the seed."""
    anchor, *others = cohort.seeds
    for label, other, each in zip(pair_labels(cohort), others, moments, strict=True):
        check_fit(each, f"{where}, pair {label}", (f"seed {other}", f"seed {anchor}"))
    return tuple(fit_from_moments(moments, generators=null))


def _null(seed: int, pairs: int, *fitted: str | int) -> list[torch.Generator]:
    """What draws the undetermined part of each pair's R; no two fits have the same seed."""
    return [torch_generator(seed, "null space", *fitted, pair) for pair in range(pairs)]


def fit_all(cohort: Cohort, seed: int = NULL_DRAWS_SEED) -> Fits:
    """Fit everything at every site. `seed` draws shuffles, signs, what activations do not
    determine, and the turns of copies.

    Raises BadActivations, naming scale, site, pair and seed, where a map cannot be fitted (see
    `polyrot.maps.checks`): there must be twice as many tokens as dimensions, for the halves.
    """
    n = len(cohort.seeds) - 1
    matched, halves, shuffled, principal, affine, shift, scaled = {}, {}, {}, {}, {}, {}, {}
    identified, agreements, anchors = {}, {}, {}
    for site in cohort.sites:
        x = cohort.activations("fit", site)
        anchor, siblings = x[0], x[1:]
        where = f"{cohort.scale}, {site}"
        half, first = x.shape[1] // 2, f"{where}, first half of the tokens"
        check_enough_tokens(half, x.shape[2], first, parts=2)
        moments = pair_moments(list(siblings), anchor, auto=True, where=where)
        matched[site] = _fitted(cohort, moments, where, _null(seed, n, "matched", site))
        # The anchor against itself comes last: its moments are those of every copy of it.
        of_halves = [
            (pair_moments([*rows, rows_of_anchor], rows_of_anchor, where=called), called)
            for rows, rows_of_anchor, called in (
                (siblings[:, :half], anchor[:half], first),
                (siblings[:, half:], anchor[half:], f"{where}, second half of the tokens"),
            )
        ]
        one, other = (
            _fitted(cohort, found[:-1], called, _null(seed, n, f"half {i}", site))
            for i, (found, called) in enumerate(of_halves, start=1)
        )
        halves[site] = one, other
        anchors[site] = (_of_anchor(moments[0]), *(found[-1] for found, _ in of_halves))
        known, others = _axes(moments[0].auto_b, moments[0]), [_axes(m.auto_a, m) for m in moments]
        identified[site] = tuple(_full(known) and _full(axes) for axes in others)
        agreements[site] = tuple(
            agreement(a.r, b.r, axes, known) for a, b, axes in zip(one, other, others, strict=True)
        )
        drawn = torch_generator(seed, "shuffled tokens", site)
        orders = [torch.randperm(x.shape[1], generator=drawn).to(x.device) for _ in siblings]
        mixed = torch.stack([a[order] for a, order in zip(siblings, orders, strict=True)])
        called = f"{where}, shuffled tokens"
        unrelated = pair_moments(list(mixed), anchor, where=called)
        shuffled[site] = _fitted(cohort, unrelated, called, _null(seed, n, "shuffled", site))
        signs = torch_generator(seed, "signs of axes", site, device=x.device)
        principal[site] = tuple(principal_axes_from_moments(m, signs) for m in moments)
        affine[site] = tuple(affine_from_moments(m) for m in moments)
        shift[site] = tuple(Shift(m.mean_a, m.mean_b) for m in moments)
        scaled[site] = tuple(map(scaled_from_moments, matched[site], moments))
    return Fits(
        pair_labels(cohort),
        tuple(cohort.sites),
        matched,
        halves,
        shuffled,
        principal,
        affine,
        shift,
        scaled,
        identified,
        agreements,
        cache(partial(_copies, pair_labels(cohort), anchors, seed)),
    )


def _axes(covariance: Tensor | None, moments: Moments) -> Tensor:
    """Principal axes [d, rank] of one model's activations: those whose variance is above rounding,
    which is `moments.rtol` of the largest."""
    assert covariance is not None
    values, axes = torch.linalg.eigh(covariance)
    return axes[:, values > moments.rtol * values[-1]]


def _full(axes: Tensor) -> bool:
    """Whether they span everything: R is determined where those of both models do."""
    return len(axes) == axes.shape[1]


def full_ranks(moments: Sequence[Moments]) -> list[bool]:
    """Of the anchor's activations and each sibling's, from their moments with covariances."""
    covariances = [moments[0].auto_b, *(each.auto_a for each in moments)]
    return [_full(_axes(each, moments[0])) for each in covariances]


def full_rank(cohort: Cohort) -> PairSite:
    """1 by model and site where its centred activations of the fit split are of full rank, above
    rounding, else 0: without fitting anything what `Fits.identified` says of every pair.

    Raises BadActivations as `fit_all` does for values that are not finite.
    """
    found = np.zeros((len(cohort.seeds), len(cohort.sites)))
    for j, site in enumerate(cohort.sites):
        x = cohort.activations("fit", site)
        where = f"{cohort.scale}, {site}"
        moments = pair_moments(list(x[1:]), x[0], auto=True, where=where)
        found[:, j] = full_ranks(moments)
    return PairSite(found, tuple(map(str, cohort.seeds)), tuple(cohort.sites))


def determined(full: PairSite, models: Sequence[int] | None = None) -> dict[str, bool]:
    """From the table of `full_rank`, by site, whether R between any two of these models (numbers;
    default: all) is determined."""
    rows = full.values if models is None else full.values[list(models)]
    return {site: bool(rows[:, j].all()) for j, site in enumerate(full.sites)}


def _of_anchor(moments: Moments) -> Moments:
    """Of the anchor against itself, from those of any sibling."""
    assert moments.auto_b is not None
    return replace(
        moments,
        mean_a=moments.mean_b,
        var_a=moments.var_b,
        cross=moments.auto_b,
        auto_a=moments.auto_b,
    )


def _turned(anchor: Moments, q: Tensor) -> Moments:
    """Of a copy of the anchor, a = b q^T so that a q = b, from the anchor's against itself."""
    cross = q @ anchor.cross
    variances = (cross * q).sum(1)  # the diagonal of q C q^T
    return replace(anchor, mean_a=q @ anchor.mean_b, var_a=variances, cross=cross, auto_a=None)


def _copies(
    pairs: tuple[str, ...], anchors: Mapping[str, Sequence[Moments]], seed: int
) -> tuple[Fits, ...]:
    """See `Fits.copies`. anchors: by site the anchor's moments against itself, on all tokens and on
    the two halves."""

    def of_cohort(number: int) -> Fits:
        matched, halves, identified, agreements = {}, {}, {}, {}
        for site, (whole, *parts) in anchors.items():
            drawn = torch_generator(seed, "turns of copies", number, site)
            turns = [haar_block(len(whole.cross), drawn, det=1).to(whole.cross) for _ in pairs]

            def fitted(
                moments: Moments, what: str, at: str = site, by: list[Tensor] = turns
            ) -> tuple[Rotation, ...]:
                null = _null(seed, len(pairs), "copies", number, what, at)
                return tuple(fit_from_moments([_turned(moments, q) for q in by], generators=null))

            matched[site] = fitted(whole, "matched")
            one, other = (fitted(part, f"half {i}") for i, part in enumerate(parts, start=1))
            halves[site] = one, other
            known = _axes(whole.auto_b, whole)
            identified[site] = (_full(known),) * len(pairs)
            agreements[site] = tuple(
                agreement(a.r, b.r, q @ known, known)
                for a, b, q in zip(one, other, turns, strict=True)
            )
        return Fits(
            pairs,
            tuple(anchors),
            matched,
            halves,
            {},
            {},
            {},
            {},
            {},
            identified,
            agreements,
            tuple,
        )

    return tuple(of_cohort(number) for number in range(COHORTS_OF_COPIES))


def seeds_used(cohort: Cohort, seed: int = NULL_DRAWS_SEED) -> dict[str, list[int] | int]:
    """The seeds behind a fit, for the record."""
    return {"models": list(cohort.seeds), "null draws": derive(seed)}
