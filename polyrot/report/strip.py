"""A strip plot for a table cell, as a small SVG: values, interval, ceiling and bar on one axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from polyrot.judge.bar import Bar
from polyrot.judge.verdicts import show_ends

WIDTH, HEIGHT, PAD = 220, 42, 8
LINE = 26  # the axis, under what is drawn
DECADES = 1.5  # from so many decades on, values of one sign are told apart on a logarithmic line
ROUNDING = 1e-6  # of the axis
ROOM = 34  # that a number under the axis needs, from its middle to that of the next


def strip(
    bar: Bar,
    worst: float,
    values: Sequence[float] = (),
    interval: Sequence[float] | None = None,
    ceiling: float | None = None,
) -> str:
    """An SVG element: the region that meets `bar` shaded, its limits as lines, a tick for each of
    `values`, a diamond for the `worst`, a line for its `interval` (to the edge where that is open),
    a dotted one for the `ceiling`, and under the axis its ends and the limits as numbers. A title
    says the same in words.
    """
    limits = [
        x for x in (bar.equals, bar.at_least, bar.above, bar.at_most, bar.below) if x is not None
    ]
    ends = [x for x in interval or () if math.isfinite(x)]
    shown = [worst, *values, *limits, *ends, *([] if ceiling is None else [ceiling])]
    at, log = _axis(shown)
    low = next((x for x in (bar.equals, bar.at_least, bar.above) if x is not None), None)
    high = next((x for x in (bar.equals, bar.at_most, bar.below) if x is not None), None)
    left, right = at(low) if low is not None else 0.0, at(high) if high is not None else WIDTH
    width = max(right - left, 1.5)
    parts = [
        f'<rect class="met" x="{left:.1f}" y="3" width="{width:.1f}" height="20"/>',
        f'<path class="axis" d="M0 {LINE}H{WIDTH}"/>',
    ]
    parts += [f'<path class="limit" d="M{at(x):.1f} 1V{LINE + 3}"/>' for x in limits]
    if interval is not None:
        a, *b = (at(x) for x in ends)
        closed = "".join(f"{x:.1f}M{x:.1f} 9v8" for x in b) or f"{WIDTH}"  # or open above
        parts.append(f'<path class="interval" d="M{a:.1f} 9v8M{a:.1f} 13H{closed}"/>')
    if ceiling is not None:
        parts.append(f'<path class="ceiling" d="M{at(ceiling):.1f} 1V{LINE}"/>')
    parts += [f'<path class="value" d="M{at(x):.1f} 7v12"/>' for x in values]
    met = "ok" if bar.satisfied(worst) else "miss"
    parts.append(f'<path class="worst {met}" d="M{at(worst):.1f} 8l5 5-5 5-5-5z"/>')
    parts += _numbers(at, limits, min(shown), max(shown), log)
    words = escape(_words(bar, worst, values, interval, ceiling, log))
    return (
        f'<svg class="strip" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>{words}</title>{''.join(parts)}</svg>"
    )


def _axis(shown: Sequence[float]) -> tuple[Callable[[float], float], bool]:
    """From a number to its place, and whether that is logarithmic: where all are of one sign and
    far apart."""
    sizes = [abs(x) for x in shown]
    one_sign = min(shown) > 0 or max(shown) < 0
    log = one_sign and math.log10(max(sizes) / min(sizes)) > DECADES

    def scale(x: float) -> float:
        return math.copysign(1, x) * math.log10(abs(x)) if log else x

    low, high = scale(min(shown)), scale(max(shown))
    span = high - low or abs(high) or 1.0
    if high == low:
        low -= span / 2
    room = WIDTH - 2 * PAD
    return lambda x: PAD + room * (scale(x) - low) / span, log


def _numbers(
    at: Callable[[float], float], limits: Sequence[float], low: float, high: float, log: bool
) -> list[str]:
    """The limits as the bar has them, then the ends of the axis where there is room beside."""
    texts: list[str] = []
    taken: list[float] = []
    for x, kind in [*((x, "bar") for x in limits), (low, "end"), (high, "end")]:
        place = min(max(at(x), ROOM / 2), WIDTH - ROOM / 2)
        if all(abs(place - other) >= ROOM for other in taken):
            taken.append(place)
            number = f"{x:.10g}" if kind == "bar" else _short(x, [*limits, low, high])
            if kind == "end" and not log and abs(x) < ROUNDING * (high - low):
                number = "0"  # what rounding leaves of one
            number = number.replace("-", "−")
            texts.append(f'<text class="{kind}" x="{place:.1f}" y="{HEIGHT - 3}">{number}</text>')
    return texts


def _short(x: float, others: Sequence[float]) -> str:
    """In three digits, or in as many as tell it from each of the `others`."""
    different = [other for other in others if other != x]
    for digits in range(3, 10):
        text = f"{x:.{digits}g}"
        if all(f"{other:.{digits}g}" != text for other in different):
            break
    return text


def _words(
    bar: Bar,
    worst: float,
    values: Sequence[float],
    interval: Sequence[float] | None,
    ceiling: float | None,
    log: bool,
) -> str:
    text = f"measured {bar.show(worst)}, bar {bar.describe()}"
    if len(values) > 1:
        text = (
            f"of {len(values)} values {bar.show(worst)} decides, all from {min(values):.4g} to "
            f"{max(values):.4g}, bar {bar.describe()}"
        )
    if interval is not None:
        text += f", its 95 % interval {show_ends(interval[0], interval[1])}"
    if ceiling is not None:
        text += f", a perfect sibling gives {bar.show(ceiling)}"
    return text + (", logarithmic axis" if log else "")
