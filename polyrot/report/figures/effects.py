"""Predicted against measured effects of components (sections 8 and 10)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polyrot.cohorts.cohort import Cohort, pair_labels
from polyrot.measures.attribution import Table as Attributions
from polyrot.measures.bars.causal import Causal
from polyrot.measures.published_attribution import (
    PUBLISHED_BLOCKS,
    PUBLISHED_R,
    published_correlations,
)
from polyrot.report.figures import style
from polyrot.report.figures.published import published
from polyrot.report.figures.values import Row, Table, Words, by_name, row, table

MARKERS = "osv^D*PXhd"
COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY)


@dataclass(frozen=True)
class Panel:
    """One predictor: predicted and measured effects in nats, each [models, components], and
    Pearson r of each model. `published` is the paper's range of r, empty if it has none."""

    name: str
    models: tuple[str, ...]
    predicted: Table
    measured: Table
    r: Row
    published: Row


@dataclass(frozen=True)
class Effects:
    """Predicted and measured effects of one scale, a panel for each predictor."""

    scale: str
    components: int
    panels: tuple[Panel, ...]

    @classmethod
    def of_attributions(cls, scale: str, found: Attributions) -> Effects:
        """Attribution patching and integrated gradients, each on its own sequences."""
        seeds = tuple(f"seed {seed}" for seed in found.seeds)
        known = published(scale)
        patching = Panel(
            "attribution patching",
            seeds,
            table(found.predicted),
            table(found.measured),
            row(c.r for c in found.patching),
            known.patching or (),
        )
        integrated = Panel(
            "integrated gradients",
            seeds,
            table(g.effects for g in found.gradients),
            table(g.measured for g in found.gradients),
            row(c.r for c in found.integrated),
            known.integrated or (),
        )
        return cls(scale, len(found.components), (patching, integrated))

    @classmethod
    def of_causal(cls, cohort: Cohort, found: Causal) -> Effects:
        """The anchor's prediction against the aligned siblings' measurements: Bars C and Pr."""
        aligned = found.measured.gather(1, found.components)[1:]
        across = Panel(
            "across seeds: the anchor's integrated gradients",
            pair_labels(cohort),
            table(found.predicted[:1].expand_as(aligned)),
            table(aligned),
            row(found.across()),
            published(cohort.scale).across or (),
        )
        return cls(cohort.scale, aligned.shape[1], (across,))

    @classmethod
    def of_published_table(cls) -> Effects:
        """The paper's own six rows (post, section 8)."""
        measured, *predictions = np.array(PUBLISHED_BLOCKS).T
        names = ("attribution patching", "integrated gradients")
        found = zip(names, predictions, published_correlations(), PUBLISHED_R, strict=True)
        panels = (
            Panel(name, ("Pythia-70m, blocks",), (row(p),), (row(measured),), (r,), (claimed,))
            for name, p, r, claimed in found
        )
        return cls("paper", len(measured), tuple(panels))

    def merged(self, other: Effects) -> Effects:
        """With the panels of `other` as well."""
        return replace(self, panels=by_name(self.panels, other.panels))

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        texts = [f"{p.name}: r from {min(p.r):.4g} to {max(p.r):.4g}" for p in self.panels]
        return Words(
            f"Predicted against measured effects, {self.scale}",
            "Rise of the loss when a component's write is replaced by its mean, measured, against "
            f"what is predicted of it; n = {self.components} components of each of "
            f"{_counted(self.panels)}. On the line prediction and measurement agree.",
            "Pearson correlation by model, lowest to highest: " + "; ".join(texts) + ".",
        )


def _counted(panels: Sequence[Panel]) -> str:
    return style.listed([f"{len(p.models)} ({p.name})" for p in panels])


@style.styled
def draw(value: Effects) -> Figure:
    """The figure of a value."""
    figure = style.canvas(3.5 * len(value.panels) + 0.6, 4.9)
    for axes, panel in zip(style.row_of_axes(figure, len(value.panels)), value.panels, strict=True):
        _panel(axes, panel)
    models = style.listed([str(len(panel.models)) for panel in value.panels])
    style.note_n(
        figure,
        f"{value.scale}: n = {value.components} components of each of {models} models or pairs, "
        "from left to right",
    )
    return figure


def _panel(axes: Axes, panel: Panel) -> None:
    for k, model in enumerate(panel.models):
        axes.plot(
            panel.measured[k], panel.predicted[k], MARKERS[k % len(MARKERS)],
            color=COLOURS[k % len(COLOURS)], markersize=5, alpha=0.8, markeredgewidth=0,
            label=f"{model}: r = {_shown(panel.r[k])}",
        )  # fmt: skip
    low, high = (
        bound(
            x for effects in (panel.measured, panel.predicted) for model in effects for x in model
        )
        for bound in (min, max)
    )
    agreement = np.linspace(min(low, 0), high, 500)
    axes.plot(agreement, agreement, color=style.INK, linewidth=0.9)
    axes.axhline(0, color=style.MUTED, linewidth=0.6)
    _predicted_axis(axes, panel)
    axes.set_title("\n".join([*textwrap.wrap(panel.name, 34), *_published(panel)]))
    axes.set_xlabel("measured rise of the loss, nats")
    axes.set_ylabel("predicted rise, nats")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, handletextpad=0.2)


def _predicted_axis(axes: Axes, panel: Panel) -> None:
    """Logarithmic beyond the median where predictions are orders below what is measured: on one
    linear axis they would be a line at 0."""
    threshold = float(np.median(np.abs(panel.predicted)))
    if 0 < threshold < 0.02 * np.max(np.abs(panel.measured)):
        decade = 10.0 ** np.floor(np.log10(threshold))
        axes.set_yscale("symlog", linthresh=decade)
        style.plain_ticks(axes.yaxis)
        axes.text(
            0.98, 0.02, f"logarithmic beyond ±{decade:g}", transform=axes.transAxes, ha="right",
            fontsize=7.5, color=style.MUTED,
        )  # fmt: skip


def _published(panel: Panel) -> list[str]:
    if not panel.published:
        return []
    limits = dict.fromkeys((min(panel.published), max(panel.published)))
    return [f"published r: {' to '.join(map(_shown, limits))}"]


def _shown(r: float) -> str:
    """Three decimals, more where the bars ask for more."""
    return f"{r:.3f}".replace("-", "−") if abs(r) < 0.995 else f"{r:.5f}"
