"""Dose curves: what the anchor's directions do to the anchor and its siblings (section 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polyrot.measures.effects import DOSES, N_RANDOM
from polyrot.measures.steering import Steering
from polyrot.report.figures import style
from polyrot.report.figures.style import Look
from polyrot.report.figures.values import Row, Table, Words, row, table

LOOKS = {
    "anchor": ("within", Look(style.INK, "s")),
    "naive": ("naive", Look(style.VERMILION, "v")),
    "rotated": ("rotated", Look(style.BLUE, "o")),
    "sibling's own": ("own", Look(style.GREEN, "D", "--")),
}
RANDOM = Look(style.MUTED, "X", ":")


@dataclass(frozen=True)
class Arm:
    """One way to steer: change of the targeted contrast (logits) and KL (nats), each [models,
    doses]."""

    name: str
    gain: Table
    kl: Table


@dataclass(frozen=True)
class Contrast:
    """One direction. random_kl, random_sd: [doses of the paper], mean over siblings of the mean KL
    of random directions of equal norm, and of their standard deviation. targets: positions that the
    effect is averaged over."""

    name: str
    targets: int
    arms: tuple[Arm, ...]
    random_kl: Row
    random_sd: Row


@dataclass(frozen=True)
class DoseCurves:
    """Dose curves of a cohort's directions; `doses` in units of the difference of means."""

    scale: str
    doses: Row
    pairs: tuple[str, ...]
    sequences: int
    contrasts: tuple[Contrast, ...]

    @classmethod
    def of(cls, scale: str, steering: Steering) -> DoseCurves:
        """From what the claims of section 6 measured."""
        contrasts = tuple(
            Contrast(
                name,
                steering.targets[i],
                tuple(
                    Arm(arm, table(curves.gain[i]), table(curves.kl[i]))
                    for arm, (field, _) in LOOKS.items()
                    for curves in [getattr(steering, field)]
                ),
                row(steering.random_kl[i].mean(0)),
                row(steering.random_sd[i].mean(0)),
            )
            for i, name in enumerate(steering.contrasts)
        )
        return cls(scale, row(steering.doses), steering.pairs, steering.sequences, contrasts)

    def merged(self, other: DoseCurves) -> DoseCurves:
        """The later one: it is made of one piece."""
        return other

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        at = self.doses.index(1.0)
        texts = []
        for contrast in self.contrasts:
            gains = {a.name: float(np.mean([g[at] for g in a.gain])) for a in contrast.arms}
            shown = ", ".join(f"{name} {gain:.3g}" for name, gain in gains.items())
            texts.append(f"{contrast.name}: {shown}")
        return Words(
            f"Steering dose curves, {self.scale}",
            "Above: change of the targeted difference of logits; below 0 the effect is inverted. "
            "Below: KL from the unsteered outputs, with random directions of equal norm (mean and "
            f"standard deviation of {N_RANDOM}, at the paper's doses). Thin lines are siblings "
            f"(n = {len(self.pairs)}), thick ones their mean over n targeted positions. The "
            "paper calls a KL above the anchor's inverted.",
            "Effect at dose 1, logits: " + "; ".join(texts) + ".",
        )


@style.styled
def draw(value: DoseCurves) -> Figure:
    """The figure of a value."""
    n = len(value.contrasts)
    figure = style.canvas(max(6.4, 3.2 * n), 5.4)
    grid = figure.subplots(2, n, squeeze=False, sharex=True)
    for j, contrast in enumerate(value.contrasts):
        _gains(grid[0, j], value, contrast)
        _kls(grid[1, j], value, contrast)
    grid[0, 0].set_ylabel("change of the contrast, logits")
    grid[1, 0].set_ylabel("KL(clean ‖ steered), nats")
    style.legend_above(figure, [grid[1, 0]], 5)
    style.note_n(
        figure,
        f"{value.scale}: n = {len(value.pairs)} siblings; {N_RANDOM} random directions "
        f"on {value.sequences} sequences",
    )
    return figure


def _gains(axes: Axes, value: DoseCurves, contrast: Contrast) -> None:
    for arm in contrast.arms:
        _curves(axes, value.doses, arm.gain, LOOKS[arm.name][1], arm.name)
    axes.axhline(0, color=style.INK, linewidth=0.9)
    axes.set_title(f"{contrast.name.replace('_', ' ')} (n = {contrast.targets:,})")


def _kls(axes: Axes, value: DoseCurves, contrast: Contrast) -> None:
    for arm in contrast.arms:
        _curves(axes, value.doses, arm.kl, LOOKS[arm.name][1], arm.name)
    n = len(contrast.random_kl)
    mean, sd = np.array(contrast.random_kl), np.array(contrast.random_sd)
    axes.errorbar(
        DOSES[:n], mean, np.minimum(sd, mean * 0.95), color=RANDOM.colour, marker=RANDOM.marker,
        linestyle=RANDOM.line, markersize=5, capsize=2, label="random directions",
    )  # fmt: skip
    axes.set_yscale("log")
    style.plain_ticks(axes.yaxis)
    axes.set_xscale("log", base=2)
    axes.set_xticks(value.doses, [f"{dose:g}" for dose in value.doses])
    axes.set_xlabel("dose")


def _curves(axes: Axes, doses: Row, models: Table, look: Look, name: str) -> None:
    if len(models) > 1:
        for curve in models:
            axes.plot(doses, curve, color=look.colour, linewidth=0.6, alpha=0.45)
    axes.plot(
        doses, np.mean(models, axis=0), color=look.colour, marker=look.marker, markersize=4.5,
        linestyle=look.line, label=name,
    )  # fmt: skip
