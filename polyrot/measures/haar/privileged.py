"""Is the basis privileged? Heavy tails of activations along the axes, and along random directions.

Where a model's basis is a Haar draw, no axis is special: a coordinate is as near to a Gaussian as a
random projection is. Optimisers that work coordinate by coordinate make some axes special, which
shows in the kurtosis of the activations along them (Elhage et al. 2023, transformer-circuits.pub/
2023/privileged-basis).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, NotOffered
from polyrot.haar.orthogonal import FloatArray
from polyrot.maps.null_space import haar_block
from polyrot.measured import Interval, Measured, PairSite, Seeds, jackknifed
from polyrot.measures.fits import NULL_DRAWS_SEED
from polyrot.measures.haar.free import basis_of, free_axes
from polyrot.runtime.seeding import torch_generator

RECIPE_VERSION = 1  # raise when a change of code changes what is measured
ROTATIONS = 32
_ROWS = 256

_DRAWN = ("random", "random_with_first", "shared")


@dataclass(frozen=True)
class Tails:
    """The largest kurtosis over coordinates (3 for a Gaussian), by model and site.

    basis, with_first: along the axes, [models, sites], without and with the tokens at position 0;
    the same where the cohort leaves those out.
    random, random_with_first: in random bases, [rotations, models, sites]. shared: the largest mean
    over models, for which a direction must be heavy in all of them, [1 + rotations, sites]: along
    the axes, then in every random basis.
    """

    basis: PairSite
    with_first: PairSite
    random: FloatArray
    random_with_first: FloatArray
    shared: FloatArray

    @classmethod
    def of(cls, tables: Mapping[str, PairSite], tensors: Mapping[str, Tensor]) -> Tails:
        """From what is kept of it."""
        drawn = {name: tensors[name].numpy() for name in _DRAWN}
        return cls(tables["basis"], tables["with_first"], **drawn)

    @property
    def tables(self) -> dict[str, PairSite]:
        """By name, to be kept."""
        return {"basis": self.basis, "with_first": self.with_first}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name, to be kept."""
        return {name: torch.from_numpy(getattr(self, name)) for name in _DRAWN}

    @cached_property
    def ratio(self) -> FloatArray:
        """[sites]: along the axes over along random directions, each averaged over models."""
        found: FloatArray = self.basis.values.mean(0) / self.random.mean((0, 1))
        return found


def measure_tails(cohort: Cohort, rotations: int = ROTATIONS) -> Tails:
    """Of every model at the internal sites, on the score split.

    Raises NotOffered where it is not known which token is the first of its sequence.
    """
    first = first_of_sequences(cohort)
    shape = (len(cohort.seeds), len(cohort.internal))
    along = {name: np.zeros(shape) for name in ("basis", "with_first")}
    drawn = [np.zeros((rotations, *shape)) for _ in range(2)]
    shared = np.zeros((1 + rotations, shape[1]))
    for j, site in enumerate(cohort.internal):
        free = basis_of(cohort, site)
        kept = free_axes(free)
        axes = (free @ free.T)[:, kept]  # every axis, less what is fixed of it
        generator = torch_generator(NULL_DRAWS_SEED, "random bases", site)
        turns = [free @ haar_block(free.shape[1], generator) for _ in range(rotations)]
        directions, each = torch.cat([axes, *turns], 1), axes.shape[1]
        total = torch.zeros(directions.shape[1], dtype=torch.float64)
        for m, x in enumerate(cohort.activations("score", site)):
            found = [k.cpu() for k in kurtosis(x, directions, first)]
            total += found[0]
            for values, into, k in zip(along.values(), drawn, found, strict=True):
                values[m, j] = float(k[:each].max())
                into[:, m, j] = k[each:].reshape(rotations, -1).amax(1).numpy()
        mean = total / len(cohort.seeds)
        shared[0, j] = float(mean[:each].max())
        shared[1:, j] = mean[each:].reshape(rotations, -1).amax(1).numpy()
    models = tuple(f"model {seed}" for seed in cohort.seeds)
    seeds: Seeds = {"models": list(cohort.seeds), "rotations": NULL_DRAWS_SEED}
    counts = {"tokens": int((~first).sum()), "rotations": rotations}
    tables = {
        name: PairSite(values, models, tuple(cohort.internal), {}, seeds, counts, "positive")
        for name, values in along.items()
    }
    return Tails(**tables, random=drawn[0], random_with_first=drawn[1], shared=shared)


