"""What a cohort offers to those who intervene on its models: components, edits, contrasts.

Steering, weight edits and attribution are all written against these protocols, so that a scale
takes part in them by its cohort alone. Every intervention is, in the end, a vector added to the
residual stream somewhere in a clean run, with everything after it recomputed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, Split

Outputs = Mapping[str, Tensor]
"""Logits by output head, [variants, batch, position, classes]."""


class OpenRun(Protocol):
    """One model on one batch, untouched, whose stream can be looked at and changed at every site.

    Positions at the end that are padding in every sequence may be left out. kept: bool [batch,
    position], False at padding and where nothing is to be predicted.
    """

    kept: Tensor

    def site(self, name: str) -> Tensor:
        """The stream at a site, [batch, position, width]. Raises KeyError: unknown site."""
        ...

    def outputs(self, site: str, shift: Tensor) -> Outputs:
        """Logits with `shift` added at `site`; shift broadcasts to [variants, batch, position,
        width] and has that many dimensions."""
        ...

    def answers(self) -> Mapping[str, Tensor]:
        """What each head is to put out, int64 [batch, position]; without meaning where not kept."""
        ...


class CleanRun(OpenRun, Protocol):
    """An open run whose components can be intervened on, too.

    What is left out of a run is left out of a `Target`. writes: [components, batch, position,
    width], what each component adds to the residual stream (for a component that is the stream
    itself: its value).
    """

    writes: Tensor

    def loss(self, components: Sequence[int], writes: Tensor) -> Tensor:
        """[variants]: mean loss over kept positions, nats, in each variant of the run.

        Variant i has component components[i] writing writes[i] ([variants, batch, position, width])
        and everything after it recomputed. Differentiable in `writes`.
        """
        ...

    def keys(self, mlp: str) -> Tensor:
        """What the output weight of `mlp` reads, [batch, position, d_mlp]."""
        ...


@dataclass(frozen=True)
class Target:
    """What an intervention aims at, on one batch.

    The contrast is logits[head] @ weights, averaged over `where`; weights [classes] sum to 0, so
    that it is a difference of logits. where: bool [batch, position]. labels: int64
    [batch, position], by which the head's accuracy is judged on `where`.
    """

    head: str
    weights: Tensor
    where: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if abs(float(self.weights.sum())) > 1e-5 or not bool(self.weights.any()):
            raise ValueError(
                f"the weights of a contrast sum to 0 and are not all 0: {self.weights}"
            )


class OpenCohort(Cohort, Protocol):
    """A cohort whose models can be run, and run on from any site with another stream."""

    def tokens(self, split: Split) -> Tensor:
        """The split's sequences, int64 [sequences, position]."""
        ...

    def clean_run(self, model: int, tokens: Tensor, dtype: torch.dtype = torch.float32) -> OpenRun:
        """Run model number `model` (0 is the anchor) on tokens [batch, position]."""
        ...


class InterventionCohort(OpenCohort, Protocol):
    """A cohort whose models can be steered, edited and attributed."""

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the parts that attribution ranks."""
        ...

    @property
    def mlps(self) -> Mapping[str, str]:
        """MLP name -> the residual site right after its write."""
        ...

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Names of the difference-of-means directions the paper steers by."""
        ...

    @property
    def further_contrasts(self) -> tuple[str, ...]:
        """Names of others, for claims that need many directions."""
        ...

    @property
    def published_contrasts(self) -> tuple[str, ...]:
        """Names of those on the populations of the paper's pipeline; none where it has no such."""
        ...

    @property
    def steering_site(self) -> str:
        """Where directions are taken and added."""
        ...

    def clean_run(self, model: int, tokens: Tensor, dtype: torch.dtype = torch.float32) -> CleanRun:
        """See `OpenCohort`."""
        ...

    def mean_writes(self, model: int) -> Tensor:
        """[components, width]: each component's mean write over the fit split, padding left out."""
        ...

    def intervention_tokens(self, n: int) -> Tensor:
        """The first `n` sequences that interventions are scored on, of the score split."""
        ...

    def direction(self, contrast: str, site: str | None = None) -> Tensor:
        """[models, width]: each model's own difference of means at `site` (default: the steering
        site), with the sign in which it is added, from matched populations that are not in the
        score split; those of `published_contrasts` from the score split itself, as in the paper.
        Raises KeyError for an unknown contrast or site."""
        ...

    def target(self, contrast: str, tokens: Tensor) -> Target:
        """What adding the direction is meant to raise, on tokens [batch, position]."""
        ...

    def readers(self) -> Tensor:
        """[width, k]: the directions that the anchor's output weights read from the last site."""
        ...
