"""The four bars of a toy cohort: slow steps go through the store, what is judged is labelled.

Bar B is in `behaviour`, Bar P in `alignment` and `joint`, Bars C and Pr in `causal`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import pair_labels
from polyrot.measured import Measured
from polyrot.measures.bars import alignment, behaviour, causal, joint
from polyrot.measures.bars.alignment import Alignment
from polyrot.measures.bars.behaviour import Behaviour
from polyrot.measures.bars.causal import Causal
from polyrot.measures.bars.joint import Joint
from polyrot.measures.bars.kept import ALIGNMENT_SEED, Decoys
from polyrot.toy import symmetry, task
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import TENSORS, fold

# ---------------------------------------------------------------------- measured, through a store


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
