"""What the paper publishes of attribution, arithmetic on it, and a count of signs to which the
suite's own models are held as well (section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from polyrot.maps.correlation import fisher_interval, pearson_rows
from polyrot.measured import Interval, Measured


@dataclass(frozen=True)
class Signs:
    """Of so many models, in how many attribution patching correlates `negative`ly: at least
    `surely`, at most `perhaps`. r: the correlations, by name. fixed: where they are no sample."""

    models: int
    negative: int
    surely: int
    perhaps: int
    r: Mapping[str, float]
    fixed: str = ""

    def majority(self) -> Measured:
        """One-sided p-value of so many negative ones or more among as many tosses of a fair coin: a
        range where some model's correlation may have either sign."""
        p, most, least = (
            float(binom.sf(count - 1, self.models, 0.5))
            for count in (self.negative, self.surely, self.perhaps)
        )
        beside: dict[str, float | str] = {**self.r, "negative": float(self.negative)}
        interval = Interval(least, most, "sequences")
        if self.fixed:
            beside["demonstration"] = self.fixed
        return Measured(
            np.array([p]),
            ("",),
            beside=beside,
            counts={"models": self.models},
            intervals=(None if self.fixed else interval,),
        )


PUBLISHED_BLOCKS = (
    (6.04, 0.15, 5.87),
    (6.02, 0.03, 5.97),
    (5.10, 0.01, 5.01),
    (5.37, 0.12, 5.27),
    (5.56, 0.06, 5.31),
    (5.52, 0.37, 5.36),
)
"""Post, section 8: per block of Pythia-70m measured, attribution patching, integrated gradients."""


PUBLISHED_R = (0.05, 0.98)
PUBLISHED_SEEDS = (-0.218, -0.194, -0.632, 0.110, 0.585)
"""Post, section 8: Pearson r of attribution patching on the toy's five seeds."""


def published_signs() -> Signs:
    """In how many of the paper's toys attribution patching correlates negatively, as published."""
    negative = sum(r < 0 for r in PUBLISHED_SEEDS)
    r = {f"r_{i}": x for i, x in enumerate(PUBLISHED_SEEDS)}
    fixed = "arithmetic on the published signs: no model could change it"
    return Signs(len(PUBLISHED_SEEDS), negative, negative, negative, r, fixed)


def published_correlations() -> tuple[float, float]:
    """Pearson r of attribution patching and of integrated gradients with the measured effects,
    recomputed from the six published rows."""
    measured, patching, integrated = np.array(PUBLISHED_BLOCKS).T
    both = pearson_rows(np.stack([patching, integrated]), np.stack([measured, measured]))
    return float(both[0]), float(both[1])


def published_deviation() -> dict[str, float]:
    """|recomputed - published| correlation, of both predictions."""
    names = ("attribution patching", "integrated gradients")
    found = published_correlations()
    return {n: abs(a - b) for n, a, b in zip(names, found, PUBLISHED_R, strict=True)}


def published_interval_width() -> Measured:
    """Width of the 95 % Fisher interval of r(AP) over the published rows. A demonstration: it
    follows from r and from there being six."""
    low, high = fisher_interval(published_correlations()[0], len(PUBLISHED_BLOCKS))
    return Measured.of(high - low).also(
        demonstration="arithmetic on the published r and n = 6: no model could change it"
    )
