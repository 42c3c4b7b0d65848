"""The four bars of a toy cohort: what is dear goes through the store, what is judged is labelled.

Bar B is in `behaviour`, Bar P in `alignment` and `joint`, Bars C and Pr in `causal`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from polyrot.cohort import pair_labels
from polyrot.measured import Measured
from polyrot.progress import Progress, silent
from polyrot.seeding import torch_generator
from polyrot.store import Artifact, Checkpoint, Store
from polyrot.toy import alignment, behaviour, causal, joint, symmetry, task, transformer
from polyrot.toy.alignment import Alignment
from polyrot.toy.behaviour import Behaviour
from polyrot.toy.causal import Causal
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import TENSORS, Folded, fold
from polyrot.toy.joint import Joint
from polyrot.toy.overlap import activation_overlap
from polyrot.toy.symmetry import Element

RECIPE_VERSION = 1  # raise when a change of code changes a figure

POSITIONS = 1_000_000
"""Positions of Bar B, at least; the paper takes 1e7."""
FEW_POSITIONS = 140_000
"""Positions for decoys and for the specification: what they show are orders of magnitude."""
STARTS, ROUNDS, STEPS, RATE = 16, 6, 400, 5e-2
ALIGNMENT_SEED = 20260610


@dataclass(frozen=True)
class Decoys:
    """Bar B of the anchor (first), of the decoy with averaged depth rows and of the one with
    swapped layers, all on the same positions; `mse`: [2], the decoys' largest per-tensor MSE
    against the anchor; `specification`: [models], KL from the folded anchor to every model."""

    labels: Behaviour
    mse: Tensor
    specification: Behaviour


# ---------------------------------------------------------------------- measured, through a store


def behaviours(
    store: Store, cohort: ToyCohort, positions: int = POSITIONS, progress: Progress = silent
) -> Behaviour:
    """Bar B of every seed from the exact labels."""

    def build(_: Checkpoint) -> Artifact:
        found = behaviour.measure(cohort.params, positions, progress=progress)
        return Artifact(found.to_tensors(), {})

    recipe = {"positions": positions, "seed": behaviour.DATA_SEED}
    return Behaviour(**_stored(store, cohort, "bar-b", recipe, build).tensors)


def decoys(store: Store, cohort: ToyCohort, progress: Progress = silent) -> Decoys:
    """Bar B of the decoys, and of every seed from the specification."""

    def build(_: Checkpoint) -> Artifact:
        anchor = transformer.select(cohort.params, [0])
        made = [behaviour.averaged_depth(anchor), behaviour.swapped_layers(anchor)]
        three = {n: torch.cat([m[n] for m in (anchor, *made)]) for n in anchor}
        labels = behaviour.measure(three, FEW_POSITIONS, progress=progress)
        specification = behaviour.measure(
            cohort.params, FEW_POSITIONS, specification=fold(anchor), progress=progress
        )
        mse = [alignment.tensor_mse(fold(m), fold(anchor)).amax(1) for m in made]
        tensors = {f"labels.{n}": t for n, t in labels.to_tensors().items()}
        tensors |= {f"specification.{n}": t for n, t in specification.to_tensors().items()}
        return Artifact({**tensors, "mse": torch.cat(mse)}, {})

    recipe = {"positions": FEW_POSITIONS, "seed": behaviour.DATA_SEED}
    tensors = _stored(store, cohort, "bar-b-decoys", recipe, build).tensors
    labels, specification = (
        Behaviour(**{n: tensors[f"{part}.{n}"] for n in ("kl", "positions", "draws")})
        for part in ("labels", "specification")
    )
    return Decoys(labels, tensors["mse"], specification)


def alignments(store: Store, cohort: ToyCohort, progress: Progress = silent) -> Alignment:
    """The best alignment of every sibling with the anchor."""

    def build(_: Checkpoint) -> Artifact:
        siblings, anchor = siblings_and_anchor(cohort)
        progress("alignment", 0, 1)
        found = alignment.align(
            siblings,
            anchor,
            torch_generator(ALIGNMENT_SEED, "head permutations"),
            starts=STARTS,
            rounds=ROUNDS,
            steps=STEPS,
            rate=RATE,
        )
        progress("alignment", 1, 1)
        tensors = {n: getattr(found, n) for n in _FIGURES}
        # Permutations as int64 and scales are a few hundred KiB; the rest of an element is small.
        tensors |= {f"element.{n}": getattr(found.element, n) for n in symmetry.PARTS}
        return Artifact(tensors, {})

    recipe = {
        "seed": ALIGNMENT_SEED,
        "starts": STARTS,
        "rounds": ROUNDS,
        "steps": STEPS,
        "rate": RATE,
        "sharpness": alignment.SHARPNESS,
        "polish": alignment.POLISH,
    }
    tensors = _stored(store, cohort, "toy-alignment", recipe, build).tensors
    element = Element(**{n: tensors[f"element.{n}"] for n in symmetry.PARTS})
    return Alignment(element, **{n: tensors[n] for n in _FIGURES})


_FIGURES = tuple(f.name for f in fields(Alignment) if f.name != "element")


def joint_alignments(
    store: Store, cohort: ToyCohort, aligned: Alignment, progress: Progress = silent
) -> Joint:
    """Joint alignment of weights and activations of every pair, both losses."""

    def build(_: Checkpoint) -> Artifact:
        siblings, anchor = siblings_and_anchor(cohort)
        device = siblings.position.device
        activations = [cohort.activations("fit", site) for site in cohort.internal]
        progress("joint alignment", 0, 1)
        found = joint.align_jointly(
            siblings,
            anchor.select([0] * len(siblings)),
            aligned.element.to(device),
            activation_overlap(cohort.internal, activations),
            [float(x[0].double().var(0, correction=0).mean()) for x in activations],
            steps=STEPS,
            rate=RATE,
        )
        progress("joint alignment", 1, 1)
        return Artifact({n: t.contiguous() for n, t in found.to_tensors().items()}, {})

    recipe = {
        "weightings": list(joint.WEIGHTINGS),
        "published": list(joint.PUBLISHED_WEIGHTINGS),
        "steps": STEPS,
        "rate": RATE,
        "sites": list(cohort.internal),
        "from": [ALIGNMENT_SEED, STARTS, ROUNDS],
    }
    return Joint.from_tensors(_stored(store, cohort, "toy-joint", recipe, build).tensors)


def effects(
    store: Store, cohort: ToyCohort, aligned: Alignment, progress: Progress = silent
) -> Causal:
    """Predicted and measured effects of every model."""

    def build(_: Checkpoint) -> Artifact:
        return Artifact(causal.measure(cohort, aligned.element, progress=progress).to_tensors(), {})

    recipe = {
        "sequences": causal.SEQUENCES,
        "steps": causal.STEPS,
        "convergence": [causal.CONVERGENCE_SEQUENCES, *causal.CONVERGENCE],
        "from": [ALIGNMENT_SEED, STARTS, ROUNDS, STEPS],
    }
    return Causal.from_tensors(_stored(store, cohort, "toy-causal", recipe, build).tensors)


def siblings_and_anchor(cohort: ToyCohort) -> tuple[Folded, Folded]:
    """All models folded: the siblings, and the anchor."""
    folded = fold(cohort.params)
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


# ----------------------------------------------------------------------------- labelled for claims


def seed_labels(cohort: ToyCohort) -> tuple[str, ...]:
    """One label per model."""
    return tuple(f"seed {seed}" for seed in cohort.seeds)


def bar_b(found: Behaviour, cohort: ToyCohort) -> Measured:
    """Bar B by seed; beside it the anchor's by distribution and by head, and every seed's standard
    error over draws of inputs, which the interval over seeds does not hold."""
    beside = {f"anchor_{d}": float(found.of(d)[0]) for d in task.DISTRIBUTIONS}
    heads = zip(task.HEADS, found.by_head[0].tolist(), strict=True)
    beside |= {f"anchor_{head}_head": value for head, value in heads}
    errors = zip(seed_labels(cohort), found.standard_error.tolist(), strict=True)
    beside |= {f"standard_error_{label.replace(' ', '_')}": error for label, error in errors}
    return Measured(
        found.mean.numpy(),
        seed_labels(cohort),
        replicates=found.mean.numpy()[None],
        beside=beside,
        seeds={"models": list(cohort.seeds), "data": behaviour.DATA_SEED},
        counts={"positions": int(found.positions.sum()), "heads": len(task.HEADS)},
    )


def first(measured: Measured) -> Measured:
    """The anchor's value alone."""
    return Measured(
        measured.values[:1],
        measured.labels[:1],
        beside=measured.beside,
        seeds=measured.seeds,
        counts=measured.counts,
    )


