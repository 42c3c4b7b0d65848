"""How dictionaries from one start match as they train: what they share, and with their start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polyrot.cohorts.cohort import Cohort
from polyrot.measured import PairSite
from polyrot.measures.shared_start import AlongTraining
from polyrot.report.figures import style
from polyrot.report.figures.style import Look
from polyrot.report.figures.values import Row, Words, row

LOOKS = {
    "fraction": ("columns matched above 0.5", Look(style.BLUE, "o")),
    "mean": ("mean best cosine", Look(style.GREEN, "D")),
    "same_index": ("best match has the same index", Look(style.VERMILION, "v", "-.")),
    "to_start": ("cosine of a column to its start", Look(style.PURPLE, "s", ":")),
}
NOISE = ("matched by a dictionary of noise", Look(style.ORANGE, "^", "--"))


@dataclass(frozen=True)
class Curve:
    """One quantity by step: mean over pairs, and the ends of its 95 % interval over pairs."""

    name: str
    mean: Row
    low: Row
    high: Row

    @classmethod
    def of(cls, name: str, tables: Sequence[PairSite], site: str) -> Curve:
        """From a table for each step."""
        found = [each.at([site]).mean_over_pairs() for each in tables]
        ends = [x.interval(0) or (x.values[0], x.values[0]) for x in found]
        return cls(
            name,
            row([x.values[0] for x in found]),
            row([end[0] for end in ends]),
            row([end[1] for end in ends]),
        )


@dataclass(frozen=True)
class Panel:
    """One site. noise: by step, the fraction that a dictionary of noise matches."""

    name: str
    curves: tuple[Curve, ...]
    noise: Row


@dataclass(frozen=True)
class MatchCurve:
    """The match along training at the sites where the paper reports it."""

    scale: str
    pairs: int
    columns: int
    steps: Row
    read: Row
    panels: tuple[Panel, ...]

    @classmethod
    def of(cls, cohort: Cohort, along: AlongTraining) -> MatchCurve:
        """From what the claims of section 1 measured."""
        panels = tuple(
            Panel(
                site,
                tuple(Curve.of(n, [along.tables[s][n] for s in along.steps], site) for n in LOOKS),
                row([along.noise[s].at([site]).values[0, 0] for s in along.steps]),
            )
            for site in cohort.named_sites
        )
        pairs, columns = len(along.last["fraction"].pairs), along.cosines.shape[-1]
        return cls(cohort.scale, pairs, columns, row(along.steps), row(along.read), panels)

    def merged(self, other: MatchCurve) -> MatchCurve:
        """The later one: it is made of one piece."""
        return other

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        texts = []
        for panel in self.panels:
            ends = {c.name: (c.mean[0], c.mean[-1]) for c in panel.curves}
            said = ", ".join(f"{LOOKS[n][0]} {a:.3f} to {b:.3f}" for n, (a, b) in ends.items())
            said += f", {NOISE[0]} {panel.noise[0]:.3f} to {panel.noise[-1]:.3f}"
            texts.append(f"{panel.name}: {said}")
        return Words(
            f"Match along training of the SAEs, {self.scale}",
            f"{_counted(self)}; bars are 95 % intervals over pairs, vertical lines the steps at "
            "which the paper's scripts stop. Were the match one of learned features, the blue line "
            "would rise and the red one be low: a match that falls as training goes on, between "
            "columns that keep their index and stay near their start, is the start's.",
            f"From {self.steps[0]:,.0f} to {self.steps[-1]:,.0f} steps, " + "; ".join(texts) + ".",
        )


def _counted(value: MatchCurve) -> str:
    return f"{value.scale}: n = {value.pairs} pairs of {value.columns} columns, all from one start"


@style.styled
def draw(value: MatchCurve) -> Figure:
    """The figure of a value."""
    figure = style.canvas(max(7.4, 3.2 * len(value.panels)), 4.1)
    panels = style.row_of_axes(figure, len(value.panels), sharey=True)
    for axes, panel in zip(panels, value.panels, strict=True):
        _panel(axes, panel, value)
    panels[0].set_ylabel("fraction of columns, or cosine")
    style.legend_above(figure, [panels[0]], 3)
    style.note_n(figure, _counted(value))
    return figure


def _panel(axes: Axes, panel: Panel, value: MatchCurve) -> None:
    for curve in panel.curves:
        text, look = LOOKS[curve.name]
        mean = np.array(curve.mean)
        ends = np.array([mean - curve.low, np.array(curve.high) - mean]).clip(0)
        axes.errorbar(
            value.steps, mean, ends, color=look.colour, marker=look.marker, linestyle=look.line,
            markersize=4, capsize=2, label=text,
        )  # fmt: skip
    text, look = NOISE
    axes.plot(
        value.steps, panel.noise, color=look.colour, marker=look.marker, linestyle=look.line,
        markersize=4, label=text,
    )  # fmt: skip
    for step in value.read:
        axes.axvline(step, color=style.MUTED, linewidth=0.8)
    axes.set_ylim(0, 1.03)
    axes.set_title(panel.name)
    axes.set_xlabel("SAE training steps")
