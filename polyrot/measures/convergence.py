"""Attribution patching along one training run: is it the converged model that it fails on?

A run's checkpoints are a cohort whose "seeds" are its steps, earliest first. At each of them the
prediction is held against mean ablation, as `polyrot.measures.attribution` does for seeds.
(arXiv 2605.24577, section 8 and paper 3.3, where convergence is given as the cause.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from polyrot.cohorts.interventions import InterventionCohort
from polyrot.maps.correlation import pearson_rows, spearman
from polyrot.measured import Interval, Measured, jackknifed
from polyrot.measures.attribution import N_SEQUENCES
from polyrot.measures.component_effects import mean_ablation_by_block, patching_by_block
from polyrot.measures.drift import drawn_about
from polyrot.store import Artifact, Runtime

RECIPE_VERSION = 1  # raise when a change of code changes what is measured
FEWEST = 5
"""Checkpoints of which a rank correlation is taken."""


@dataclass(frozen=True)
class AlongRun:
    """What attribution patching makes of one run's checkpoints.

    predicted, measured: [steps, components], nats. without: [steps, blocks, 2, components], both
    without one block of sequences in turn. sequences: how many they are taken on.
    """

    steps: tuple[int, ...]
    components: tuple[str, ...]
    predicted: np.ndarray
    measured: np.ndarray
    without: np.ndarray
    sequences: int

    @property
    def r(self) -> np.ndarray:
        """[steps], Pearson's r of predicted with measured effects. Raises ValueError where all
        effects of a checkpoint are equal."""
        found = pearson_rows(self.predicted, self.measured)
        if np.isnan(found).any():
            step = self.steps[int(np.isnan(found).argmax())]
            raise ValueError(f"no correlation at step {step}: every component has one effect")
        return found

    @property
    def r_without(self) -> np.ndarray:
        """[steps, blocks], the same without one block of sequences."""
        return np.array([pearson_rows(x[:, 0], x[:, 1]) for x in self.without])

    def intervals(self) -> list[Interval]:
        """Of r at each step, over sequences."""
        return [
            jackknifed(float(r), row, "sequences", "correlation")
            for r, row in zip(self.r, self.r_without, strict=True)
        ]

    def convergence(self) -> Measured:
        """Spearman correlation of the step with r. Its interval is of sequences, which all
        checkpoints share: of the rank correlation of draws about r on Fisher's scale, which have
        the jackknife's covariance.

        Raises ValueError for fewer than five checkpoints, for one r at all of them; as `r`.
        """
        if len(self.steps) < FEWEST:
            raise ValueError(
                f"a trend along training needs {FEWEST} checkpoints, not {len(self.steps)}"
            )
        steps, r = np.array(self.steps), self.r
        if len(set(r.tolist())) == 1:
            raise ValueError(f"r is {r[0]:.4g} at every checkpoint: there is no trend to take")
        value = spearman(steps, r)
        drawn = drawn_about(_fisher(r), _fisher(self.r_without).T)
        ends = np.quantile([spearman(steps, z) for z in drawn], [0.025, 0.975]).tolist()
        interval = Interval(min(value, ends[0]), max(value, ends[1]), "sequences")
        beside = {f"r_{step}": float(x) for step, x in zip(self.steps, r, strict=True)}
        return Measured(
            np.array([value]),
            ("",),
            beside=beside,
            seeds={"steps": list(self.steps)},
            counts={
                "checkpoints": len(self.steps),
                "components": len(self.components),
                "sequences": self.sequences,
            },
            intervals=(interval,),
        )


def _fisher(r: np.ndarray) -> np.ndarray:
    edge = 1 - 1e-12
    return np.arctanh(r.clip(-edge, edge))


def along_run(checkpoints: InterventionCohort, runtime: Runtime | None = None) -> AlongRun:
    """Predict and measure the effects of every component at every checkpoint, on the score split;
    from the store of a runtime."""
    tokens = checkpoints.intervention_tokens(N_SEQUENCES)

    def build(_: object) -> Artifact:
        rows = []
        for model in range(len(checkpoints.seeds)):
            if runtime is not None:
                runtime.progress("attribution along training", model, len(checkpoints.seeds))
            means = checkpoints.mean_writes(model)
            patched = patching_by_block(checkpoints, model, tokens, means=means)
            ablated = mean_ablation_by_block(checkpoints, model, tokens, means=means)
            without = torch.stack([patched.without_each(), ablated.without_each()], 1)
            rows.append((patched.mean, ablated.mean, without))
        if runtime is not None:
            runtime.progress("attribution along training", len(rows), len(rows))
        names = ("predicted", "measured", "without")
        stacked = (torch.stack(x).detach().cpu() for x in zip(*rows, strict=True))
        return Artifact(dict(zip(names, stacked, strict=True)))

    recipe = {
        "version": RECIPE_VERSION,
        "cohort": checkpoints.fingerprint,
        "sequences": N_SEQUENCES,
    }
    if runtime is None:
        kept = build(None)
    else:
        kept = runtime.store.get_or_build(
            "attribution-along", recipe, build, name=checkpoints.scale
        )
    t = kept.tensors
    return AlongRun(
        tuple(checkpoints.seeds),
        tuple(checkpoints.components),
        t["predicted"].numpy(),
        t["measured"].numpy(),
        t["without"].numpy(),
        len(tokens),
    )
