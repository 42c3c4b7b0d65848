"""Predicted and measured effects of every component of every model, as the claims of section 8
ask for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.interventions import InterventionCohort
from polyrot.maps.correlation import Correlation, pearson, pearson_rows
from polyrot.measured import Interval, Measured, jackknifed
from polyrot.measures.component_effects import (
    STEPS,
    Attribution,
    Points,
    integrated_gradients,
    loss_along_path,
    mean_ablation_by_block,
    patching_by_block,
)
from polyrot.measures.published_attribution import Signs
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
    gradients, clean_end: by model, integrated gradients at midpoints, which are judged, and at the
    points of the paper's pipeline. orders: [models, components], order of attribution patching's
    error (2: quadratic).
    patching_without, integrated_without: [models, blocks], the correlations without one block of
    sequences; orders_without: [models, blocks, components]; effects_without: [models, blocks, 2,
    components], predicted (by attribution patching) and measured. Intervals come of them.
    sequences: how many `patching` and, of the others, `integrated` and `orders` are taken on.
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
    effects_without: np.ndarray
    clean_end: tuple[Attribution, ...]
    sequences: tuple[int, int] = (N_SEQUENCES, N_PATH)

    def anticorrelating(self) -> Measured:
        """Fraction of models in which attribution patching correlates negatively: a range where
        some model's correlation may have either sign."""
        signs = self.signs()
        found, least, most = (
            count / signs.models for count in (signs.negative, signs.surely, signs.perhaps)
        )
        between = Interval(least, most, "sequences")
        return self._measured([found], [""], self.patching, [between], self.sequences[0])

    def signs(self) -> Signs:
        """In how many models attribution patching correlates negatively."""
        r = [c.r for c in self.patching]
        ends = [_around(x, row) for x, row in zip(r, self.patching_without, strict=True)]
        return Signs(
            len(r),
            sum(x < 0 for x in r),
            sum(end.high < 0 for end in ends),
            sum(end.low < 0 for end in ends),
            {f"r_{seed}": x for seed, x in zip(self.seeds, r, strict=True)},
        )

    def falls_short(self) -> Measured:
        """|predicted| over |measured| of attribution patching, median over components, and of that
        the median over models, which share their sequences and lose each block of them together.
        """
        each = np.median(_share(self.predicted, self.measured), axis=-1)
        predicted, measured = np.moveaxis(self.effects_without, 2, 0)
        without = np.median(np.median(_share(predicted, measured), axis=-1), axis=0)
        value = float(np.median(each))
        ends = jackknifed(value, without, "sequences", "positive")
        beside = {f"median_{seed}": float(x) for seed, x in zip(self.seeds, each, strict=True)}
        n = self.sequences[0]
        return replace(
            self._measured([value], [""], self.patching, [ends], n, **beside), unit="positive"
        )

    def uncorrelated(self) -> Measured:
        """|Pearson r| of attribution patching, by model."""
        r = [abs(c.r) for c in self.patching]
        found = [_around(x, row) for x, row in zip(r, self.patching_without, strict=True)]
        ends = [Interval(max(e.low, 0.0), e.high, e.of) for e in found]
        return self._measured(r, self._labels(), self.patching, ends, self.sequences[0])

    def agreement(self) -> Measured:
        """Pearson r of integrated gradients at midpoints, by model; beside it that at the points of
        the paper's pipeline, and what either leaves out of an effect at most."""
        r = [c.r for c in self.integrated]
        ends = [_around(x, row) for x, row in zip(r, self.integrated_without, strict=True)]
        made = self._measured(r, self._labels(), self.integrated, ends, self.sequences[1])
        return made.also(
            largest_completeness_error=max(g.largest_error for g in self.gradients),
            steps=float(STEPS),
            **clean_end_beside(self.seeds, self.clean_end, [g.measured for g in self.clean_end]),
        )

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


