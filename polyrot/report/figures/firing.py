"""Whether the anchor's features fire on the same tokens of a sibling (paper, section 8.5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polyrot.cohorts.cohort import Cohort
from polyrot.measured import PairSite
from polyrot.measures.firing import PUBLISHED, Firing, Overlap, sites_of
from polyrot.report.figures import style
from polyrot.report.figures.style import Look
from polyrot.report.figures.values import Row, Table, Words, by_name, row, table

SERIES = {
    "rotated": ("rotated", Look(style.BLUE, "o")),
    "random directions, rotated": ("random", Look(style.PURPLE, "s", "--")),
    "covariance only": ("principal", Look(style.GREEN, "D", "--")),
    "shuffled tokens": ("shuffled", Look(style.ORANGE, "^", "-.")),
    "raw": ("naive", Look(style.VERMILION, "v")),
}
"""Name, field of Firing, look."""
UNTRAINED = {"untrained, rotated": ("rotated", Look(style.SKY, "P", ":"))}
LOOKS = {name: look for name, (_, look) in (SERIES | UNTRAINED).items()}
MEANING = {
    "rotated": "the sibling's stream through R",
    "random directions, rotated": "the same of random directions, rectified to fire as often",
    "covariance only": "through principal axes matched by rank, signs random",
    "shuffled tokens": "through a rotation fitted on shuffled tokens",
    "raw": "the sibling's stream as it is",
    "untrained, rotated": "rotated, between networks that were never trained",
}


@dataclass(frozen=True)
class Series:
    """One curve: `values` [pairs, sites], and the ends of the 95 % interval of its mean over pairs,
    [sites]."""

    name: str
    values: Table
    low: Row
    high: Row

    @classmethod
    def of(cls, name: str, found: PairSite) -> Series:
        """From a table of a measurement."""
        mean = found.mean_over_pairs()
        ends = [mean.interval(j) or (x, x) for j, x in enumerate(mean.values)]
        return cls(
            name, table(found.values), row(end[0] for end in ends), row(end[1] for end in ends)
        )


@dataclass(frozen=True)
class Band:
    """A range that the paper states, over its sites."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class FiringBySite:
    """Mean r of live features by pair and site. judged: the sites of the claims. ceiling: rotated,
    of an exact copy of the anchor; empty where that is not known. above_half: by site, the share of
    live features above 0.5 through R."""

    scale: str
    sites: tuple[str, ...]
    judged: tuple[str, ...]
    pairs: tuple[str, ...]
    features: int
    tokens: int
    series: tuple[Series, ...]
    ceiling: Row
    above_half: Row
    bands: tuple[Band, ...]
    of_bands: str

    @classmethod
    def of(cls, cohort: Cohort, firing: Firing) -> FiringBySite:
        """The trained cohort's."""
        first, known = firing.rotated.mean, PUBLISHED[cohort.facts.language]
        return cls(
            cohort.scale,
            first.sites,
            sites_of(cohort),
            first.pairs,
            int(first.counts["features"]),
            int(first.counts["tokens"]),
            tuple(Series.of(name, _mean(firing, way)) for name, (way, _) in SERIES.items()),
            () if first.ceiling is None else row(first.ceiling),
            row(firing.rotated.above_half.values.mean(0)),
            (Band("rotated", *known.rotated), Band("raw", *known.naive)),
            known.of,
        )

    @classmethod
    def of_untrained(cls, cohort: Cohort, firing: Firing) -> FiringBySite:
        """The same of networks before their first step."""
        series = tuple(Series.of(name, _mean(firing, way)) for name, (way, _) in UNTRAINED.items())
        return replace(cls.of(cohort, firing), series=series, ceiling=(), above_half=())

    def merged(self, other: FiringBySite) -> FiringBySite:
        """With the curves of `other` as well. Raises ValueError if the sites differ."""
        if (self.scale, self.sites) != (other.scale, other.sites):
            raise ValueError(f"firing patterns at {self.sites} and at {other.sites}")
        return replace(
            self,
            series=by_name(self.series, other.series),
            ceiling=self.ceiling or other.ceiling,
            above_half=self.above_half or other.above_half,
        )

    def ordered(self) -> list[Series]:
        """The curves in the order of the legend."""
        names = list(LOOKS)
        return sorted(self.series, key=lambda series: names.index(series.name))

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        curves = self.ordered()
        said = [f"{s.name} {_range(np.mean(s.values, axis=0))}" for s in curves]
        if self.above_half:
            said.append(
                f"share of features above 0.5 through R {_range(np.array(self.above_half))}"
            )
        meanings = "; ".join(f"{s.name}: {MEANING[s.name]}" for s in curves)
        beside = [site for site in self.sites if site not in self.judged]
        top = "" if not self.ceiling else " The line at the top is an exact copy of the anchor."
        return Words(
            f"Firing patterns by site, {self.scale}",
            f"Mean Pearson r over tokens between a feature on the anchor and on a sibling: "
            f"{meanings}. Small marks are pairs (n = {len(self.pairs)}), bars 95 % intervals of "
            f"their mean; {self.features:,} features, {self.tokens:,} held-out tokens. Hatched, at "
            f"the right: what the paper states over its sites ({self.of_bands}).{top} Were learned "
            "features what siblings share up to R, the blue line would be near it and random "
            "directions, which no model learned, far below the blue."
            + (f" {style.listed(beside)}: beside, not judged." if beside else ""),
            "Site means, lowest to highest: " + "; ".join(said) + ".",
        )


