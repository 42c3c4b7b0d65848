"""A perfect sibling: an exact copy of a cohort's anchor whose residual stream is turned.

It computes the anchor's function to the last logit, in a basis of its own. What a measure of
likeness makes of it is the ceiling of that measure: no trained sibling can be more alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polyrot.cohorts.cohort import CohortDefaults, Split
from polyrot.cohorts.interventions import CleanRun, InterventionCohort, Outputs, Target
from polyrot.maps.checks import check_orthogonal
from polyrot.maps.null_space import haar_block
from polyrot.runtime.seeding import torch_generator
from polyrot.store import digest

TURN_SEED = 20260628
COPY = -1
"""Number of the copy among the seeds: no model has it."""


class TurnedRun:
    """A clean run whose stream is times an orthogonal q [width, width]; see `CleanRun`."""

    def __init__(self, run: CleanRun, q: Tensor) -> None:
        self._run, self._q = run, q
        self.kept = run.kept
        self.writes = run.writes @ q.to(run.writes)

    def loss(self, components: Sequence[int], writes: Tensor) -> Tensor:
        """See `CleanRun.loss`: the writes are turned back."""
        return self._run.loss(components, writes @ self._q.to(writes).T)

    def site(self, name: str) -> Tensor:
        """See `OpenRun.site`: the anchor's, turned."""
        x = self._run.site(name)
        return x @ self._q.to(x)

    def answers(self) -> Mapping[str, Tensor]:
        """See `OpenRun.answers`: the anchor's."""
        return self._run.answers()

    def outputs(self, site: str, shift: Tensor) -> Outputs:
        """See `CleanRun.outputs`: the shift is turned back."""
        return self._run.outputs(site, shift @ self._q.to(shift).T)

    def keys(self, mlp: str) -> Tensor:
        """See `CleanRun.keys`: the anchor's own neurons."""
        return self._run.keys(mlp)


class RotatedCopy(CohortDefaults):
    """The anchor of `cohort` and one exact copy of it, x @ q for the anchor's x at every site.

    q: [width, width], orthogonal; default a Haar draw. With the identity the copy is one in the
    anchor's own basis: the perfect sibling of what is carried over untouched. Where the cohort
    cannot be intervened on, neither can this. Raises ValueError for a q of another shape or that is
    not orthogonal.
    """

    def __init__(self, cohort: InterventionCohort, q: Tensor | None = None) -> None:
        d = cohort.width
        if q is None:
            q = haar_block(d, torch_generator(TURN_SEED, "rotated copy", d))
        if q.shape != (d, d):
            raise ValueError(f"a copy is turned by a matrix [{d}, {d}], not {list(q.shape)}")
        check_orthogonal(q, "the turn of a copy")
        self.cohort, self.q = cohort, q.double()
        self.scale, self.facts, self.trained = cohort.scale, cohort.facts, cohort.trained
        self.sites, self.width = tuple(cohort.sites), d
        self.internal, self.named_sites = cohort.internal, cohort.named_sites
        self.from_second_block, self.middle = cohort.from_second_block, cohort.middle
        self.seeds, self.skip = (cohort.seeds[0], COPY), cohort.skip
        self.fingerprint = f"{cohort.fingerprint} and its anchor turned by {digest(self.q)}"

    def activations(self, split: Split, site: str) -> Tensor:
        """See `Cohort`: the anchor's, and the same turned."""
        x = self.cohort.activations(split, site)[0]
        return torch.stack([x, x @ self.q.to(x)])

    def sequences(self, split: Split) -> Tensor:
        """See `Cohort`."""
        return self.cohort.sequences(split)

    # ----------------------------------------- see polyrot.cohorts.interventions.InterventionCohort

    @property
    def components(self) -> tuple[str, ...]:
        """See `InterventionCohort`."""
        return self.cohort.components

    @property
    def mlps(self) -> Mapping[str, str]:
        """See `InterventionCohort`."""
        return self.cohort.mlps

    @property
    def contrasts(self) -> tuple[str, ...]:
        """See `InterventionCohort`."""
        return self.cohort.contrasts

    @property
    def further_contrasts(self) -> tuple[str, ...]:
        """See `InterventionCohort`."""
        return self.cohort.further_contrasts

    @property
    def published_contrasts(self) -> tuple[str, ...]:
        """See `InterventionCohort`."""
        return self.cohort.published_contrasts

    @property
    def steering_site(self) -> str:
        """See `InterventionCohort`."""
        return self.cohort.steering_site

    def clean_run(self, model: int, tokens: Tensor, dtype: torch.dtype = torch.float32) -> CleanRun:
        """See `InterventionCohort`."""
        run = self.cohort.clean_run(0, tokens, dtype)
        return TurnedRun(run, self.q) if model else run

    def mean_writes(self, model: int) -> Tensor:
        """See `InterventionCohort`."""
        means = self.cohort.mean_writes(0)
        return means @ self.q.to(means) if model else means

    def tokens(self, split: Split) -> Tensor:
        """See `InterventionCohort`."""
        return self.cohort.tokens(split)

    def intervention_tokens(self, n: int) -> Tensor:
        """See `InterventionCohort`."""
        return self.cohort.intervention_tokens(n)

    def direction(self, contrast: str, site: str | None = None) -> Tensor:
        """See `InterventionCohort`."""
        v = self.cohort.direction(contrast, site)[0]
        return torch.stack([v, v @ self.q.to(v)])

    def target(self, contrast: str, tokens: Tensor) -> Target:
        """See `InterventionCohort`."""
        return self.cohort.target(contrast, tokens)

    def readers(self) -> Tensor:
        """See `InterventionCohort`."""
        return self.cohort.readers()
