"""Predicted and measured effects of every component of every model, as the claims of section 8
ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polyrot.attribution import (
    STEPS,
    Attribution,
    Correlation,
    attribution_patching,
    integrated_gradients,
    loss_along_path,
    mean_ablation_effects,
    pearson,
)
from polyrot.interventions import InterventionCohort
from polyrot.measured import Measured
from polyrot.seeding import derive, numpy_generator

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


def tabulate(cohort: InterventionCohort, models: Sequence[int] | None = None) -> Table:
    """Attribute every component of `models` (numbers; default all) on the score split."""
    models = range(len(cohort.seeds)) if models is None else models
    many, few = cohort.intervention_tokens(N_SEQUENCES), cohort.intervention_tokens(N_PATH)
    measured, predicted, patching, integrated, gradients, orders = [], [], [], [], [], []
    for m in models:
        drawn = numpy_generator(BOOTSTRAP_SEED, cohort.seeds[m])
        means = cohort.mean_writes(m)
        effect = mean_ablation_effects(cohort, m, many, means=means)
        guess = attribution_patching(cohort, m, many, means=means)
        gradient = integrated_gradients(cohort, m, few, means=means)
        measured.append(effect.cpu().numpy())
        predicted.append(guess.cpu().numpy())
        patching.append(pearson(guess, effect, drawn))
        integrated.append(pearson(gradient.effects, gradient.measured, drawn))
        gradients.append(gradient)
        orders.append(loss_along_path(cohort, m, few, means=means).orders().cpu().numpy())
    return Table(
        tuple(cohort.seeds[m] for m in models),
        tuple(cohort.components),
        np.stack(measured),
        np.stack(predicted),
        tuple(patching),
        tuple(integrated),
        tuple(gradients),
        np.stack(orders),
    )
