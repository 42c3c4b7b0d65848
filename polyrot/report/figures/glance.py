"""Every judged claim that has a control, beside what its controls found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path

from polyrot.judge.bar import Bar
from polyrot.judge.verdicts import Verdict
from polyrot.report import states
from polyrot.report.figures import style
from polyrot.report.figures.values import Words
from polyrot.report.table import CONTROL_WORDS

LOOKS: Mapping[str, states.Symbol] = {
    **{
        verdict.value: states.SYMBOLS[verdict]
        for verdict in (
            Verdict.HELD,
            Verdict.REFUTED,
            Verdict.UNDECIDED,
            Verdict.NOT_DIAGNOSTIC,
            Verdict.OUT_OF_REACH,
        )
    },
    "not known": states.SYMBOLS[Verdict.NOT_RUN],
}
"""The page's own symbol for each state, whether a claim or a control is in it."""


@dataclass(frozen=True)
class Mark:
    """One test: its name, the state it is in, of `LOOKS`, and its figure against its bar."""

    name: str
    found: str
    figure: str


@dataclass(frozen=True)
class Line:
    """One claim at one scale with its verdict, and its controls."""

    claim: Mark
    controls: tuple[Mark, ...]


@dataclass(frozen=True)
class Glance:
    """Claims of all scales of a run; `scale` only names the file."""

    lines: tuple[Line, ...]
    scale: str = "all"

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Glance:
        """From the record of a run (verdicts.json)."""
        entries = {(v["claim"], v["scale"]): v for v in record["verdicts"]}
        lines = []
        for entry in entries.values():
            if not entry["controls"] or entry["outcome"] not in LOOKS:
                continue
            name = f"{entry['claim']}  {entry['scale']}"
            claim = Mark(name, entry["verdict"], _figure(entry))
            lines.append(Line(claim, tuple(_control(c, entries) for c in entry["controls"])))
        return cls(tuple(lines))

    def merged(self, other: Glance) -> Glance:
        """The later one: it is made of one piece."""
        return other

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        counts = Counter(line.claim.found for line in self.lines)
        controls = {mark.name: mark for line in self.lines for mark in line.controls}
        failing = [mark for mark in controls.values() if mark.found == "refuted"]
        return Words(
            "Claims against their controls",
            f"The n = {len(self.lines)} claims that were judged and have a control, with figure "
            "and bar, and every control of theirs, in the symbols of the page. A row speaks for "
            "the paper where all of it are circles.",
            f"{style.listed([f'{n} {found}' for found, n in counts.items()] or ['no claim'])}; "
            f"{len(failing)} of {len(controls)} controls fail.",
        )


def _control(control: Mapping[str, Any], entries: Mapping[tuple[str, str], Any]) -> Mark:
    entry = entries.get((control["claim"], control["scale"]))
    found = "not known"
    if control["outcome"] in LOOKS:
        found = control["outcome"]
    figure = "as the ledger has it" if control["from_ledger"] else _figure(entry) if entry else ""
    short = control["claim"].split(".", 1)[1].removesuffix("_control").replace("_", " ")
    at = f" ({control['scale']})" if control["scale"] == "paper" else ""
    return Mark(short + at, found, figure)


def _figure(entry: Mapping[str, Any]) -> str:
    if entry["measured"] is None:
        return entry["outcome"]
    bar = Bar.from_json(entry["bar"])
    return f"{bar.show(entry['measured'])}  ({bar.describe()})"


@style.styled
def draw(value: Glance) -> Figure:
    """The figure of a value."""
    columns = max((len(line.controls) for line in value.lines), default=0)
    figure = style.canvas(4.4 + 2.75 * columns, 1.25 + 0.40 * max(len(value.lines), 1))
    axes = figure.add_subplot()
    for y, line in enumerate(value.lines):
        axes.axhline(y - 0.5, color=style.FAINT, linewidth=0.8)
        _mark(axes, 0, y, line.claim, line.claim.found)
        for x, control in enumerate(line.controls, start=1):
            _mark(axes, x, y, control, _of_control(control.found))
    axes.axvline(0.92, color=style.MUTED, linewidth=0.8)
    axes.set_xlim(-0.1, columns + 0.95)
    axes.set_ylim(len(value.lines) - 0.5, -0.5)
    axes.set_xticks(
        range(columns + 1), ["claim: worst value (bar)", *["control: worst value (bar)"] * columns],
        ha="left",
    )  # fmt: skip
    axes.xaxis.tick_top()
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    handles: dict[str, Any] = {  # a tuple is drawn one upon the other
        ", ".join(dict.fromkeys((name, _of_control(name)))): tuple(_draw(axes, [], [], symbol))
        for name, symbol in LOOKS.items()
    }
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=len(LOOKS))
    style.note_n(figure, f"n = {len(value.lines)} claims, each at one scale")
    return figure


LONG = 42


def _of_control(found: str) -> str:
    """The state in the words that are used of a control."""
    known = found in {verdict.value for verdict in Verdict}
    return CONTROL_WORDS.get(Verdict(found), found) if known else found


def _draw(axes: Axes, x: Any, y: Any, symbol: states.Symbol) -> list[Line2D]:
    """The symbol's shape in its colour, and its strokes on it."""
    colour = symbol.colour[1]
    drawn = axes.plot(
        x, y, marker=_marker(symbol.outlines, closed=True), markersize=11, linestyle="",
        color=colour, markeredgewidth=0,
    )  # fmt: skip
    if symbol.strokes:
        drawn += axes.plot(
            x, y, marker=_marker(symbol.strokes, closed=False), markersize=11, linestyle="",
            markeredgecolor=style.PAPER, markerfacecolor="none", markeredgewidth=1.2,
        )  # fmt: skip
    return drawn


def _marker(lines: Sequence[states.Points], *, closed: bool) -> Path:
    """A marker whose box is that of the symbols; without lines a circle."""
    if not lines:
        return Path.unit_circle()
    paths = []
    for points in lines:
        ends = [*points, points[0]] if closed else points
        middle = [(2 * x / states.SIDE - 1, 1 - 2 * y / states.SIDE) for x, y in ends]
        paths.append(Path(middle, closed=closed))
    # matplotlib scales a marker to its own extent: two points without a stroke keep the box
    corners = Path([(-1, -1), (1, 1)], [Path.MOVETO, Path.MOVETO])
    return Path.make_compound_path(*paths, corners)


def _mark(axes: Axes, x: float, y: float, mark: Mark, words: str) -> None:
    _draw(axes, [x], [y], LOOKS[mark.found])
    size = 8 if len(mark.name) <= LONG else 6  # the longest would run into the next column
    axes.text(x + 0.07, y - 0.04, mark.name, va="bottom", fontsize=size)
    axes.text(
        x + 0.07, y + 0.04, f"{words}: {mark.figure}" if mark.figure else words, va="top",
        fontsize=7.5, color=style.MUTED,
    )  # fmt: skip
