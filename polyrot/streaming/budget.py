"""What streaming Procrustes needs for models of a given size, before any is loaded.

Bytes of the sums are exact, as `polyrot.streaming.passes.MomentPass` holds them; operations are
those of the matrix products; hours follow from rates that the caller gives.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT64 = 8
"""Bytes of a number in the sums, whatever the precision of the products."""


@dataclass(frozen=True)
class Models:
    """One anchor and its siblings, all of one shape.

    parameters: of one model. width: d. sites: residual streams that are read, by default one before
    the first block and one after each.
    """

    parameters: float
    width: int
    sites: int
    siblings: int = 1
    bytes_per_weight: int = 2

    @property
    def weights(self) -> float:
        """Bytes of all models' weights."""
        return (1 + self.siblings) * self.parameters * self.bytes_per_weight


@dataclass(frozen=True)
class Rates:
    """Operations per second that are reached: `forward` by a model's own products, in its dtype;
    `products` by those of the moments, in float64 or float32."""

    forward: float
    products: float


@dataclass(frozen=True)
class Budget:
    """See `budget`: bytes, operations of either kind, and hours."""

    sums: float
    batch: float
    forward: float
    products: float
    hours: float


def budget(
    models: Models,
    tokens: int,
    held_out: int,
    rates: Rates,
    *,
    covariances: bool = True,
    batch_tokens: int = 4096,
    ranks: int = 1,
) -> Budget:
    """What both passes need: moments of `tokens`, scores of `held_out`.

    sums: bytes on each rank. batch: bytes of the activations of one batch, one site's widened.
    hours: of `ranks` that share the tokens evenly; reading weights and text is not counted.

    >>> two = Models(parameters=8e9, width=4096, sites=33)
    >>> found = budget(two, 2**20, 2**18, Rates(4e14, 3e13))
    >>> f"{found.sums / 2**30:.1f} GiB of sums, {found.hours:.2f} hours"
    '12.4 GiB of sums, 0.07 hours'

    Raises ValueError: fewer than one rank, or tokens fewer than dimensions, which fit no rotation.
    """
    if ranks < 1:
        raise ValueError(f"{ranks} ranks: at least one")
    if tokens < models.width:
        raise ValueError(f"{tokens} tokens fit no rotation of {models.width} dimensions")
    d, all_models = models.width, 1 + models.siblings
    sums = sums_of(d, models.sites, models.siblings, covariances)
    matrices = _matrices(models.siblings, covariances)
    rows = all_models * batch_tokens * d
    batch = rows * (models.sites * models.bytes_per_weight + FLOAT64)  # one site at a time is wide
    forward = 2.0 * models.parameters * all_models * (tokens + held_out)
    # Scoring carries each sibling through R, and through the affine map where there is one.
    carried = models.siblings * (2 if covariances else 1)
    products = 2.0 * d * d * models.sites * (matrices * tokens + carried * held_out)
    seconds = forward / rates.forward + products / rates.products
    return Budget(sums, float(batch), forward, products, seconds / ranks / 3600)


def _matrices(siblings: int, covariances: bool) -> int:
    """[d, d] of one site: a cross-covariance for each sibling, a covariance for each model."""
    return siblings + (1 + siblings if covariances else 0)


def sums_of(width: int, sites: int, siblings: int, covariances: bool) -> float:
    """Bytes of all sums, on each rank.

    >>> sums_of(8192, sites=1, siblings=1, covariances=False) / 2**20
    512.375
    """
    vectors = 3 * (1 + siblings)  # of each model the provisional mean, the sum and the squares
    each = _matrices(siblings, covariances) * width * width + vectors * width
    return float(sites * each * FLOAT64)
