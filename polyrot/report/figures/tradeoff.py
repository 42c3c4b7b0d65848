"""Bar P: weight error against activation error as one rotation serves both (section 10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polyrot.cohorts.cohort import Cohort, pair_labels
from polyrot.measures.bars.joint import ENDS, WEIGHTINGS, Joint
from polyrot.report.figures import style
from polyrot.report.figures.published import published
from polyrot.report.figures.values import Row, Table, Words, row, table

BAR_P = 1e-3
COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY)
MARKERS = "osv^D*PX"


@dataclass(frozen=True)
class PairCurve:
    """One pair, rows of (weight error, activation error, largest per-tensor MSE): `curve` by
    weighting, `ends` as in `ENDS`, `published` by published weighting, from either start."""

    name: str
    curve: Table
    ends: Table
    published: Table


@dataclass(frozen=True)
class TradeOff:
    """Joint alignment of one scale's pairs. An error of 0 is agreement, of about 1 what an anchor
    of zeros would score."""

    scale: str
    weightings: Row
    pairs: tuple[PairCurve, ...]

    @classmethod
    def of(cls, cohort: Cohort, found: Joint) -> TradeOff:
        """From what the claims of section 10 measured."""
        curve = found.curve()
        # of the published loss, which has no bound, the start that ends with the lower errors
        sums = found.published[..., :2].sum(-1)
        best = sums.argmin(2)[:, :, None, None].expand(-1, -1, 1, 3)
        published_curve = found.published.gather(2, best)[:, :, 0]
        pairs = (
            PairCurve(name, table(curve[i]), table(found.ends[i]), table(published_curve[i]))
            for i, name in enumerate(pair_labels(cohort))
        )
        return cls(cohort.scale, row(WEIGHTINGS), tuple(pairs))

    def merged(self, other: TradeOff) -> TradeOff:
        """The later one: it is made of one piece."""
        return other

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        smallest = [min(point[2] for point in pair.curve) for pair in self.pairs]
        return Words(
            f"The trade-off behind Bar P, {self.scale}",
            "Left: errors reached when one rotation minimises (1 − λ) weight error + λ activation "
            f"error, for n = {len(self.pairs)} pairs; large marks are the two end points. Hollow: "
            "the published loss, whose weight term is maximised for λ above 1. Right: the largest "
            "mean squared difference of a tensor, which Bar P asks to be below 0.001.",
            f"Smallest largest-per-tensor error: {min(smallest):.3g} to {max(smallest):.3g}, "
            f"{min(smallest) / BAR_P:.0f} times the bar and more.",
        )


@style.styled
def draw(value: TradeOff) -> Figure:
    """The figure of a value."""
    figure = style.canvas(9.2, 4.2)
    left, right = style.row_of_axes(figure, 2)
    for k, pair in enumerate(value.pairs):
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        errors = np.array(pair.curve)
        left.plot(
            errors[:, 0], errors[:, 1], color=colour, marker=marker, markersize=3.5,
            label=f"pair {pair.name}", linewidth=1.2,
        )  # fmt: skip
        ends = np.array(pair.ends)
        left.plot(ends[:, 0], ends[:, 1], marker, color=colour, markersize=8, linestyle="")
        other = np.array(pair.published)
        left.plot(
            other[:, 0], other[:, 1], marker, markeredgecolor=colour, markerfacecolor="none",
            markersize=6, linestyle="",
        )  # fmt: skip
        right.plot(
            range(len(value.weightings)), errors[:, 2], color=colour, marker=marker, markersize=4.5,
            linewidth=1.2,
        )  # fmt: skip
    _left(left)
    _right(right, value)
    text = f"{value.scale}: n = {len(value.pairs)} pairs; end points: {', '.join(ENDS)}"
    style.note_n(figure, text)
    return figure


def _left(axes: Axes) -> None:
    axes.plot(
        [], [], "o", markeredgecolor=style.MUTED, markerfacecolor="none", label="published loss"
    )
    axes.set_title("the trade-off")
    axes.set_xlabel("weight error (1 = an anchor of zeros)")
    axes.set_ylabel("activation error (1 = the mean)")
    axes.legend(loc="best")


def _right(axes: Axes, value: TradeOff) -> None:
    known = published(value.scale)
    if known.largest_mse is not None:
        style.band(axes, *known.largest_mse, f"published ({known.of})")
    axes.axhline(BAR_P, color=style.INK, linestyle="--", linewidth=1.2, label="Bar P: below 0.001")
    axes.set_yscale("log")
    style.plain_ticks(axes.yaxis)
    axes.set_xticks(range(len(value.weightings)), [f"{w:g}" for w in value.weightings])
    axes.set_title("the largest per-tensor error")
    axes.set_xlabel("weighting λ (0: weights alone, 1: activations alone)")
    axes.set_ylabel("largest per-tensor MSE")
    axes.legend(loc="center right")
