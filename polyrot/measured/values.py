"""What a claim test hands to ``verdict``: labelled values, and tables of pairs by sites.

Nothing here knows a claim or a bar. A value that is not finite is refused on construction, naming
its label: a NaN is a crash, and must never come out as a refuted claim.

Uncertainty belongs to each value, at 95 %, and says of what it is:

- *pairs*: the value is a mean over pairs of models; Student's t over the pairs.
- *models*: the value is taken of all models alike, the anchor among them; a jackknife over them.
- *sequences*: the value is one pair's; a bootstrap over sequences of tokens.
- *Monte Carlo*: the value was estimated by drawing.
- none: arithmetic, and fractions of a registered finite set, which are ranges where it is open
  which of the elements count.

Intervals are taken on a scale on which the quantity is unbounded (see `Unit`) by the delta method,
so that they hold their value and no end is impossible.

A statement of likeness also carries its ceiling: what the same code makes of a perfect sibling (an
exact rotated copy of the anchor, or a second dictionary of the same model).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from polyrot.measured.intervals import Interval, Unit, over_pairs, resampled
from polyrot.measured.numbers import frozen, real, require_finite, require_finite_figures

Figure = float | str
NOT_IDENTIFIED = "sites_not_identified"
Seeds = Mapping[str, int | Sequence[int]]


@dataclass(frozen=True, eq=False)
class Measured:
    """One aggregate of a claim; every value must satisfy the claim's bar.

    values      [n_values] float64
    labels      one per value, such as "0-3 resid_mid_1"
    replicates  [n_values, n_pairs]: the pairs whose mean each value is, and so the sample of its
                interval. A value that is not that mean is refused: the interval would be of
                something else
    intervals   one per value, or None where a value has none; given in place of replicates
    unit        what kind of number the values are (see `Unit`)
    ceilings    one per value: what a perfect sibling gives by the same code; empty where the
                statement is not one of likeness
    unmet       why the registered measure says nothing here, in words; empty where it does
    unread      a reading that the registration admits and that was not measured, in words: by the
                others alone nothing is refuted. Empty where all were
    stand_in    models that the values are of in place of the registered ones, in words: by these
                nothing is decided. Empty where they are of the registered ones
    readings    the same in each further reading that is admitted (see `favourable`)
    beside      figures recorded next to the verdict, without a bar
    seeds       by purpose: {"model": [0, 1], "sae": 7}
    counts      {"pairs": 4, "tokens": 65536}

    Raises ValueError if nothing was measured, shapes do not match, a value is not finite (naming
    its label), or an interval does not hold its value.
    """

    values: np.ndarray
    labels: tuple[str, ...]
    replicates: np.ndarray | None = None
    beside: Mapping[str, Figure] = field(default_factory=dict)
    seeds: Seeds = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    intervals: tuple[Interval | None, ...] = ()
    unit: Unit = "real"
    ceilings: tuple[float, ...] = ()
    unmet: str = ""
    unread: str = ""
    stand_in: str = ""
    readings: tuple[Measured, ...] = ()

    def __post_init__(self) -> None:
        values = frozen(self.values)
        labels = tuple(self.labels)
        if values.ndim != 1 or values.size == 0:
            raise ValueError(
                f"measured values must be a non-empty vector, not of shape {values.shape}"
            )
        if len(labels) != values.size:
            raise ValueError(f"{values.size} measured values but {len(labels)} labels")
        require_finite(values, labels)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "labels", labels)
        intervals = tuple(self.intervals)
        if self.replicates is not None:
            replicates = frozen(self.replicates)
            if intervals:
                raise ValueError("replicates and intervals are both given: which is it?")
            if replicates.ndim != 2 or len(replicates) != values.size:
                raise ValueError(
                    f"replicates must be [{values.size}, n_pairs], not {list(replicates.shape)}"
                )
            require_finite(replicates, [f"replicates of {label}" for label in labels])
            for value, row, label in zip(values, replicates, labels, strict=True):
                if not np.isclose(row.mean(), value, rtol=1e-6, atol=1e-12):
                    raise ValueError(
                        f"{label or 'the value'} is {value:.6g}, but the mean of its replicates "
                        f"{row.mean():.6g}: they are of another quantity"
                    )
            object.__setattr__(self, "replicates", replicates)
            intervals = tuple(
                over_pairs(float(value), row, self.unit)
                for value, row in zip(values, replicates, strict=True)
            )
        intervals = intervals or (None,) * values.size
        if len(intervals) != values.size:
            raise ValueError(f"{values.size} measured values but {len(intervals)} intervals")
        for value, found, label in zip(values, intervals, labels, strict=True):
            if found is not None and not found.low <= value <= found.high:
                raise ValueError(f"{label or 'the value'}: {value:.6g} lies outside of {found}")
        object.__setattr__(self, "intervals", intervals)
        ceilings = tuple(real(self.ceilings, "ceilings").tolist())
        if ceilings and len(ceilings) != values.size:
            raise ValueError(f"{values.size} measured values but {len(ceilings)} ceilings")
        require_finite(np.array(ceilings), [f"the ceiling of {label}" for label in labels])
        object.__setattr__(self, "ceilings", ceilings)
        require_finite_figures(self.beside)

    @classmethod
    def of(cls, measured: Measured | float | Mapping[str, float]) -> Measured:
        """A lone number, or a mapping label -> number, as Measured."""
        if isinstance(measured, Measured):
            return measured
        if isinstance(measured, Mapping):
            return cls(real(list(measured.values())), tuple(measured))
        found = real(measured, "the measured value")
        if found.size != 1:
            raise ValueError(f"one measured value, or a mapping from labels, not {found.shape}")
        return cls(found.reshape(1), ("",))

    def interval(self, index: int) -> Interval | None:
        """The 95 % interval of the value at `index`; None where it has none."""
        return self.intervals[index]

    def ends(self, index: int) -> tuple[float, float]:
        """Both ends of a value's interval; the value itself where it has none."""
        interval, value = self.interval(index), float(self.values[index])
        return (value, value) if interval is None else (interval.low, interval.high)

    @property
    def n(self) -> int:
        """The sample of the intervals: pairs, sequences or draws; the number of values where there
        are no intervals."""
        if self.replicates is not None:
            return int(self.replicates.shape[1])
        of = next((found.of for found in self.intervals if found is not None), "values")
        counted = "draws" if of == "Monte Carlo" else of
        return int(self.counts.get(counted, self.values.size))

    def also(self, **figures: Figure) -> Measured:
        """The same with further figures recorded beside it."""
        return self.in_each_reading(lambda x: replace(x, beside={**x.beside, **figures}))

    def below(self, ceilings: float | Sequence[float] | np.ndarray) -> Measured:
        """The same with what a perfect sibling gives: one number for each value, or for all."""
        each = np.broadcast_to(real(ceilings, "ceilings"), self.values.shape)
        return self.in_each_reading(lambda x: replace(x, ceilings=tuple(each.tolist())))

    def unless(self, unmet: str) -> Measured:
        """The same, out of reach for the reason `unmet` where that is not empty."""
        return self.in_each_reading(lambda x: replace(x, unmet=unmet))

    def without(self, unread: str) -> Measured:
        """The same, measured in all admissible readings but `unread`."""
        return self.in_each_reading(lambda x: replace(x, unread=unread))

    def beside_readings(self, *readings: Measured) -> Measured:
        """The same, where the registration admits other `readings`, too: any of them may be judged
        in place of this one."""
        return replace(self._given(), readings=readings)

    def in_each_reading(self, change: Callable[[Measured], Measured]) -> Measured:
        """The same, this reading and all further ones changed alike."""
        made = change(self._given())
        return made.beside_readings(*(x.in_each_reading(change) for x in self.readings))

    def on(self, stand_in: str) -> Measured:
        """The same, of models that stand in for the registered ones where `stand_in` says so."""
        return self.in_each_reading(lambda x: replace(x, stand_in=stand_in))

    def _given(self) -> Measured:
        """As it was constructed: intervals that follow from replicates are worked out anew."""
        if self.replicates is None:
            return self
        copy = object.__new__(Measured)
        copy.__dict__.update({**self.__dict__, "intervals": ()})
        return copy


