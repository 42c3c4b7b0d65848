"""How much of a direction lies in the subspace that shared weights pin, and how it transfers.

Section 6 of arXiv 2605.24577: an intervention transfers by its overlap with the preserved subspace.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import pair_labels
from polyrot.cohorts.interventions import CleanRun, InterventionCohort
from polyrot.maps.correlation import spearman
from polyrot.measured import Measured, jackknifed
from polyrot.measures.effects import N_SEQUENCES, ROUNDING, parts

RECIPE_VERSION = 1  # raise when a change of code changes what is measured


@dataclass(frozen=True)
class Overlaps:
    """Many directions: their overlap with the pinned subspace, and how they transfer.

    overlap: [directions], share of the squared norm inside the subspace. transfer: [directions,
    pairs], signed: the sibling's change of logits projected on the anchor's, 1 where equal.
    """

    names: tuple[str, ...]
    pairs: tuple[str, ...]
    overlap: np.ndarray
    transfer: np.ndarray
    dimensions: int

    @property
    def spearman(self) -> Measured:
        """Rank correlation of overlap with the mean transfer over pairs; out of reach where all
        directions transfer alike, to rounding."""
        mean = self.transfer.mean(1)
        alike = bool(np.ptp(mean) <= ROUNDING * np.abs(mean).max())
        value, interval = 0.0, None
        if not alike:
            value = spearman(self.overlap, mean)
            if len(self.pairs) > 1:
                rest = [
                    spearman(self.overlap, np.delete(self.transfer, k, axis=1).mean(1))
                    for k in range(len(self.pairs))
                ]
                interval = jackknifed(
                    value, np.array(rest), "pairs", "correlation", ROUNDING * abs(value)
                )
        return Measured(
            np.array([value]),
            ("",),
            None,
            {
                "overlap_min": float(self.overlap.min()),
                "overlap_max": float(self.overlap.max()),
                "transfer_min": float(mean.min()),
                "transfer_max": float(mean.max()),
                "pinned_dimensions": float(self.dimensions),
            },
            counts={"directions": len(self.names), "pairs": len(self.pairs)},
            intervals=(interval,),
            unit="correlation",
        ).unless("every direction transfers alike: there is nothing to rank" if alike else "")


def pinned_subspace(readers: Tensor, share: float = 0.99) -> Tensor:
    """Orthonormal [width, k]: the fewest directions that hold `share` of the readers' energy.

    readers: [width, n]. Read-outs of classes that never occur are drawn together by training and
    weigh little, so that the span of all of them would be nearly everything.
    Raises ValueError where the readers are all zero.
    """
    u, s, _ = torch.linalg.svd(readers.double(), full_matrices=False)
    energy = s.square().cumsum(0)
    if not energy[-1] > 0:
        raise ValueError("no direction is pinned: the read-out weights are all zero")
    k = int((energy < share * energy[-1]).sum()) + 1
    return u[:, : min(k, u.shape[1])]


def overlap(v: Tensor, basis: Tensor) -> float:
    """Share of the squared norm of v [width] in the span of orthonormal columns of `basis`."""
    wide = v.double()
    if not wide.norm() > 0:
        raise ValueError("a direction of norm 0 overlaps with nothing")
    return float((wide @ basis).square().sum() / wide.square().sum())


def overlaps(cohort: InterventionCohort, n_sequences: int = N_SEQUENCES) -> Overlaps:
    """Overlap with the shared read-out and naive signed transfer of all of the cohort's
    directions, at dose 1."""
    names = cohort.contrasts + cohort.further_contrasts
    basis = pinned_subspace(cohort.readers())
    vectors = torch.stack([cohort.direction(name)[0] for name in names])
    tokens = cohort.intervention_tokens(n_sequences)
    return Overlaps(
        names,
        pair_labels(cohort),
        np.array([overlap(v, basis) for v in vectors]),
        signed_transfer(cohort, tokens, vectors),
        basis.shape[1],
    )


@torch.no_grad()
def signed_transfer(cohort: InterventionCohort, tokens: Tensor, vectors: Tensor) -> np.ndarray:
    """[directions, pairs]: <change in sibling, change in anchor> / |change in anchor|^2.

    Changes are of all heads' logits at all kept positions when vectors [directions, width] are
    added at the steering site, each head's around their mean over classes. Raises ValueError where
    a direction changes nothing in the anchor.
    """
    n_models = len(cohort.seeds)
    dots = np.zeros((len(vectors), n_models))
    for part in parts(tokens):
        runs = [cohort.clean_run(m, part) for m in range(n_models)]
        none = torch.zeros_like(vectors[:1, None, None])
        clean = [_stacked(run, cohort.steering_site, none) for run in runs]
        for i, v in enumerate(vectors):
            change = [
                _stacked(run, cohort.steering_site, v[None, None, None]) - before
                for run, before in zip(runs, clean, strict=True)
            ]
            dots[i] += [float((x * change[0]).double().sum()) for x in change]
    if not (dots[:, 0] > 0).all():
        raise ValueError(f"direction {int((dots[:, 0] <= 0).argmax())} changes nothing")
    return dots[:, 1:] / dots[:, :1]


def _stacked(run: CleanRun, site: str, shift: Tensor) -> Tensor:
    logits = run.outputs(site, shift).values()
    return torch.cat([(x - x.mean(-1, keepdim=True))[0, run.kept] for x in logits], dim=-1)
