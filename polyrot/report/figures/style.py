"""How every figure looks, and how it becomes SVG and PDF.

Colours are those of Okabe and Ito, told apart with any common colour blindness; no series is told
by colour alone. Text, axes and paper have colours of their own, which a page replaces by those of
its theme (`inline_svg`), and so does the blue, which a dark ground would swallow; the others stay.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from polyrot.report import states
from polyrot.report.said import listed as listed
from polyrot.runtime.files import write_atomically

BLUE, ORANGE, GREEN, VERMILION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
SKY, PURPLE = "#56b4e9", "#cc79a7"
INK, MUTED, FAINT, PAPER = "#1b1f23", "#6a737c", "#d3d8dd", "#fefefe"
"""Text and axes; what is secondary; grids and bands; the ground."""
CHARACTERS_PER_INCH = 14  # of a note
THEME = {
    BLUE: "--blue",
    INK: "--ink",
    MUTED: "--muted",
    FAINT: "--faint",
    PAPER: "--paper",
    **{value: name for name, value in (states.HELD, states.REFUTED, states.OPEN)},
}

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
    "svg.hashsalt": "polyrot",
    "pdf.fonttype": 42,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Look:
    """How one series is drawn: colour, marker and line tell it apart, each alone."""

    colour: str
    marker: str
    line: str = "-"


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under the suite's style, whatever the process's own settings are."""

    @wraps(draw)
    def drawn(*arguments: Any, **named: Any) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*arguments, **named)

    return drawn


def canvas(width: float, height: float) -> Figure:
    """An empty figure, inches, that knows no window system."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def row_of_axes(figure: Figure, n: int, **shared: Any) -> list[Axes]:
    """`n` axes beside each other."""
    return list(figure.subplots(1, n, squeeze=False, **shared)[0])


def note_n(figure: Figure, text: str) -> None:
    """What was counted, below the axes: a figure taken out of the page keeps its n."""
    lines = textwrap.fill(text, int(CHARACTERS_PER_INCH * figure.get_figwidth()))
    figure.supxlabel(lines, fontsize=8, color=MUTED, x=0.01, ha="left")


def plain_ticks(axis: Axis) -> None:
    """0.001 in place of a power of ten, which an SVG spells in fonts of its own."""
    axis.set_major_formatter(lambda tick, _: f"{tick:g}".replace("-", "−"))


def legend_above(figure: Figure, panels: Sequence[Axes], columns: int) -> None:
    """One legend for the whole figure, above it: each label of the panels once."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        list(found.values()), list(found), loc="outside upper left", ncols=columns,
        handlelength=2.4,
    )  # fmt: skip


def band(axes: Axes, low: float, high: float, text: str, *, colour: str = MUTED) -> None:
    """A published range, hatched so that it reads as no series."""
    axes.axhspan(
        low, high, facecolor="none", edgecolor=colour, hatch="////", linewidth=0.5, alpha=0.55,
        label=text,
    )  # fmt: skip


def svg_text(figure: Figure) -> str:
    """The figure as an SVG document that is the same in every run."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def save(figure: Figure, stem: Path, svg: str) -> tuple[Path, Path]:
    """Write ``<stem>.svg`` (the text `svg`) and ``<stem>.pdf``; both paths."""
    paths = stem.with_name(stem.name + ".svg"), stem.with_name(stem.name + ".pdf")
    page = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(page, format="pdf", metadata={"CreationDate": None, "Creator": None})
    write_atomically(paths[0], svg)
    write_atomically(paths[1], page.getvalue())
    return paths


def inline_svg(svg: str, name: str, title: str, description: str) -> str:
    """An SVG document as an element of a page: no prologue, no address elsewhere, ids of its own,
    colours of the page's theme, never so small that its text cannot be read, and a title and
    description for those who cannot see it."""
    body = svg[svg.index("<svg") :].rstrip()
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    head, inner = re.fullmatch(r"<svg([^>]*)>(.*)", body, flags=re.S).groups()  # type: ignore[union-attr]
    box = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', head)
    if box is None:
        raise ValueError(f"figure {name}: an SVG without a viewBox")
    points = float(box[1])
    inner = inner.replace("xlink:href=", "href=")
    inner = re.sub(r'(\bid=")', rf"\1{name}-", inner)
    inner = re.sub(r'(url\(#|href="#)', rf"\1{name}-", inner)
    for colour, variable in THEME.items():
        inner = inner.replace(colour, f"var({variable})")
    inner = re.sub(r"font: ([^;\"]*?)(\d[\d.]*px) [^;\"]*", r"font: \1\2 sans-serif", inner)
    inner = re.sub(r"\n\s*", "\n", inner)
    return (
        f'<svg {box[0]} role="img" aria-labelledby="{name}-title {name}-desc" '
        f'style="min-width:{points:.0f}px;max-width:{1.35 * points:.0f}px">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>{inner}'
    )
