"""Does R lie in SO(d)? The sign of its determinant, and whether the data decide it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.haar.orthogonal import determinant_sign
from polyrot.maps.moments import Moments
from polyrot.measured import Interval, Measured
from polyrot.measured.intervals import LEVEL
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits
from polyrot.measures.haar.published import moments_of_blocks
from polyrot.measures.haar.rotations import (
    at_identified,
    ceiling,
    labels,
    not_identified,
    rotation_stack,
    without_map,
)
from polyrot.runtime.seeding import numpy_generator

RECIPE_VERSION = 2  # raise when a change of code changes what is measured
DRAWS = 1000
"""Of the blocks, with replacement: a share of 0.025 is known to 0.005."""


def special_fraction(cohort: Cohort, fits: Fits) -> Measured:
    """Share of rotations with determinant +1, at identified sites; beside it the share at all.

    A sign that not nearly all bootstrap draws of blocks of the fit split's sequences share is
    undecided: directions that hardly vary can decide it. With such signs the share is a range, from
    none of them +1 to all. The ceiling is of copies that were turned within SO(d), as the paper
    says of R.
    """
    judged, unmet = at_identified(fits)
    signs = determinant_sign(rotation_stack(fits))
    positive = determinant_sign(rotation_stack(judged)) > 0
    unclear = _undecided(cohort, judged)
    surely = float((positive & ~unclear).mean())
    possibly = float((positive | unclear).mean())
    found = Measured(
        np.array([float(positive.mean())]),
        ("",),
        beside={
            "undecided": float(unclear.sum()),
            "at_all_sites": float((signs > 0).mean()),
            **not_identified(fits),
            **{
                f"det_{label}": float(sign) for label, sign in zip(labels(fits), signs, strict=True)
            },
        },
        counts={
            "pairs": len(fits.pairs),
            "sites": len(judged.sites),
            "sequences": int(cohort.sequences("fit").max()) + 1,
        },
        intervals=(Interval(surely, possibly, "sequences"),) if surely < possibly else (),
        unit="fraction",
    )
    return found.below(ceiling(judged, _special)).unless(unmet or without_map(judged))


def _undecided(cohort: Cohort, fits: Fits) -> np.ndarray:
    """Of which rotations more than (1 - LEVEL) / 2 of the draws have another sign, bool in the
    order of `labels`. R of full rank has the sign of the cross-covariance it was fitted on."""
    found = np.zeros((len(fits.pairs), len(fits.sites)), dtype=bool)
    generator = numpy_generator(NULL_DRAWS_SEED, "blocks of sequences, signs")
    for j, site in enumerate(fits.sites):
        blocks = moments_of_blocks(cohort, site)
        n = len(blocks)
        weights = torch.from_numpy(generator.multinomial(n, np.full(n, 1 / n), DRAWS))
        for i, of_pair in enumerate(zip(*blocks, strict=True)):
            whole = torch.linalg.det(fits.matched[site][i].r.cpu().double()).sign()
            signs = torch.linalg.slogdet(_weighted_cross(of_pair, weights)).sign
            found[i, j] = float((signs != whole).double().mean()) > (1 - LEVEL) / 2
    return found.ravel()


def _weighted_cross(blocks: Sequence[Moments], weights: Tensor) -> Tensor:
    """[draws, d, d]: cross-covariances of tokens of which each block is there so many times.

    weights: [draws, blocks], int.
    """
    n = weights.double() * torch.tensor([float(block.tokens) for block in blocks])
    share = n / n.sum(1, keepdim=True)
    a = torch.stack([block.mean_a.cpu() for block in blocks])
    b = torch.stack([block.mean_b.cpu() for block in blocks])
    cross = torch.stack([block.cross.cpu() for block in blocks]) + a[:, :, None] * b[:, None, :]
    mean_a, mean_b = share @ a, share @ b
    raw = (share @ cross.flatten(1)).unflatten(1, cross.shape[1:])
    return raw - mean_a[:, :, None] * mean_b[:, None, :]


def _special(fits: Fits) -> float:
    return float((determinant_sign(rotation_stack(fits)) > 0).mean())