def first_of_sequences(cohort: Cohort) -> Tensor:
    """bool [tokens]: which of the score split are at position 0, their sequences' first tokens;
    none where the cohort leaves first positions out.

    Raises NotOffered where every token counts as a sequence of its own.
    """
    sequence = cohort.sequences("score")
    first = torch.ones_like(sequence, dtype=torch.bool)
    first[1:] = sequence[1:] != sequence[:-1]
    if bool(first.all()):
        raise NotOffered(
            f"the cohort of scale {cohort.scale} does not say which tokens are of one sequence, "
            "and so which of them is the first"
        )
    return first & (cohort.skip == 0)


def kurtosis(x: Tensor, directions: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """E (z - E z)^4 / Var(z)^2 of z = x @ directions, by direction: [k] without the rows `first`,
    and with them; 0 for a direction in which nothing varies.

    x: [tokens, d]; directions: [d, k]; first: bool [tokens]. One pass over blocks of rows: sums of
    powers about the mean of the rest, in x's precision within a block and in float64 over blocks.
    """
    centre = x[~first].double().mean(0)
    rest, at_first = (
        _power_sums(rows, centre, directions.to(rows)) for rows in (x[~first], x[first])
    )
    return _from_sums(rest), _from_sums(rest + at_first)


def _power_sums(x: Tensor, centre: Tensor, directions: Tensor) -> Tensor:
    """Sums over the rows of z^0 to z^4, [5, k] float64, z = (x - centre) @ directions."""
    sums = torch.zeros(5, directions.shape[1], dtype=torch.float64, device=x.device)
    for rows in x.split(_ROWS):
        z = (rows - centre.to(rows)) @ directions
        ones, square = rows.new_ones(len(rows)), z * z
        sums[0] += len(rows)
        # As products, and in place: column sums of new matrices take several times longer.
        sums[1] += ones @ z
        sums[2] += ones @ square
        sums[3] += ones @ z.mul_(square)
        sums[4] += ones @ square.mul_(square)
    return sums


def _from_sums(sums: Tensor) -> Tensor:
    """Kurtosis [k] from the sums of z^0 to z^4, [5, k]."""
    _, m1, m2, m3, m4 = sums / sums[0]
    variance = m2 - m1**2
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    varies = variance > torch.finfo(torch.float32).eps ** 2 * m2.max()
    return torch.where(varies, fourth / variance.clamp_min(1e-300) ** 2, torch.zeros_like(m1))


def basis_over_random(tails: Tails) -> Measured:
    """By site: the largest kurtosis over axes, averaged over models, over the same in a random
    basis, averaged over models and rotations.

    The interval is a jackknife over models, its error no smaller than that of the finite number of
    rotations. No ceiling: nothing is compared with the anchor. Beside it, by site, the same with
    position 0 (where it is not left out), with the largest of the means over models in place of the
    mean of their largest, and of the heaviest of the random bases.
    """
    n = len(tails.basis.pairs)
    left_out = np.array_equal(tails.with_first.values, tails.basis.values)  # there is no position 0
    random, whole = tails.random.mean(1), tails.random_with_first.mean((0, 1))  # over models
    found: list[Interval | None] = []
    beside: dict[str, float] = {}
    for j, site in enumerate(tails.basis.sites):
        value = float(tails.ratio[j])
        rest = [[m for m in range(n) if m != left] for left in range(n)]
        without = np.array(
            [tails.basis.values[kept, j].mean() / tails.random[:, kept, j].mean() for kept in rest]
        )
        by_chance = random[:, j].std(ddof=1) / len(random) ** 0.5 / random[:, j].mean()
        found.append(jackknifed(value, without, "models", "positive", value * float(by_chance)))
        if not left_out:
            at_0 = float(tails.with_first.values[:, j].mean() / whole[j])
            beside[f"with_position_0_{site}"] = at_0
        beside |= {
            f"largest_mean_over_models_{site}": float(
                tails.shared[0, j] / tails.shared[1:, j].mean()
            ),
            f"heaviest_random_basis_{site}": float(random[:, j].max() / random[:, j].mean()),
            f"kurtosis_{site}": float(tails.basis.values[:, j].mean()),
        }
    return Measured(
        tails.ratio,
        tails.basis.sites,
        beside=beside,
        seeds=tails.basis.seeds,
        counts={"models": n, "sites": len(tails.basis.sites), **tails.basis.counts},
        intervals=tuple(found),
        unit="positive",
    )
