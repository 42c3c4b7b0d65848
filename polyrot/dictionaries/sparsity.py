"""The sparsity that is chosen on the anchor alone, among the dictionaries of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.defaults import LEAST_EV as LEAST_EV
from polyrot.dictionaries.groups import Spec
from polyrot.dictionaries.sae import Dictionary, quality


def l0_range(cohort: Cohort) -> tuple[float, float]:
    """Least and largest L0 that the registration asks of the sparse dictionaries."""
    return 4.0, cohort.width / 4


@dataclass(frozen=True)
class Choice:
    """The sparsity chosen at one site on the anchor alone, and what it gives there.

    admissible: whether L0 and EV are what the registration asks for."""

    l1: float
    l0: float
    ev: float
    admissible: bool


def choose_l1(
    grid: Mapping[Spec, Dictionary],
    x: Tensor,
    site: str,
    *,
    l0: tuple[float, float],
    ev: float = LEAST_EV,
) -> Choice:
    """Among the grid's dictionaries at `site`, the best EV on x [tokens, d] with L0 in range.

    Where none has its L0 in range, the one nearest to the range.
    """
    found = []
    for spec, dictionary in grid.items():
        if spec.site == site:
            q = quality(dictionary, x)
            outside = max(l0[0] - q.l0, q.l0 - l0[1], 0.0)
            choice = Choice(spec.l1, q.l0, q.ev, outside == 0 and q.ev >= ev)
            found.append((outside, -q.ev, spec.l1, choice))
    return min(found)[-1]
