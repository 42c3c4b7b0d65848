"""Best cosines of decoder columns: shared start, own start, noise, and chance (section 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.maps.matching import matched_fraction, max_cosine
from polyrot.measures.fits import NULL_DRAWS_SEED
from polyrot.report.figures import style
from polyrot.report.figures.published import published
from polyrot.report.figures.style import Look
from polyrot.report.figures.values import Row, Words, by_name, row
from polyrot.runtime.seeding import torch_generator

EDGES = np.linspace(0, 1, 51)
THRESHOLD = 0.5  # a column above it counts as matched
LOOKS: Mapping[str, Look] = {
    "shared start": Look(style.BLUE, "o", "-"),
    "trained on noise, shared start": Look(style.ORANGE, "^", "--"),
    "own start": Look(style.VERMILION, "v", "-."),
    "chance": Look(style.MUTED, "s", ":"),
}

MEANING = {
    "shared start": "every dictionary from one and the same start, as published",
    "trained on noise, shared start": "from that start, but on isotropic noise",
    "own start": "every dictionary from a start of its own",
    "chance": "as many random directions",
}


@dataclass(frozen=True)
class BestCosines:
    """Best cosines of all columns of all pairs: `counts` in bins of `EDGES` (what is negative is
    counted at 0), their mean, and the share above 0.5."""

    name: str
    pairs: int
    columns: int
    counts: Row
    mean: float
    matched: float

    @classmethod
    def of(cls, name: str, cosines: list[Tensor]) -> BestCosines:
        """From one vector [columns] a pair."""
        pooled = torch.cat(cosines).double().cpu()
        counts = np.histogram(pooled.clamp(0, 1).numpy(), EDGES)[0]
        return cls(
            name,
            len(cosines),
            len(pooled) // len(cosines),
            row(counts),
            float(pooled.mean()),
            matched_fraction(pooled, THRESHOLD),
        )


@dataclass(frozen=True)
class Panel:
    """One site."""

    name: str
    series: tuple[BestCosines, ...]


@dataclass(frozen=True)
class DecoderCosine:
    """Best cosines at the sites where the paper reports them."""

    scale: str
    width: int
    panels: tuple[Panel, ...]

    @classmethod
    def of(cls, cohort: Cohort, sites: Sequence[str], cosines: Tensor, name: str) -> DecoderCosine:
        """The anchor's best cosines [pairs, sites, columns] as the series `name`, at the sites the
        paper names; and those of as many random directions."""
        panels = []
        for site in cohort.named_sites:
            found = cosines[:, list(sites).index(site)]
            draws = torch_generator(NULL_DRAWS_SEED, "chance cosine", site)
            shape = (cohort.width, found.shape[1])
            a, b = (torch.randn(shape, generator=draws) for _ in range(2))
            series = [("chance", [max_cosine(a, b, features="columns")]), (name, list(found))]
            panels.append(Panel(site, tuple(BestCosines.of(n, c) for n, c in series)))
        return cls(cohort.scale, cohort.width, tuple(panels))

    def merged(self, other: DecoderCosine) -> DecoderCosine:
        """With the series of `other` as well. Raises ValueError if the sites differ."""
        mine, theirs = ([p.name for p in value.panels] for value in (self, other))
        if mine != theirs:
            raise ValueError(f"decoder cosines at {mine} and at {theirs}")
        return replace(
            self,
            panels=tuple(
                Panel(a.name, by_name(a.series, b.series))
                for a, b in zip(self.panels, other.panels, strict=True)
            ),
        )

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        texts = [
            f"{panel.name}: "
            + ", ".join(f"{s.name} {s.mean:.3f} (matched {s.matched:.1%})" for s in _ordered(panel))
            for panel in self.panels
        ]
        return Words(
            f"Decoder cosine, {self.scale}",
            "For each column of the anchor's decoder the best cosine with any column of the "
            f"sibling's; {_counted(self)}. {_meanings(self)}. Vertical lines are means. Right of "
            "0.5 a column counts as matched.",
            "Mean best cosine, " + "; ".join(texts) + ".",
        )


def _ordered(panel: Panel) -> list[BestCosines]:
    return sorted(panel.series, key=lambda series: list(LOOKS).index(series.name))


def _meanings(value: DecoderCosine) -> str:
    names = [series.name for series in _ordered(value.panels[0])]
    texts = [f"{name}: {MEANING[name]}" for name in names]
    return "; ".join(texts).replace("directions", f"directions in {value.width} dimensions")


def _counted(value: DecoderCosine) -> str:
    found = {s.name: s for s in _ordered(value.panels[0]) if s.name != "chance"}
    parts = [f"n = {s.pairs} × {s.columns} columns ({name})" for name, s in found.items()]
    return style.listed(parts)


@style.styled
def draw(value: DecoderCosine) -> Figure:
    """The figure of a value."""
    figure = style.canvas(max(7.4, 3.6 * len(value.panels)), 3.9)
    panels = style.row_of_axes(figure, len(value.panels), sharey=True)
    for axes, panel in zip(panels, value.panels, strict=True):
        _panel(axes, panel, value.scale)
    panels[0].set_ylabel("share of columns, per bin of 0.02")
    style.legend_above(figure, [panels[0]], 2)
    style.note_n(figure, f"{value.scale}: {_counted(value)}, d = {value.width}")
    return figure


def _panel(axes: Axes, panel: Panel, scale: str) -> None:
    known = published(scale)
    for series in _ordered(panel):
        look = LOOKS[series.name]
        text = f"{series.name}: {series.matched:.1%} matched"
        axes.stairs(
            np.array(series.counts) / sum(series.counts), EDGES, color=look.colour,
            linestyle=look.line, linewidth=1.8, label=text, fill=False,
        )  # fmt: skip
        axes.axvline(series.mean, color=look.colour, linestyle=look.line, linewidth=0.8)
    if known.mean_cosine is not None:
        axes.axvline(
            known.mean_cosine, color=style.INK, linestyle="--", linewidth=1.2,
            label=f"published mean ({known.of})",
        )  # fmt: skip
    axes.axvline(THRESHOLD, color=style.MUTED, linewidth=0.8)
    axes.set_title(panel.name)
    axes.set_xlim(0, 1)
    axes.set_xlabel("best cosine with a column of the other decoder")
