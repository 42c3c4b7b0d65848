"""Whether siblings become rotations of each other as they train, at equal steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polyrot.measures.growth import OF_STEP, Growth
from polyrot.report.figures import style
from polyrot.report.figures.match import Curve
from polyrot.report.figures.style import Look
from polyrot.report.figures.values import Row, Words, row

MEANING = {
    "pointwise_ev": "pointwise EV through R",
    "rotated_ev": "rotated EV",
    "recovered": "recovered loss through R",
    "variances": "variance, sibling over anchor",
}
LOOKS = (
    Look(style.BLUE, "o"),
    Look(style.GREEN, "D", "--"),
    Look(style.ORANGE, "^", "-."),
    Look(style.VERMILION, "v", ":"),
    Look(style.PURPLE, "s"),
    Look(style.SKY, "P", "--"),
)
ACCURACY = "lowest accuracy"


@dataclass(frozen=True)
class Panel:
    """One quantity, by its name in `Growth`, and its curves by site."""

    name: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class GrowthCurve:
    """What R does for siblings at equal steps of their trainings. trend: by site, the rank
    correlation of step and pointwise EV, mean over pairs; accuracies: by step the lowest and the
    highest of the models' lowest. reading: which seeds, where they are not those of the run."""

    scale: str
    reading: str
    pairs: tuple[str, ...]
    steps: Row
    panels: tuple[Panel, ...]
    lowest: Row
    highest: Row
    trend: Row

    @classmethod
    def of(cls, scale: str, found: Growth) -> GrowthCurve:
        """From what the claim of growth measured."""
        first = found.pointwise_ev[0]
        return cls(
            scale,
            found.reading,
            first.pairs,
            row(found.steps),
            tuple(
                Panel(name, tuple(Curve.of(s, getattr(found, name), s) for s in first.sites))
                for name in MEANING
            ),
            row(found.accuracies.min(1)),
            row(found.accuracies.max(1)),
            row(found.trend(first.sites).values),
        )

    def merged(self, other: GrowthCurve) -> GrowthCurve:
        """The later one: it is made of one piece."""
        return other

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        said = []
        for panel in self.panels:
            first, last = (np.mean([curve.mean[k] for curve in panel.curves]) for k in (0, -1))
            said.append(f"{MEANING[panel.name]} {first:.3f} to {last:.3f}")
        sites = [curve.name for curve in self.panels[0].curves]
        trends = "; ".join(
            f"{site} {value:.2f}".replace("-", "−")
            for site, value in zip(sites, self.trend, strict=True)
        )
        return Words(
            f"Siblings along training, {self.scale}",
            f"{_counted(self)}; bars are 95 % intervals over pairs. Did training make models "
            "rotations of each other, the curves of the first three panels would rise towards 1 "
            "with the accuracy, and variances come to agree. Rank correlation of step and "
            f"pointwise EV by site: {trends}.",
            f"From {self.steps[0]:,.0f} to {self.steps[-1]:,.0f} steps, means over sites and "
            f"pairs: {'; '.join(said)}; {ACCURACY} of a model {self.lowest[0]:.4f} to "
            f"{self.lowest[-1]:.4f}.",
        )


def _counted(value: GrowthCurve) -> str:
    of = f" ({value.reading})" if value.reading else ""
    return f"{value.scale}{of}: n = {len(value.pairs)} pairs at each of {len(value.steps)} steps"


@style.styled
def draw(value: GrowthCurve) -> Figure:
    """The figure of a value."""
    figure = style.canvas(10.2, 6.0)
    *panels, accuracy, spare = figure.subplots(2, 3).flat
    spare.remove()
    for axes, panel in zip(panels, value.panels, strict=True):
        _panel(axes, panel, value)
    accuracy.fill_between(value.steps, value.lowest, value.highest, color=style.FAINT)
    accuracy.plot(value.steps, value.lowest, color=style.INK, marker="o", markersize=4)
    accuracy.set_ylabel(f"{ACCURACY}, of all models")
    for axes in (*panels, accuracy):
        axes.set_xscale("log")
        style.plain_ticks(axes.xaxis)
        axes.set_xlabel("training step")
    style.legend_above(figure, panels[:1], len(value.panels[0].curves))
    style.note_n(figure, _counted(value))
    return figure


def _panel(axes: Axes, panel: Panel, value: GrowthCurve) -> None:
    for curve, look in zip(panel.curves, LOOKS, strict=False):
        mean = np.array(curve.mean)
        ends = np.array([mean - curve.low, np.array(curve.high) - mean]).clip(0)
        axes.errorbar(
            value.steps, mean, ends, color=look.colour, marker=look.marker, linestyle=look.line,
            markersize=4, capsize=2, label=curve.name,
        )  # fmt: skip
    axes.set_ylabel(MEANING[panel.name])
    if OF_STEP[panel.name] == "positive":
        axes.set_yscale("log", base=2)
        style.plain_ticks(axes.yaxis)
        axes.axhline(1, color=style.MUTED, linewidth=0.8)
