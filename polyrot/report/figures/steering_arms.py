"""What each way of carrying a steering direction to a sibling does there (section 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polyrot.measures.effects import mean_over_pairs
from polyrot.measures.steering_arms import SteeringArms
from polyrot.report.figures import style
from polyrot.report.figures.style import Look
from polyrot.report.figures.values import Row, Words, row

LOOKS = {
    "own": ("sibling's own direction", Look(style.GREEN, "D")),
    "rotated": ("through R", Look(style.BLUE, "o")),
    "scaled": ("through R with a scale", Look(style.BLUE, "s")),
    "affine": ("through an affine map", Look(style.BLUE, "^")),
    "naive": ("untouched", Look(style.VERMILION, "v")),
    "principal": ("through principal axes", Look(style.ORANGE, "X")),
    "shuffled": ("through R of shuffled tokens", Look(style.ORANGE, "P")),
}
CEILING = "exact copies of the anchor"
BELOW = 0.27
"""Pairs are drawn so far below their mean, in rows."""


@dataclass(frozen=True)
class Arm:
    """One arm: its effect over that in the anchor, by pair, with the mean's 95 % interval over
    pairs, and what it is in exact copies (their mean)."""

    name: str
    by_pair: Row
    low: float
    high: float
    ceiling: float

    @property
    def mean(self) -> float:
        """Over pairs."""
        return float(np.mean(self.by_pair))


@dataclass(frozen=True)
class Direction:
    """One direction. targets: positions that effects are averaged over."""

    name: str
    targets: int
    arms: tuple[Arm, ...]


@dataclass(frozen=True)
class ArmsByDirection:
    """The arms of a cohort's directions, at dose 1."""

    scale: str
    pairs: tuple[str, ...]
    draws: int
    directions: tuple[Direction, ...]

    @classmethod
    def of(cls, scale: str, measured: SteeringArms) -> ArmsByDirection:
        """From what the claims of section 6 measured."""
        siblings, perfect = measured.siblings, measured.perfect

        def arm(name: str, i: int) -> Arm:
            found = siblings.share(name)[i]
            (ends,) = mean_over_pairs(found[None])
            low, high = (found.mean(),) * 2 if ends is None else (ends.low, ends.high)
            return Arm(name, row(found), low, high, float(perfect.share(name)[i].mean()))

        return cls(
            scale,
            siblings.pairs,
            siblings.draws,
            tuple(
                Direction(name, siblings.targets[i], tuple(arm(a, i) for a in LOOKS))
                for i, name in enumerate(siblings.contrasts)
            ),
        )

    def merged(self, other: ArmsByDirection) -> ArmsByDirection:
        """The later one: it is made of one piece."""
        return other

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        texts = []
        for direction in self.directions:
            shown = ", ".join(f"{LOOKS[a.name][0]} {a.mean:.2f}" for a in direction.arms)
            texts.append(f"{direction.name.replace('_', ' ')}: {shown}")
        return Words(
            f"Steering arms, {self.scale}",
            f"{_counted(self)}; bars are 95 % intervals of the mean over pairs, bold rings what "
            "exact copies of the anchor give by the same code, and n in a title the targeted "
            "positions. If R carries what steers, the blue points lie at 1, or where the "
            "sibling's own direction (green) does, and the maps that know no matched tokens "
            "(orange) at 0; where the untouched direction (red) does as well, nothing needed "
            "repair. Below 0 the effect is inverted.",
            "Effect at dose 1 over that in the anchor, " + "; ".join(texts) + ".",
        )


def _counted(value: ArmsByDirection) -> str:
    return (
        f"{value.scale}: n = {len(value.pairs)} pairs (small points); dose 1; orange: mean over "
        f"{value.draws} draws"
    )


@style.styled
def draw(value: ArmsByDirection) -> Figure:
    """The figure of a value."""
    n = len(value.directions)
    figure = style.canvas(max(7.4, 2.0 + 2.6 * n), 3.9)
    panels = style.row_of_axes(figure, n, sharey=True)
    for axes, direction in zip(panels, value.directions, strict=True):
        _panel(axes, direction)
    panels[0].set_ylabel("how the direction is carried")
    panels[0].set_yticks(range(len(LOOKS)), [text for text, _ in LOOKS.values()])
    panels[0].invert_yaxis()
    style.legend_above(figure, [panels[0]], 3)
    style.note_n(figure, _counted(value))
    return figure


def _panel(axes: Axes, direction: Direction) -> None:
    axes.axvline(0, color=style.INK, linewidth=0.9)
    axes.axvline(1, color=style.MUTED, linewidth=0.9, linestyle="--", label="effect in the anchor")
    for y, arm in enumerate(direction.arms):
        look = LOOKS[arm.name][1]
        axes.plot(
            arm.by_pair, np.full(len(arm.by_pair), y + BELOW), color=look.colour, marker=".",
            markersize=5, linestyle="none", alpha=0.7,
        )  # fmt: skip
        axes.errorbar(
            [arm.mean], [y], xerr=[[arm.mean - arm.low], [arm.high - arm.mean]],
            color=look.colour, marker=look.marker, markersize=6, capsize=3, linestyle="none",
            label="mean and 95 % interval" if y == 0 else None,
        )  # fmt: skip
        axes.plot(
            [arm.ceiling], [y], color=style.INK, marker="o", markersize=10, fillstyle="none",
            linestyle="none", label=CEILING if y == 0 else None,
        )  # fmt: skip
    axes.set_title(f"{direction.name.replace('_', ' ')} (n = {direction.targets:,})")
    axes.set_xlabel("effect over the anchor's")
