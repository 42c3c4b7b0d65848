"""The four bars of a toy cohort: slow steps go through the store, what is judged is labelled.

Bar B is in `behaviour`, Bar P in `alignment` and `joint`, Bars C and Pr in `causal`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import pair_labels
from polyrot.measured import Measured, PairSite, Unit, interval_about
from polyrot.measures.attribution import clean_end_beside
from polyrot.measures.bars import alignment, behaviour, causal, joint
from polyrot.measures.bars.alignment import Alignment
from polyrot.measures.bars.behaviour import Behaviour, of_draws
from polyrot.measures.bars.causal import Causal
from polyrot.measures.bars.joint import Joint
from polyrot.measures.bars.kept import ALIGNMENT_SEED, Decoys, siblings_and_anchor
from polyrot.measures.component_effects import Attribution
from polyrot.toy import symmetry, task
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import TENSORS

Readings = Mapping[str, Behaviour]
"""Bar B by the lengths of its train part, such as "2-62"."""


def seed_labels(cohort: ToyCohort) -> tuple[str, ...]:
    """One label per model."""
    return tuple(f"seed {seed}" for seed in cohort.seeds)


def bar_b(readings: Readings, cohort: ToyCohort) -> Measured:
    """Bar B by seed, by the reading whose worst seed is lowest, each with the interval of its draws
    of inputs; beside it the anchor's by distribution and by head, and every reading's figures."""
    name = min(readings, key=lambda name: float(readings[name].mean.max()))
    return _bar_b(readings, name, cohort)


def anchors_bar_b(readings: Readings, cohort: ToyCohort) -> Measured:
    """Bar B of the anchor alone, by the reading that is lowest there."""
    made = _bar_b(readings, anchors_reading(readings), cohort)
    return Measured(
        made.values[:1],
        made.labels[:1],
        beside=made.beside,
        seeds=made.seeds,
        counts=made.counts,
        intervals=made.intervals[:1],
        unit=made.unit,
    )


def anchors_reading(readings: Readings) -> str:
    """The reading by which the anchor's Bar B is lowest."""
    return min(readings, key=lambda name: float(readings[name].mean[0]))


def _bar_b(readings: Readings, name: str, cohort: ToyCohort) -> Measured:
    found, labels = readings[name], seed_labels(cohort)
    beside: dict[str, float | str] = {"reading": f"train lengths {name}"}
    beside |= {f"anchor_{d}": float(found.of(d)[0]) for d in task.DISTRIBUTIONS}
    heads = zip(task.HEADS, found.by_head[0].tolist(), strict=True)
    beside |= {f"anchor_{head}_head": value for head, value in heads}
    beside["anchor_relative_error"] = float(found.standard_error[0] / found.mean[0])
    for reading, other in readings.items():
        each = zip(labels, other.mean.tolist(), strict=True)
        beside |= {f"{label.replace(' ', '_')}_{reading}": value for label, value in each}
    return Measured(
        found.mean.numpy(),
        labels,
        beside=beside,
        seeds={"models": list(cohort.seeds), "data": behaviour.DATA_SEED},
        counts={
            "positions": int(found.positions.sum()),
            "heads": len(task.HEADS),
            "sequences": len(found.draws) * behaviour.INPUTS,
        },
        intervals=found.intervals,
        unit="positive",
    )


def depth_share(readings: Readings, cohort: ToyCohort) -> Measured:
    """The depth head's share of the anchor's KL, by the reading of `anchors_bar_b`; the siblings',
    and the anchor's by the other readings, beside."""
    name = anchors_reading(readings)
    found = readings[name]
    share, error = found.share("depth"), found.share_error("depth")
    beside: dict[str, float | str] = {"reading": f"train lengths {name}"}
    beside |= dict(zip(seed_labels(cohort)[1:], share[1:].tolist(), strict=True))
    beside |= {f"anchor_{name}": float(x.share("depth")[0]) for name, x in readings.items()}
    n = len(found.draws)
    interval = None
    if error is not None:
        interval = of_draws(float(share[0]), float(error[0]), n, "fraction")
    return Measured(
        share[:1].numpy(),
        seed_labels(cohort)[:1],
        beside=beside,
        counts={"positions": int(found.positions.sum()), "sequences": n * behaviour.INPUTS},
        intervals=(interval,),
        unit="fraction",
    )


def own_specification(found: Decoys, cohort: ToyCohort) -> Measured:
    """KL from the specification to the model it was folded from; to the siblings beside. A
    demonstration: folding is exact, so that it is 0 to rounding for any model."""
    kl = found.specification.mean
    beside: dict[str, float | str] = {
        "demonstration": "a model against its own weights, exactly folded: 0 for any model"
    }
    beside |= dict(zip(seed_labels(cohort)[1:], kl[1:].tolist(), strict=True))
    counts = {"positions": int(found.specification.positions.sum())}
    return Measured(kl[:1].numpy(), seed_labels(cohort)[:1], beside=beside, counts=counts)


def decoy_ratio(found: Decoys, real: Behaviour) -> Measured:
    """The decoy's Bar B over the real model's; both, and the swapped layers', beside.

    The decoy's figure needs few positions, the real model's, of heavy tail, all of them.
    """
    same, averaged, swapped = found.labels.mean.tolist()
    bar = float(real.mean[0])
    relative = [float(x.standard_error[i] / x.mean[i]) for x, i in ((found.labels, 1), (real, 0))]
    error = averaged / bar * sum(r**2 for r in relative) ** 0.5
    counts = {"sequences": len(real.draws) * behaviour.INPUTS}
    interval = of_draws(averaged / bar, error, len(real.draws))
    return Measured(
        np.array([averaged / bar]), ("",), counts=counts, intervals=(interval,), unit="positive"
    ).also(
        bar_b_real=bar,
        bar_b_real_on_the_decoys_positions=same,
        bar_b_averaged_depth=averaged,
        bar_b_swapped_layers=swapped,
        bar_p_averaged_depth=float(found.mse[0]),
        bar_p_swapped_layers=float(found.mse[1]),
        positions=float(found.labels.positions.sum()),
    )


