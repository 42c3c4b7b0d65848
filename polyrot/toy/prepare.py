"""Train everything that the claims need at a scale, outside of pytest and resumable.

`python -m polyrot.toy.prepare --help`
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from polyrot import estimate
from polyrot.cohort import Cohort
from polyrot.device import resolve_device
from polyrot.dictionaries import collection
from polyrot.dictionaries.collection import Choice, Group, Spec
from polyrot.dictionaries.sae import Dictionary, stack, unstack
from polyrot.language import neox
from polyrot.language.cohort import LanguageCohort
from polyrot.language.neox import Neox
from polyrot.language.seeds import WIDTH
from polyrot.profiles import PROFILES, Profile
from polyrot.progress import ConsoleProgress, Progress, silence, silent
from polyrot.store import Artifact, Checkpoint, Store
from polyrot.toy import plan, seeds
from polyrot.toy.checkpoints import checkpoints as toy_checkpoints
from polyrot.toy.cohort import ToyCohort, untrained
from polyrot.toy.evaluation import GOAL, lowest
from polyrot.toy.training import can_compile


@dataclass(frozen=True)
class Workshop:
    """Where and how things are made: a store, a profile, a device, a progress display.

    width: of the language models of scale neox. say: is told what long work will cost, before it
    begins; `told` has the scales of which that was said as a whole (see `polyrot.toy.plan`).
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
        plan.tell(self, scale)
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
        plan.tell(self, scale)
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


def _shares_starts(cohort: Cohort) -> bool:
    """Whether the registration asks for the paper's manner of training dictionaries there."""
    return cohort.scale != "toy_b"


PARTS: dict[str, Callable[[Workshop, Cohort], object]] = {
    "anchor": lambda w, c: w.named(c, collection.anchor),
    "sparsity": lambda w, c: w.chosen(c),
    "wide": lambda w, c: w.named(c, collection.wide) if c.scale == "toy_a" else None,
    "untrained": lambda w, c: w.named(w.untrained(c), collection.anchor),
    "published": lambda w, c: w.named(c, collection.published) if _shares_starts(c) else None,
    "noise": lambda w, c: w.named(c, collection.noise) if _shares_starts(c) else None,
    "own": lambda w, c: w.named(c, collection.own),
    "sparse": lambda w, c: w.sparse(c),
    "drift": lambda w, c: (
        w.named(w.checkpoints(c.scale), collection.drift) if c.scale != "toy_b" else None
    ),
}


def main(given: Sequence[str] | None = None) -> None:
    """Command line: train one cohort's seeds and dictionaries, or resume them."""
    parser = argparse.ArgumentParser(
        prog="python -m polyrot.toy.prepare",
        description="Train the seeds of a cohort and its dictionaries into a store, resuming "
        "whatever a killed run left. The claims then only judge.",
    )
    parser.add_argument("scale", choices=[*sorted(seeds.SEEDS), neox.SCALE])
    parser.add_argument("--artifacts", type=Path, required=True, help="the store to train into")
    parser.add_argument("--schedule", choices=sorted(PROFILES), default="shipped")
    parser.add_argument(
        "--device", type=resolve_device, default="cpu", help="auto, cpu (default) or cuda"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument(
        "--parts",
        default=",".join(PARTS),
        help=f"which dictionaries (default all; '' for the seeds alone), of {', '.join(PARTS)}",
    )
    arguments = parser.parse_args(given)
    parts = [p for p in arguments.parts.split(",") if p]
    for part in parts:
        if part not in PARTS:
            parser.error(f"no part {part!r}: one of {', '.join(PARTS)}")
    torch.set_num_threads(arguments.threads)
    progress = ConsoleProgress()
    workshop = Workshop(
        Store(arguments.artifacts),
        PROFILES[arguments.schedule],
        arguments.device,
        progress,
        say=progress.say,
    )
    plan.tell(workshop, arguments.scale, parts)
    cohort = workshop.cohort(arguments.scale)
    if arguments.scale in seeds.SEEDS:
        for each in seeds.trainings(arguments.scale, workshop.profile.toy):
            _, result = seeds.finished(workshop.store, each)
            for m, seed in enumerate(each.seeds):
                step = result.reached(m)
                first = f"first {GOAL:.2%} at step {step}" if step else f"never {GOAL:.2%}"
                progress.say(
                    f"seed {seed}: lowest accuracy {lowest(result.accuracies, m):.4%}; on the way "
                    f"{first}"
                )
    for part in parts:
        PARTS[part](workshop, cohort)


if __name__ == "__main__":
    main()
