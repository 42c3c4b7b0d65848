"""A run seen as a cohort: its checkpoints, earliest first; which is early, which site middle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polyrot.cohorts.cohort import Cohort

EARLY = 0.02
"""Share of the training that an early checkpoint has seen."""


def middle(checkpoints: Cohort) -> str:
    """The middle site; of Pythia the output of block 3, one further, which is the paper's layer."""
    sites = checkpoints.sites
    return sites[len(sites) // 2 + (checkpoints.scale == "pythia")]


def nearest(steps: Sequence[int], share: float) -> int:
    """Index of the checkpoint nearest to `share` of the training, the last left out."""
    return int(np.abs(np.array(steps[:-1]) / steps[-1] - share).argmin())
