"""Checkpoints of toy trainings as cohorts, all on the same sequences: those of one run, earliest
first, and the seeds of a scale at equal steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polyrot.cohorts.cohort import NoCheckpoints, ScaleFacts
from polyrot.toy.cohort import SHARED_FACTS, ToyCohort
from polyrot.toy.trained import Trained
from polyrot.toy.transformer import Params

CHUNK = 128  # many checkpoints at once: fewer sequences at a time keep memory small


class Checkpoints(ToyCohort):
    """A cohort whose seeds are the steps of one run."""

    def _run(self, tokens: Tensor) -> dict[str, Tensor]:
        parts = [super(Checkpoints, self)._run(part) for part in tokens.split(CHUNK)]
        return {site: torch.cat([part[site] for part in parts], dim=1) for site in self.sites}


def checkpoints(
    scale: str, run: Trained, made_by: str, device: str = "cpu", facts: ScaleFacts = SHARED_FACTS
) -> Checkpoints:
    """The snapshots of `run`, its first model's, up to the model that is analysed, which is the
    last of them. made_by: fingerprint of the training. facts: of the scale.

    Raises NoCheckpoints if the run kept fewer than two, or came without them.
    """
    end = run.chosen[0]
    analysed = {name: p[:1] for name, p in run.params.items()}
    kept = {end: analysed} | {s: params for s, params in run.snapshots.items() if s <= end}
    steps = tuple(sorted(kept))
    if len(steps) < 2:
        raise NoCheckpoints(
            f"seed {run.seeds[0]} of {scale} kept 1 checkpoint, of step {end:,}, not two, or came "
            "without the others, which only a training leaves"
        )
    params: Params = {
        name: torch.cat([kept[step][name] for step in steps]).to(device) for name in run.params
    }
    return Checkpoints(scale, steps, params, [made_by, f"steps {list(steps)}"], facts=facts)


def common_steps(runs: Sequence[Trained]) -> tuple[int, ...]:
    """The steps at which each of these runs, of one seed each, kept its weights; none where a run
    is of several seeds, of which it keeps the first alone."""
    if not runs or any(len(run.seeds) > 1 for run in runs):
        return ()
    return tuple(sorted(set.intersection(*(set(run.snapshots) for run in runs))))


def siblings_at(
    scale: str,
    step: int,
    runs: Sequence[Trained],
    made_by: Sequence[str],
    device: str = "cpu",
    facts: ScaleFacts = SHARED_FACTS,
) -> ToyCohort:
    """The seeds of these runs after `step` steps, one of their `common_steps`, the anchor first.
    made_by: fingerprints of the trainings."""
    params: Params = {
        name: torch.cat([run.snapshots[step][name] for run in runs]).to(device)
        for name in runs[0].params
    }
    numbers = tuple(run.seeds[0] for run in runs)
    return ToyCohort(scale, numbers, params, [*made_by, f"step {step}"], facts=facts)
