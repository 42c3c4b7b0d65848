"""Bar B between seeds: the KL divergence from the anchor's outputs to a sibling's.

The anchor takes the place of the specification of `behaviour`: mean over heads and positions of
KL(anchor || sibling), on sequences drawn as in training with contents of length 2 to 48 alone. The
same of a decoy of each sibling, its neighbouring depth rows averaged, and of an exact copy of the
anchor, turned by an element of its symmetry group. (arXiv 2605.24577, sections 7 and 8.4.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polyrot.cohorts.cohort import pair_labels
from polyrot.measured import Interval, Measured
from polyrot.measures.bars import behaviour
from polyrot.measures.bars.behaviour import Behaviour, Content
from polyrot.runtime.progress import Progress, silent
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Checkpoint
from polyrot.toy import symmetry, task
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import Folded, joined

CONTENT: Content = (2, 48)
POSITIONS = 500_000
"""Ten draws of 1,920 sequences."""
PASSES = 1e-4
"""Below this a pair passes Bar B."""


@dataclass(frozen=True)
class Across:
    """Divergences from the anchor, in nats, all on the same positions: of an exact copy of it, of
    its siblings, and of the decoy of each sibling."""

    copy: Behaviour
    siblings: Behaviour
    decoys: Behaviour

    @classmethod
    def of(cls, found: Behaviour) -> Across:
        """Of the divergences of all these models, in this order."""
        pairs = (len(found.kl) - 1) // 2
        return cls(
            found.select([0]),
            found.select(slice(1, 1 + pairs)),
            found.select(slice(1 + pairs, None)),
        )

    @property
    def counts(self) -> dict[str, int]:
        """What they were measured on."""
        each = round(behaviour.SHARES["train"] * behaviour.INPUTS)
        return {
            "pairs": len(self.siblings.kl),
            "positions": int(self.siblings.positions.sum()),
            "sequences": len(self.siblings.draws) * each,
        }


def measure_across(
    siblings: Folded,
    anchor: Folded,
    positions: int,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Progress = silent,
) -> Behaviour:
    """The divergences that `Across` holds. siblings: [n, ...]; anchor: [1, ...].

    Raises ValueError: no positions asked for, or not exactly one anchor.
    """
    element = symmetry.random(1, torch_generator(behaviour.DATA_SEED, "a copy of the anchor"))
    copy = symmetry.act(element.to(anchor.position.device), anchor)
    return behaviour.measure_behaviour(
        joined([copy, siblings, behaviour.averaged_depth(siblings)]),
        positions,
        specification=anchor,
        content=CONTENT,
        distributions=("train",),
        checkpoint=checkpoint,
        progress=progress,
    )


def passing(found: Across, cohort: ToyCohort) -> Measured:
    """Fraction of pairs whose divergence lies below `PASSES`: a range where it is open whether some
    do. The copy's, which is 1, is the ceiling; every pair's divergence beside."""
    kl = found.siblings.mean.tolist()
    ends = [
        (value, value) if end is None else (end.low, end.high)
        for value, end in zip(kl, found.siblings.intervals, strict=True)
    ]
    surely, possibly = (float(np.mean([end[k] < PASSES for end in ends])) for k in (1, 0))
    error = found.siblings.standard_error / found.siblings.mean
    by_head = found.siblings.by_head.mean(0).tolist()
    return Measured(
        np.array([float(np.mean([value < PASSES for value in kl]))]),
        ("",),
        beside={
            **dict(zip(pair_labels(cohort), kl, strict=True)),
            **{f"mean_{head}_head": x for head, x in zip(task.HEADS, by_head, strict=True)},
            "largest_relative_error": float(error.max()),
            "copy_of_the_anchor": float(found.copy.mean),
        },
        seeds={"models": list(cohort.seeds), "data": behaviour.DATA_SEED},
        counts=found.counts,
        intervals=(Interval(surely, possibly, "sequences"),),
        unit="fraction",
    ).below(float(found.copy.mean < PASSES))


def decoys_divergence(found: Across, cohort: ToyCohort) -> Measured:
    """Divergence of the decoy of each sibling, with the interval of its draws of sequences; the
    mean of the siblings themselves beside."""
    return Measured(
        found.decoys.mean.numpy(),
        pair_labels(cohort),
        beside={"mean_of_siblings": float(found.siblings.mean.mean())},
        seeds={"models": list(cohort.seeds), "data": behaviour.DATA_SEED},
        counts=found.counts,
        intervals=found.decoys.intervals,
        unit="positive",
    )
