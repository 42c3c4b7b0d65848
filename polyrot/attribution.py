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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from polyrot.checks import BadActivations
from polyrot.interventions import CleanRun, InterventionCohort

STEPS = 32
FRACTIONS = (1 / 64, 1 / 32, 1 / 16, 1 / 8)
BATCH = 16
"""Sequences that one program handles, with `AT_ONCE` variants of each."""
AT_ONCE = 10


@dataclass(frozen=True)
class Attribution:
    """Integrated gradients of one model.

    effects: [components], predicted rise of the loss, nats. measured: [components], the rise.
    completeness_error: [components], |effects - measured|. steps: points of the path. curve:
    [components, steps], the prediction's density along the path from clean (first) to mean; its
    mean over steps is `effects`.
    """

    components: tuple[str, ...]
    effects: Tensor
    measured: Tensor
    completeness_error: Tensor
    steps: int
    curve: Tensor


@dataclass(frozen=True)
class Path:
    """The loss along the straight path from each component's clean write to its mean.

    fractions: [points] of the way. rise: [components, points], loss minus clean loss, nats.
    slope: [components], what attribution patching predicts for the whole way.
    """

    components: tuple[str, ...]
    fractions: Tensor
    rise: Tensor
    slope: Tensor

    @property
    def remainder(self) -> Tensor:
        """[components, points]: |rise - fraction * slope|, the error of the first-order guess."""
        return (self.rise - self.fractions * self.slope[:, None]).abs()

    def orders(self) -> Tensor:
        """[components]: log-log slope of the remainder against the fraction; 2 where quadratic.

        Raises ValueError naming components whose remainder is 0 somewhere (a linear model).
        """
        flat = [n for n, r in zip(self.components, self.remainder, strict=True) if not r.all()]
        if flat:
            raise ValueError(f"no remainder to take the order of: {', '.join(flat)}")
        x = self.fractions.double().log()
        y = self.remainder.double().log()
        x = x - x.mean()
        return (y - y.mean(1, keepdim=True)) @ x / x.square().sum()


