"""Every map between a cohort's models that the claims ask for, fitted on the fit split.

Orientation throughout: `a` is the sibling, `b` the anchor, `a @ r ~ b`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, pair_labels
from polyrot.maps.checks import check_enough_tokens
from polyrot.maps.moments import Moments, check_fit
from polyrot.maps.procrustes import (
    Affine,
    Rotation,
    Shift,
    affine_from_moments,
    fit_from_moments,
    pair_moments,
    principal_axes_from_moments,
)
from polyrot.runtime.seeding import derive, torch_generator

NULL_DRAWS_SEED = 20260524
"""Of everything that is drawn for a null or a control; the null tables of `polyrot.haar` have
another."""


@dataclass(frozen=True)
class Fits:
    """Maps from each sibling to the anchor, by site: one per pair, in the order of `pairs`.

    matched: Procrustes on matched tokens. halves: the same on the two halves of the fit split,
    apart by sequence order. shuffled: on token pairs shuffled anew for each fit. principal: axes
    matched by rank of variance, signs drawn. affine: unconstrained least squares. shift: the mean
    alone.
    """

    pairs: tuple[str, ...]
    sites: tuple[str, ...]
    matched: Mapping[str, tuple[Rotation, ...]]
    halves: Mapping[str, tuple[tuple[Rotation, ...], tuple[Rotation, ...]]]
    shuffled: Mapping[str, tuple[Rotation, ...]]
    principal: Mapping[str, tuple[Rotation, ...]]
    affine: Mapping[str, tuple[Affine, ...]]
    shift: Mapping[str, tuple[Shift, ...]]

    def at(self, sites: Sequence[str]) -> Fits:
        """The same at fewer sites."""
        return replace(self, sites=tuple(sites))


def _fitted(cohort: Cohort, moments: Sequence[Moments], where: str) -> tuple[Rotation, ...]:
    """One for each pair. Raises BadActivations naming `where`, the pair and the seed."""
    anchor, *others = cohort.seeds
    for label, other, each in zip(pair_labels(cohort), others, moments, strict=True):
        check_fit(each, f"{where}, pair {label}", (f"seed {other}", f"seed {anchor}"))
    return tuple(fit_from_moments(moments))


def fit_all(cohort: Cohort, seed: int = NULL_DRAWS_SEED) -> Fits:
    """Fit everything at every site. `seed` draws shuffles and signs.

    Raises BadActivations, naming scale, site, pair and seed, where a map cannot be fitted (see
    `polyrot.maps.checks`): there must be twice as many tokens as dimensions, for the halves.
    """

    def matched_on(siblings: Tensor, anchor: Tensor, where: str) -> tuple[Rotation, ...]:
        return _fitted(cohort, pair_moments(list(siblings), anchor, where=where), where)

    matched, halves, shuffled, principal, affine, shift = {}, {}, {}, {}, {}, {}
    for site in cohort.sites:
        x = cohort.activations("fit", site)
        anchor, siblings = x[0], x[1:]
        where = f"{cohort.scale}, {site}"
        half, first = x.shape[1] // 2, f"{where}, first half of the tokens"
        check_enough_tokens(half, x.shape[2], first, parts=2)
        moments = pair_moments(list(siblings), anchor, auto=True, where=where)
        matched[site] = _fitted(cohort, moments, where)
        halves[site] = (
            matched_on(siblings[:, :half], anchor[:half], first),
            matched_on(siblings[:, half:], anchor[half:], f"{where}, second half of the tokens"),
        )
        drawn = torch_generator(seed, "shuffled tokens", site)
        orders = [torch.randperm(x.shape[1], generator=drawn).to(x.device) for _ in siblings]
        shuffled[site] = matched_on(
            torch.stack([a[order] for a, order in zip(siblings, orders, strict=True)]),
            anchor,
            f"{where}, shuffled tokens",
        )
        signs = torch_generator(seed, "signs of axes", site, device=x.device)
        principal[site] = tuple(principal_axes_from_moments(m, signs) for m in moments)
        affine[site] = tuple(affine_from_moments(m) for m in moments)
        shift[site] = tuple(Shift(m.mean_a, m.mean_b) for m in moments)
    return Fits(
        pair_labels(cohort),
        tuple(cohort.sites),
        matched,
        halves,
        shuffled,
        principal,
        affine,
        shift,
    )


def seeds_used(cohort: Cohort, seed: int = NULL_DRAWS_SEED) -> dict[str, list[int] | int]:
    """The seeds behind a fit, for the record."""
    return {"models": list(cohort.seeds), "null draws": derive(seed)}
