"""What streaming Procrustes needs for models of a given size, before any is loaded.

Bytes of the sums are exact, as `polyrot.streaming.passes.MomentPass` holds them; operations are
those of the matrix products, and of a fit those that textbooks count; hours follow from rates that
the caller gives.
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
    """What is reached in a second.

    forward: operations of a model's own products, in its dtype. products: of those of moments and
    scores. fit: of decompositions, by the count of `fit_operations`. disk: bytes that are read or
    written, and hashed. link: bytes between ranks.
    """

    forward: float
    products: float
    fit: float
    disk: float
    link: float


@dataclass(frozen=True)
class Budget:
    """See `budget`.

    weights, sums, batch, maps: bytes that a rank holds: both models; the sums of pass 1; the
    activations of one batch, one site's widened; the maps of pass 2. forward, products, fit:
    operations of all ranks together. disk, link: bytes that pass them. passes, fitting, moving:
    hours of the three, one after another.
    """

    weights: float
    sums: float
    batch: float
    maps: float
    forward: float
    products: float
    fit: float
    disk: float
    link: float
    passes: float
    fitting: float
    moving: float

    @property
    def memory(self) -> float:
        """The most that the first rank holds, in bytes: weights with sums and the moments that they
        become, or with a batch and sums or maps."""
        beside = max(self.sums + self.batch, 2 * self.sums, self.maps + self.batch)
        return self.weights + beside

    @property
    def hours(self) -> float:
        """Of the whole run."""
        return self.passes + self.fitting + self.moving


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
    """What a run needs: moments of `tokens`, the fit, scores of `held_out`.

    The `ranks` share the tokens evenly; the first of them fits alone, and reads and writes the
    disk. Weights are read once (the ranks of a machine share what it has read) and hashed. The sums
    are written twice, as a checkpoint after the first batch and as moments, and go to the first
    rank as often; maps are written once, and go to all ranks in single precision.

    >>> two = Models(parameters=8e9, width=4096, sites=33)
    >>> rates = Rates(forward=4e14, products=3e13, fit=1e13, disk=1e9, link=5e10)
    >>> found = budget(two, 2**20, 2**18, rates)
    >>> f"{found.sums / 2**30:.1f} GiB of sums, {found.passes:.2f} of {found.hours:.2f} hours"
    '12.4 GiB of sums, 0.07 of 0.09 hours'

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
    fit = models.sites * models.siblings * fit_operations(d, covariances)
    maps = float(models.sites * carried * d * d * FLOAT64)
    disk = models.weights + 2 * sums + maps
    link = 2 * sums + maps / 2 if ranks > 1 else 0.0
    return Budget(
        models.weights,
        sums,
        float(batch),
        maps / 2,
        forward,
        products,
        fit,
        disk,
        link,
        (forward / rates.forward + products / rates.products) / ranks / 3600,
        fit / rates.fit / 3600,
        (disk / rates.disk + link / rates.link) / 3600,
    )


def fit_operations(width: int, covariances: bool) -> float:
    """Of one sibling's maps at one site (`polyrot.streaming.passes.Maps.fit`), and of its det.

    With n = width: 21 n^3 for singular values and both bases, 2 n^3 for their product R, 2/3 n^3
    for its determinant; with covariances 9 n^3 for eigenvalues and axes of the sibling's, 4 n^3 for
    two products (counts of Golub and Van Loan, Matrix Computations, 4th ed., 8.3 and 8.6). Other
    algorithms do fewer operations or more: a rate by this count is a measure of time alone.

    >>> f"{fit_operations(4096, covariances=True) / 4096**3:.1f} d^3"
    '36.7 d^3'
    """
    return (21 + 2 + 2 / 3 + (9 + 4 if covariances else 0)) * float(width) ** 3


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
