"""Cohorts and fits with planted rotations, for what the claims of section 5 measure."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from polyrot.cohorts.cohort import CohortDefaults, Split
from polyrot.haar import ALTERNATIVES
from polyrot.haar.orthogonal import FloatArray, sample_haar
from polyrot.maps.agreement import Agreement
from polyrot.maps.procrustes import Rotation
from polyrot.measures.fits import COHORTS_OF_COPIES, Fits

D, SITES, SIBLINGS = 32, ("pre_0", "post_0"), 4
PAIRS = tuple(f"0-{i}" for i in range(1, 1 + SIBLINGS))


class PlantedCohort(CohortDefaults):
    """Activations [models, tokens, d] by site, one and the same on every split."""

    scale, fingerprint = "planted", "planted"

    def __init__(self, activations: dict[str, torch.Tensor]) -> None:
        self._activations = activations
        self.sites = tuple(activations)
        first = next(iter(activations.values()))
        self.seeds, self.width = tuple(range(len(first))), first.shape[-1]

    def activations(self, split: Split, site: str) -> torch.Tensor:
        return self._activations[site]


def unrelated(seed: int, d: int = D) -> PlantedCohort:
    """Models that share nothing: Gaussian activations, each model with a mean of its own."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for site in SITES:
        means = rng.standard_normal((1 + SIBLINGS, 1, d))
        drawn[site] = torch.from_numpy(means + rng.standard_normal((1 + SIBLINGS, 60, d)))
    return PlantedCohort(drawn)


def fits(
    rs: FloatArray,
    shuffled: FloatArray | None = None,
    low: tuple[str, ...] = (),
    noise: tuple[str, ...] = (),
) -> Fits:
    """Rotations [pairs, sites, d, d]; of less than full rank at the sites `low`, and fitted on
    tokens that are unrelated at the sites `noise`. Copies are Haar draws in SO(d)."""
    n, _, d, _ = rs.shape
    rank = {site: d - 1 if site in low else d for site in SITES}

    def by_site(stack: FloatArray) -> dict[str, tuple[Rotation, ...]]:
        zero, ones = torch.zeros(d), torch.ones(d)
        return {
            site: tuple(
                Rotation(torch.from_numpy(r), zero, zero, ones, rank[site]) for r in stack[:, j]
            )
            for j, site in enumerate(SITES)
        }

    def made(
        matched: dict[str, tuple[Rotation, ...]],
        mixed: dict[str, tuple[Rotation, ...]],
        copies: Any = tuple,
    ) -> Fits:
        agree = {site: Agreement(1.0 if site in noise else d, 3.0) for site in SITES}
        return Fits(
            PAIRS[:n],
            SITES,
            matched,
            {site: (found, found) for site, found in matched.items()},
            mixed,
            {},
            {},
            {},
            {},
            {site: (site not in low,) * n for site in SITES},
            {site: (agree[site],) * n for site in SITES},
            copies,
        )

    @cache
    def copies() -> tuple[Fits, ...]:
        rng = np.random.default_rng(1000)
        drawn = sample_haar(d, COHORTS_OF_COPIES * n * len(SITES), rng, "SO")
        drawn = drawn.reshape(COHORTS_OF_COPIES, n, len(SITES), d, d)
        return tuple(made(by_site(each), {}) for each in drawn)

    return made(by_site(rs), by_site(rs if shuffled is None else shuffled), copies)


def haar(seed: int, d: int = D) -> FloatArray:
    drawn = sample_haar(d, SIBLINGS * len(SITES), np.random.default_rng(seed))
    return drawn.reshape(SIBLINGS, len(SITES), d, d)


def alternative(name: str, seed: int, d: int = D) -> FloatArray:
    rng = np.random.default_rng(seed)
    return np.stack([[ALTERNATIVES[name](d, rng) for _ in SITES] for _ in range(SIBLINGS)])


def shared_subspace(seed: int) -> FloatArray:
    """One random subspace of d/4, the same for all, stays; its complement is turned by Haar."""
    rng = np.random.default_rng(seed)
    v = sample_haar(D, 1, rng)[0]
    inner = np.stack([np.eye(D)] * SIBLINGS * len(SITES))
    inner[:, D // 4 :, D // 4 :] = sample_haar(D - D // 4, len(inner), rng)
    return (v @ inner @ v.T).reshape(SIBLINGS, len(SITES), D, D)


def carrying(source: FloatArray, target: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A rotation with source^T R = target^T, else Haar."""

    def basis(first: FloatArray) -> FloatArray:
        q = np.linalg.qr(np.column_stack([first, rng.standard_normal((len(first), D - 1))]))[0]
        return q * np.sign(q[:, 0] @ first)

    inner = np.eye(D)
    inner[1:, 1:] = sample_haar(D - 1, 1, rng)[0]
    return basis(source) @ inner @ basis(target).T
