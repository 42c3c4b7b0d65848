"""What training a scale from its beginning will take: its models, and then its dictionaries.

Before the models are there, their untrained siblings stand in for them: what is planned depends on
sites, seeds and width alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries.groups import Group
from polyrot.language import neox, seeds as language_seeds, training as language_training
from polyrot.language.checkpoints import checkpoints
from polyrot.language.neox import Neox
from polyrot.store import Runtime
from polyrot.toy import seeds, transformer
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.schedule import drift_steps
from polyrot.toy.seeds import Training
from polyrot.workshop import estimate
from polyrot.workshop.estimate import Piece
from polyrot.workshop.parts import Part, parts_of
from polyrot.workshop.profiles import Profile

SCALES = (*seeds.TOYS, neox.SCALE)
"""Those whose models are trained here."""


def pieces(
    runtime: Runtime, profile: Profile, width: int, scale: str, parts: list[str] | None = None
) -> list[Piece]:
    """Everything that a scale takes of which some models are still to be trained: they, and the
    dictionaries of `parts` (default: all that its claims may ask for). None where no model is
    missing, as no trial is worth its time then.

    width: of the language models of scale neox. Raises KeyError for a scale that is not trained
    here.
    """
    models = missing_models(runtime, profile, width, scale)
    if not models:
        return []
    cohort, run = stand_ins(runtime, profile, width, scale)
    wanted = parts_of(cohort.facts, parts)
    groups = planned(cohort, run, profile, wanted)
    return [*models, *by_shape(groups, cohort.width, runtime.device)]


def missing_models(runtime: Runtime, profile: Profile, width: int, scale: str) -> list[Piece]:
    """The trainings of a scale that are neither shipped nor cached."""
    store, device = runtime.store, runtime.device
    if scale != neox.SCALE:
        return [estimate.toys(t, device) for t in missing_toys(runtime, profile, scale)]
    on = Neox(runtime, profile.language, width).evaluation()
    each = language_seeds.trainings(profile.language, width)
    absent = [t for t in each if not store.has(language_seeds.KIND, t.recipe(on))]
    return [estimate.language_models(absent, device)] if absent else []


def missing_toys(runtime: Runtime, profile: Profile, scale: str) -> list[Training]:
    """The same of a toy scale. Who goes on is known of those alone that are there."""
    store, toys = runtime.store, seeds.trainings(scale, profile.toy)
    if profile.toy.onward is not None:
        there = [t for t in toys if store.has(t.kind, t.recipe)]
        toys += [on for t in there for on in seeds.going_on(t, seeds.trained(runtime, t))]
    return [t for t in toys if not store.has(t.kind, t.recipe)]


def planned(cohort: Cohort, run: Cohort, profile: Profile, parts: Sequence[Part]) -> list[Group]:
    """The groups of dictionaries that `parts` train, of a cohort and of its first seed's
    `run`. An l1 that is still to be chosen is 0."""
    groups = []
    for part in parts:
        models = run if part.models == "checkpoints" else cohort
        l1 = [dict.fromkeys(models.internal, 0.0)] if part.l1 == "chosen" else []
        trained = part.models != "untrained"
        schedule = profile.dictionaries_of(models, part.group, trained)
        groups.append(part.group(models, schedule, *l1))
    return groups


def by_shape(groups: Sequence[Group], width: int, device: str) -> list[Piece]:
    """One piece for each expansion and schedule: dictionaries of one shape take the same time."""
    found = []
    kinds = dict.fromkeys((group.expansion, group.schedule) for group in groups)
    for expansion, schedule in sorted(kinds, key=lambda kind: kind[0]):
        alike = [g for g in groups if (g.expansion, g.schedule) == (expansion, schedule)]
        specs = tuple(spec for group in alike for spec in group.specs)
        whole = Group("all", specs, schedule, expansion)
        at_once = max(len(group.specs) for group in alike)
        found.append(estimate.dictionaries(whole, width, device, at_once))
    return found


def stand_ins(runtime: Runtime, profile: Profile, width: int, scale: str) -> tuple[Cohort, Cohort]:
    """Untrained models in place of a scale's cohort and of its first seed's checkpoints."""
    if scale == neox.SCALE:
        models = Neox(runtime, profile.language, width)
        steps = language_training.snapshot_steps(profile.language.steps)
        first, tokens = language_seeds.model(width), models.evaluation().tokens
        run = checkpoints(scale, steps, [first] * len(steps), tokens, ["a plan"], facts=neox.FACTS)
        return models.cohort(trained=False), run
    toy = seeds.TOYS[scale]

    def untrained(numbers: Sequence[int]) -> Cohort:
        params = transformer.initialise(numbers)
        return ToyCohort(scale, tuple(numbers), params, ["a plan"], trained=False, facts=toy.facts)

    return untrained(toy.seeds), untrained(drift_steps(profile.toy.steps))
