"""Cohorts and dictionaries, made or taken from a store; what they will cost is said before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from polyrot.cohorts.cohort import Cohort, NotOffered
from polyrot.defaults import LEAST_EV, WIDTH
from polyrot.dictionaries import collection, groups, sparsity
from polyrot.dictionaries.groups import Group, Spec
from polyrot.dictionaries.sae import Dictionary, stack, unstack
from polyrot.dictionaries.sparsity import Choice
from polyrot.language import neox, seeds as language_seeds
from polyrot.language.cohort import LanguageCohort
from polyrot.language.neox import Neox
from polyrot.runtime.progress import silence
from polyrot.store import Artifact, Checkpoint, Runtime
from polyrot.toy import seeds
from polyrot.toy.checkpoints import checkpoints as toy_checkpoints
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.seeds import Training
from polyrot.toy.trained import Trained
from polyrot.toy.training import can_compile
from polyrot.workshop import estimate, plan
from polyrot.workshop.parts import Part
from polyrot.workshop.profiles import Profile


@dataclass(frozen=True)
class Workshop:
    """Where and how things are made: a runtime, and the schedules of a profile.

    width: of the language models of scale neox; skip: positions of theirs that are left out. say:
    shows what long work will cost, before it begins. announced: the scales of which that was said
    as a whole (see `polyrot.workshop.plan`).
    """

    runtime: Runtime
    profile: Profile
    width: int = WIDTH
    skip: int = 0
    say: Callable[[str], None] = silence
    announced: set[str] = field(default_factory=set, compare=False)

    @property
    def neox(self) -> Neox:
        """The language models of scale neox."""
        return Neox(self.runtime, self.profile.language, self.width, self.skip)

    @property
    def is_silent(self) -> bool:
        """Whether nothing is shown, so that no trial is worth its time."""
        return self.say is silence

    @property
    def departures(self) -> tuple[str, ...]:
        """How all that the profile trains departs from the paper's protocol, in sentences: models
        and dictionaries. Where toys changed device on the way is said of those that are there."""
        profile = self.profile
        toys = [t for scale in seeds.TOYS for t in seeds.trainings(scale, profile.toy)]
        there = [r for t in toys if (r := seeds.as_there(self.runtime, t)) is not None]
        found = [
            *seeds.departures(profile.toy, there),
            *(text for scale in seeds.TOYS for text in self._pipeline_departures(scale)),
            *profile.shorter_content.departures(),
            *profile.dictionaries.departures(),
            *(profile.other_dictionaries or profile.dictionaries).departures(),
            *(profile.other_dictionaries or profile.dictionaries).departures(checkpoints=True),
            *language_seeds.departures(profile.language, self.width),
            *profile.language_dictionaries.departures(language=True),
            *(profile.other_language_dictionaries or profile.language_dictionaries).departures(
                language=True, checkpoints=True, l1=neox.FACTS.published_l1
            ),
            *profile.pythia_dictionaries.departures(language=True),
        ]
        return tuple(dict.fromkeys(found))

    def of_pipeline(self, scale: str) -> Workshop | None:
        """The same for the toy's seeds as the paper's public pipeline trains them, where all of a
        scale's are there: a second reading of the paper is not trained for the sake of it, as that
        takes hours. None where they are not, or where the profile trains them so itself."""
        if scale not in seeds.TOYS or self.profile.toy == seeds.PIPELINE:
            return None
        store, wanted = self.runtime.store, seeds.trainings(scale, seeds.PIPELINE)
        if not all(store.has(training.kind, training.recipe) for training in wanted):
            return None
        return replace(self, profile=replace(self.profile, toy=seeds.PIPELINE))

    def _pipeline_departures(self, scale: str) -> tuple[str, ...]:
        other = self.of_pipeline(scale)
        return other.toy_cohort(scale).departures if other is not None else ()

    def cohort(self, scale: str) -> ToyCohort | LanguageCohort:
        """The trained seeds of a scale that is trained here."""
        self.announce_scale(scale)
        return self.neox.cohort() if scale == neox.SCALE else self.toy_cohort(scale)

    def toy_cohort(self, scale: str) -> ToyCohort:
        """The trained seeds of a toy scale."""
        toy = seeds.TOYS[scale]
        each = seeds.trainings(scale, self.profile.toy)
        found = [seeds.finished(self.runtime, training) for training in each]
        params = seeds.models([result for _, result in found])
        moved = {name: p.to(self.runtime.device) for name, p in params.items()}
        made_by = [training.fingerprint for of, _ in found for training in of]
        made = ToyCohort(scale, toy.seeds, moved, made_by, facts=toy.facts)
        made.departures = seeds.departures(self.profile.toy, [result for _, result in found])
        return made

    def shorter_content(self) -> tuple[Training, Trained]:
        """One toy that is trained on shorter contents, for what it does on longer ones."""
        training = seeds.shorter_content(self.profile.shorter_content)
        there = self.runtime.store.has(training.kind, training.recipe)
        if not there and not self.is_silent:
            self.announce(training.name, [estimate.toys(training, self.runtime.device)])
        return training, seeds.trained(self.runtime, training)

    def checkpoints(self, scale: str) -> Cohort:
        """The first seed of a scale on its way; of a toy up to its first cycle, in which the rate
        begins anew. Raises NotOffered: not trained here; NoCheckpoints: shipped without
        its weights on the way."""
        if scale not in plan.SCALES:
            raise NotOffered(f"the models of scale {scale} have no checkpoints of one run")
        self.announce_scale(scale)
        if scale == neox.SCALE:
            return self.neox.checkpoints()
        first = seeds.trainings(scale, self.profile.toy)[0]
        run, facts = seeds.trained(self.runtime, first), seeds.TOYS[scale].facts
        made = toy_checkpoints(scale, run, first.fingerprint, self.runtime.device, facts)
        made.departures = seeds.departures(self.profile.toy, [run])
        return made

    def group(self, cohort: Cohort, group: Group) -> dict[Spec, Dictionary]:
        """The dictionaries of a group, on the device."""
        return self.along(cohort, group, [group.schedule.steps])[group.schedule.steps]

    def along(
        self, cohort: Cohort, group: Group, steps: Sequence[int]
    ) -> dict[int, dict[Spec, Dictionary]]:
        """The dictionaries of a group after each of these steps of one training, on the device."""
        store, device = self.runtime.store, self.runtime.device
        compiled = group.schedule.steps >= 500 and (device == "cuda" or can_compile())
        announced = self.is_silent or cohort.scale in self.announced
        last = group.after(max(steps))
        if not announced and not store.has(collection.KIND, collection.recipe(cohort, last)):
            self.announce(cohort.scale, [estimate.dictionaries(last, cohort.width, device)])
        states = collection.along(self.runtime, cohort, group, steps, compiled=compiled)
        return {
            step: {spec: dictionary.to(device) for spec, dictionary in found.items()}
            for step, found in states.items()
        }

    def announce(self, scale: str, pieces: list[estimate.Piece]) -> None:
        """Say what these will cost, where that is worth saying."""
        store, device = self.runtime.store, self.runtime.device
        text = estimate.notice(scale, pieces, store.directory, device)
        if text:
            self.say(text)

    def announce_scale(self, scale: str, parts: list[str] | None = None) -> None:
        """Say, once, what a scale will cost as a whole if some of its models are still to be
        trained: they, and the dictionaries of `parts` (default: all that its claims may ask for).
        """
        if scale not in plan.SCALES or scale in self.announced or self.is_silent:
            return
        pieces = plan.pieces(self.runtime, self.profile, self.width, scale, parts)
        if pieces:
            self.announce(scale, pieces)
            self.announced.add(scale)

    def named(
        self, cohort: Cohort, make: Callable[..., Group], *more: object
    ) -> dict[Spec, Dictionary]:
        """A group of `polyrot.dictionaries.groups` by its function."""
        return self.group(cohort, make(cohort, self.profile.dictionaries_of(cohort, make), *more))

    def sparse_grid(self, cohort: Cohort) -> Group:
        """`groups.sparse_grid`, its l1 worked out once: for it a model runs on the fit split."""

        def build(_: Checkpoint) -> Artifact:
            found = {site: list(groups.l1_grid(cohort, site)) for site in cohort.internal}
            return Artifact({}, {"grids": found})

        schedule, grids = self.profile.dictionaries_of(cohort, groups.sparse_grid), None
        if cohort.facts.relative_l1:
            recipe = {
                "version": groups.RECIPE_VERSION,
                "cohort": cohort.fingerprint,
                "shares": list(groups.RELATIVE_GRID),
            }
            store = self.runtime.store
            grids = store.get_or_build("l1-grid", recipe, build, name=cohort.scale).meta["grids"]
        return groups.sparse_grid(cohort, schedule, grids)

    def chosen(self, cohort: Cohort) -> dict[str, tuple[Choice, Dictionary]]:
        """The l1 chosen at each internal site, on the anchor and the fit split alone, and the
        dictionary there. The grid behind it is trained once; only what was chosen need be shipped.
        """
        grid = self.sparse_grid(cohort)
        wanted = sparsity.l0_range(cohort)

        def build(_: Checkpoint) -> Artifact:
            trained = self.group(cohort, grid)
            choices = [
                sparsity.choose_l1(trained, cohort.activations("fit", site)[0], site, l0=wanted)
                for site in cohort.internal
            ]
            found = [
                next(d for s, d in trained.items() if (s.site, s.l1) == (site, choice.l1))
                for site, choice in zip(cohort.internal, choices, strict=True)
            ]
            return Artifact(stack(found), {"choices": [asdict(c) for c in choices]})

        recipe = {**collection.recipe(cohort, grid), "l0": list(wanted), "ev": LEAST_EV}
        store, device = self.runtime.store, self.runtime.device
        artifact = store.get_or_build("sparsity", recipe, build, name=cohort.scale)
        choices = [Choice(**c) for c in artifact.meta["choices"]]
        found = [d.to(device) for d in unstack(artifact.tensors)]
        return dict(zip(cohort.internal, zip(choices, found, strict=True), strict=True))

    def chosen_l1(self, cohort: Cohort) -> dict[str, float]:
        """The l1 chosen at each internal site."""
        return {site: choice.l1 for site, (choice, _) in self.chosen(cohort).items()}

    def sparse(self, cohort: Cohort) -> dict[Spec, Dictionary]:
        """The sparse dictionaries of the siblings and of the anchor's second start."""
        return self.named(cohort, groups.sparse, self.chosen_l1(cohort))

    def starts(self, cohort: Cohort, l1: Mapping[str, float]) -> dict[int, dict[str, Dictionary]]:
        """The anchor's further sparse dictionaries, of an l1 for each site, by start and site."""
        found: dict[int, dict[str, Dictionary]] = {}
        for spec, dictionary in self.named(cohort, groups.more_starts, l1).items():
            found.setdefault(spec.start, {})[spec.site] = dictionary
        return found

    def train(self, part: Part, cohort: Cohort) -> None:
        """Train the dictionaries of one part, or find that they are there."""
        models = cohort
        if part.models == "untrained":
            models = cohort.untrained()
        elif part.models == "checkpoints":
            models = self.checkpoints(cohort.scale)
        if part.l1 == "to be chosen":
            self.chosen(models)  # whose grid need not be there where the choice is
        elif part.l1 == "chosen":
            self.named(models, part.group, self.chosen_l1(models))
        else:
            self.named(models, part.group)
