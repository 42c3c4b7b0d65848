"""Steering: what a direction does to the model it was found in, and to its siblings.

A direction v [width] at the steering site is added at every position, `dose` times. Its effect is
the signed change of the contrast it aims at (a difference of logits on the targeted positions), the
change of accuracy there, and KL(clean || steered) over all kept positions, mean over output heads,
in nats. A KL has no sign: a direction that disturbs a sibling much may steer it the right way, the
wrong way, or nowhere, so transfer is judged by the first and compared with random directions of
equal norm by the last.

With a @ r ~ b (sibling a, anchor b, rows are tokens) the anchor's direction v is v @ r.T in the
sibling. Difference-of-means steering: Turner et al. 2023 (arXiv 2308.10248), Rimsky et al. 2024
(arXiv 2312.06681); judged in arXiv 2605.24577, section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.interventions import CleanRun, InterventionCohort
from polyrot.maps.procrustes import Rotation
from polyrot.measured import Interval, Unit, interval_about, jackknifed
from polyrot.runtime.device import memory_for
from polyrot.runtime.seeding import torch_generator

DOSES = (0.5, 1.0, 2.0, 4.0)
"""The paper's."""
BEYOND = (8.0, 16.0)
"""Further doses, for the one that equals an effect."""
N_RANDOM = 32
N_SEQUENCES = 128
"""Sequences that effects are scored on, in units of the toy's (see `intervention_tokens`)."""
TARGETS = 256
"""Targeted positions that a signed effect is averaged over, where there are as many."""
RANDOM_SEED = 20260606
INTERVENTION_MEMORY_REMEDY = "use a device with more memory, or --device cpu"
LEAST = 64
"""Sequences that an effect is averaged over at least: those of the paper's on Pythia."""
ROUNDING = 1e-5
"""Relative standard error that single precision leaves in a ratio of effects."""
POSITIONS = 2048
"""Positions run at once. At the vocabulary of Pythia their logits are 400 MB, and six of them are
held: clean, steered, and what their divergence needs."""


