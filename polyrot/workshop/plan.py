"""What training a scale from its beginning will take: its models, and then its dictionaries.

Before the models are there, their untrained siblings stand in for them: what is planned depends on
sites, seeds and width alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries import collection
from polyrot.dictionaries.collection import Group, Spec
from polyrot.language import neox
from polyrot.language import seeds as language_seeds
from polyrot.language import training as language_training
from polyrot.toy import seeds, transformer
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.schedule import drift_steps
from polyrot.workshop import estimate
from polyrot.workshop.estimate import Piece

if TYPE_CHECKING:
    from polyrot.workshop.workshop import Workshop

SCALES = (*seeds.SEEDS, neox.SCALE)
"""Those whose models are trained here."""


def missing_models(workshop: Workshop, scale: str) -> list[Piece]:
    """The trainings of a scale that are neither shipped nor cached."""
    store, device = workshop.store, workshop.device
    if scale != neox.SCALE:
        toys = seeds.trainings(scale, workshop.profile.toy)
        return [estimate.toys(t, device) for t in toys if not store.has(t.kind, t.recipe)]
    on = workshop.neox.evaluation()
    each = language_seeds.trainings(workshop.profile.language, workshop.width)
    absent = [t for t in each if not store.has(language_seeds.KIND, t.recipe(on))]
    return [estimate.language_models(absent, device)] if absent else []


def planned(workshop: Workshop, scale: str, parts: Sequence[str] | None = None) -> list[Group]:
    """The groups of dictionaries that `parts` of `prepare` (default: all) train at a scale."""
    cohort, run = _stand_ins(workshop, scale)
    schedule = workshop.profile.dictionaries_at(scale)
    no_l1 = dict.fromkeys(cohort.internal, 0.0)
    anchor, sparse = collection.anchor(cohort, schedule), collection.sparse(cohort, schedule, no_l1)
    # The values of a language model's grid depend on its activations, their number does not.
    l1s = collection.RELATIVE_GRID if scale == neox.SCALE else collection.L1_GRID
    specs = tuple(Spec(0, s, collection.SHARED_START, l1) for s in cohort.internal for l1 in l1s)
    grid = replace(anchor, name="sparse-grid", specs=specs)
    shared = (collection.published, collection.noise) if scale != "toy_b" else ()
    by_part: dict[str, list[Group]] = {
        "anchor": [anchor],
        "untrained": [anchor],
        "sparsity": [grid],
        "sparse": [sparse] if parts is None or "sparsity" in parts else [grid, sparse],
        "wide": [collection.wide(cohort, schedule)] if scale == "toy_a" else [],
        "own": [collection.own(cohort, schedule)],
        "drift": [collection.drift(run, schedule)] if scale != "toy_b" else [],
        **{make.__name__: [make(cohort, schedule)] for make in shared},
    }
    wanted = by_part if parts is None else parts
    return [group for part in wanted for group in by_part.get(part, [])]


def _by_shape(groups: Sequence[Group], workshop: Workshop, scale: str) -> list[Piece]:
    """One piece for each expansion: dictionaries of one shape take the same time."""
    width = workshop.width if scale == neox.SCALE else transformer.D_MODEL
    pieces = []
    for expansion in sorted({group.expansion for group in groups}):
        alike = [group for group in groups if group.expansion == expansion]
        specs = tuple(spec for group in alike for spec in group.specs)
        whole = Group("all", specs, alike[0].schedule, expansion)
        at_once = max(len(group.specs) for group in alike)
        pieces.append(estimate.dictionaries(whole, width, workshop.device, at_once))
    return pieces


def _stand_ins(workshop: Workshop, scale: str) -> tuple[Cohort, Cohort]:
    """Untrained models in place of a scale's cohort and of its first seed's checkpoints."""
    if scale == neox.SCALE:
        cohort = workshop.neox.cohort(trained=False)
        steps = language_training.snapshot_steps(workshop.profile.language.steps)
        first = language_seeds.model(workshop.width)
        run = neox.checkpoints(
            scale, steps, [first] * len(steps), workshop.neox.evaluation().tokens, ["a plan"]
        )
        return cohort, run

    def untrained(numbers: Sequence[int]) -> ToyCohort:
        params = transformer.initialise(numbers)
        return ToyCohort(scale, tuple(numbers), params, ["a plan"], trained=False)

    steps = drift_steps(workshop.profile.toy.steps)
    make: Callable[[Sequence[int]], Cohort] = untrained
    return make(seeds.SEEDS[scale]), make(steps)
