"""Explained variance by site: what the anchor's dictionary makes of whom (sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from polyrot.cohorts.cohort import Cohort
from polyrot.measured import PairSite
from polyrot.measures.published_scores import PublishedScores
from polyrot.measures.transfer import Transfer
from polyrot.report.figures import style
from polyrot.report.figures.published import published
from polyrot.report.figures.style import Look
from polyrot.report.figures.values import Table, Words, by_name, table

SERIES = {
    "self": ("self_ev", Look(style.INK, "s")),
    "noise": ("noise_ev", Look(style.MUTED, "X", ":")),
    "rotated": ("rotated_ev", Look(style.BLUE, "o")),
    "covariance only": ("principal_ev", Look(style.GREEN, "D", "--")),
    "shifted": ("shifted_ev", Look(style.ORANGE, "^", "-.")),
    "naive": ("naive_ev", Look(style.VERMILION, "v")),
}
"""Name, field of Transfer, look; in the order in which they usually lie, best first."""
UNTRAINED = {
    "untrained, rotated": ("rotated_ev", Look(style.SKY, "P", "--")),
    "untrained, naive": ("naive_ev", Look(style.PURPLE, "*", ":")),
}
AS_PUBLISHED = {
    "as published, rotated": Look(style.BLUE, "o", ""),
    "as published, naive": Look(style.VERMILION, "v", ""),
}
"""Hollow marks without a line beside the curve of the same colour."""
LOOKS = {name: look for name, (_, look) in (SERIES | UNTRAINED).items()} | AS_PUBLISHED
MEANING = {
    "self": "the anchor's own activations",
    "noise": "Gaussian noise of the anchor's mean and covariance",
    "rotated": "the sibling's, rotated",
    "covariance only": "principal axes matched by rank, signs random",
    "shifted": "the sibling's with the anchor's mean",
    "naive": "the sibling's as they are",
    "untrained, rotated": "the same between networks that were never trained",
    "untrained, naive": "the same, as they are",
    "as published, rotated": "the sibling's, rotated, as the paper scores them: on the batch that "
    "the rotation was fitted on, around one scalar mean, in the setting that favours the paper",
    "as published, naive": "the sibling's as they are, scored so",
}
TICKS = (-9, -4, -2, -1, 0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
CEILING = 1 - 1e-5  # the axis is log(1 - EV): nothing is drawn above


@dataclass(frozen=True)
class Series:
    """One curve: `values` [pairs, sites]."""

    name: str
    values: Table


@dataclass(frozen=True)
class EVBySite:
    """Explained variances of one scale by pair and site, on `tokens` held-out tokens."""

    scale: str
    sites: tuple[str, ...]
    pairs: tuple[str, ...]
    tokens: int
    series: tuple[Series, ...]

    @classmethod
    def of(cls, cohort: Cohort, transfer: Transfer) -> EVBySite:
        """The trained cohort's."""
        return cls._of(cohort, transfer, SERIES)

    @classmethod
    def of_untrained(cls, cohort: Cohort, transfer: Transfer) -> EVBySite:
        """The same of networks before their first step."""
        return cls._of(cohort, transfer, UNTRAINED)

    @classmethod
    def of_published(cls, cohort: Cohort, scores: PublishedScores) -> EVBySite:
        """The paper's own scores of the trained cohort."""
        naive, rotated = scores.favoured_tables(cohort.internal)
        return cls._made(cohort, dict(zip(AS_PUBLISHED, (rotated, naive), strict=True)))

    @classmethod
    def _of(
        cls, cohort: Cohort, transfer: Transfer, wanted: dict[str, tuple[str, Look]]
    ) -> EVBySite:
        tables = {name: getattr(transfer, field) for name, (field, _) in wanted.items()}
        return cls._made(cohort, tables)

    @classmethod
    def _made(cls, cohort: Cohort, tables: dict[str, PairSite]) -> EVBySite:
        first = next(iter(tables.values()))
        series = tuple(Series(name, table(found.values)) for name, found in tables.items())
        tokens = int(first.counts["tokens"])
        return cls(cohort.scale, first.sites, first.pairs, tokens, series)

    def merged(self, other: EVBySite) -> EVBySite:
        """With the curves of `other` as well. Raises ValueError if the sites differ."""
        if (self.scale, self.sites) != (other.scale, other.sites):
            raise ValueError(f"explained variances at {self.sites} and at {other.sites}")
        # The paper's one batch is a part of the split.
        tokens = max(self.tokens, other.tokens)
        return replace(self, tokens=tokens, series=by_name(self.series, other.series))

    def ordered(self) -> list[Series]:
        """The curves in the order of the legend."""
        names = list(LOOKS)
        return sorted(self.series, key=lambda series: names.index(series.name))

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        means = [
            f"{s.name} {np.mean(s.values, axis=0).min():.3g} to "
            f"{np.mean(s.values, axis=0).max():.3g}"
            for s in self.ordered()
        ]
        return Words(
            f"Explained variance by site, {self.scale}",
            f"The anchor's dictionary on: {'; '.join(f'{s.name}: {MEANING[s.name]}' for s in self.ordered())}. "  # noqa: E501
            f"Small marks are pairs (n = {len(self.pairs)}), lines their means, on {self.tokens:,} "
            "held-out tokens. Hatched: the published range. 0 is no better than predicting the "
            "mean; the axis is logarithmic in 1 − EV.",
            f"{self.seen()}Site means, lowest to highest: {'; '.join(means)}.",
        )

    def seen(self) -> str:
        """What R changes: at how many sites the curves through R and without it are above 0."""
        found = {s.name: np.mean(s.values, axis=0) for s in self.series}
        said = [
            f"{words} at {int((found[name] > 0).sum())} of {len(self.sites)} sites"
            for name, words in (("rotated", "through R"), ("naive", "as it is"))
            if name in found
        ]
        if not said:
            return ""
        return f"The sibling is reconstructed better than by its mean {', '.join(said)}. "


