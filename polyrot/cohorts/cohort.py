"""What every scale offers: seeds, sites, activations of a split. Claims know nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Protocol

from torch import Tensor

from polyrot.measured import Measured

Split = Literal["dictionary", "fit", "score"]
SPLITS: tuple[Split, ...] = ("dictionary", "fit", "score")
"""Disjoint sets of sequences: dictionaries are trained on the first, maps between models fitted on
the second, and everything is scored on the third."""


class Cohort(Protocol):
    """Models of one architecture, the anchor first.

    sites: every distinct residual site, the embedding first. internal: those after the embedding.
    named_sites: those at which the paper reports decoder cosines. from_second_block: those from the
    second block's output onward.
    trained: False for models as they were before their first step.
    fingerprint: of everything that made the models and their activations.
    """

    scale: str
    trained: bool
    seeds: tuple[int, ...]
    sites: tuple[str, ...]
    internal: tuple[str, ...]
    named_sites: tuple[str, ...]
    from_second_block: tuple[str, ...]
    width: int
    fingerprint: str

    def agreement_with_anchor(self) -> Measured:
        """Top-1 agreement of every sibling with the anchor on held-out inputs, one value a pair."""
        ...

    def distinct_fraction(self) -> float:
        """Share of pairs whose weights differ by more than 1 % in norm."""
        ...

    def activations(self, split: Split, site: str) -> Tensor:
        """[models, tokens, width]: the same tokens for every model, padding left out."""
        ...

    def forget(self, split: Split) -> None:
        """Free the activations of a split; they are computed anew when asked for."""
        ...


def weights_differ(a: Mapping[str, Tensor], b: Mapping[str, Tensor], share: float = 0.01) -> bool:
    """Whether two models' weights differ by more than `share` of the first's norm."""
    gap = sum(float((a[name].double() - b[name].double()).square().sum()) for name in a)
    norm = sum(float(a[name].double().square().sum()) for name in a)
    return not math.isfinite(gap) or gap > share**2 * norm


def pair_labels(cohort: Cohort) -> tuple[str, ...]:
    """One label for each (anchor, other seed), such as "0-3"."""
    anchor, *others = cohort.seeds
    return tuple(f"{anchor}-{other}" for other in others)
