"""The kinds of dictionaries of the study: what is trained of each, on which models and starts.

The anchor and two siblings of scale neox, at its internal sites. Their activations are kept in the
store of the study: running the models takes as long as training some of the dictionaries.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from polyrot.cohorts.cohort import SPLITS, CohortDefaults, Split
from polyrot.dictionaries import groups, training
from polyrot.dictionaries.activations import Activation, JumpReLU, TopK
from polyrot.dictionaries.loading.values import LoadedDictionary
from polyrot.dictionaries.sae import Dictionary, stack, unstack
from polyrot.dictionaries.training import Schedule
from polyrot.runtime.device import FLOAT32
from polyrot.store import Artifact, Checkpoint, Runtime
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop

MODELS = 3
"""The anchor and its first siblings."""
EXPANSION = 8
L0 = 32
"""The most that the registration allows at width 128."""
REGISTERED = replace(PROFILES["shipped"].language_dictionaries, precision=FLOAT32)
LONGER = 4
"""So many times as long are the longest trainings."""
_LONGER_STEPS = LONGER * REGISTERED.steps
DICTIONARY = "study-dictionary"
RECIPE_VERSION = 1  # raise when a change of code changes what is trained


@dataclass(frozen=True)
class Arm:
    """One kind of dictionary. label: for the page. steps: of one training after which it is read.
    siblings: whether those of siblings and of further starts are trained too. penalty: times the
    registered l1."""

    name: str
    label: str
    activation: Activation | None
    steps: tuple[int, ...] = (REGISTERED.steps,)
    siblings: bool = False
    penalty: float = 1.0

    @property
    def schedule(self) -> Schedule:
        """As registered, but for what the arm is about."""
        return replace(REGISTERED, steps=max(self.steps), activation=self.activation)


ARMS = {
    arm.name: arm
    for arm in (
        Arm("topk", f"TopK, k = {L0}", TopK(L0), siblings=True),
        Arm("jumprelu", f"JumpReLU, L0 aimed at {L0 - 1}", JumpReLU(L0 - 1.0)),
        Arm(
            "topk_longer",
            f"TopK, k = {L0}, {LONGER} times as long",
            TopK(L0),
            (_LONGER_STEPS,),
            siblings=True,
        ),
        Arm("topk64", "TopK, k = 64", TopK(64)),
        Arm("l1", "L1, as registered", None, (REGISTERED.steps, _LONGER_STEPS)),
        *(
            Arm(
                f"l1_{name}",
                f"L1, {penalty:g} of its penalty, {LONGER} times as long",
                None,
                (_LONGER_STEPS,),
                penalty=penalty,
            )
            for name, penalty in (("half", 0.5), ("quarter", 0.25))
        ),
    )
}


@dataclass(frozen=True)
class Spec:
    """One dictionary: of which model and site, from which start, by which l1 (0 without)."""

    model: int
    site: str
    start: int
    l1: float = 0.0


class Few(CohortDefaults):
    """The first models of a cohort, with the activations that are kept of them."""

    def __init__(self, runtime: Runtime) -> None:
        cohort = Workshop(runtime, PROFILES["shipped"]).cohort("neox")
        self.scale, self.seeds = cohort.scale, cohort.seeds[:MODELS]
        self.sites, self.width, self.facts = cohort.internal, cohort.width, cohort.facts
        self.fingerprint, self.skip = cohort.fingerprint, cohort.skip
        self._sequences = {split: cohort.sequences(split) for split in SPLITS}
        self._kept: dict[Split, Mapping[str, Tensor]] = {}
        for split in SPLITS:

            def build(_: Checkpoint, split: Split = split) -> Artifact:
                found = {s: cohort.activations(split, s)[:MODELS].clone() for s in self.sites}
                cohort.forget(split)
                return Artifact(found, {})

            recipe = {
                "cohort": cohort.fingerprint,
                "split": split,
                "models": MODELS,
                "sites": list(self.sites),
            }
            kind, name = "study-activations", f"neox-{split}"
            kept = runtime.store.get_or_build(kind, recipe, build, name=name)
            self._kept[split] = kept.tensors

    @property
    def internal(self) -> tuple[str, ...]:
        """All that are kept."""
        return self.sites

    def activations(self, split: Split, site: str) -> Tensor:
        """See `Cohort`."""
        return self._kept[split][site]

    def sequences(self, split: Split) -> Tensor:
        """See `Cohort`."""
        return self._sequences[split]


def specs(arm: Arm, sites: Sequence[str], l1: dict[str, float]) -> list[Spec]:
    """All dictionaries of an arm: the anchor's first; from further starts, and the siblings'."""
    found = []
    for site in sites:
        penalty = 0.0 if arm.activation is not None else arm.penalty * l1[site]
        found.append(Spec(0, site, groups.SHARED_START, penalty))
        if arm.siblings:
            found.append(Spec(0, site, groups.SECOND_START, penalty))
            found += [Spec(m, site, groups.own_start(m), penalty) for m in range(1, MODELS)]
    return found


@dataclass(frozen=True)
class Made:
    """One dictionary after each of the arm's steps, and the seconds of processor that it took."""

    states: dict[int, Dictionary]
    seconds: float


