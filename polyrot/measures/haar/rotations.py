"""The rotations of a cohort, and where their law says something of the models.

R is judged only where it is determined. Two things can be wanting:

- *Rank.* Where centred activations do not vary in every direction, part of R is not determined; it
  is drawn (`polyrot.measures.fits`). Claims that the registration restricts to identified sites are
  judged there alone, and are out of reach where there are none (`at_identified`).
- *A map.* Where the tokens of two models have nothing in common, R is the noise of the fit, which
  is Haar whatever the models are. Two disjoint halves of the tokens then give rotations that agree
  no better than fits on shuffled tokens do. At a site where the pairs' halves, taken together, do
  not agree better than that at level LEVEL (`polyrot.maps.agreement`), no statement of likeness to
  Haar is judged: it is out of reach (`without_map`).

The ceiling of a statement of likeness is its figure for exact copies of the anchor, turned at
random (`Fits.copies`), by the same code: the median of several cohorts of copies, since a p-value
of perfect siblings is low by chance once in so often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.special import ndtri

from polyrot.haar.orthogonal import FloatArray
from polyrot.maps.agreement import surplus
from polyrot.measured import NOT_IDENTIFIED
from polyrot.measures.fits import Fits

LEVEL = 0.01
"""At which a p-value, adjusted where there are several, counts as a rejection: that of the bars."""

Which = Literal["matched", "shuffled"]
BOTH: tuple[Which, Which] = ("matched", "shuffled")


def rotation_stack(fits: Fits, which: Which = "matched") -> FloatArray:
    """All rotations [pairs * sites, d, d], pair by pair, in the order of `labels`."""
    maps = getattr(fits, which)
    return np.stack(
        [maps[s][i].r.cpu().numpy() for i in range(len(fits.pairs)) for s in fits.sites]
    )


def labels(fits: Fits) -> tuple[str, ...]:
    """One label per rotation of `rotation_stack`."""
    return tuple(f"{pair} {site}" for pair in fits.pairs for site in fits.sites)


def at_identified(fits: Fits) -> tuple[Fits, str]:
    """The same at identified sites; without any, at all sites, and why that is not what was asked
    for."""
    sites = fits.identified_sites
    if sites:
        return fits.at(sites), ""
    return fits, "no site at which R is determined: activations have less than full rank at each"


def not_identified(fits: Fits) -> dict[str, float]:
    """How many sites are not identified, for the record."""
    return {NOT_IDENTIFIED: float(len(fits.sites) - len(fits.identified_sites))}


def without_map(fits: Fits) -> str:
    """Why the law of R says nothing, naming the sites at which two halves of the tokens agree no
    better than fits on shuffled tokens; empty where there is no such site."""
    none = [site for site in fits.sites if surplus(fits.agreement[site]) < -ndtri(LEVEL)]
    if not none:
        return ""
    return (
        "two halves of the tokens give rotations that agree no better than those of shuffled "
        f"tokens at {', '.join(none)}: R is the noise of the fit there"
    )


def ceiling(fits: Fits, statistic: Callable[[Fits], float | FloatArray]) -> FloatArray:
    """The statistic of exact copies at the same sites, elementwise the median over their cohorts.

    At least two of three cohorts of copies must miss a bar for the ceiling to miss it: with bars
    that Haar misses in one case of a hundred, three times in ten thousand.
    """
    return np.asarray(np.median([statistic(copies) for copies in fits.copies], axis=0))
