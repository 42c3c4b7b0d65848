"""One symbol and one colour for each state, on the page and in its figures.

Outlines and strokes are points in a box of 16 by 16, y downwards: the page makes SVG symbols of
them (`symbols`), a figure markers (`polyrot.report.figures.glance`), the README's picture marks
(`polyrot.report.pictures`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polyrot.judge import verdicts
from polyrot.judge.verdicts import Verdict
from polyrot.runtime.svg import BLUE, MUTED, OCHRE, VERMILION

Points = tuple[tuple[float, float], ...]
SIDE = 16.0  # of the box
_BANG: tuple[Points, ...] = (((8, 6), (8, 10)), ((8, 12), (8, 13)))


@dataclass(frozen=True)
class Symbol:
    """A filled shape with strokes on it. colour: the page's variable, and its value in light.

    A shape without outlines is a circle.
    """

    colour: tuple[str, str]
    outlines: tuple[Points, ...] = ()
    strokes: tuple[Points, ...] = ()


HELD, REFUTED = ("--held", BLUE), ("--refuted", VERMILION)
OPEN, UNKNOWN = ("--empty", OCHRE), ("--muted", MUTED)

SYMBOLS: Mapping[Verdict, Symbol] = {
    Verdict.HELD: Symbol(HELD, (), (((4.5, 8.2), (6.9, 10.6), (11.5, 5.6)),)),
    Verdict.REFUTED: Symbol(
        REFUTED,
        (((5, 1), (11, 1), (15, 5), (15, 11), (11, 15), (5, 15), (1, 11), (1, 5)),),
        (((5, 5), (11, 11)), ((11, 5), (5, 11))),
    ),
    Verdict.UNDECIDED: Symbol(
        OPEN,
        (((8, 0.4), (15.6, 8), (8, 15.6), (0.4, 8)),),
        (
            ((5.9, 6.2), (6.3, 4.9), (8, 4.2), (9.7, 4.9), (10, 6.2), (8.2, 8.2), (8, 9.7)),
            ((8, 11.3), (8, 12.3)),
        ),
    ),
    Verdict.NOT_DIAGNOSTIC: Symbol(OPEN, (((8, 1), (15.5, 15), (0.5, 15)),), _BANG),
    Verdict.OUT_OF_REACH: Symbol(
        OPEN,
        (
            ((1, 1), (15, 1), (15, 4), (1, 4)),
            ((8, 5.5), (12.5, 10.5), (9.6, 10.5), (9.6, 15), (6.4, 15), (6.4, 10.5), (3.5, 10.5)),
        ),
    ),
    Verdict.NOT_RUN: Symbol(UNKNOWN, (((2, 6.5), (14, 6.5), (14, 9.5), (2, 9.5)),)),
    Verdict.NOT_WRITTEN: Symbol(
        UNKNOWN,
        (
            ((1, 6.5), (6, 6.5), (6, 9.5), (1, 9.5)),
            ((10, 6.5), (15, 6.5), (15, 9.5), (10, 9.5)),
        ),
    ),
    Verdict.ERROR: Symbol(
        REFUTED,
        (((1, 1), (15, 1), (15, 15), (1, 15)),),
        (((8, 3.5), (8, 9.5)), ((8, 11.5), (8, 13))),
    ),
}

CONCLUDED = tuple(v for v in Verdict if v in verdicts.JUDGED or v is Verdict.NOT_DIAGNOSTIC)
"""What a claim can come to whose values were held against a bar."""


def name(verdict: Verdict) -> str:
    """The id of the verdict's symbol, and the class of what is in that state."""
    return verdict.value.replace(" ", "-")


def symbols() -> str:
    """Every symbol as an SVG `symbol` element, for one hidden SVG of a page."""
    return "\n".join(_symbol(verdict, symbol) for verdict, symbol in SYMBOLS.items())


def drawn(symbol: Symbol, stroke: str) -> str:
    """A symbol as SVG in its box, its fill that of its surroundings; stroke: what strokes have."""
    shape = "".join(f'<path d="{_path(points)}z"/>' for points in symbol.outlines)
    shape = shape or f'<circle cx="{SIDE / 2:g}" cy="{SIDE / 2:g}" r="7"/>'
    strokes = "".join(f'<path {stroke} d="{_path(points)}"/>' for points in symbol.strokes)
    return shape + strokes


def _symbol(verdict: Verdict, symbol: Symbol) -> str:
    shape = drawn(symbol, 'class="on"')
    return f'<symbol id="{name(verdict)}" viewBox="0 0 16 16">{shape}</symbol>'


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