@dataclass(frozen=True, eq=False)
class PairSite:
    """One quantity by pair and site: `values` [n_pairs, n_sites], `pairs` such as "0-3", `sites`.

    unit: what kind of number it is (see `Unit`). resamples: [draws, n_pairs, n_sites], the same
    quantity on sequences drawn with replacement, the same draws for all tables of one measurement,
    so that a difference of tables is the difference of their draws; the interval of a single pair
    comes of them. ceiling: [n_sites], the same quantity of a perfect sibling (see `Measured`); a
    combination of tables has one where each of them has. identified: by site, of what is taken
    through rotations, whether they are determined; beside an aggregate: at how many they are not.

    Raises ValueError if shapes do not match, a label is doubled, or a value is not finite (naming
    pair and site).
    """

    values: np.ndarray
    pairs: tuple[str, ...]
    sites: tuple[str, ...]
    beside: Mapping[str, Figure] = field(default_factory=dict)
    seeds: Seeds = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    unit: Unit = "real"
    resamples: np.ndarray | None = None
    ceiling: np.ndarray | None = None
    identified: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        values = frozen(self.values)
        pairs, sites = tuple(self.pairs), tuple(self.sites)
        if self.identified is not None and len(self.identified) != len(sites):
            raise ValueError(f"{len(self.identified)} sites identified or not, of {len(sites)}")
        if self.resamples is not None:
            resamples = frozen(self.resamples)
            if resamples.ndim != 3 or resamples.shape[1:] != values.shape or len(resamples) < 2:
                raise ValueError(
                    f"resamples {list(resamples.shape)} for values {list(values.shape)}: two "
                    "draws or more of every pair and site"
                )
            object.__setattr__(self, "resamples", resamples)
        if self.ceiling is not None:
            ceiling = frozen(self.ceiling)
            if ceiling.shape != (len(sites),):
                raise ValueError(f"ceiling {list(ceiling.shape)} for {len(sites)} sites")
            require_finite(ceiling, [f"the ceiling at {site}" for site in sites])
            object.__setattr__(self, "ceiling", ceiling)
        if values.shape != (len(pairs), len(sites)) or values.size == 0:
            raise ValueError(
                f"values {list(values.shape)} for {len(pairs)} pairs x {len(sites)} sites"
            )
        if len(set(pairs)) < len(pairs) or len(set(sites)) < len(sites):
            raise ValueError(f"doubled label among pairs {pairs} or sites {sites}")
        require_finite(values.ravel(), [f"{pair} {site}" for pair in pairs for site in sites])
        require_finite_figures(self.beside)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "pairs", pairs)
        object.__setattr__(self, "sites", sites)

    def at(self, sites: Sequence[str]) -> PairSite:
        """The table at `sites`, in that order. Raises KeyError naming a site it does not have."""
        unknown = [site for site in sites if site not in self.sites]
        if unknown:
            raise KeyError(f"no site {', '.join(unknown)} among {', '.join(self.sites)}")
        columns = [self.sites.index(site) for site in sites]
        drawn = None if self.resamples is None else self.resamples[:, :, columns]
        ceiling = None if self.ceiling is None else self.ceiling[columns]
        known = None if self.identified is None else tuple(self.identified[j] for j in columns)
        values, sites = self.values[:, columns], tuple(sites)
        return replace(
            self, values=values, sites=sites, resamples=drawn, ceiling=ceiling, identified=known
        )

    def through(self, identified: Mapping[str, bool]) -> PairSite:
        """The same, taken through rotations that are determined at a site or not."""
        return replace(self, identified=tuple(identified[site] for site in self.sites))

    @property
    def not_identified(self) -> dict[str, float]:
        """At how many sites they are not, for the record; empty without rotations."""
        known = self.identified
        return {} if known is None else {NOT_IDENTIFIED: float(known.count(False))}

    def each(self) -> Measured:
        """Every pair at every site, each with the interval of its own value over sequences."""
        labels = tuple(f"{pair} {site}" for pair in self.pairs for site in self.sites)
        found: tuple[Interval | None, ...] = ()
        if self.resamples is not None:
            drawn = self.resamples.reshape(len(self.resamples), -1)
            found = tuple(
                resampled(float(value), draws, "sequences", self.unit)
                for value, draws in zip(self.values.ravel(), drawn.T, strict=True)
            )
        ceilings = () if self.ceiling is None else np.tile(self.ceiling, len(self.pairs))
        return self._measured(self.values.ravel(), labels, ceilings, intervals=found)

    def mean_over_pairs(self) -> Measured:
        """One value per site, the pairs being the sample of its interval."""
        ceilings = () if self.ceiling is None else self.ceiling
        return self._measured(self.values.mean(axis=0), self.sites, ceilings, self.values.T)

    def mean(self) -> Measured:
        """The mean over pairs and sites, the pairs being the sample of its interval."""
        ceilings = () if self.ceiling is None else self.ceiling.mean(keepdims=True)
        return self._measured(
            self.values.mean(keepdims=True)[0], ("mean",), ceilings, self.values.mean(axis=1)[None]
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

    def larger(self, other: PairSite) -> PairSite:
        """The larger of the two, cell by cell and draw by draw."""
        return self._combined(other, np.maximum)

    def __abs__(self) -> PairSite:
        drawn = None if self.resamples is None else abs(self.resamples)
        ceiling = None if self.ceiling is None else abs(self.ceiling)
        return replace(self, values=abs(self.values), resamples=drawn, ceiling=ceiling, unit="real")

    def _measured(
        self,
        values: np.ndarray,
        labels: tuple[str, ...],
        ceilings: Sequence[float] | np.ndarray,
        replicates: np.ndarray | None = None,
        intervals: tuple[Interval | None, ...] = (),
    ) -> Measured:
        return Measured(
            values,
            labels,
            replicates,
            {**self.beside, **self.not_identified},
            self.seeds,
            {"pairs": len(self.pairs), "sites": len(self.sites), **self.counts},
            intervals,
            self.unit,
            tuple(ceilings),
        )

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
        known = [each.identified for each in (self, other) if each.identified is not None]
        with np.errstate(divide="ignore", invalid="ignore"):  # the constructor names the cell
            values = combine(self.values, other.values)
            drawn, ceiling = (
                None if mine is None or theirs is None else combine(mine, theirs)
                for mine, theirs in (
                    (self.resamples, other.resamples),
                    (self.ceiling, other.ceiling),
                )
            )
        return PairSite(
            values,
            self.pairs,
            self.sites,
            {**other.beside, **self.beside},
            {**other.seeds, **self.seeds},
            {**other.counts, **self.counts},
            resamples=drawn,
            ceiling=ceiling,
            identified=tuple(map(all, zip(*known, strict=True))) if known else None,
        )
