"""The power table as a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from polyrot.haar.power import PUBLISHED, PowerTable


def power_figure(table: PowerTable) -> Figure:
    """A heat map of power: alternatives down, criteria across, the value in every cell.

    cividis reads alike for the colour-blind and in grey. A line sets the published criteria apart.
    """
    rows, columns = table.power.shape
    figure = Figure(figsize=(2.8 + 0.72 * columns, 1.9 + 0.36 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(np.ma.masked_invalid(table.power), cmap="cividis", vmin=0, vmax=1)
    axes.set_aspect("auto")
    axes.set_xticks(range(columns), table.criteria)
    axes.set_yticks(range(rows), table.alternatives)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xlabel(
        "criterion (left of the line: each statistic alone, the battery, the calibrated KS; "
        "right: published criteria)"
    )
    axes.set_ylabel("matrix")
    for i in range(rows):
        for j in range(columns):
            p = table.power[i, j]
            text = "n/a" if np.isnan(p) else f"{p:.2f}".replace("0.", ".", 1)
            colour = "black" if not np.isnan(p) and p > 0.55 else "white"
            if np.isnan(p):
                colour = "black"
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    border = sum(c not in PUBLISHED for c in table.criteria) - 0.5
    axes.axvline(border, color="white", linewidth=3)
    axes.axvline(border, color="black", linewidth=1)
    figure.colorbar(image, ax=axes, label="share rejected", fraction=0.025, pad=0.01)
    figure.suptitle(
        f"Share rejected as not Haar, d = {table.d}, level {table.level:g}, "
        f"n = {table.draws} matrices a row (s.e. at most {np.nanmax(table.errors):.3f})"
    )
    return figure


def write_power_figure(table: PowerTable, directory: Path) -> tuple[Path, Path]:
    """Write ``haar_power_d<d>.svg`` and ``.png`` to a directory, made if it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    figure = power_figure(table)
    paths = tuple(directory / f"haar_power_d{table.d}.{ext}" for ext in ("svg", "png"))
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths[0], paths[1]
