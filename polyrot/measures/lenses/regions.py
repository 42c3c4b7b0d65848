"""Lens 4: the polyhedral view. Which neurons fire, and the one map that holds while they do.

Each MLP is piecewise linear in its normed input: with the set of active neurons fixed it is
x -> x W_in diag(active) W_out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyrot.measures.lenses import specification
from polyrot.runtime.seeding import torch_generator
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.transformer import N_LAYERS

SAMPLED = 1000
SEED = 20260612
COUNTS = 8  # points of the curve of patterns against inputs, each twice the one before


@dataclass(frozen=True)
class Regions:
    """Of the two MLPs of one model.

    inputs: int64 [points], how many inputs had been seen; patterns: int64 [2, points], how many
    distinct activation patterns among them. error: [2, 1000], relative error of the region's map
    at another point of it than the input that named the region.
    """

    inputs: Tensor
    patterns: Tensor
    error: Tensor


def measure_regions(cohort: ToyCohort, model: int) -> Regions:
    """Patterns on the dictionary split's tokens, maps at regions sampled from them."""
    folded = cohort.folded(model)
    names = [f"mlp_in_{layer}" for layer in range(N_LAYERS)]
    data = specification.capture(folded, cohort.tokens("dictionary"), names)
    n = len(data.token)
    inputs = torch.tensor([n >> shift for shift in reversed(range(COUNTS))])
    patterns, errors = [], []
    for layer, name in enumerate(names):
        x, w_in = data.x[name], folded[f"w_in_{layer}"][0]
        keys = pattern_keys(x @ w_in > 0)
        patterns.append(torch.tensor([len(keys[:k].unique()) for k in inputs.tolist()]))
        generator = torch_generator(SEED, "regions", layer)
        rows = first_of_each(keys)
        chosen = rows[torch.randperm(len(rows), generator=generator)[:SAMPLED].to(rows.device)]
        errors.append(map_errors(x[chosen], w_in, folded[f"w_out_{layer}"][0], generator))
    return Regions(inputs, torch.stack(patterns), torch.stack(errors).cpu())


def pattern_keys(active: Tensor) -> Tensor:
    """A 64-bit key for each pattern of active bool [inputs, 256]; equal patterns have equal keys.

    A random linear hash: among 2e5 patterns two share a key with probability 1e-9.
    """
    generator = torch_generator(SEED, "keys")
    limits = torch.iinfo(torch.int64)
    weights = torch.randint(limits.min, limits.max, (active.shape[1],), generator=generator)
    return (active * weights.to(active.device)).sum(1)


def first_of_each(keys: Tensor) -> Tensor:
    """Row of the first input of each distinct key."""
    _, inverse = keys.unique(return_inverse=True)
    n = len(keys)
    rows = torch.arange(n, device=keys.device)
    found = torch.full((int(inverse.max()) + 1,), n, device=keys.device)
    return found.scatter_reduce(0, inverse, rows, "amin")


def map_errors(
    x: Tensor, w_in: Tensor, w_out: Tensor, generator: torch.Generator, reach: float = 0.5
) -> Tensor:
    """[inputs], float64: relative error of the map that the pattern at x [inputs, 64] names, at the
    point `reach` of the way from x to the region's border in a random direction. generator: on the
    CPU. Above 1 the point lies in another region."""
    x, w_in, w_out = x.double(), w_in.double(), w_out.double()
    drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
    before, along = x @ w_in, drawn @ w_in
    active = before > 0
    # Steps at which a neuron changes sides; none lies ahead of one that moves away from its border.
    step = torch.where(before * along < 0, -before / along, torch.inf).amin(1, keepdim=True)
    point = x + reach * step.clamp(max=1.0) * drawn
    exact = torch.relu(point @ w_in) @ w_out
    maps = torch.einsum("ij,nj,jk->nik", w_in, active.double(), w_out)
    predicted = torch.einsum("ni,nik->nk", point, maps)
    return (predicted - exact).norm(dim=1) / exact.norm(dim=1).clamp(min=1e-30)