def _mean(firing: Firing, way: str) -> PairSite:
    overlap: Overlap = getattr(firing, way)
    return overlap.mean


def _range(means: np.ndarray) -> str:
    return f"{means.min():.3g} to {means.max():.3g}"


@style.styled
def draw(value: FiringBySite) -> Figure:
    """The figure of a value."""
    figure = style.canvas(8.6, 4.9)
    axes = figure.add_subplot()
    curves = value.ordered()
    for k, series in enumerate(curves):
        _curve(axes, series, (k - (len(curves) - 1) / 2) * 0.09)
    at = np.arange(len(value.sites))
    if value.ceiling:
        axes.plot(at, value.ceiling, color=style.INK, linewidth=1, label="exact copy, rotated")
    for k, band in enumerate(value.bands):
        axes.bar(
            len(at) + 0.16 * (k - (len(value.bands) - 1) / 2), band.high - band.low, 0.13,
            band.low, facecolor="none", edgecolor=LOOKS[band.name].colour, hatch="////",
            label=f"published, {band.name}",
        )  # fmt: skip
    names = [site if site in value.judged else f"({site})" for site in value.sites]
    axes.set_xticks([*at, len(at)], [*names, f"published\n({value.of_bands})"])
    axes.set_xlabel("residual site")
    axes.set_ylabel("mean r of firing over features")
    axes.axhline(0, color=style.INK, linewidth=0.9)
    lowest = min(x for s in curves for x in (*s.low, *np.ravel(s.values)))
    axes.set_ylim(min(-0.05, lowest - 0.03), 1.05)
    axes.grid(axis="x", visible=False)
    style.legend_above(figure, [axes], 3)
    style.note_n(
        figure,
        f"{value.scale}: n = {len(value.pairs)} pairs, {value.features:,} features, "
        f"{value.tokens:,} held-out tokens"
        + ("; sites in brackets are not judged" if set(value.sites) - set(value.judged) else ""),
    )
    return figure


def _curve(axes: Axes, series: Series, offset: float) -> None:
    look, values = LOOKS[series.name], np.array(series.values)
    at, mean = np.arange(values.shape[1]) + offset, values.mean(0)
    axes.plot(
        np.tile(at, len(values)), values.ravel(), look.marker, color=look.colour, markersize=3,
        alpha=0.45, markeredgewidth=0,
    )  # fmt: skip
    ends = np.array([mean - series.low, np.array(series.high) - mean]).clip(0)
    axes.errorbar(
        at, mean, ends, color=look.colour, linestyle=look.line, marker=look.marker,
        markersize=5.5, capsize=2, linewidth=1.2, label=series.name,
    )  # fmt: skip
