"""One symbol for a state and one line for a bar, wherever they are drawn."""

from __future__ import annotations

import re
from pathlib import Path

from polyrot.judge.ledger import Entry, Ledger
from polyrot.judge.registration import Registration
from polyrot.judge.verdicts import Verdict
from polyrot.report import pictures, states
from polyrot.report.figures import glance, stitching, tradeoff

CLAIMS = Path(__file__).parents[2] / "claims"


def test_a_state_has_one_symbol() -> None:
    """In the figure's outlines and strokes, the page's own, and no two states alike."""
    assert all(
        look is states.SYMBOLS[Verdict(name)]
        for name, look in glance.LOOKS.items()
        if name != "not known"
    )
    shapes = [(symbol.outlines, symbol.strokes) for symbol in states.SYMBOLS.values()]
    assert len(set(shapes)) == len(shapes) == len(Verdict)
    assert all(states.name(verdict) in states.symbols() for verdict in Verdict)


def test_a_state_looks_on_the_readmes_picture_as_on_the_page() -> None:
    claims = Registration.load(CLAIMS / "preregistration.toml")
    id = next(claim.id for claim in claims.claims if claim.status == "core")
    for verdict, symbol in states.SYMBOLS.items():
        entry = Entry(verdict, "planted")
        found = pictures.grid(Ledger({(id, "toy_a"): entry}), claims)
        title = found.index(f"<title>{verdict.value}</title>")
        look = found[found.rindex("<g", 0, title) : found.index("</g>", title)]
        assert f'fill="{symbol.colour[1]}"' in look
        paths = re.findall(r' d="([^"]+)"', states.drawn(symbol, ""))
        assert re.findall(r' d="([^"]+)"', look) == paths


def test_lines_of_bars_are_drawn_where_they_are_registered() -> None:
    claims = Registration.load(CLAIMS / "preregistration.toml")
    bar = claims.claim("stitching.rotation_preserves_function").bar
    assert bar.at_least == stitching.BAR
    assert claims.claim("bars.parametric").bar.below == tradeoff.BAR_P