def mean_ablation_effects(
    cohort: InterventionCohort, model: int, tokens: Tensor, *, means: Tensor | None = None
) -> Tensor:
    """[components]: rise of the loss, nats, when each component writes its mean.

    tokens: [batch, position]. means: [components, width], default those of the fit split.
    Raises ValueError (shape of means), BadActivations (means or loss not finite).
    """
    to = _means(cohort, model, means)
    return _over_batch(cohort, model, tokens, torch.float32, lambda run: _rises(run, to, [1.0]))[
        :, 0
    ]


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
    Exact where the loss is linear in the write. Arguments and errors as `mean_ablation_effects`.
    """
    to = _means(cohort, model, means)
    return _over_batch(cohort, model, tokens, dtype, lambda run: _densities(run, to, [0.0]))[:, 0]


def integrated_gradients(
    cohort: InterventionCohort,
    model: int,
    tokens: Tensor,
    steps: int = STEPS,
    *,
    means: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Attribution:
    """The gradient averaged over `steps` midpoints of the path from mean to clean, times
    (mean - clean), one component moved at a time and later ones recomputed.

    Arguments and errors as `mean_ablation_effects`; ValueError unless steps >= 1.
    """
    if steps < 1:
        raise ValueError(f"integrated gradients need at least one step, not {steps}")
    to = _means(cohort, model, means)
    middles = [(i + 0.5) / steps for i in range(steps)]

    def both(run: CleanRun) -> Tensor:
        return torch.cat([_densities(run, to, middles), _rises(run, to, [1.0])], dim=1)

    found = _over_batch(cohort, model, tokens, dtype, both)
    curve, measured = found[:, :-1], found[:, -1]
    effects = curve.mean(1)
    return Attribution(
        cohort.components, effects, measured, (effects - measured).abs(), steps, curve
    )


def loss_along_path(
    cohort: InterventionCohort,
    model: int,
    tokens: Tensor,
    fractions: Sequence[float] = FRACTIONS,
    *,
    means: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> Path:
    """The loss at `fractions` of the way from each component's clean write to its mean.

    In float64 by default: at 1/64 of the way a converged model's remainder is below float32's
    rounding.
    Arguments and errors as `mean_ablation_effects`.
    """
    to = _means(cohort, model, means)
    rise = _over_batch(cohort, model, tokens, dtype, lambda run: _rises(run, to, fractions))
    slope = attribution_patching(cohort, model, tokens, means=to, dtype=dtype)
    at = torch.tensor(fractions, dtype=torch.float64, device=rise.device)
    return Path(cohort.components, at, rise, slope)


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
        out[n] = float(ig.completeness_error.max() / ig.measured.abs().max())
    return out


# ---------------------------------------------------------------------------- agreement


@dataclass(frozen=True)
class Correlation:
    """Pearson's r of n points with two 95 % intervals: Fisher's, and by bootstrap over points."""

    r: float
    n: int
    fisher: tuple[float, float]
    bootstrap: tuple[float, float]


def fisher_interval(r: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a Pearson correlation `r` of `n` points (Fisher 1921): tanh(atanh r +- z / sqrt(n
    - 3)), for points of a bivariate normal. Raises ValueError unless n > 3 and |r| <= 1."""
    if n <= 3 or not abs(r) <= 1:
        raise ValueError(f"no Fisher interval for r = {r} of {n} points: needs n > 3, |r| <= 1")
    if abs(r) == 1:
        return r, r
    half = float(ndtri(0.5 + level / 2)) / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def pearson(
    predicted: Tensor, measured: Tensor, generator: np.random.Generator, draws: int = 2000
) -> Correlation:
    """Correlation of predicted with measured effects, both [components].

    `generator` draws the bootstrap's resamples; those in which either side is constant are left
    out. Raises ValueError: shapes, fewer than four components, a constant side, not finite.
    """
    x, y = (np.asarray(v.detach().cpu().double()) for v in (predicted, measured))
    if x.shape != y.shape or x.ndim != 1 or len(x) < 4:
        raise ValueError(
            f"a correlation needs two vectors of four or more, not {x.shape} {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("effects to correlate are not finite")
    r = float(_pearson(x[None], y[None])[0])
    if math.isnan(r):
        raise ValueError("no correlation: one side has the same effect for every component")
    rows = generator.integers(len(x), size=(draws, len(x)))
    drawn = _pearson(x[rows], y[rows])
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975])
    return Correlation(r, len(x), fisher_interval(r, len(x)), (float(low), float(high)))


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Row by row, NaN where a row is constant."""
    x, y = (v - v.mean(1, keepdims=True) for v in (x, y))
    norm = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (x * y).sum(1) / norm
    return np.where(norm > 0, r.clip(-1, 1), np.nan)


# ---------------------------------------------------------------------------- the published table

PUBLISHED_BLOCKS = (
    (6.04, 0.15, 5.87),
    (6.02, 0.03, 5.97),
    (5.10, 0.01, 5.01),
    (5.37, 0.12, 5.27),
    (5.56, 0.06, 5.31),
    (5.52, 0.37, 5.36),
)
"""Post, section 8: per block of Pythia-70m measured, attribution patching, integrated gradients."""
PUBLISHED_R = (0.05, 0.98)


def published_correlations() -> tuple[float, float]:
    """Pearson r of attribution patching and of integrated gradients with the measured effects,
    recomputed from the six published rows."""
    measured, patching, integrated = np.array(PUBLISHED_BLOCKS).T
    both = _pearson(np.stack([patching, integrated]), np.stack([measured, measured]))
    return float(both[0]), float(both[1])


def published_deviation() -> dict[str, float]:
    """|recomputed - published| correlation, of both predictions."""
    names = ("attribution patching", "integrated gradients")
    found = published_correlations()
    return {n: abs(a - b) for n, a, b in zip(names, found, PUBLISHED_R, strict=True)}


def published_interval_width() -> float:
    """Width of the 95 % Fisher interval of r(AP) over the published rows."""
    low, high = fisher_interval(published_correlations()[0], len(PUBLISHED_BLOCKS))
    return high - low


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


def _over_batch(
    cohort: InterventionCohort,
    model: int,
    tokens: Tensor,
    dtype: torch.dtype,
    measure: Callable[[CleanRun], Tensor],
) -> Tensor:
    """What `measure` finds on a few sequences at a time, averaged over kept positions."""
    if tokens.ndim != 2 or not len(tokens):
        raise ValueError(f"tokens must be [batch, position], not {list(tokens.shape)}")
    total, kept = torch.zeros((), dtype=torch.float64, device=tokens.device), 0
    for part in tokens.split(BATCH):
        run = cohort.clean_run(model, part, dtype)
        n = int(run.kept.sum())
        if n:
            total, kept = total + n * measure(run), kept + n
    if not kept:
        raise BadActivations("attribution: no position of the batch is kept; check the padding")
    return total / kept


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
