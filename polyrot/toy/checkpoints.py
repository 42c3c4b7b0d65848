"""One toy training run seen as a cohort: its checkpoints, earliest first, on the same sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from polyrot.cohorts.cohort import ScaleFacts
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
    """The snapshots of `run`, its first model's. made_by: fingerprint of the training. facts: of
    the scale.

    Raises ValueError if the run kept fewer than two.
    """
    steps = tuple(sorted(run.snapshots))
    if len(steps) < 2:
        raise ValueError(f"the run of seeds {run.seeds} kept {len(steps)} checkpoints, not two")
    params: Params = {
        name: torch.cat([run.snapshots[step][name] for step in steps]).to(device)
        for name in run.params
    }
    return Checkpoints(scale, steps, params, [made_by, f"steps {list(steps)}"], facts=facts)
