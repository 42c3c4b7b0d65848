"""A run seen as a cohort: its checkpoints, earliest first; which of them is early."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EARLY = 0.02
"""Share of the training that an early checkpoint has seen."""


def nearest(steps: Sequence[int], share: float) -> int:
    """Index of the checkpoint nearest to `share` of the training, the last left out."""
    return int(np.abs(np.array(steps[:-1]) / steps[-1] - share).argmin())
