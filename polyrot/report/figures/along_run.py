"""Attribution patching along one training run: is the converged model the one it fails on?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from polyrot.measures.convergence import AlongRun
from polyrot.report.figures import style
from polyrot.report.figures.published import published
from polyrot.report.figures.values import Row, Words, row


@dataclass(frozen=True)
class PatchingAlongRun:
    """Pearson's r of attribution patching at every checkpoint, with the ends of its 95 % interval
    over sequences, and the rank correlation of step and r. published: the paper's range of r over
    its converged models, empty if it has none, and whose it is."""

    scale: str
    components: int
    sequences: int
    steps: Row
    r: Row
    low: Row
    high: Row
    trend: float
    published: Row
    published_of: str

    @classmethod
    def of(cls, scale: str, found: AlongRun) -> PatchingAlongRun:
        """From what the claim of section 8 measured."""
        ends, known = found.intervals(), published(scale)
        return cls(
            scale,
            len(found.components),
            found.sequences,
            row(found.steps),
            row(found.r),
            row(end.low for end in ends),
            row(end.high for end in ends),
            float(found.convergence().values[0]),
            row(known.patching or ()),
            known.of,
        )

    def merged(self, other: PatchingAlongRun) -> PatchingAlongRun:
        """The later one: it is made of one piece."""
        return other

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        return Words(
            f"Attribution patching along training, {self.scale}",
            f"{_counted(self)}; bars are 95 % intervals over sequences. Had convergence made "
            "attribution patching fail, r would be high at early checkpoints and fall towards the "
            f"last: a rank correlation near −1, where it is {_shown(self.trend)}.",
            "Pearson's r of predicted with measured effects by training step: "
            + "; ".join(f"{s:,.0f}: {_shown(r)}" for s, r in zip(self.steps, self.r, strict=True))
            + ".",
        )


def _counted(value: PatchingAlongRun) -> str:
    return (
        f"{value.scale}: n = {value.components} components at each of {len(value.steps)} "
        f"checkpoints of the first seed, {value.sequences} sequences"
    )


def _shown(x: float) -> str:
    return f"{x:.2f}".replace("-", "−")


@style.styled
def draw(value: PatchingAlongRun) -> Figure:
    """The figure of a value."""
    figure = style.canvas(6.2, 3.9)
    axes = style.row_of_axes(figure, 1)[0]
    r = np.array(value.r)
    ends = np.array([r - value.low, np.array(value.high) - r]).clip(0)
    if value.published:
        low, high = min(value.published), max(value.published)
        text = f"published, converged ({value.published_of})"
        if low < high:
            axes.axhspan(low, high, color=style.FAINT, linewidth=0, label=text)
        else:
            axes.axhline(low, color=style.ORANGE, linestyle="--", label=text)
    axes.errorbar(
        value.steps, r, ends, color=style.BLUE, marker="o", markersize=4.5, capsize=2.5,
        label="attribution patching",
    )  # fmt: skip
    axes.axhline(0, color=style.MUTED, linewidth=0.8)
    axes.set_xscale("log")
    style.plain_ticks(axes.xaxis)
    axes.set_ylim(-1.05, 1.05)
    axes.set_title(f"rank correlation of step and r: {_shown(value.trend)}")
    axes.set_xlabel("training step")
    axes.set_ylabel("Pearson's r with measured effects")
    style.legend_above(figure, [axes], 2)
    style.note_n(figure, _counted(value))
    return figure