@style.styled
def draw(value: EVBySite) -> Figure:
    """The figure of a value."""
    figure = style.canvas(8.6, 4.9)
    axes = figure.add_subplot()
    known = published(value.scale)
    for what, limits in (
        ("rotated", known.rotated),
        ("noise", known.noise),
        ("naive", known.naive),
    ):
        if limits is not None:
            text = f"published, {what} ({known.of})"
            style.band(axes, *limits, text, colour=LOOKS[what].colour)
    curves = value.ordered()
    offsets = _offsets([series.name for series in curves])
    for series in curves:
        _curve(axes, series, offsets[series.name])
    _ev_axis(axes, [x for s in curves for pair in s.values for x in pair])
    axes.set_xticks(range(len(value.sites)), value.sites)
    axes.set_xlabel("residual site")
    axes.set_ylabel("explained variance")
    axes.axhline(0, color=style.INK, linewidth=0.9)
    axes.grid(axis="x", visible=False)
    style.legend_above(figure, [axes], 4)
    style.note_n(
        figure, f"{value.scale}: n = {len(value.pairs)} pairs, {value.tokens:,} held-out tokens"
    )
    return figure


def _offsets(names: Sequence[str]) -> dict[str, float]:
    """Where each curve lies beside its site: apart, and hollow marks next to the filled ones that
    they go with."""
    lined = [name for name in names if name not in AS_PUBLISHED]
    found = {name: (k - (len(lined) - 1) / 2) * 0.09 for k, name in enumerate(lined)}
    hollow = [name for name in names if name in AS_PUBLISHED]
    return found | {name: found.get(name.split(", ")[1], 0.0) + 0.04 for name in hollow}


def _curve(axes: Axes, series: Series, offset: float) -> None:
    look = LOOKS[series.name]
    values = np.minimum(np.array(series.values), CEILING)
    at = np.arange(values.shape[1]) + offset
    hollow = "none" if series.name in AS_PUBLISHED else None
    axes.plot(
        np.tile(at, len(values)), values.ravel(), look.marker, color=look.colour, markersize=3,
        alpha=0.45, markeredgewidth=0,
    )  # fmt: skip
    axes.plot(
        at, np.minimum(np.mean(series.values, axis=0), CEILING), color=look.colour,
        linestyle=look.line, marker=look.marker, markersize=5.5, label=series.name, linewidth=1.2,
        markerfacecolor=hollow,
    )  # fmt: skip


def _ev_axis(axes: Axes, values: Sequence[float]) -> None:
    """Equal steps where 1 - EV changes by one factor: -9 and 0.999 are both to be read."""
    axes.set_yscale(
        "function",
        functions=(
            lambda ev: -np.log10(np.maximum(1 - np.asarray(ev, dtype=float), 1 - CEILING)),
            lambda y: 1 - 10.0 ** -np.asarray(y, dtype=float),
        ),
    )
    low, high = min(*values, -0.1), min(max(*values, 0.95), CEILING)
    axes.set_ylim(1 - (1 - low) * 1.25, 1 - (1 - high) / 1.4)
    shown = [tick for tick in TICKS if 1 - (1 - low) * 1.25 <= tick <= 1 - (1 - high) / 1.4]
    axes.yaxis.set_major_locator(FixedLocator(shown))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda tick, _: f"{tick:g}".replace("-", "−"))