def parts(tokens: Tensor) -> Sequence[Tensor]:
    """tokens [sequences, position] in parts of about POSITIONS, a sequence each at least."""
    return tokens.split(max(1, POSITIONS // tokens.shape[1]))


@dataclass(frozen=True)
class Effects:
    """Of several variants of a run, each [variants], float64.

    gain: change of the targeted contrast, logits. accuracy: change of accuracy on the targeted
    positions. kl: KL(clean || variant), nats, mean over kept positions and output heads.
    kl_elsewhere: the same over kept positions that are no target.
    """

    gain: np.ndarray
    accuracy: np.ndarray
    kl: np.ndarray
    kl_elsewhere: np.ndarray


def rotated_direction(v: Tensor, rotation: Rotation) -> Tensor:
    """The anchor's direction v [..., d] in the sibling's basis: v @ r.T, where a @ r ~ b.

    Means play no part: a direction is a difference. Raises ValueError where widths differ.
    """
    if v.shape[-1] != rotation.r.shape[0]:
        raise ValueError(f"a direction of width {v.shape[-1]}, a rotation of {rotation.r.shape[0]}")
    return v @ rotation.r.to(v).T


def tokens_at_stake(
    cohort: InterventionCohort, contrast: str, n: int = N_SEQUENCES, wanted: int = TARGETS
) -> Tensor:
    """Sequences that hold `wanted` targets of the contrast: `n` times the cohort's measure, or as
    many times twice that as are needed, and LEAST at least; all there are if they hold fewer. In a
    language model a contrast is seldom at stake: an average over thirty positions is noise, and a
    ratio to it may have any sign."""
    least = min(n, LEAST)
    while True:
        tokens, more = cohort.intervention_tokens(n), cohort.intervention_tokens(2 * n)
        targets = int(cohort.target(contrast, tokens).where.sum())
        enough = targets >= wanted and len(tokens) >= least
        if enough or len(more) == len(tokens):
            return tokens
        n *= 2


@torch.no_grad()
def effects(
    cohort: InterventionCohort,
    model: int,
    tokens: Tensor,
    contrast: str,
    site: str,
    shift: Callable[[CleanRun], Tensor],
) -> Effects:
    """Effects, aimed at `contrast`, of what `shift` adds at `site` of model number `model`.

    shift(run): broadcasts to [variants, batch, position, width]. tokens: [batch, position].
    Raises ValueError for a shift of another number of dimensions or that is not finite.
    """
    totals: list[np.ndarray] = []
    for part in parts(tokens):
        with memory_for(
            f"an intervention on {part.numel()} positions", part.device, INTERVENTION_MEMORY_REMEDY
        ):
            run = cohort.clean_run(model, part)
            added = shift(run)
            if added.ndim != 4 or not bool(added.isfinite().all()):
                raise ValueError(
                    f"a shift is finite [variants, batch, position, width], not {list(added.shape)}"
                )
            totals.append(_totals(cohort, run, part, contrast, site, added))
    gain, hits, kl, elsewhere, targets, kept = np.sum(totals, axis=0)
    if not targets.all():
        raise ValueError(f"no position of the batch is a target of {contrast}: use more sequences")
    return Effects(
        gain / targets, hits / targets, kl / kept, elsewhere / np.maximum(kept - targets, 1)
    )


def _totals(
    cohort: InterventionCohort,
    run: CleanRun,
    tokens: Tensor,
    contrast: str,
    site: str,
    shift: Tensor,
) -> np.ndarray:
    """[6, variants]: sums over one batch, a variant at a time, for memory's sake."""
    target = cohort.target(contrast, tokens)
    clean = run.outputs(site, torch.zeros_like(shift[:1, :1, :1]))
    clean_log = {h: x[0, run.kept].log_softmax(-1) for h, x in clean.items()}
    where = target.where & run.kept
    inside = where[run.kept]
    labels = target.labels[where]
    before = clean[target.head][0, where]
    found = []
    for one in shift:
        after = {h: x[0] for h, x in run.outputs(site, one[None]).items()}
        kl = torch.stack(
            [
                (p.exp() * (p - after[h][run.kept].log_softmax(-1))).sum(-1)
                for h, p in clean_log.items()
            ]
        ).mean(0)
        steered = after[target.head][where]
        hits = (steered.argmax(-1) == labels).sum() - (before.argmax(-1) == labels).sum()
        gain = ((steered - before) @ target.weights.to(before)).double().sum()
        sums = [gain, hits, kl.double().sum(), kl[~inside].double().sum()]
        found.append([*(float(x) for x in sums), float(inside.sum()), float(run.kept.sum())])
    return np.array(found).T


def steer(
    cohort: InterventionCohort, model: int, tokens: Tensor, contrast: str, vectors: Tensor
) -> Effects:
    """Effects of adding each of `vectors` [variants, width] at every position of the steering site.

    Raises ValueError where they are not of the cohort's width.
    """
    if vectors.ndim != 2 or vectors.shape[1] != cohort.width:
        raise ValueError(f"directions must be [n, {cohort.width}], not {list(vectors.shape)}")
    return effects(
        cohort, model, tokens, contrast, cohort.steering_site, lambda _: vectors[:, None, None, :]
    )


def random_directions(n: int, width: int, seed: int = RANDOM_SEED) -> Tensor:
    """`n` directions of unit norm, uniform on the sphere, [n, width]."""
    drawn = torch.randn(n, width, generator=torch_generator(seed, "random directions", n, width))
    return drawn / drawn.norm(dim=-1, keepdim=True)


@dataclass(frozen=True)
class DoseNeeded:
    """The dose at which a curve first reaches a given effect.

    dose: by linear interpolation between doses, from no effect at dose 0. censored: the curve
    never reaches it, and `dose` is the largest that was tried: the dose needed is larger.
    """

    dose: float
    censored: bool


def dose_needed(doses: Sequence[float], curve: Sequence[float], effect: float) -> DoseNeeded:
    """Where `curve` (at `doses`, increasing and positive) first reaches `effect`, sign included.

    Raises ValueError: lengths, doses not increasing, an effect of 0.
    """
    x, y = np.array([0.0, *doses]), np.array([0.0, *curve])
    if len(x) != len(y) or (np.diff(x) <= 0).any():
        raise ValueError(f"{len(y) - 1} effects at doses {list(doses)}: one each, doses increasing")
    if effect == 0 or not np.isfinite([*y, effect]).all():
        raise ValueError(f"no dose equals an effect of {effect} on the curve {list(curve)}")
    y = y * np.sign(effect)
    reached = np.flatnonzero(y >= abs(effect))
    if not reached.size:
        return DoseNeeded(float(x[-1]), True)
    i = int(reached[0])
    share = (abs(effect) - y[i - 1]) / (y[i] - y[i - 1])
    return DoseNeeded(float(x[i - 1] + share * (x[i] - x[i - 1])), False)


def ratio_of_doses(
    needed: DoseNeeded, without: Sequence[DoseNeeded], reference: float
) -> tuple[float, Interval | None]:
    """The dose needed over the `reference`, and its interval from the doses needed `without` each
    pair in turn, a jackknife over two pairs or more. It is open above where a dose is a bound: that
    of all pairs, whose ratio then is the least possible, or that without one of them."""
    value, interval = needed.dose / reference, None
    if len(without) > 1:
        doses = np.array([each.dose for each in without]) / reference
        interval = jackknifed(value, doses, "pairs", "positive", ROUNDING * value)
    if needed.censored or any(each.censored for each in without):
        interval = Interval(value if interval is None else interval.low, np.inf, "pairs")
    return value, interval


def mean_over_pairs(by_pair: np.ndarray, unit: Unit = "real") -> tuple[Interval | None, ...]:
    """The intervals of the means of `by_pair` [values, pairs], ratios of effects, over their pairs:
    Student's t, never narrower than rounding. None with one pair."""
    n = by_pair.shape[1]
    if n < 2:
        return (None,) * len(by_pair)
    values, errors = by_pair.mean(1), by_pair.std(1, ddof=1) / n**0.5
    errors = np.hypot(errors, ROUNDING * np.abs(values))
    return tuple(
        interval_about(float(value), float(error), "pairs", unit, freedom=n - 1)
        for value, error in zip(values, errors, strict=True)
    )
