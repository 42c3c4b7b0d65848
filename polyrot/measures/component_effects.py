"""Which components matter: mean ablation, attribution patching, integrated gradients.

The effect of a component is the rise of the loss when its write is replaced by its dataset mean,
one vector for all positions, and everything after it recomputed. Attribution patching predicts it
by the gradient at the clean run; integrated gradients by the gradient averaged over the straight
path from mean to clean (Sundararajan, Taly and Yan 2017, arXiv 1703.01365). For any cohort: the
cohort names its components.

By the fundamental theorem of calculus integrated gradients with ever more steps *are* the effect,
for any network whose loss has a gradient almost everywhere along the path: their agreement with the
measurement says nothing about what was learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from polyrot.cohorts.interventions import CleanRun, InterventionCohort
from polyrot.maps.checks import BadActivations

STEPS = 32
Points = Literal["midpoints", "clean end"]
"""Where on the path gradients are taken, of n steps: in the middle of each; or at k/n of the way
from mean to clean, k = 1 to n, the clean end included, as the paper's pipeline does (a Riemann sum
whose error is some ten times that of midpoints)."""
FRACTIONS = (1 / 64, 1 / 32, 1 / 16, 1 / 8)
BATCH = 16
"""Sequences that one program handles, with `AT_ONCE` variants of each."""
AT_ONCE = 10
BLOCKS = 8
"""Blocks of sequences, at least, where there are as many: each is left out once, for errors."""


@dataclass(frozen=True)
class Blocked:
    """Averages over the kept positions of a batch, block by block of sequences.

    values: float64 [blocks, ...], of each block. kept: float64 [blocks], its kept positions.
    """

    values: Tensor
    kept: Tensor

    @property
    def mean(self) -> Tensor:
        """[...], over the whole batch."""
        return torch.tensordot(self.kept / self.kept.sum(), self.values, dims=1)

    def without_each(self) -> Tensor:
        """[blocks, ...], over the batch without one block (a jackknife: Efron and Tibshirani 1993,
        chapter 11)."""
        shape = (-1, *[1] * (self.values.ndim - 1))
        weighted = self.values * self.kept.reshape(shape)
        rest = (self.kept.sum() - self.kept).reshape(shape)
        return (weighted.sum(0) - weighted) / rest


@dataclass(frozen=True)
class Attribution:
    """Integrated gradients of one model.

    effects: [components], predicted rise of the loss, nats. measured: [components], the rise.
    completeness_error: [components], |effects - measured|. steps: points of the path. curve:
    [components, steps], the prediction's density along the path from clean (first) to mean; its
    mean over steps is `effects`. without: [blocks, 2, components], effects and measured without
    one block of sequences.
    """

    components: tuple[str, ...]
    effects: Tensor
    measured: Tensor
    completeness_error: Tensor
    steps: int
    curve: Tensor
    without: Tensor

    @property
    def largest_error(self) -> float:
        """The largest completeness error over components, relative to the largest effect."""
        return float(self.completeness_error.max() / self.measured.abs().max())


@dataclass(frozen=True)
class Path:
    """The loss along the straight path from each component's clean write to its mean.

    fractions: [points] of the way. rise: [..., components, points], loss minus clean loss, nats.
    slope: [..., components], what attribution patching predicts for the whole way.
    """

    components: tuple[str, ...]
    fractions: Tensor
    rise: Tensor
    slope: Tensor

    @property
    def remainder(self) -> Tensor:
        """[..., components, points]: |rise - fraction * slope|, the error of the first-order
        guess."""
        return (self.rise - self.fractions * self.slope[..., None]).abs()

    def orders(self) -> Tensor:
        """[..., components]: log-log slope of the remainder against the fraction; 2 where
        quadratic.

        Raises ValueError naming components whose remainder is 0 somewhere (a linear model).
        """
        remainder = self.remainder
        by_component = remainder.movedim(-2, 0).flatten(1)
        flat = [n for n, r in zip(self.components, by_component, strict=True) if not r.all()]
        if flat:
            raise ValueError(f"no remainder to take the order of: {', '.join(flat)}")
        x = self.fractions.double().log()
        y = remainder.double().log()
        x = x - x.mean()
        return (y - y.mean(-1, keepdim=True)) @ x / x.square().sum()


def mean_ablation_by_block(
    cohort: InterventionCohort, model: int, tokens: Tensor, *, means: Tensor | None = None
) -> Blocked:
    """[blocks, components]: rise of the loss, nats, when each component writes its mean.

    tokens: [batch, position]. means: [components, width], default those of the fit split.
    Raises ValueError (shape of means), BadActivations (means or loss not finite).
    """
    to = _means(cohort, model, means)
    return _by_block(cohort, model, tokens, torch.float32, lambda run: _rises(run, to, [1.0])[:, 0])


def attribution_patching(
    cohort: InterventionCohort,
    model: int,
    tokens: Tensor,
    *,
    means: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """[components]: gradient at the clean run times (mean - clean), summed over the batch.

    Predicts the rise of the loss, nats (Nanda 2023; Syed, Rager and Conmy, arXiv 2310.10348).
    Exact where the loss is linear in the write. Arguments and errors as `mean_ablation_by_block`.
    """
    return patching_by_block(cohort, model, tokens, means=means, dtype=dtype).mean


def patching_by_block(
    cohort: InterventionCohort,
    model: int,
    tokens: Tensor,
    *,
    means: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Blocked:
    """`attribution_patching` block by block, [blocks, components]."""
    to = _means(cohort, model, means)
    return _by_block(cohort, model, tokens, dtype, lambda run: _densities(run, to, [0.0])[:, 0])


def integrated_gradients(
    cohort: InterventionCohort,
    model: int,
    tokens: Tensor,
    steps: int = STEPS,
    *,
    points: Points = "midpoints",
    means: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Attribution:
    """The gradient averaged over `steps` points of the path from mean to clean, times
    (mean - clean), one component moved at a time and later ones recomputed.

    Arguments and errors as `mean_ablation_by_block`; ValueError unless steps >= 1.
    """
    if steps < 1:
        raise ValueError(f"integrated gradients need at least one step, not {steps}")
    to = _means(cohort, model, means)
    into = 0.5 if points == "midpoints" else 0.0
    fractions = [(i + into) / steps for i in range(steps)]

    def both(run: CleanRun) -> Tensor:
        return torch.cat([_densities(run, to, fractions), _rises(run, to, [1.0])], dim=1)

    blocks = _by_block(cohort, model, tokens, dtype, both)
    found, rest = blocks.mean, blocks.without_each()
    curve, measured = found[:, :-1], found[:, -1]
    effects = curve.mean(1)
    without = torch.stack([rest[..., :-1].mean(-1), rest[..., -1]], 1)
    error = (effects - measured).abs()
    return Attribution(cohort.components, effects, measured, error, steps, curve, without)


def loss_along_path(
    cohort: InterventionCohort,
    model: int,
    tokens: Tensor,
    fractions: Sequence[float] = FRACTIONS,
    *,
    means: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Path, Path]:
    """The loss at `fractions` of the way from each component's clean write to its mean; and the
    same [blocks, components, points] without one block of sequences.

    In float64 by default: at 1/64 of the way a converged model's remainder is below float32's
    rounding.
    Arguments and errors as `mean_ablation_by_block`.
    """
    to = _means(cohort, model, means)
    rise = _by_block(cohort, model, tokens, dtype, lambda run: _rises(run, to, fractions))
    slope = patching_by_block(cohort, model, tokens, means=to, dtype=dtype)
    at = torch.tensor(fractions, dtype=torch.float64, device=rise.values.device)
    return (
        Path(cohort.components, at, rise.mean, slope.mean),
        Path(cohort.components, at, rise.without_each(), slope.without_each()),
    )


def step_convergence(
    cohort: InterventionCohort,
    model: int,
    tokens: Tensor,
    steps: Sequence[int] = (4, 8, 16, 32, 64),
    *,
    means: Tensor | None = None,
) -> dict[int, float]:
    """Steps -> largest completeness error over components, relative to the largest effect."""
    out = {}
    for n in steps:
        ig = integrated_gradients(cohort, model, tokens, n, means=means)
        out[n] = ig.largest_error
    return out


# -------------------------------------------------------------------------------- one batch


def _means(cohort: InterventionCohort, model: int, means: Tensor | None) -> Tensor:
    found = cohort.mean_writes(model) if means is None else means
    if found.ndim != 2 or len(found) != len(cohort.components):
        raise ValueError(
            f"means {list(found.shape)} for {len(cohort.components)} components: one row for each"
        )
    if not bool(found.isfinite().all()):
        raise BadActivations("the components' means are not finite; check the model's weights")
    return found


def _by_block(
    cohort: InterventionCohort,
    model: int,
    tokens: Tensor,
    dtype: torch.dtype,
    measure: Callable[[CleanRun], Tensor],
) -> Blocked:
    """What `measure` finds on a few sequences at a time, [blocks, ...]."""
    if tokens.ndim != 2 or not len(tokens):
        raise ValueError(f"tokens must be [batch, position], not {list(tokens.shape)}")
    values, kept = [], []
    for part in tokens.split(min(BATCH, max(1, len(tokens) // BLOCKS))):
        run = cohort.clean_run(model, part, dtype)
        n = int(run.kept.sum())
        if n:
            values.append(measure(run).double())
            kept.append(float(n))
    if not kept:
        raise BadActivations("attribution: no position of the batch is kept; check the padding")
    return Blocked(torch.stack(values), torch.tensor(kept).to(values[0]))


def _variants(run: CleanRun, fractions: Sequence[float]) -> list[tuple[int, float]]:
    # Neighbours share a component, and so the site from which they are recomputed.
    return [(c, f) for c in range(len(run.writes)) for f in fractions]


def _densities(run: CleanRun, means: Tensor, fractions: Sequence[float]) -> Tensor:
    """[components, fractions]: derivative of the loss along the way from clean to mean."""
    way = means.to(run.writes)[:, None, None, :] - run.writes
    found = []
    variants = _variants(run, fractions)
    for i in range(0, len(variants), AT_ONCE):
        part = variants[i : i + AT_ONCE]
        components = [c for c, _ in part]
        at = torch.tensor([f for _, f in part]).to(way).requires_grad_()
        writes = run.writes[components] + at[:, None, None, None] * way[components]
        # Along a straight way the summed product of gradient and way is a scalar's derivative.
        (density,) = torch.autograd.grad(run.loss(components, writes).sum(), at)
        found.append(density.double())
    return _finite(torch.cat(found), "gradient").unflatten(0, (len(run.writes), len(fractions)))


@torch.no_grad()
def _rises(run: CleanRun, means: Tensor, fractions: Sequence[float]) -> Tensor:
    """[components, fractions]: loss minus clean loss."""
    way = means.to(run.writes)[:, None, None, :] - run.writes
    clean = run.loss([0], run.writes[:1])[0].double()
    found = []
    variants = _variants(run, fractions)
    for i in range(0, len(variants), AT_ONCE):
        part = variants[i : i + AT_ONCE]
        components = [c for c, _ in part]
        at = torch.tensor([f for _, f in part]).to(way)
        writes = run.writes[components] + at[:, None, None, None] * way[components]
        found.append(run.loss(components, writes).double() - clean)
    return _finite(torch.cat(found), "loss").unflatten(0, (len(run.writes), len(fractions)))


def _finite(x: Tensor, what: str) -> Tensor:
    if not bool(x.isfinite().all()):
        raise BadActivations(f"attribution: the {what} is not finite; check the model's weights")
    return x
