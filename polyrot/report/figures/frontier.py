"""A's dictionary on B, by site: as it is, through R, and through the nulls; and the verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polyrot.measures.answers import HOME, Value, in_words
from polyrot.measures.frontier import Frontier
from polyrot.report.figures import style
from polyrot.report.figures.style import Look
from polyrot.report.figures.values import Row, Words, row

LOOKS = {
    "self_ev": Look(style.INK, "s", "--"),
    "rotated_ev": Look(style.BLUE, "o"),
    "naive_ev": Look(style.VERMILION, "v"),
    "shifted_ev": Look(style.ORANGE, "^", "-."),
    "shuffled_ev": Look(style.PURPLE, "X", ":"),
}
MEANING = {
    "self_ev": "on A itself",
    "rotated_ev": "on B through R",
    "naive_ev": "on B as it is",
    "shifted_ev": "mean replaced",
    "shuffled_ev": "R of shuffled tokens",
}
FLOOR = -1.0
"""What lies below is drawn here."""


@dataclass(frozen=True)
class Arm:
    """One way to B. values: [sites]; low, high: ends of the interval over sequences, the value
    itself where it has none."""

    name: str
    values: Row
    low: Row
    high: Row


@dataclass(frozen=True)
class DictionaryOnB:
    """EVs of A's dictionary at the sites that have one, the answer at each of them ("yes", "no",
    "cannot tell"), and the verdict in sentences."""

    scale: str
    sites: tuple[str, ...]
    sequences: int
    arms: tuple[Arm, ...]
    answers: tuple[str, ...]
    said: tuple[str, ...]

    @classmethod
    def of(cls, scale: str, frontier: Frontier) -> DictionaryOnB:
        """From what the claims of the frontier measured."""
        sites = frontier.transfer.self_ev.sites
        arms = []
        for name in LOOKS:
            found = [Value.of(getattr(frontier.transfer, name), site) for site in sites]
            ends = ([getattr(each, end) for each in found] for end in ("value", "low", "high"))
            arms.append(Arm(name, *map(row, ends)))
        answers = frontier.answers()
        return cls(
            scale,
            sites,
            int(frontier.counts["sequences"]),
            tuple(arms),
            tuple(each.says for each in answers),
            tuple(line.strip() for line in in_words(answers)),
        )

    def merged(self, other: DictionaryOnB) -> DictionaryOnB:
        """The later one: it is made of one piece."""
        return other

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        seen = [
            f"{MEANING[arm.name]} {min(arm.values):.3g} to {max(arm.values):.3g}"
            for arm in self.arms
        ]
        return Words(
            f"A's dictionary on B, {self.scale}",
            f"{'. '.join(self.said)}. Explained variance of A's dictionary on A (squares), on B "
            "through the rotation R (circles), on B as it is, with the mean replaced, and through "
            "a rotation fitted on shuffled tokens. It works on B through R where the circles lie "
            f"above {HOME:g} (dashed line), the squares do too, and the other marks lie clearly "
            f"below the circles; what lies below {FLOOR:g} is drawn there. Bars are 95 % intervals "
            f"(n = {self.sequences:,} held-out sequences).",
            f"Lowest to highest: {'; '.join(seen)}.",
        )


@style.styled
def draw(value: DictionaryOnB) -> Figure:
    """The figure of a value."""
    figure = style.canvas(max(6.4, 1.3 * len(value.sites) + 1.6), 4.4)
    axes = figure.add_subplot()
    for k, arm in enumerate(value.arms):
        _curve(axes, arm, (k - (len(value.arms) - 1) / 2) * 0.1)
    axes.axhline(HOME, color=style.BLUE, linewidth=0.9, linestyle="--")
    axes.axhline(0, color=style.INK, linewidth=0.9)
    axes.set_ylim(FLOOR - 0.08, 1.2)
    axes.set_xlim(-0.6, len(value.sites) - 0.4)
    for x, says in enumerate(value.answers):
        axes.text(x, 1.08, says, ha="center", fontweight="bold")
    axes.set_xticks(range(len(value.sites)), value.sites)
    axes.set_xlabel("residual site; above: does it work on B through R?")
    axes.set_ylabel("explained variance")
    axes.grid(axis="x", visible=False)
    style.legend_above(figure, [axes], 3)
    style.note_n(figure, f"{value.scale}: n = {value.sequences:,} held-out sequences; bar {HOME:g}")
    return figure


def _curve(axes: Axes, arm: Arm, offset: float) -> None:
    """Marks and their intervals, none of them below FLOOR."""
    look, at = LOOKS[arm.name], np.arange(len(arm.values)) + offset
    shown, low, high = (np.maximum(np.array(x), FLOOR) for x in (arm.values, arm.low, arm.high))
    axes.errorbar(
        at, shown, [shown - low, high - shown], color=look.colour, linestyle=look.line,
        marker=look.marker, markersize=5.5, linewidth=1.2, elinewidth=1, capsize=2,
        label=MEANING[arm.name],
    )  # fmt: skip
