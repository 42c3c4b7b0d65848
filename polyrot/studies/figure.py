"""The figure of a study: values with their intervals, one line each, about a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from polyrot.runtime.svg import BLUE, FAINT, INK, MUTED, OCHRE, VERMILION, document, text, upright
from polyrot.studies.record import Row

LABEL, WIDTH, LINE, TOP = 330, 400, 22, 52  # px
COLOURS: Mapping[str, str] = {"even": BLUE, "privileged": VERMILION, "planted": OCHRE}


@dataclass(frozen=True)
class Line:
    """One line of a figure: what it is, its value with the interval, and which of COLOURS."""

    label: str
    row: Row
    colour: str


def intervals(
    heading: str,
    lines: Sequence[Line],
    limit: float,
    ticks: Sequence[float],
    *,
    log: bool = False,
) -> str:
    """A dot and an interval for each line, between the first and the last tick; what lies beyond
    is drawn at the edge, above the last with its value. limit: of the prediction, a dashed line.
    log: the scale is. An SVG document.

    Raises ValueError for fewer than two ticks.
    """
    if len(ticks) < 2:
        raise ValueError("a figure needs the two ends of its scale")
    to: Callable[[float], float] = math.log if log else float
    first, last = to(ticks[0]), to(ticks[-1])

    def at(value: float) -> float:
        inside = min(max(value, ticks[0]), ticks[-1])
        return LABEL + (to(inside) - first) / (last - first) * WIDTH

    bottom = TOP + LINE * len(lines)
    parts = [text(12, 24, heading, size=14, weight="bold")]
    for tick in ticks:
        parts += [
            upright(at(tick), TOP - 6, bottom, FAINT),
            text(at(tick), bottom + 18, f"{tick:g}".replace("-", "−"), anchor="middle", fill=MUTED),
        ]
    dashed = (
        f'<path d="M{at(limit):.1f} {TOP - 6}V{bottom}" stroke="{INK}" stroke-dasharray="4 3"/>'
    )
    parts += [dashed, text(at(limit), TOP - 12, f"limit {limit:g}", anchor="middle", size=11)]
    for i, line in enumerate(lines):
        y, row, colour = TOP + LINE * i + LINE / 2, line.row, COLOURS[line.colour]
        parts.append(text(12, y + 4, line.label))
        if row.low is not None and row.high is not None:
            ends = f"M{at(row.low):.1f} {y:g}H{at(row.high):.1f}"
            parts.append(f'<path d="{ends}" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<circle cx="{at(row.value):.1f}" cy="{y:g}" r="4.5" fill="{colour}"/>')
        if row.value > ticks[-1]:
            beyond = f"{row.value:.3g} →"
            parts.append(text(at(row.value) - 10, y + 4, beyond, anchor="end", fill=colour))
    return document(LABEL + WIDTH + 30, bottom + 32, parts)
