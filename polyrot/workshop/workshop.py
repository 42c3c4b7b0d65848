"""Cohorts and dictionaries, made or taken from a store; what they will cost is said before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries import collection
from polyrot.dictionaries.collection import Choice, Group, Spec
from polyrot.dictionaries.sae import Dictionary, stack, unstack
from polyrot.language import neox
from polyrot.language.cohort import LanguageCohort
from polyrot.language.neox import Neox
from polyrot.language.seeds import WIDTH
from polyrot.runtime.progress import Progress, silence, silent
from polyrot.store import Artifact, Checkpoint, Store
from polyrot.toy import seeds
from polyrot.toy.checkpoints import checkpoints as toy_checkpoints
from polyrot.toy.cohort import ToyCohort, untrained
from polyrot.toy.training import can_compile
from polyrot.workshop import estimate
from polyrot.workshop.plan import SCALES, _by_shape, missing_models, planned
from polyrot.workshop.profiles import Profile


@dataclass(frozen=True)
class Workshop:
    """Where and how things are made: a store, a profile, a device, a progress display.

    width: of the language models of scale neox. say: is told what long work will cost, before it
    begins; `told` has the scales of which that was said as a whole (see `polyrot.workshop.plan`).
    """

    store: Store
    profile: Profile
    device: str = "cpu"
    progress: Progress = silent
    width: int = WIDTH
    say: Callable[[str], None] = silence
    told: set[str] = field(default_factory=set, compare=False)

    @property
    def neox(self) -> Neox:
        """The language models of scale neox."""
        return Neox(self.store, self.profile.language, self.width, self.device, self.progress)

    @property
    def unheard(self) -> bool:
        """Whether nobody hears what is said, so that no trial is worth its time."""
        return self.say is silence

    def cohort(self, scale: str) -> ToyCohort | LanguageCohort:
        """The trained seeds of a scale that is trained here."""
        tell(self, scale)
        return self.neox.cohort() if scale == neox.SCALE else self.toy_cohort(scale)

    def toy_cohort(self, scale: str) -> ToyCohort:
        """The trained seeds of a toy scale."""
        found = [
            seeds.finished(self.store, t, device=self.device, progress=self.progress)
            for t in seeds.trainings(scale, self.profile.toy)
        ]
        params = seeds.models([result for _, result in found])
        moved = {name: p.to(self.device) for name, p in params.items()}
        return ToyCohort(scale, seeds.SEEDS[scale], moved, [t.fingerprint for t, _ in found])

    def untrained(self, cohort: Cohort) -> ToyCohort | LanguageCohort:
        """The cohort's seeds before their first step. Raises ValueError: not trained here."""
        if isinstance(cohort, ToyCohort):
            return untrained(cohort)
        if cohort.scale == neox.SCALE:
            return self.neox.cohort(trained=False)
        raise ValueError(f"the models of scale {cohort.scale} are not trained here")

    def checkpoints(self, scale: str) -> Cohort:
        """The first seed of a scale on its way; of a toy up to its first cycle, in which the rate
        begins anew."""
        tell(self, scale)
        if scale == neox.SCALE:
            return self.neox.checkpoints()
        first = seeds.trainings(scale, self.profile.toy)[0]
        run = seeds.trained(self.store, first, device=self.device, progress=self.progress)
        return toy_checkpoints(scale, run, first.fingerprint, self.device)

    def group(self, cohort: Cohort, group: Group) -> dict[Spec, Dictionary]:
        """The dictionaries of a group, on the device."""
        compiled = group.schedule.steps >= 500 and (self.device == "cuda" or can_compile())
        recipe = collection.recipe(cohort, group)
        told = self.unheard or cohort.scale in self.told
        if not told and not self.store.has(collection.KIND, recipe):
            piece = estimate.dictionaries(group, cohort.width, self.device)
            self.announce(cohort.scale, [piece])
        found = collection.trained(
            self.store, cohort, group, compiled=compiled, progress=self.progress
        )
        return {spec: dictionary.to(self.device) for spec, dictionary in found.items()}

    def announce(self, scale: str, pieces: list[estimate.Piece]) -> None:
        """Say what these will cost, where that is worth saying."""
        text = estimate.notice(scale, pieces, self.store.directory, self.device)
        if text:
            self.say(text)

    def named(
        self, cohort: Cohort, make: Callable[..., Group], *more: object
    ) -> dict[Spec, Dictionary]:
        """A group of `polyrot.dictionaries.collection` by its function."""
        schedule = self.profile.dictionaries_at(cohort.scale)
        return self.group(cohort, make(cohort, schedule, *more))

    def chosen(self, cohort: Cohort) -> dict[str, tuple[Choice, Dictionary]]:
        """The l1 chosen at each internal site, on the anchor and the fit split alone, and the
        dictionary there. The grid behind it is trained once; only what was chosen need be shipped.
        """
        grid = collection.sparse_grid(cohort, self.profile.dictionaries_at(cohort.scale))
        wanted = collection.l0_range(cohort)

        def build(checkpoint: Checkpoint) -> Artifact:
            trained = self.group(cohort, grid)
            choices = [
                collection.choose_l1(trained, cohort.activations("fit", site)[0], site, l0=wanted)
                for site in cohort.internal
            ]
            found = [
                next(d for s, d in trained.items() if (s.site, s.l1) == (site, choice.l1))
                for site, choice in zip(cohort.internal, choices, strict=True)
            ]
            return Artifact(stack(found), {"choices": [asdict(c) for c in choices]})

        recipe = {**collection.recipe(cohort, grid), "l0": list(wanted)}
        artifact = self.store.get_or_build("sparsity", recipe, build, name=cohort.scale)
        choices = [Choice(**c) for c in artifact.meta["choices"]]
        found = [d.to(self.device) for d in unstack(artifact.tensors)]
        return dict(zip(cohort.internal, zip(choices, found, strict=True), strict=True))

    def sparse(self, cohort: Cohort) -> dict[Spec, Dictionary]:
        """The sparse dictionaries of the siblings and of the anchor's second start."""
        l1 = {site: choice.l1 for site, (choice, _) in self.chosen(cohort).items()}
        return self.named(cohort, collection.sparse, l1)


def tell(workshop: Workshop, scale: str, parts: Sequence[str] | None = None) -> None:
    """Say, once, what a scale will cost as a whole if some of its models are still to be trained:
    they, and the dictionaries of `parts` (default: all that its claims may ask for)."""
    if scale not in SCALES or scale in workshop.told or workshop.unheard:
        return
    models = missing_models(workshop, scale)
    if models:
        groups = planned(workshop, scale, parts)
        workshop.announce(scale, [*models, *_by_shape(groups, workshop, scale)])
        workshop.told.add(scale)