def depth_share(found: Behaviour, cohort: ToyCohort) -> Measured:
    """The depth head's share of the anchor's KL; the siblings' beside."""
    share = found.share("depth")
    beside = dict(zip(seed_labels(cohort)[1:], share[1:].tolist(), strict=True))
    counts = {"positions": int(found.positions.sum())}
    return Measured(share[:1].numpy(), seed_labels(cohort)[:1], beside=beside, counts=counts)


def own_specification(found: Decoys, cohort: ToyCohort) -> Measured:
    """KL from the specification to the model it was folded from; to the siblings beside."""
    kl = found.specification.mean
    beside = dict(zip(seed_labels(cohort)[1:], kl[1:].tolist(), strict=True))
    counts = {"positions": int(found.specification.positions.sum())}
    return Measured(kl[:1].numpy(), seed_labels(cohort)[:1], beside=beside, counts=counts)


def decoy_ratio(found: Decoys, real: Behaviour) -> Measured:
    """The decoy's Bar B over the real model's; both, and the swapped layers', beside.

    The decoy's figure needs few positions, the real model's, of heavy tail, all of them.
    """
    same, averaged, swapped = found.labels.mean.tolist()
    bar = float(real.mean[0])
    return Measured.of(averaged / bar).also(
        bar_b_real=bar,
        bar_b_real_on_the_decoys_positions=same,
        bar_b_averaged_depth=averaged,
        bar_b_swapped_layers=swapped,
        bar_p_averaged_depth=float(found.mse[0]),
        bar_p_swapped_layers=float(found.mse[1]),
        positions=float(found.labels.positions.sum()),
    )


