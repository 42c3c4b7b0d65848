"""Steering as the paper scores it: by conditional accuracy, on the populations of its pipeline.

The pipeline takes each difference of means by plain masks on the very batch that it evaluates,
valid and invalid positions alike, and judges by the accuracy of one output head where its mask
says: of the depth head where depth is 4, of the validity head at invalid positions of depth 4, of
the token head at closing brackets. A drop is the accuracy unsteered minus that steered. The
directions are the anchor's, added to every model as they are (arXiv 2605.24577, section 8.6;
`polyrot.toy.directions.PUBLISHED`). What steering does to the logits it aims at, on matched
populations that are not scored, is in `polyrot.measures.steering`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import NotOffered, pair_labels
from polyrot.cohorts.copies import RotatedCopy
from polyrot.cohorts.interventions import InterventionCohort
from polyrot.measured import (
    Interval,
    Measured,
    Unit,
    jackknifed,
    of_text_or_pipeline,
    with_pipeline,
)
from polyrot.measures.effects import (
    BEYOND,
    DOSES,
    N_RANDOM,
    RANDOM_SEED,
    ROUNDING,
    DoseNeeded,
    dose_needed,
    mean_over_pairs,
    parts,
    random_directions,
    ratio_of_doses,
    steer,
)
from polyrot.store import Artifact

SEQUENCES = 1024
"""Of the evaluation batch, on which directions are taken, too."""
DEPTH, STICKY, CLOSER = (f"{n}_as_published" for n in ("depth", "sticky_invalid", "closer"))
DEPTH_DOSE, CLOSER_DOSE = 2.0, 0.5
UNSATURATED = 0.9
"""The largest drop in the anchor that still leaves room for a sibling to differ."""
RECIPE_VERSION = 1  # raise when a change of code changes what is measured


@dataclass(frozen=True)
class ByAccuracy:
    """Conditional accuracies of the anchor (model 0) and its siblings.

    clean: [contrasts, models], accuracy unsteered. drop: [contrasts, models, doses], how much of it
    a dose costs. kl: the same shape, KL(clean || steered), nats. random: [models, directions], drop
    of the depth head from random directions of the depth direction's norm at DEPTH_DOSE.
    targets: positions that a contrast's accuracy is taken over.
    """

    contrasts: tuple[str, ...]
    doses: tuple[float, ...]
    pairs: tuple[str, ...]
    seeds: tuple[int, ...]
    sequences: int
    targets: tuple[int, ...]
    clean: np.ndarray
    drop: np.ndarray
    kl: np.ndarray
    random: np.ndarray

    def to_artifact(self) -> Artifact:
        """Plain tensors and values, for the store."""
        tables = ("clean", "drop", "kl", "random")
        plain = ("contrasts", "doses", "pairs", "seeds", "sequences", "targets")
        return Artifact(
            {name: torch.from_numpy(getattr(self, name)) for name in tables},
            {name: getattr(self, name) for name in plain},
        )

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> ByAccuracy:
        """What `to_artifact` wrote."""
        tables: Any = {name: tensor.numpy() for name, tensor in artifact.tensors.items()}
        lists = ("contrasts", "doses", "pairs", "seeds", "targets")
        plain: Any = {name: tuple(artifact.meta[name]) for name in lists}
        return cls(**tables, **plain, sequences=artifact.meta["sequences"])

    def of(self, contrast: str, dose: float) -> tuple[float, np.ndarray]:
        """Drop at a dose, in the anchor and [pairs] in siblings."""
        found = self.drop[self.contrasts.index(contrast), :, self.doses.index(dose)]
        return float(found[0]), found[1:]

    def depth_ratio(self, alike: ByAccuracy) -> Measured:
        """Drop of depth accuracy at DEPTH_DOSE, mean over siblings, over that in the anchor.

        alike: the same of an exact copy of the anchor in its own basis: the ceiling. Out of reach
        where the direction costs the anchor nothing.
        """
        within, across = self.of(DEPTH, DEPTH_DOSE)
        known, copied = alike.of(DEPTH, DEPTH_DOSE)
        beside: dict[str, float | str] = {
            "within_drop": within,
            "cross_drop": float(across.mean()),
            "within_clean": float(self.clean[self.contrasts.index(DEPTH), 0]),
            **self._kl_ratio(DEPTH, DEPTH_DOSE),
        }
        # Where accuracy falls to nothing in every model, ratios are 1 whatever the models are.
        below = [d for d in self.doses if 0 < self.of(DEPTH, d)[0] <= UNSATURATED]
        for dose in below[-1:]:
            least, there = self.of(DEPTH, dose)
            mean = float(there.mean())
            beside |= {"unsaturated_dose": dose, "ratio_at_unsaturated_dose": mean / least}
            beside |= {"within_drop_there": least, "cross_drop_there": mean}
        if not below:
            beside["unsaturated_dose"] = f"none: at every dose the anchor drops by > {UNSATURATED}"
        if not (within > 0 and known > 0):
            found = self._measured(DEPTH, 0.0, None, "real", beside)
            return found.unless("the depth direction costs the anchor no accuracy")
        by_pair = across / within
        (interval,) = mean_over_pairs(by_pair[None])
        found = self._measured(DEPTH, float(by_pair.mean()), interval, "real", beside)
        return found.below(float((copied / known).mean()))

    def halving_dose_ratio(self) -> Measured:
        """Dose at which the siblings' mean curve of sticky-invalid accuracy falls to half of its
        unsteered value, over that dose in the anchor; where never, the largest dose, as a bound:
        its interval is open.

        Out of reach where no dose does it even in the anchor, or there is nothing to halve: the
        registration has no word for either.
        """
        i, n = self.contrasts.index(STICKY), len(self.seeds)
        beside: dict[str, float | str] = {
            "within_clean": float(self.clean[i, 0]),
            "cross_clean": float(self.clean[i, 1:].mean()),
        }
        within, across = self._halving_dose([0]), self._halving_dose(range(1, n))
        if within is None or across is None or within.censored:
            found = self._measured(STICKY, 1.0, None, "positive", beside)
            return found.unless(
                "no dose halves the anchor's own accuracy"
                if within is not None and within.censored
                else "an accuracy of 0 has no half"
            )
        each = [self._halving_dose([m]) for m in range(1, n)]
        rest = [
            self._halving_dose([m for m in range(1, n) if m != k])
            for k in range(1, n if n > 2 else 1)
        ]
        # Where an accuracy is 0 to begin with no dose halves it either.
        without = [DoseNeeded(self.doses[-1], True) if d is None else d for d in rest]
        value, interval = ratio_of_doses(across, without, within.dose)
        beside |= {
            "within_dose": within.dose,
            "cross_dose": across.dose,
            "pairs_that_never_reach_it": float(sum(d is None or d.censored for d in each)),
            "without_one_pair_never_reached": float(sum(d.censored for d in without)),
        }
        if across.censored:
            beside["bound"] = f"at least {value:g}: never reached"
        return self._measured(STICKY, value, interval, "positive", beside)

    def _halving_dose(self, models: Sequence[int]) -> DoseNeeded | None:
        """Of the mean curve of `models`; None where its unsteered value is 0."""
        i, chosen = self.contrasts.index(STICKY), list(models)
        half = float(self.clean[i, chosen].mean()) / 2
        curve = self.drop[i, chosen].mean(0).tolist()
        return dose_needed(self.doses, curve, half) if half > 0 else None

    def closer_costs_more(self) -> Measured:
        """Drop of token accuracy at closers at CLOSER_DOSE in siblings minus that in the anchor."""
        within, across = self.of(CLOSER, CLOSER_DOSE)
        gap = across - within
        (interval,) = mean_over_pairs(gap[None])
        beside = {
            "within_drop": within,
            "cross_drop": float(across.mean()),
            **self._kl_ratio(CLOSER, 1.0),
        }
        return self._measured(CLOSER, float(gap.mean()), interval, "real", beside)

    def random_over_depth(self, alike: ByAccuracy) -> Measured:
        """Drop of depth accuracy in siblings at DEPTH_DOSE from random directions of equal norm,
        mean, over that from the depth direction.

        alike: see `depth_ratio`. Out of reach where the depth direction costs siblings nothing.
        """
        i, j = self.contrasts.index(DEPTH), self.doses.index(DEPTH_DOSE)

        def ratio(found: ByAccuracy, models: np.ndarray) -> float:
            return float(found.random[models].mean() / found.drop[i, models, j].mean())

        every = np.arange(1, len(self.seeds))
        beside: dict[str, float | str] = {
            "random_drop": float(self.random[1:].mean()),
            "direction_drop": float(self.drop[i, 1:, j].mean()),
            "random_drop_within": float(self.random[0].mean()),
            "largest_random_drop": float(self.random[1:].max()),
        }
        drops = self.drop[i, 1:, j]
        rest = [np.delete(every, k) for k in range(len(every) if len(every) > 1 else 0)]
        if not all(self.drop[i, models, j].mean() > 0 for models in (every, *rest)):
            found = self._measured(DEPTH, 0.0, None, "real", beside)
            return found.unless("the depth direction costs siblings no accuracy")
        value, interval = ratio(self, every), None
        if len(drops) > 1:
            without = np.array([ratio(self, models) for models in rest])
            interval = jackknifed(value, without, "pairs", "real", ROUNDING * abs(value))
        found = self._measured(DEPTH, value, interval, "real", beside)
        return found.below(ratio(alike, np.array([1])))

    def _kl_ratio(self, contrast: str, dose: float) -> dict[str, float]:
        """KL in siblings over KL in the anchor, mean over pairs."""
        kl = self.kl[self.contrasts.index(contrast), :, self.doses.index(dose)]
        return {f"kl_ratio_at_{dose:g}": float(kl[1:].mean() / kl[0])} if kl[0] > 0 else {}

    def _measured(
        self,
        contrast: str,
        value: float,
        interval: Interval | None,
        unit: Unit,
        beside: Mapping[str, float | str],
    ) -> Measured:
        targets = float(self.targets[self.contrasts.index(contrast)])
        return Measured(
            np.array([value]),
            ("",),
            None,
            {**beside, "targets": targets},
            {"models": list(self.seeds), "random directions": RANDOM_SEED},
            {"pairs": len(self.pairs), "sequences": self.sequences},
            (interval,),
            unit,
        )


@dataclass(frozen=True)
class PublishedSteering:
    """Of the cohort, and of an exact copy of its anchor in the anchor's own basis.

    pipeline: the same of the seeds as the paper's pipeline trains them, where they are there: what
    is registered "as published" may be judged on them, of the rest their value is recorded beside,
    as the registration judges it on the seeds of the text. departures: how they were trained
    otherwise than the pipeline's. unread: seeds that are admitted "as published" and not there.
    """

    siblings: ByAccuracy
    alike: ByAccuracy
    pipeline: PublishedSteering | None = None
    departures: tuple[str, ...] = ()
    unread: str = ""

    def depth_ratio(self) -> Measured:
        """See `ByAccuracy.depth_ratio`; of text and pipeline the favourable one."""
        return self._favourable(lambda found: found.siblings.depth_ratio(found.alike))

    def random_over_depth(self) -> Measured:
        """See `ByAccuracy.random_over_depth`."""
        return self._judged(lambda found: found.siblings.random_over_depth(found.alike))

    def halving_dose_ratio(self) -> Measured:
        """See `ByAccuracy.halving_dose_ratio`; of text and pipeline the favourable one."""
        return self._favourable(lambda found: found.siblings.halving_dose_ratio())

    def closer_costs_more(self) -> Measured:
        """See `ByAccuracy.closer_costs_more`."""
        return self._judged(lambda found: found.siblings.closer_costs_more())

    def _favourable(self, measure: Callable[[PublishedSteering], Measured]) -> Measured:
        return of_text_or_pipeline(measure, self, self.pipeline).without(self.unread)

    def _judged(self, measure: Callable[[PublishedSteering], Measured]) -> Measured:
        return with_pipeline(measure, self, self.pipeline)

    def to_artifact(self) -> Artifact:
        """Plain tensors and values, for the store."""
        made = {"siblings": self.siblings.to_artifact(), "alike": self.alike.to_artifact()}
        return Artifact(
            {f"{part}.{name}": t for part, a in made.items() for name, t in a.tensors.items()},
            {part: a.meta for part, a in made.items()},
        )

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> PublishedSteering:
        """What `to_artifact` wrote."""

        def part(name: str) -> ByAccuracy:
            tensors = {
                key.removeprefix(f"{name}."): tensor
                for key, tensor in artifact.tensors.items()
                if key.startswith(f"{name}.")
            }
            return ByAccuracy.from_artifact(Artifact(tensors, artifact.meta[name]))

        return cls(part("siblings"), part("alike"))


@torch.no_grad()
def clean_accuracy(
    cohort: InterventionCohort, model: int, tokens: Tensor, contrast: str
) -> tuple[float, int]:
    """Unsteered accuracy of the contrast's head on its target, and the number of positions.

    Raises ValueError where there are none.
    """
    hits = n = 0
    none = torch.zeros(1, 1, 1, cohort.width)
    for part in parts(tokens):
        run, target = cohort.clean_run(model, part), cohort.target(contrast, part)
        where = target.where & run.kept
        logits = run.outputs(cohort.steering_site, none.to(part.device))[target.head]
        hits += int((logits[0, where].argmax(-1) == target.labels[where]).sum())
        n += int(where.sum())
    if not n:
        raise ValueError(f"no position of the batch is a target of {contrast}")
    return hits / n, n


def measure_by_accuracy(
    cohort: InterventionCohort,
    *,
    n_sequences: int = SEQUENCES,
    n_random: int = N_RANDOM,
    doses: Sequence[float] = DOSES + BEYOND,
) -> ByAccuracy:
    """Conditional accuracies of every model at every dose, on the paper's populations.

    Raises NotOffered where the paper has none for the cohort.
    """
    names = cohort.published_contrasts
    if not names:
        raise NotOffered(f"the paper scores no models like those of {cohort.scale} by accuracy")
    tokens, models = cohort.intervention_tokens(n_sequences), range(len(cohort.seeds))
    clean, targets, drop, kl = [], [], [], []
    for name in names:
        v = cohort.direction(name)[0]
        before = [clean_accuracy(cohort, m, tokens, name) for m in models]
        clean.append([accuracy for accuracy, _ in before])
        targets.append(before[0][1])
        dosed = torch.tensor(doses).to(v)[:, None] * v
        found = [steer(cohort, m, tokens, name, dosed) for m in models]
        drop.append([-each.accuracy for each in found])
        kl.append([each.kl for each in found])
    length = DEPTH_DOSE * cohort.direction(DEPTH)[0].norm()
    drawn = length * random_directions(n_random, cohort.width).to(length)
    return ByAccuracy(
        tuple(names),
        tuple(doses),
        pair_labels(cohort),
        tuple(cohort.seeds),
        len(tokens),
        tuple(targets),
        np.array(clean),
        np.array(drop),
        np.array(kl),
        np.array([-steer(cohort, m, tokens, DEPTH, drawn).accuracy for m in models]),
    )


def measure_published(
    cohort: InterventionCohort, *, n_sequences: int = SEQUENCES, n_random: int = N_RANDOM
) -> PublishedSteering:
    """`measure_by_accuracy` of the cohort and of an exact copy of its anchor in its own basis."""
    alike = RotatedCopy(cohort, torch.eye(cohort.width))
    siblings, copied = (
        measure_by_accuracy(each, n_sequences=n_sequences, n_random=n_random)
        for each in (cohort, alike)
    )
    return PublishedSteering(siblings, copied)


def recipe(cohort: InterventionCohort) -> dict[str, object]:
    """What decides `measure_published` with its defaults, for a fingerprint."""
    return {
        "version": RECIPE_VERSION,
        "cohort": cohort.fingerprint,
        "contrasts": list(cohort.published_contrasts),
        "doses": list(DOSES + BEYOND),
        "sequences": SEQUENCES,
        "random": [N_RANDOM, RANDOM_SEED],
    }
