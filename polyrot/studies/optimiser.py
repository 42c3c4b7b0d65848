"""Does the optimiser privilege a basis? Three arms of five toys each (see `optimiser_arms`).

The predictions are in `optimiser_predictions`, what is measured in `optimiser_frames`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, Split
from polyrot.maps.null_space import haar_block
from polyrot.measures.fits import NULL_DRAWS_SEED
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Runtime
from polyrot.studies import optimiser_arms as arms
from polyrot.studies.optimiser_frames import (
    Framed,
    axes,
    drift_of,
    explained,
    heavier,
    kurtosis_rows,
    nearest_to,
    over,
    rotation_rows,
    rotations,
    shared_axes,
)
from polyrot.studies.optimiser_page import page as page, pictures as pictures
from polyrot.studies.optimiser_predictions import as_data
from polyrot.studies.record import Row, record_of
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.evaluation import lowest
from polyrot.toy.optimiser import bases
from polyrot.toy.trained import Trained

SEPARABLE: tuple[str, ...] = ()
"""Arms that can be measured without the others: each is compared with `adam`, seed by seed."""
POWERS = (1.1, 1.25, 1.5)
"""Of planted heavy tails: see `heavier`."""
SHARED = (1, 3, 15, 58)
"""How many axes are planted as shared: see `shared_axes`."""


def train(runtime: Runtime, _: Sequence[str] = ()) -> None:
    """The rate trial of SGD, and every seed of every arm."""
    arms.train(runtime, list(arms.ARMS))


def measure(runtime: Runtime, _: Sequence[str] = ()) -> dict[str, Any]:
    """The record of the study: every row, and what was trained."""
    names = list(arms.ARMS)
    runs = arms.train(runtime, names)
    schedules = {arm: arms.schedule_of(runtime, arm) for arm in names}
    ends = {arm: arms.cohort_of(arm, runs[arm], schedules[arm], runtime.device) for arm in names}
    rows: list[Row] = accuracy_rows(runs)
    unmet: dict[str, str] = {}
    total = 2 * len(names) + 1
    for i, (arm, cohort) in enumerate(ends.items()):
        for j, (frame, turns) in enumerate(frames_of(cohort, arm).items()):
            runtime.progress("study, frames", 2 * i + j, total, f"{arm}, {frame}")
            rows += framed_rows(runtime, cohort, turns, arm, frame, unmet)
    runtime.progress("study, frames", total - 1, total, "planted")
    rows += planted_rows(runtime, ends["adam"])
    known = arms.shipped(runtime)
    if known is not None:
        for frame, turns in frames_of(known, arms.SHIPPED).items():
            rows += framed_rows(runtime, known, turns, arms.SHIPPED, frame, unmet)
    half = {arm: arms.half_way(arm, runs[arm], schedules[arm], runtime.device) for arm in names}
    rows += drift_rows(half, ends)
    runtime.progress("study, frames", total, total)
    return record_of(
        "optimiser",
        device=runtime.device,
        seconds=sum(run.seconds for each in runs.values() for run in each),
        predictions=as_data(),
        rows=rows,
        unmet=unmet,
        trial=arms.as_recorded(arms.rate_trial(runtime)),
        schedules={arm: schedule.recipe() for arm, schedule in schedules.items()},
        seeds=list(arms.SEEDS),
    )


def frames_of(cohort: Cohort, arm: str) -> dict[str, Tensor]:
    """By name: the axes; and the seeds' drawn bases, which are the optimiser's "own" in the arm
    rot and in the others a "random" frame that nothing chose, where both explanations see none."""
    drawn = bases(cohort.seeds, arms.ROT)
    assert drawn is not None
    return {
        "axes": axes(cohort),
        "own" if arm == "rot" else "random": nearest_to(cohort, drawn),
    }


def framed_rows(
    runtime: Runtime,
    cohort: Cohort,
    frames: Tensor,
    arm: str,
    frame: str,
    unmet: dict[str, str],
) -> list[Row]:
    """Kurtosis and rotations of one arm in one frame. Where R says nothing, why goes to `unmet`."""
    framed = Framed(cohort, frames)
    found = rotations(framed, runtime.store)
    if found.unmet:
        unmet[f"{arm}/{frame}"] = found.unmet
    return kurtosis_rows(framed, arm, frame) + rotation_rows(found, arm, frame)


def planted_rows(runtime: Runtime, cohort: ToyCohort) -> list[Row]:
    """What the same code makes of bases that are known: exact copies of the anchor, each in a
    random frame; heavy tails along a random frame; siblings that share coordinates with the anchor.
    """
    free = axes(cohort)
    turns = [
        haar_block(free.shape[2], torch_generator(NULL_DRAWS_SEED, "planted frames", seed))
        for seed in cohort.seeds
    ]
    random = free @ torch.stack(turns)
    framed = Framed(cohort, random)

    def anchor_again(x: Tensor, model: int, site: str, split: Split) -> Tensor:
        base = cohort.activations(split, site)[0].double()
        return (base @ free[0] @ turns[model]).to(x)

    copies = Framed(cohort, random, anchor_again, "exact copies")
    rows = kurtosis_rows(copies, "copies", "random")
    rows += rotation_rows(rotations(copies, runtime.store), "copies", "random")
    for power in POWERS:
        arm = f"tails to the power {power:g}"
        planted = Framed(cohort, random, heavier(power), arm)
        rows += kurtosis_rows(planted, arm, "random")
    judged = rotations(framed, runtime.store).fits
    explains = {**dict.fromkeys(cohort.sites, 0.5), **explained(framed, judged, judged.sites)}
    for shared in SHARED:
        arm = f"{shared} of {framed.width} axes shared"
        planted = Framed(cohort, free, shared_axes(framed, shared, explains), arm)
        rows += rotation_rows(rotations(planted, runtime.store), arm, "random")
    return rows


def drift_rows(half: Mapping[str, ToyCohort], ends: Mapping[str, ToyCohort]) -> list[Row]:
    """How far each arm's R from half-way to the end lies from the identity, in shares of a Haar
    draw's distance, and over that of `adam`, seed by seed."""
    found = {
        arm: drift_of(Framed(half[arm], axes(half[arm])), Framed(ends[arm], axes(ends[arm])))
        for arm in ends
    }
    determined = np.all([known.all(0) for _, known in found.values()], axis=0)
    if not determined.any():
        return []
    logs = {arm: np.log(share[:, determined]).mean(1) for arm, (share, _) in found.items()}
    rows = [
        over(values, "drift_share", arm, "axes", "seeds", log=True) for arm, values in logs.items()
    ]
    return rows + [
        over(values - logs["adam"], "drift", arm, "axes", "seeds", log=True)
        for arm, values in logs.items()
        if arm != "adam"
    ]


def accuracy_rows(runs: Mapping[str, Sequence[Trained]]) -> list[Row]:
    """Each arm's lowest accuracy over heads and distributions, and less that of `adam`; and the
    training loss at the last evaluations."""
    found = {arm: np.array([lowest(r.accuracies, 0) for r in each]) for arm, each in runs.items()}
    rows = [over(values, "lowest_accuracy", arm, "axes", "seeds") for arm, values in found.items()]
    rows += [
        over(values - found["adam"], "accuracy", arm, "axes", "seeds")
        for arm, values in found.items()
        if arm != "adam"
    ]
    losses = {
        arm: np.array([np.mean([row["loss"][0] for row in r.history[-2:]]) for r in each])
        for arm, each in runs.items()
    }
    return rows + [
        over(values, "training_loss", arm, "axes", "seeds") for arm, values in losses.items()
    ]
