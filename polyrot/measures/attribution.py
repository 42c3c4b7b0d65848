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
from polyrot.measured import Interval, Measured, jackknifed
from polyrot.measures.component_effects import (
    STEPS,
    Attribution,
    integrated_gradients,
    loss_along_path,
    mean_ablation_by_block,
    patching_by_block,
)
from polyrot.runtime.progress import Progress, silent
from polyrot.runtime.seeding import derive, numpy_generator
from polyrot.store import Artifact, Runtime

RECIPE_VERSION = 2  # raise when a change of code changes what an attribution comes to
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
    patching_without, integrated_without: [models, blocks], the correlations without one block of
    sequences; orders_without: [models, blocks, components]. Intervals come of them. sequences: how
    many `patching` and, of the others, `integrated` and `orders` are taken on.
    """

    seeds: tuple[int, ...]
    components: tuple[str, ...]
    measured: np.ndarray
    predicted: np.ndarray
    patching: tuple[Correlation, ...]
    integrated: tuple[Correlation, ...]
    gradients: tuple[Attribution, ...]
    orders: np.ndarray
    patching_without: np.ndarray
    integrated_without: np.ndarray
    orders_without: np.ndarray
    sequences: tuple[int, int] = (N_SEQUENCES, N_PATH)

    def anticorrelating(self) -> Measured:
        """Fraction of models in which attribution patching correlates negatively: a range where
        some model's correlation may have either sign."""
        r = np.array([c.r for c in self.patching])
        ends = [_around(x, row) for x, row in zip(r, self.patching_without, strict=True)]
        surely = float(np.mean([end.high < 0 for end in ends]))
        perhaps = float(np.mean([end.low < 0 for end in ends]))
        between = Interval(surely, perhaps, "sequences")
        return self._measured(
            [float((r < 0).mean())], [""], self.patching, [between], self.sequences[0]
        )

    def uncorrelated(self) -> Measured:
        """|Pearson r| of attribution patching, by model."""
        r = [abs(c.r) for c in self.patching]
        found = [_around(x, row) for x, row in zip(r, self.patching_without, strict=True)]
        ends = [Interval(max(e.low, 0.0), e.high, e.of) for e in found]
        return self._measured(r, self._labels(), self.patching, ends, self.sequences[0])

    def agreement(self) -> Measured:
        """Pearson r of integrated gradients, by model."""
        errors = [
            float(g.completeness_error.max() / g.measured.abs().max()) for g in self.gradients
        ]
        r = [c.r for c in self.integrated]
        ends = [_around(x, row) for x, row in zip(r, self.integrated_without, strict=True)]
        made = self._measured(r, self._labels(), self.integrated, ends, self.sequences[1])
        return made.also(largest_completeness_error=max(errors), steps=float(STEPS))

    def agreement_by_completeness(self) -> Measured:
        """`agreement` where nothing was learnt: a demonstration, as integrated gradients with
        enough steps are the effect itself, in any network."""
        return self.agreement().also(
            demonstration="with enough steps integrated gradients are the effect, in any network"
        )

    def order_of_error(self) -> Measured:
        """Order of attribution patching's error, median over components, by model."""
        medians = np.median(self.orders, axis=1).tolist()
        rest = np.median(self.orders_without, axis=2)
        return self._measured(
            medians,
            self._labels(),
            (),
            [jackknifed(x, row, "sequences") for x, row in zip(medians, rest, strict=True)],
            self.sequences[1],
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
        intervals: Sequence[Interval],
        sequences: int,
        **beside: float | str,
    ) -> Measured:
        for seed, c in zip(self.seeds, correlations, strict=False):
            beside[f"r_{seed}"] = c.r
            beside[f"intervals_{seed}"] = (
                f"over components: Fisher {c.fisher[0]:.4f} to {c.fisher[1]:.4f}, "
                f"bootstrap {c.bootstrap[0]:.4f} to {c.bootstrap[1]:.4f}"
            )
        return Measured(
            np.array(values),
            tuple(labels),
            None,
            beside,
            {"models": list(self.seeds), "bootstrap": derive(BOOTSTRAP_SEED)},
            {
                "components": len(self.components),
                "models": len(self.seeds),
                "sequences": sequences,
            },
            tuple(intervals),
        )


def _around(r: float, without: np.ndarray) -> Interval:
    """The interval of a correlation whose components are given and whose sequences are a sample."""
    return jackknifed(r, without, "sequences", "correlation")


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
    patching, integrated, gradients, rest = [], [], [], []
    for i, m in enumerate(chosen):
        drawn = numpy_generator(BOOTSTRAP_SEED, cohort.seeds[m])
        gradient = Attribution(
            tuple(cohort.components),
            t["ig_effects"][i],
            t["ig_measured"][i],
            t["ig_error"][i],
            STEPS,
            t["ig_curve"][i],
            t["ig_without"][i],
        )
        rest.append(
            [
                pearson_rows(x[:, 0], x[:, 1])
                for x in (t["without"][i].numpy(), gradient.without.numpy())
            ]
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
        np.array([p for p, _ in rest]),
        np.array([g for _, g in rest]),
        t["orders_without"].numpy(),
        (len(cohort.intervention_tokens(N_SEQUENCES)), len(cohort.intervention_tokens(N_PATH))),
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
        ablated = mean_ablation_by_block(cohort, m, many, means=means)
        patched = patching_by_block(cohort, m, many, means=means)
        path, path_without = loss_along_path(cohort, m, few, means=means)
        row = {
            "measured": ablated.mean,
            "predicted": patched.mean,
            "without": torch.stack([patched.without_each(), ablated.without_each()], 1),
            "ig_effects": gradient.effects,
            "ig_measured": gradient.measured,
            "ig_error": gradient.completeness_error,
            "ig_curve": gradient.curve,
            "ig_without": gradient.without,
            "orders": path.orders(),
            "orders_without": path_without.orders(),
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


def published_interval_width() -> Measured:
    """Width of the 95 % Fisher interval of r(AP) over the published rows. A demonstration: it
    follows from r and from there being six."""
    low, high = fisher_interval(published_correlations()[0], len(PUBLISHED_BLOCKS))
    return Measured.of(high - low).also(
        demonstration="arithmetic on the published r and n = 6: no model could change it"
    )