def bar_p(found: Alignment, cohort: ToyCohort) -> Measured:
    """Largest per-tensor MSE by pair, after the refinement; beside it what is left of it with the
    neurons' scales chosen for this very figure."""
    folded = fold(cohort.params)
    anchors, siblings = (
        folded.select(models).to(torch.float64)
        for models in ([0] * (len(folded) - 1), range(1, len(folded)))
    )
    element = found.element.to(folded.position.device)
    again = alignment.rescaled(symmetry.act(element, siblings), anchors)
    worst = {found.worst_tensor(i) for i in range(len(found.difference))}
    return _by_pair(found.largest, cohort).also(
        largest_difference=float(found.difference.min()),
        before_refinement=float(found.searched.mean()),
        unaligned=float(found.unaligned.mean()),
        set_by=", ".join(sorted(worst)),
        **{
            f"neurons_rescaled_{label}": value
            for label, value in zip(pair_labels(cohort), again.tolist(), strict=True)
        },
        tensors=float(len(TENSORS)),
    )


def joint_figure(found: Joint, cohort: ToyCohort) -> Measured:
    """Smallest largest-per-tensor MSE over weightings and starts, by pair; the mean trade-off curve
    beside, as "weight error / activation error" at each weighting."""
    curve = found.curve().mean(0)
    beside: dict[str, float | str] = {
        f"lambda_{w:g}": f"{point[0]:.3f} / {point[1]:.3f}"
        for w, point in zip(joint.WEIGHTINGS, curve.tolist(), strict=True)
    }
    return _by_pair(found.smallest_largest_mse(), cohort).also(**beside)


def basins(found: Joint, cohort: ToyCohort) -> Measured:
    """Share of weightings worse on both errors than both end points, by pair. Beside: the loss the
    two starts differ by, the loss above the global optimum, and the published loss's findings."""
    published = found.published.mean((0, 2))
    gap = (found.loss[..., 0] - found.loss[..., 1]).abs()
    beside: dict[str, float | str] = {
        f"published_lambda_{w:g}": f"{point[0]:.3f} / {point[1]:.3f}"
        for w, point in zip(joint.PUBLISHED_WEIGHTINGS, published.tolist(), strict=True)
    }
    worse = found.published_worse_on_both().double().mean(0).tolist()
    for w, share in zip(joint.PUBLISHED_WEIGHTINGS, worse, strict=True):
        beside[f"published_worse_on_both_lambda_{w:g}"] = share
    return _by_pair(found.worse_on_both(), cohort).also(
        largest_gap_between_starts=float(gap.max()),
        largest_loss_above_bound=float((found.loss - found.bound).max()),
        distance_of_end_rotations=float(found.distance.mean()),
        **beside,
    )


def causal_within(found: Causal, cohort: ToyCohort) -> Measured:
    """r of prediction and measurement by seed; completeness and convergence beside."""
    relative = found.incomplete.amax(1) / found.measured.abs().amax(1)
    steps = zip(causal.CONVERGENCE, found.convergence.tolist(), strict=True)
    beside = {f"completeness_error_{k}_steps": value for k, value in steps}
    return Measured(
        found.within().numpy(),
        seed_labels(cohort),
        beside={
            **beside,
            "largest_completeness_error": float(relative.max()),
            "lowest_r_of_cumulative_ablation": float(found.cumulative_within().min()),
        },
        seeds={"models": list(cohort.seeds)},
        counts={"components": found.measured.shape[1], "sequences": causal.SEQUENCES},
    )


def causal_across(found: Causal, cohort: ToyCohort) -> Measured:
    """r of the anchor's prediction and the aligned sibling's measurement, by pair."""
    cumulative = zip(pair_labels(cohort), found.cumulative_across().tolist(), strict=True)
    return _by_pair(found.across(), cohort).also(
        r_of_measured_with_measured=float(found.measured_across().mean()),
        **{f"cumulative_ablation_{label}": value for label, value in cumulative},
    )


def mean_over_pairs(by_pair: Measured) -> Measured:
    """The mean of one value per pair, with the pairs as clusters of its interval."""
    return Measured(
        np.array([by_pair.values.mean()]),
        ("mean over pairs",),
        by_pair.values[None],
        by_pair.beside,
        by_pair.seeds,
        by_pair.counts,
    )


def independent_minus_shared(shared: float, independent: float) -> Measured:
    """Mean rotated EV of the cohort with shared input and output minus the independent one's."""
    return Measured.of(shared - independent).also(
        rotated_ev_toy_a=shared, rotated_ev_toy_b=independent
    )


def _by_pair(values: Tensor, cohort: ToyCohort) -> Measured:
    array = values.double().cpu().numpy()
    return Measured(
        array,
        pair_labels(cohort),
        replicates=array[None],
        seeds={"models": list(cohort.seeds), "alignment": ALIGNMENT_SEED},
        counts={"pairs": len(array)},
    )
