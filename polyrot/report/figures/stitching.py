"""Recovered loss by site: how well the anchor goes on from a sibling's mapped stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polyrot.measures.stitching import ARMS, Stitching, over_pairs_or_sequences
from polyrot.report.figures import style
from polyrot.report.figures.style import Look
from polyrot.report.figures.values import Row, Table, Words, row, table

LOOKS = {
    "affine": Look(style.INK, "s", "--"),
    "rotated": Look(style.BLUE, "o"),
    "scaled": Look(style.SKY, "P", "-."),
    "shift": Look(style.ORANGE, "^", "-."),
    "identity": Look(style.VERMILION, "v"),
    "principal": Look(style.GREEN, "D", "--"),
    "shuffled": Look(style.PURPLE, "X", ":"),
    "haar": Look(style.MUTED, "*", ":"),
}
MEANING = {
    "affine": "affine map",
    "rotated": "rotation R",
    "scaled": "R and a scale",
    "shift": "mean replaced",
    "identity": "as it is",
    "principal": "second moments alone",
    "shuffled": "R of shuffled tokens",
    "haar": "a Haar matrix",
}
BAR = 0.95
FLOOR = -1.0
"""Worse than knowing nothing by as much again: what lies below is drawn here."""


@dataclass(frozen=True)
class Arm:
    """One map. values: [pairs, sites], recovered loss; low, high: [sites], ends of the interval of
    its mean over pairs (of a single pair: over sequences), the mean itself where it has none."""

    name: str
    values: Table
    low: Row
    high: Row


@dataclass(frozen=True)
class StitchedLoss:
    """Recovered loss of one scale by site and map; `ceiling` [sites], of an exact rotated copy of
    the anchor through its R. gaps: [sites], nats that the mean activation costs."""

    scale: str
    sites: tuple[str, ...]
    pairs: tuple[str, ...]
    tokens: int
    sequences: int
    arms: tuple[Arm, ...]
    ceiling: Row
    gaps: Row

    @classmethod
    def of(cls, scale: str, stitching: Stitching) -> StitchedLoss:
        """From what the claims of stitching measured."""
        first = stitching.recovered["rotated"]
        arms = []
        for name in ARMS:
            found = stitching.recovered[name]
            mean = over_pairs_or_sequences(found)
            ends = [i or (v, v) for i, v in zip(mean.intervals, mean.values, strict=True)]
            low, high = ([end[k] for end in ends] for k in (0, 1))
            arms.append(Arm(name, table(found.values), row(low), row(high)))
        counts, ceiling = first.counts, first.ceiling
        return cls(
            scale,
            first.sites,
            first.pairs,
            int(counts["tokens"]),
            int(counts["sequences"]),
            tuple(arms),
            () if ceiling is None else row(ceiling),
            row(stitching.gap.values()),
        )

    def merged(self, other: StitchedLoss) -> StitchedLoss:
        """The later one: it is made of one piece."""
        return other

    @property
    def sample(self) -> str:
        """What the intervals are of."""
        if len(self.pairs) > 1:
            return f"n = {len(self.pairs)} pairs"
        return f"n = {self.sequences} sequences of one pair"

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        means = {arm.name: np.mean(arm.values, axis=0) for arm in self.arms}
        said = [
            f"{MEANING[name]} {means[name].min():.3g} to {means[name].max():.3g}" for name in LOOKS
        ]
        return Words(
            f"Stitching, {self.scale}",
            "The sibling runs up to a site, its stream is mapped, and the anchor goes on from "
            "there. Recovered loss: 1 is the anchor itself, 0 is to know nothing of the token; "
            "broad dashes are what an exact rotated copy of the anchor reaches (ceiling). If the "
            "models computed one function up to a rotation, the blue circles would lie above "
            f"{BAR} (dashed line), as high as the affine map's squares, and the maps that know "
            "no pairing of tokens (diamonds, crosses, stars) near 0 or below; what lies below "
            f"{FLOOR:g} is drawn there. Small marks are pairs, lines their means, bars 95 % "
            f"intervals ({self.sample}); {self.tokens:,} held-out tokens.",
            f"Through R the mean lies above {BAR} at {int((means['rotated'] > BAR).sum())} of "
            f"{len(self.sites)} sites, through an affine map at "
            f"{int((means['affine'] > BAR).sum())}. Site means, lowest to highest: "
            f"{'; '.join(said)}.",
        )


@style.styled
def draw(value: StitchedLoss) -> Figure:
    """The figure of a value."""
    figure = style.canvas(max(6.4, 1.5 * len(value.sites) + 1.6), 4.6)
    axes = figure.add_subplot()
    if value.ceiling:
        at = np.arange(len(value.sites))
        axes.plot(
            at, value.ceiling, "_", color=style.INK, markersize=34, markeredgewidth=1.4,
            label="exact copy, rotated (ceiling)",
        )  # fmt: skip
    arms = {arm.name: arm for arm in value.arms}
    for k, name in enumerate(LOOKS):
        _curve(axes, arms[name], (k - (len(LOOKS) - 1) / 2) * 0.08)
    axes.axhline(BAR, color=style.BLUE, linewidth=0.9, linestyle="--")
    axes.axhline(0, color=style.INK, linewidth=0.9)
    axes.set_ylim(FLOOR - 0.08, 1.12)
    axes.set_xticks(range(len(value.sites)), value.sites)
    axes.set_xlabel("residual site at which the halves meet")
    axes.set_ylabel("recovered loss")
    axes.grid(axis="x", visible=False)
    style.legend_above(figure, [axes], 3)
    style.note_n(
        figure, f"{value.scale}: {value.sample}, {value.tokens:,} held-out tokens; bar {BAR} of R"
    )
    return figure


def _curve(axes: Axes, arm: Arm, offset: float) -> None:
    """Marks of the pairs, their mean, and its interval, none of them below FLOOR."""
    look, values = LOOKS[arm.name], np.maximum(np.array(arm.values), FLOOR)
    at, mean = np.arange(values.shape[1]) + offset, np.mean(arm.values, axis=0)
    shown = np.maximum(mean, FLOOR)
    low, high = (np.maximum(np.array(ends), FLOOR) for ends in (arm.low, arm.high))
    if len(values) > 1:
        axes.plot(
            np.tile(at, len(values)), values.ravel(), look.marker, color=look.colour, markersize=3,
            alpha=0.45, markeredgewidth=0,
        )  # fmt: skip
    axes.errorbar(
        at, shown, [shown - low, np.maximum(high - shown, 0)], color=look.colour,
        linestyle=look.line, marker=look.marker, markersize=5.5, linewidth=1.2, elinewidth=1,
        capsize=2, label=MEANING[arm.name],
    )  # fmt: skip
