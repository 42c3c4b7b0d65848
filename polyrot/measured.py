"""What a claim test hands to ``verdict``: labelled values, and tables of pairs by sites.

Nothing here knows a claim or a bar. A value that is not finite is refused on construction, naming
its label: a NaN is a crash, and must never come out as a refuted claim.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import stdtrit

Figure = float | str
Seeds = Mapping[str, int | Sequence[int]]


@dataclass(frozen=True, eq=False)
class Measured:
    """One aggregate of a claim; every value must satisfy the claim's bar.

    values      [n_values] float64
    labels      one per value, such as "0-3 resid_mid_1"
    replicates  [n_values, n_pairs], or [1, n_pairs] when all values share them: the pairs, which
                are the clusters of the interval
    beside      figures recorded next to the verdict, without a bar
    seeds       by purpose: {"model": [0, 1], "sae": 7}
    counts      {"pairs": 4, "tokens": 65536}

    Raises ValueError if nothing was measured, shapes do not match, or a value is not finite
    (naming its label).
    """

    values: np.ndarray
    labels: tuple[str, ...]
    replicates: np.ndarray | None = None
    beside: Mapping[str, Figure] = field(default_factory=dict)
    seeds: Seeds = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = _frozen(self.values)
        labels = tuple(self.labels)
        if values.ndim != 1 or values.size == 0:
            raise ValueError(
                f"measured values must be a non-empty vector, not of shape {values.shape}"
            )
        if len(labels) != values.size:
            raise ValueError(f"{values.size} measured values but {len(labels)} labels")
        _require_finite(values, labels)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "labels", labels)
        if self.replicates is not None:
            replicates = _frozen(self.replicates)
            if replicates.ndim != 2 or len(replicates) not in (1, values.size):
                raise ValueError(
                    f"replicates must be [{values.size}, n_pairs] or [1, n_pairs], "
                    f"not {list(replicates.shape)}"
                )
            _require_finite(replicates, [f"replicates of {label}" for label in labels])
            object.__setattr__(self, "replicates", replicates)
        _require_finite_figures(self.beside)

    @classmethod
    def of(cls, measured: Measured | float | Mapping[str, float]) -> Measured:
        """A lone number, or a mapping label -> number, as Measured."""
        if isinstance(measured, Measured):
            return measured
        if isinstance(measured, Mapping):
            return cls(np.array(list(measured.values()), dtype=np.float64), tuple(measured))
        return cls(np.array([float(measured)]), ("",))

    def interval(self, index: int) -> tuple[float, float] | None:
        """95 % Student-t interval of the mean over pairs at value `index`.

        It is an interval of a mean, also where the value itself is that of a single pair. None
        with fewer than two pairs.
        """
        if self.replicates is None or self.replicates.shape[1] < 2:
            return None
        row = self.replicates[index if len(self.replicates) > 1 else 0]
        half = float(stdtrit(row.size - 1, 0.975)) * float(row.std(ddof=1)) / row.size**0.5
        return float(row.mean()) - half, float(row.mean()) + half

    def also(self, **figures: Figure) -> Measured:
        """The same with further figures recorded beside it."""
        return replace(self, beside={**self.beside, **figures})


@dataclass(frozen=True, eq=False)
class PairSite:
    """One quantity by pair and site: `values` [n_pairs, n_sites], `pairs` such as "0-3", `sites`.

    Raises ValueError if shapes do not match, a label is doubled, or a value is not finite (naming
    pair and site).
    """

    values: np.ndarray
    pairs: tuple[str, ...]
    sites: tuple[str, ...]
    beside: Mapping[str, Figure] = field(default_factory=dict)
    seeds: Seeds = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = _frozen(self.values)
        pairs, sites = tuple(self.pairs), tuple(self.sites)
        if values.shape != (len(pairs), len(sites)) or values.size == 0:
            raise ValueError(
                f"values {list(values.shape)} for {len(pairs)} pairs x {len(sites)} sites"
            )
        if len(set(pairs)) < len(pairs) or len(set(sites)) < len(sites):
            raise ValueError(f"doubled label among pairs {pairs} or sites {sites}")
        _require_finite(values.ravel(), [f"{pair} {site}" for pair in pairs for site in sites])
        _require_finite_figures(self.beside)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "pairs", pairs)
        object.__setattr__(self, "sites", sites)

    def at(self, sites: Sequence[str]) -> PairSite:
        """The table at `sites`, in that order. Raises KeyError naming a site it does not have."""
        unknown = [site for site in sites if site not in self.sites]
        if unknown:
            raise KeyError(f"no site {', '.join(unknown)} among {', '.join(self.sites)}")
        columns = [self.sites.index(site) for site in sites]
        return replace(self, values=self.values[:, columns], sites=tuple(sites))

    def each(self) -> Measured:
        """Every pair at every site. Clusters of the interval: each pair's mean over sites."""
        labels = tuple(f"{pair} {site}" for pair in self.pairs for site in self.sites)
        return self._measured(self.values.ravel(), labels, self.values.mean(axis=1)[None])

    def mean_over_pairs(self) -> Measured:
        """One value per site, with the pairs as clusters of its interval."""
        return self._measured(self.values.mean(axis=0), self.sites, self.values.T)

    def mean(self) -> Measured:
        """The mean over pairs and sites, with the pairs as clusters of its interval."""
        return self._measured(
            self.values.mean(keepdims=True)[0], ("mean",), self.values.mean(axis=1)[None]
        )

    def also(self, **figures: Figure) -> PairSite:
        """The same with further figures recorded beside whatever is measured from it."""
        return replace(self, beside={**self.beside, **figures})

    def __add__(self, other: PairSite) -> PairSite:
        return self._combined(other, operator.add)

    def __sub__(self, other: PairSite) -> PairSite:
        return self._combined(other, operator.sub)

    def __truediv__(self, other: PairSite) -> PairSite:
        return self._combined(other, operator.truediv)

    def __abs__(self) -> PairSite:
        return replace(self, values=abs(self.values))

    def _measured(
        self, values: np.ndarray, labels: tuple[str, ...], replicates: np.ndarray
    ) -> Measured:
        counts = {"pairs": len(self.pairs), "sites": len(self.sites), **self.counts}
        return Measured(values, labels, replicates, self.beside, self.seeds, counts)

    def _combined(
        self, other: PairSite, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ) -> PairSite:
        if not isinstance(other, PairSite):
            return NotImplemented
        for axis in ("pairs", "sites"):
            mine, theirs = getattr(self, axis), getattr(other, axis)
            if mine != theirs:
                raise ValueError(
                    f"tables of different {axis}: {', '.join(mine)} against {', '.join(theirs)}"
                )
        with np.errstate(divide="ignore", invalid="ignore"):  # the constructor names the cell
            values = combine(self.values, other.values)
        return PairSite(
            values,
            self.pairs,
            self.sites,
            {**other.beside, **self.beside},
            {**other.seeds, **self.seeds},
            {**other.counts, **self.counts},
        )


def _frozen(values: np.ndarray) -> np.ndarray:
    copy = np.array(values, dtype=np.float64)
    copy.setflags(write=False)
    return copy


def _require_finite(values: np.ndarray, labels: Sequence[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if bad.size:
        raise ValueError(f"not finite: {values[bad[0]]} at {labels[bad[0]] or 'the only value'}")


def _require_finite_figures(figures: Mapping[str, Figure]) -> None:
    for name, figure in figures.items():
        if not isinstance(figure, str) and not np.isfinite(figure):
            raise ValueError(f"not finite: {figure} for the figure {name}")
