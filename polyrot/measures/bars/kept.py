"""What the four bars are measured from: each step that costs minutes goes through the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from polyrot.defaults import POSITIONS
from polyrot.measures.bars import across, alignment, behaviour, causal, joint, published_search
from polyrot.measures.bars.across import Across
from polyrot.measures.bars.alignment import Alignment
from polyrot.measures.bars.behaviour import Behaviour
from polyrot.measures.bars.causal import Causal
from polyrot.measures.bars.joint import Joint
from polyrot.measures.bars.overlap import activation_overlap
from polyrot.measures.bars.published_search import PublishedSearch
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact, Checkpoint, Runtime, Store
from polyrot.toy import symmetry
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import Folded, joined
from polyrot.toy.symmetry import Element

RECIPE_VERSION = 1  # raise when a change of code changes a figure


FEW_POSITIONS = 140_000
"""Positions for decoys and for the specification: what they show are orders of magnitude."""


STARTS, ROUNDS, STEPS, RATE = 16, 6, 400, 5e-2


COPIES = 8
"""Elements of its symmetry group by which the anchor is turned, to be aligned with itself."""


ALIGNMENT_SEED = 20260610


@dataclass(frozen=True)
class Decoys:
    """Bar B of the anchor (first), of the decoy with averaged depth rows and of the one with
    swapped layers, all on the same positions; `mse`: [2], the decoys' largest per-tensor MSE
    against the anchor; `specification`: [models], KL from the folded anchor to every model."""

    labels: Behaviour
    mse: Tensor
    specification: Behaviour


def models(cohort: ToyCohort) -> Folded:
    """Every model as the cohort itself folds it, the anchor first: what all bars are about."""
    return joined([cohort.folded(m) for m in range(len(cohort.seeds))])


def behaviours(
    runtime: Runtime,
    cohort: ToyCohort,
    positions: int = POSITIONS,
    content: behaviour.Content = behaviour.CONTENTS[0],
) -> Behaviour:
    """Bar B of every seed from the exact labels; content: lengths of the train part."""

    def build(checkpoint: Checkpoint) -> Artifact:
        found = behaviour.measure_behaviour(
            models(cohort),
            positions,
            content=content,
            checkpoint=checkpoint,
            progress=runtime.progress,
        )
        return Artifact(found.to_tensors(), {})

    recipe: dict[str, object] = {"positions": positions, "seed": behaviour.DATA_SEED}
    if content != behaviour.CONTENTS[0]:  # which the first tables do not name
        recipe["content"] = list(content)
    return Behaviour(**_stored(runtime.store, cohort, "bar-b", recipe, build).tensors)


def between_seeds(runtime: Runtime, cohort: ToyCohort) -> Across:
    """Bar B from the anchor to its copy, its siblings and their decoys."""

    def build(checkpoint: Checkpoint) -> Artifact:
        found = across.measure_across(
            *siblings_and_anchor(cohort),
            across.POSITIONS,
            checkpoint=checkpoint,
            progress=runtime.progress,
        )
        return Artifact(found.to_tensors(), {})

    recipe = {
        "positions": across.POSITIONS,
        "seed": behaviour.DATA_SEED,
        "content": list(across.CONTENT),
    }
    artifact = _stored(runtime.store, cohort, "bar-b-across", recipe, build)
    return Across.of(Behaviour(**artifact.tensors))


def decoys(runtime: Runtime, cohort: ToyCohort) -> Decoys:
    """Bar B of the decoys, and of every seed from the specification."""

    def build(_: Checkpoint) -> Artifact:
        everyone = models(cohort)
        anchor = everyone.select([0])
        made = [behaviour.averaged_depth(anchor), behaviour.swapped_layers(anchor)]
        labels = behaviour.measure_behaviour(
            joined([anchor, *made]), FEW_POSITIONS, progress=runtime.progress
        )
        specification = behaviour.measure_behaviour(
            everyone, FEW_POSITIONS, specification=anchor, progress=runtime.progress
        )
        mse = [alignment.tensor_mse(m, anchor).amax(1) for m in made]
        tensors = {f"labels.{n}": t for n, t in labels.to_tensors().items()}
        tensors |= {f"specification.{n}": t for n, t in specification.to_tensors().items()}
        return Artifact({**tensors, "mse": torch.cat(mse)}, {})

    recipe = {"positions": FEW_POSITIONS, "seed": behaviour.DATA_SEED}
    tensors = _stored(runtime.store, cohort, "bar-b-decoys", recipe, build).tensors
    labels, specification = (
        Behaviour(
            **{
                name.removeprefix(f"{part}."): tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{part}.")
            }
        )
        for part in ("labels", "specification")
    )
    return Decoys(labels, tensors["mse"], specification)


def alignments(runtime: Runtime, cohort: ToyCohort) -> Alignment:
    """The best alignment of every sibling with the anchor."""

    def build(_: Checkpoint) -> Artifact:
        siblings, anchor = siblings_and_anchor(cohort)
        found = _aligned(runtime, "alignment", siblings, anchor)
        tensors = {n: getattr(found, n) for n in _FIGURES}
        # Permutations as int64 and scales are a few hundred KiB; the rest of an element is small.
        tensors |= {f"element.{n}": getattr(found.element, n) for n in symmetry.PARTS}
        return Artifact(tensors, {})

    tensors = _stored(runtime.store, cohort, "toy-alignment", _search(), build).tensors
    element = Element(**{n: tensors[f"element.{n}"] for n in symmetry.PARTS})
    return Alignment(element, **{n: tensors[n] for n in _FIGURES})


def published_search_of(runtime: Runtime, cohort: ToyCohort) -> PublishedSearch:
    """What the paper's own search finds of every sibling and the anchor, before any refinement."""

    def build(_: Checkpoint) -> Artifact:
        drawn = torch_generator(ALIGNMENT_SEED, "head permutations")
        found = published_search.search(
            *siblings_and_anchor(cohort), drawn, starts=STARTS, rounds=ROUNDS
        )
        return Artifact(found.to_tensors(), {})

    order = "the residual rotation first, transposed"
    recipe = {"seed": ALIGNMENT_SEED, "starts": STARTS, "rounds": ROUNDS, "order": order}
    artifact = _stored(runtime.store, cohort, "toy-published-search", recipe, build)
    return PublishedSearch(**artifact.tensors)


