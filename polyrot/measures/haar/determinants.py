"""Does R lie in SO(d)? The sign of its determinant, and whether the data decide it."""

from __future__ import annotations

import numpy as np

from polyrot.cohorts.cohort import Cohort
from polyrot.haar.orthogonal import FloatArray, determinant_sign
from polyrot.measured import Interval, Measured
from polyrot.measures.fits import Fits
from polyrot.measures.haar.published import without_each_block
from polyrot.measures.haar.rotations import (
    at_identified,
    ceiling,
    labels,
    not_identified,
    rotation_stack,
    without_map,
)


def special_fraction(cohort: Cohort, fits: Fits) -> Measured:
    """Share of rotations with determinant +1, at identified sites; beside it the share at all.

    A sign that changes when R is refitted without one block of the fit split's sequences is
    undecided: directions that hardly vary can decide it. With such signs the share is a range, from
    none of them +1 to all. The ceiling is of copies that were turned within SO(d), as the paper
    says of R.
    """
    judged, unmet = at_identified(fits)
    signs = determinant_sign(rotation_stack(fits))
    positive = determinant_sign(rotation_stack(judged)) > 0
    unclear = _changing(cohort, judged)
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


def _changing(cohort: Cohort, fits: Fits) -> np.ndarray:
    """Of which rotations the sign changes without some block, bool in the order of `labels`."""
    changing = np.zeros((len(fits.pairs), len(fits.sites)), dtype=bool)
    for j, site in enumerate(fits.sites):
        for i, without in enumerate(without_each_block(cohort, fits, site)):
            whole = _sign(fits.matched[site][i].r.cpu().numpy()[None])
            changing[i, j] = any(_sign(r.cpu().numpy()[None]) != whole for r in without)
    return changing.ravel()


def _sign(r: FloatArray) -> int:
    return int(determinant_sign(r)[0])


def _special(fits: Fits) -> float:
    return float((determinant_sign(rotation_stack(fits)) > 0).mean())
