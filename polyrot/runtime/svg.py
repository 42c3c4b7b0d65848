"""SVG by hand: small pictures that are the same with any release of any library."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

INK, MUTED, FAINT, PAPER, ON = "#1b1f23", "#5a636c", "#d3d8dd", "#fefefe", "#ffffff"
BLUE, VERMILION, OCHRE = "#006ba6", "#b34700", "#8a5a00"
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def symbol(shape: str, colour: str, x: float, y: float) -> str:
    """A shape drawn in a box of 16 px, its corner at x, y."""
    return f'<g transform="translate({x:.1f} {y:g})" fill="{colour}">{shape}</g>'


def upright(x: float, top: float, bottom: float, colour: str) -> str:
    """A vertical line."""
    return f'<path d="M{x:.1f} {top:g}V{bottom:g}" stroke="{colour}"/>'


def text(x: float, y: float, words: str, **style: str | int) -> str:
    """Words; style: size, weight, anchor, fill.

    >>> text(1, 2, "a < b", size=12)
    '<text x="1" y="2" font-size="12">a &lt; b</text>'
    """
    named = {"size": "font-size", "weight": "font-weight", "anchor": "text-anchor"}
    given = "".join(f' {named.get(key, key)}="{value}"' for key, value in style.items())
    return f'<text x="{x:g}" y="{y:g}"{given}>{escape(words)}</text>'


def document(width: float, height: float, parts: Sequence[str]) -> str:
    """The whole picture, on paper of its own."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="{FONT}" font-size="12.5" '
        f'fill="{INK}">'
    )
    ground = f'<rect width="100%" height="100%" fill="{PAPER}"/>'
    return "\n".join([head, ground, *parts, "</svg>", ""])