def self_alignment(runtime: Runtime, cohort: ToyCohort) -> Tensor:
    """[COPIES], largest per-tensor MSE after alignment of the anchor to itself under random
    elements of its own symmetry group: what the search can reach, and so Bar P's ceiling."""

    def build(_: Checkpoint) -> Artifact:
        anchor = models(cohort).select([0])
        device = anchor.position.device
        drawn = symmetry.random(COPIES, torch_generator(ALIGNMENT_SEED, "copies")).to(device)
        moved = symmetry.act(drawn, anchor.select([0] * COPIES))
        found = _aligned(runtime, "alignment with itself", moved, anchor)
        return Artifact({"mse": found.mse}, {})

    recipe = {"copies": COPIES, **_search()}
    return (
        _stored(runtime.store, cohort, "toy-self-alignment", recipe, build).tensors["mse"].amax(1)
    )


def _aligned(runtime: Runtime, stage: str, moved: Folded, anchor: Folded) -> Alignment:
    """The best alignment found of `moved` with the anchor, as `_search` says."""
    runtime.progress(stage, 0, 1)
    drawn = torch_generator(ALIGNMENT_SEED, "head permutations")
    found = alignment.align(
        moved, anchor, drawn, starts=STARTS, rounds=ROUNDS, steps=STEPS, rate=RATE
    )
    runtime.progress(stage, 1, 1)
    return found


def _search() -> dict[str, object]:
    """What decides how an alignment is searched for."""
    return {
        "seed": ALIGNMENT_SEED,
        "starts": STARTS,
        "rounds": ROUNDS,
        "steps": STEPS,
        "rate": RATE,
        "sharpness": alignment.SHARPNESS,
        "polish": alignment.POLISH,
    }


_FIGURES = tuple(f.name for f in fields(Alignment) if f.name != "element")


def joint_alignments(runtime: Runtime, cohort: ToyCohort, aligned: Alignment) -> Joint:
    """Joint alignment of weights and activations of every pair, both losses."""

    def build(_: Checkpoint) -> Artifact:
        siblings, anchor = siblings_and_anchor(cohort)
        device = siblings.position.device
        activations = [cohort.activations("fit", site) for site in cohort.internal]
        runtime.progress("joint alignment", 0, 1)
        found = joint.align_jointly(
            siblings,
            anchor.select([0] * len(siblings)),
            aligned.element.to(device),
            activation_overlap(cohort.internal, activations),
            [float(x[0].double().var(0, correction=0).mean()) for x in activations],
            steps=STEPS,
            rate=RATE,
        )
        runtime.progress("joint alignment", 1, 1)
        return Artifact({n: t.contiguous() for n, t in found.to_tensors().items()}, {})

    recipe = {
        "weightings": list(joint.WEIGHTINGS),
        "published": list(joint.PUBLISHED_WEIGHTINGS),
        "steps": STEPS,
        "rate": RATE,
        "sites": list(cohort.internal),
        "from": _search(),
    }
    return Joint.from_tensors(_stored(runtime.store, cohort, "toy-joint", recipe, build).tensors)


def effects(runtime: Runtime, cohort: ToyCohort, aligned: Alignment) -> Causal:
    """Predicted and measured effects of every model."""

    def build(_: Checkpoint) -> Artifact:
        found = causal.measure_causal(cohort, aligned.element, progress=runtime.progress)
        return Artifact(found.to_tensors(), {})

    recipe = {
        "sequences": causal.SEQUENCES,
        "steps": causal.STEPS,
        "convergence": [causal.CONVERGENCE_SEQUENCES, *causal.CONVERGENCE],
        # less than `_search` has: see "Changing what trains" in CONTRIBUTING.md
        "from": [ALIGNMENT_SEED, STARTS, ROUNDS, STEPS],
    }
    return Causal.from_tensors(_stored(runtime.store, cohort, "toy-causal", recipe, build).tensors)


def siblings_and_anchor(cohort: ToyCohort) -> tuple[Folded, Folded]:
    """All models folded: the siblings, and the anchor."""
    folded = models(cohort)
    return folded.select(range(1, len(folded))), folded.select([0])


def _stored(
    store: Store,
    cohort: ToyCohort,
    kind: str,
    recipe: Mapping[str, object],
    build: Callable[[Checkpoint], Artifact],
) -> Artifact:
    whole = {"version": RECIPE_VERSION, "cohort": cohort.fingerprint, **recipe}
    return store.get_or_build(kind, whole, build, name=cohort.scale)