def _share(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """How much of each effect is predicted, whatever the signs: infinite where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(predicted) / np.abs(measured)


def clean_end_beside(
    seeds: Sequence[int], gradients: Sequence[Attribution], measured: Sequence[Tensor]
) -> dict[str, float]:
    """Figures of integrated gradients at the pipeline's points: r with what was measured, each
    [components], by model, and what they leave out of an effect at most. None of none."""
    found = {}
    for seed, gradient, effects in zip(seeds, gradients, measured, strict=False):
        x, y = (np.asarray(v.detach().cpu().double())[None] for v in (gradient.effects, effects))
        found[f"r_clean_end_{seed}"] = float(pearson_rows(x, y)[0])
    if found:
        worst = max(gradient.largest_error for gradient in gradients)
        found["largest_completeness_error_clean_end"] = worst
    return found


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
    t = _kept(cohort, "attribution", recipe, build, runtime)
    patching, integrated, gradients, rest = [], [], _gradients(cohort, t), []
    for i, (m, gradient) in enumerate(zip(chosen, gradients, strict=True)):
        drawn = numpy_generator(BOOTSTRAP_SEED, cohort.seeds[m])
        rest.append(
            [
                pearson_rows(x[:, 0], x[:, 1])
                for x in (t["without"][i].numpy(), gradient.without.numpy())
            ]
        )
        patching.append(pearson(t["predicted"][i], t["measured"][i], drawn))
        integrated.append(pearson(gradient.effects, gradient.measured, drawn))
    return Table(
        tuple(cohort.seeds[m] for m in chosen),
        tuple(cohort.components),
        t["measured"].numpy(),
        t["predicted"].numpy(),
        tuple(patching),
        tuple(integrated),
        gradients,
        t["orders"].numpy(),
        np.array([p for p, _ in rest]),
        np.array([g for _, g in rest]),
        t["orders_without"].numpy(),
        t["without"].numpy(),
        at_clean_end(cohort, chosen, runtime),
        (len(cohort.intervention_tokens(N_SEQUENCES)), len(cohort.intervention_tokens(N_PATH))),
    )


def at_clean_end(
    cohort: InterventionCohort,
    models: Sequence[int] | None = None,
    runtime: Runtime | None = None,
) -> tuple[Attribution, ...]:
    """Integrated gradients of `models` (numbers; default all) at the points of the paper's
    pipeline, on the sequences of the others; from the store of a runtime."""
    chosen = list(range(len(cohort.seeds)) if models is None else models)
    points: Points = "clean end"

    def build(_: object) -> Artifact:
        tokens, found = cohort.intervention_tokens(N_PATH), []
        for done, m in enumerate(chosen):
            if runtime is not None:
                runtime.progress("gradients to the clean end", done, len(chosen))
            found.append(_tensors(integrated_gradients(cohort, m, tokens, points=points)))
        if runtime is not None:
            runtime.progress("gradients to the clean end", len(chosen), len(chosen))
        return Artifact({name: torch.stack([row[name] for row in found]) for name in found[0]})

    recipe = {
        "version": RECIPE_VERSION,
        "cohort": cohort.fingerprint,
        "models": chosen,
        "sequences": N_PATH,
        "steps": STEPS,
        "points": points,
    }
    return _gradients(cohort, _kept(cohort, "attribution-clean-end", recipe, build, runtime))


def _kept(
    cohort: InterventionCohort,
    kind: str,
    recipe: Mapping[str, object],
    build: Callable[[object], Artifact],
    runtime: Runtime | None,
) -> Mapping[str, Tensor]:
    """Tensors from the store of a runtime; without one, made now."""
    if runtime is None:
        return build(None).tensors
    name = f"{cohort.scale}{'' if cohort.trained else '-untrained'}"
    return runtime.store.get_or_build(kind, recipe, build, name=name).tensors


def _tensors(gradient: Attribution) -> dict[str, Tensor]:
    """What `_gradients` reads, of one model."""
    found = {
        "ig_effects": gradient.effects,
        "ig_measured": gradient.measured,
        "ig_error": gradient.completeness_error,
        "ig_curve": gradient.curve,
        "ig_without": gradient.without,
    }
    return {name: tensor.detach().cpu() for name, tensor in found.items()}


def _gradients(cohort: InterventionCohort, t: Mapping[str, Tensor]) -> tuple[Attribution, ...]:
    """By model, from tensors [models, ...]."""
    names = ("ig_effects", "ig_measured", "ig_error", "ig_curve", "ig_without")
    return tuple(
        Attribution(tuple(cohort.components), effects, measured, error, STEPS, curve, without)
        for effects, measured, error, curve, without in zip(*(t[n] for n in names), strict=True)
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
            **_tensors(gradient),
            "measured": ablated.mean,
            "predicted": patched.mean,
            "without": torch.stack([patched.without_each(), ablated.without_each()], 1),
            "orders": path.orders(),
            "orders_without": path_without.orders(),
        }
        for name, value in row.items():
            found.setdefault(name, []).append(value.detach().cpu())
    progress("attribution", len(models), len(models))
    return {name: torch.stack(values) for name, values in found.items()}