def trained(runtime: Runtime, cohort: Few, arm: Arm, spec: Spec) -> Made:
    """One dictionary: found, or trained now."""

    def build(_: Checkpoint) -> Artifact:
        states: dict[int, list[Dictionary]] = {step: [] for step in arm.steps}
        x = cohort.activations("dictionary", spec.site)[spec.model][None]
        start = time.process_time()
        training.train(
            x.to(runtime.device),
            [0],
            [spec.start],
            [spec.l1],
            EXPANSION * cohort.width,
            arm.schedule,
            progress=runtime.progress,
            stage=f"{arm.name}, model {spec.model}, {spec.site}, start {spec.start}",
            states=states,
        )
        found = [states[step][0] for step in arm.steps]
        weights = [f.name for f in fields(Dictionary)]
        tensors = stack([Dictionary(**{n: getattr(d, n) for n in weights}) for d in found])
        thresholds = [d.threshold for d in found if isinstance(d, LoadedDictionary)]
        known = [t for t in thresholds if t is not None]
        more = {"threshold": torch.stack(known)} if known else {}
        return Artifact(tensors | more, {"seconds": time.process_time() - start})

    recipe: dict[str, Any] = {
        "version": RECIPE_VERSION,
        "cohort": cohort.fingerprint,
        "spec": list(astuple(spec)),
        "schedule": arm.schedule.recipe(),
        "steps": list(arm.steps),
        "expansion": EXPANSION,
    }
    name = f"{arm.name}-{spec.model}-{spec.site}-{spec.start}"
    artifact = runtime.store.get_or_build(DICTIONARY, recipe, build, name=name)
    tensors, seconds = dict(artifact.tensors), float(artifact.meta["seconds"])
    thresholds = tensors.pop("threshold", None)
    plain = unstack(tensors)
    if arm.activation is None:
        return Made(dict(zip(arm.steps, plain, strict=True)), seconds)
    each: Sequence[Tensor | None] = [None] * len(plain) if thresholds is None else list(thresholds)
    made = [arm.activation.dictionary(d, t) for d, t in zip(plain, each, strict=True)]
    return Made(dict(zip(arm.steps, made, strict=True)), seconds)


def all_trained(
    runtime: Runtime, cohort: Few, l1: dict[str, float], only: Sequence[str] = ()
) -> dict[str, dict[Spec, Made]]:
    """Every dictionary of every arm, or of some, by arm and spec; arm by arm, the anchor's before
    its siblings' at each site."""
    return {
        name: {s: trained(runtime, cohort, arm, s) for s in specs(arm, cohort.sites, l1)}
        for name, arm in ARMS.items()
        if not only or name in only
    }
