"""Predicted and measured effects of every component of every model, as the claims of section 8
ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.interventions import InterventionCohort
from polyrot.maps.correlation import Correlation, fisher_interval, pearson, pearson_rows
from polyrot.measured import Measured
from polyrot.measures.component_effects import (
    STEPS,
    Attribution,
    attribution_patching,
    integrated_gradients,
    loss_along_path,
    mean_ablation_effects,
)
from polyrot.runtime.progress import Progress, silent
from polyrot.runtime.seeding import derive, numpy_generator
from polyrot.store import Artifact, Runtime

RECIPE_VERSION = 1  # raise when a change of code changes what an attribution comes to
BOOTSTRAP_SEED = 20260607
N_SEQUENCES = 256
"""Sequences that mean ablation and attribution patching are taken on."""
N_PATH = 48
"""Sequences for integrated gradients and the path, which cost tens of runs a component."""


@dataclass(frozen=True)
class Table:
    """By model: what attribution patching and integrated gradients make of every component.

    patching, integrated: correlation with the measured effects, each on its own sequences.
    orders: [models, components], order of attribution patching's error (2: quadratic).
    """

    seeds: tuple[int, ...]
    components: tuple[str, ...]
    measured: np.ndarray
    predicted: np.ndarray
    patching: tuple[Correlation, ...]
    integrated: tuple[Correlation, ...]
    gradients: tuple[Attribution, ...]
    orders: np.ndarray

    def anticorrelating(self) -> Measured:
        """Fraction of models in which attribution patching correlates negatively."""
        r = np.array([c.r for c in self.patching])
        return self._measured([float((r < 0).mean())], [""], self.patching)

    def uncorrelated(self) -> Measured:
        """|Pearson r| of attribution patching, by model."""
        return self._measured([abs(c.r) for c in self.patching], self._labels(), self.patching)

    def agreement(self) -> Measured:
        """Pearson r of integrated gradients, by model."""
        errors = [
            float(g.completeness_error.max() / g.measured.abs().max()) for g in self.gradients
        ]
        made = self._measured([c.r for c in self.integrated], self._labels(), self.integrated)
        return made.also(largest_completeness_error=max(errors), steps=float(STEPS))

    def order_of_error(self) -> Measured:
        """Order of attribution patching's error, median over components, by model."""
        return self._measured(
            np.median(self.orders, axis=1).tolist(),
            self._labels(),
            (),
            lowest=float(self.orders.min()),
            highest=float(self.orders.max()),
        )

    def _labels(self) -> list[str]:
        return [f"seed {seed}" for seed in self.seeds]

    def _measured(
        self,
        values: Sequence[float],
        labels: Sequence[str],
        correlations: Sequence[Correlation],
        **beside: float | str,
    ) -> Measured:
        for seed, c in zip(self.seeds, correlations, strict=False):
            beside[f"r_{seed}"] = c.r
            beside[f"intervals_{seed}"] = (
                f"Fisher {c.fisher[0]:.4f} to {c.fisher[1]:.4f}, "
                f"bootstrap {c.bootstrap[0]:.4f} to {c.bootstrap[1]:.4f}"
            )
        return Measured(
            np.array(values),
            tuple(labels),
            None,
            beside,
            {"models": list(self.seeds), "bootstrap": derive(BOOTSTRAP_SEED)},
            {"components": len(self.components), "models": len(self.seeds)},
        )


def tabulate(
    cohort: InterventionCohort,
    models: Sequence[int] | None = None,
    runtime: Runtime | None = None,
) -> Table:
    """Attribute every component of `models` (numbers; default all) on the score split.

    With a runtime the effects are taken from its store; correlations are always worked out anew.
    """
    chosen = list(range(len(cohort.seeds)) if models is None else models)

    def build(_: object) -> Artifact:
        return Artifact(_effects(cohort, chosen, silent if runtime is None else runtime.progress))

    recipe = {
        "version": RECIPE_VERSION,
        "cohort": cohort.fingerprint,
        "models": chosen,
        "sequences": [N_SEQUENCES, N_PATH],
        "steps": STEPS,
    }
    if runtime is None:
        kept = build(None)
    else:
        state = "" if cohort.trained else "-untrained"
        kept = runtime.store.get_or_build(
            "attribution", recipe, build, name=f"{cohort.scale}{state}"
        )
    t = kept.tensors
    patching, integrated, gradients = [], [], []
    for i, m in enumerate(chosen):
        drawn = numpy_generator(BOOTSTRAP_SEED, cohort.seeds[m])
        gradient = Attribution(
            tuple(cohort.components),
            t["ig_effects"][i],
            t["ig_measured"][i],
            t["ig_error"][i],
            STEPS,
            t["ig_curve"][i],
        )
        patching.append(pearson(t["predicted"][i], t["measured"][i], drawn))
        integrated.append(pearson(gradient.effects, gradient.measured, drawn))
        gradients.append(gradient)
    return Table(
        tuple(cohort.seeds[m] for m in chosen),
        tuple(cohort.components),
        t["measured"].numpy(),
        t["predicted"].numpy(),
        tuple(patching),
        tuple(integrated),
        tuple(gradients),
        t["orders"].numpy(),
    )


def _effects(
    cohort: InterventionCohort, models: Sequence[int], progress: Progress
) -> dict[str, Tensor]:
    """Effects, predictions and orders by name, each [models, components] (the curve: and steps)."""
    many, few = cohort.intervention_tokens(N_SEQUENCES), cohort.intervention_tokens(N_PATH)
    found: dict[str, list[Tensor]] = {}
    for done, m in enumerate(models):
        progress("attribution", done, len(models))
        means = cohort.mean_writes(m)
        gradient = integrated_gradients(cohort, m, few, means=means)
        row = {
            "measured": mean_ablation_effects(cohort, m, many, means=means),
            "predicted": attribution_patching(cohort, m, many, means=means),
            "ig_effects": gradient.effects,
            "ig_measured": gradient.measured,
            "ig_error": gradient.completeness_error,
            "ig_curve": gradient.curve,
            "orders": loss_along_path(cohort, m, few, means=means).orders(),
        }
        for name, value in row.items():
            found.setdefault(name, []).append(value.detach().cpu())
    progress("attribution", len(models), len(models))
    return {name: torch.stack(values) for name, values in found.items()}


PUBLISHED_BLOCKS = (
    (6.04, 0.15, 5.87),
    (6.02, 0.03, 5.97),
    (5.10, 0.01, 5.01),
    (5.37, 0.12, 5.27),
    (5.56, 0.06, 5.31),
    (5.52, 0.37, 5.36),
)
"""Post, section 8: per block of Pythia-70m measured, attribution patching, integrated gradients."""


PUBLISHED_R = (0.05, 0.98)


def published_correlations() -> tuple[float, float]:
    """Pearson r of attribution patching and of integrated gradients with the measured effects,
    recomputed from the six published rows."""
    measured, patching, integrated = np.array(PUBLISHED_BLOCKS).T
    both = pearson_rows(np.stack([patching, integrated]), np.stack([measured, measured]))
    return float(both[0]), float(both[1])


def published_deviation() -> dict[str, float]:
    """|recomputed - published| correlation, of both predictions."""
    names = ("attribution patching", "integrated gradients")
    found = published_correlations()
    return {n: abs(a - b) for n, a, b in zip(names, found, PUBLISHED_R, strict=True)}


def published_interval_width() -> float:
    """Width of the 95 % Fisher interval of r(AP) over the published rows."""
    low, high = fisher_interval(published_correlations()[0], len(PUBLISHED_BLOCKS))
    return high - low