def bar_p(found: Alignment, cohort: ToyCohort) -> Measured:
    """Largest per-tensor MSE by pair, after the refinement; beside it by pair the largest absolute
    difference of entries, and what is left of the MSE with the neurons' scales chosen for it."""
    siblings, anchor = (x.to(torch.float64) for x in siblings_and_anchor(cohort))
    anchors = anchor.select([0] * len(siblings))
    element = found.element.to(anchor.position.device)
    again = alignment.rescaled(symmetry.act(element, siblings), anchors)
    worst = {found.worst_tensor(i) for i in range(len(found.difference))}
    return by_pair(found.largest, cohort).also(
        before_refinement=float(found.searched.mean()),
        unaligned=float(found.unaligned.mean()),
        set_by=", ".join(sorted(worst)),
        **{
            f"{name}_{label}": value
            for name, each in (
                ("largest_difference", found.difference),
                ("neurons_rescaled", again),
            )
            for label, value in zip(pair_labels(cohort), each.tolist(), strict=True)
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
    return by_pair(found.smallest_largest_mse(), cohort).also(**beside)


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
    return by_pair(found.worse_on_both(), cohort).also(
        largest_gap_between_starts=float(gap.max()),
        largest_loss_above_bound=float((found.loss - found.bound).max()),
        distance_of_end_rotations=float(found.distance.mean()),
        **beside,
    )


def causal_within(
    found: Causal, cohort: ToyCohort, clean_end: Sequence[Attribution] = ()
) -> Measured:
    """r of prediction and measurement by seed; completeness and convergence beside, and the same of
    integrated gradients at the points of the paper's pipeline (on the sequences of section 8)."""
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
            **clean_end_beside(cohort.seeds, clean_end, [g.measured for g in clean_end]),
        },
        seeds={"models": list(cohort.seeds)},
        counts={"components": found.measured.shape[1], "sequences": causal.SEQUENCES},
    )


def causal_across(
    found: Causal, cohort: ToyCohort, clean_end: Sequence[Attribution] = ()
) -> Measured:
    """r of the anchor's prediction and the aligned sibling's measurement, by pair. The anchor's own
    r is the ceiling: an exact copy, aligned, has its very effects. Beside it the same of integrated
    gradients at the points of the paper's pipeline (on the sequences of section 8)."""
    aligned = [
        gradient.measured.cpu()[order]
        for gradient, order in zip(clean_end[1:], found.components[1:], strict=False)
    ]
    cumulative = zip(pair_labels(cohort), found.cumulative_across().tolist(), strict=True)
    made = by_pair(found.across(), cohort, "correlation").also(
        r_of_measured_with_measured=float(found.measured_across().mean()),
        **{f"cumulative_ablation_{label}": value for label, value in cumulative},
        **clean_end_beside(cohort.seeds[1:], [clean_end[0] for _ in aligned], aligned),
    )
    return made.below(float(found.within()[0]))


def mean_over_pairs(by_pair: Measured) -> Measured:
    """The mean of one value per pair, the pairs being the sample of its interval."""
    return Measured(
        np.array([by_pair.values.mean()]),
        ("mean over pairs",),
        by_pair.values[None],
        by_pair.beside,
        by_pair.seeds,
        by_pair.counts,
        unit=by_pair.unit,
    )


def independent_minus_shared(
    shared: tuple[PairSite, float], independent: tuple[PairSite, float]
) -> Measured:
    """Mean rotated EV of the cohort with shared input and output minus the independent one's.

    Of either cohort: rotated EV at its internal sites, whose mean over sites is taken, and what the
    anchor's own activations score, as those of a rotated copy do; the difference of these is the
    ceiling. The interval is Welch's, the pairs of either cohort being its samples. Recorded beside,
    by cohort: the mean, and at how many sites R is not determined, where that is known.
    """
    samples = [table.values.mean(1) for table, _ in (shared, independent)]
    value = float(samples[0].mean() - samples[1].mean())
    interval = None
    if all(len(x) > 1 for x in samples):
        parts = [float(x.var(ddof=1)) / len(x) for x in samples]
        total = sum(parts)
        spread = sum(part**2 / (len(x) - 1) for part, x in zip(parts, samples, strict=True))
        freedom = total**2 / spread if spread else np.inf
        interval = interval_about(value, total**0.5, "pairs", freedom=freedom)
    return Measured(
        np.array([value]),
        ("",),
        None,
        {
            "rotated_ev_toy_a": float(samples[0].mean()),
            "rotated_ev_toy_b": float(samples[1].mean()),
            **{f"{name}_toy_a": x for name, x in shared[0].not_identified.items()},
            **{f"{name}_toy_b": x for name, x in independent[0].not_identified.items()},
        },
        counts={"pairs": sum(map(len, samples))},
        intervals=(interval,),
    ).below(shared[1] - independent[1])


def by_pair(values: Tensor, cohort: ToyCohort, unit: Unit = "real") -> Measured:
    """Of single pairs, arithmetic on their weights: without intervals."""
    array = values.double().cpu().numpy()
    return Measured(
        array,
        pair_labels(cohort),
        seeds={"models": list(cohort.seeds), "alignment": ALIGNMENT_SEED},
        counts={"pairs": len(array)},
        unit=unit,
    )
