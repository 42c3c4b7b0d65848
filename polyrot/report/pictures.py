"""The README's two pictures, drawn from the ledger alone: every core claim and stricter form at
every scale, and what a model recovers that goes on from a sibling's stream.

They are written as SVG by hand: small, and the same with any release of any library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from polyrot.judge.ledger import Entry, Ledger
from polyrot.judge.registration import Claim, Registration
from polyrot.judge.verdicts import Verdict
from polyrot.report.states import SYMBOLS, drawn
from polyrot.runtime.svg import (
    BLUE,
    FAINT,
    MUTED,
    OCHRE,
    ON,
    document,
    symbol,
    text,
    upright,
)

SCALES = ("toy_a", "toy_b", "neox")
"""Those whose models are shipped."""

ROW, TOP, COLUMN, NAME, CELL = 20, 58, 440, 292, 46  # px


def grid(ledger: Ledger, registration: Registration) -> str:
    """Core claims left, stricter forms right, one row each; one mark for each scale that is judged.
    An SVG document."""
    sides = [
        (heading, [claim for claim in registration.claims if claim.status == status])
        for heading, status in (("The paper's core claims", "core"), ("Stricter forms", "sharp"))
    ]
    rows = max(len(claims) for _, claims in sides)
    height = TOP + ROW * rows + 46
    parts: list[str] = []
    for i, (heading, claims) in enumerate(sides):
        parts += _column(12 + i * COLUMN, heading, claims, ledger.entries)
    shown = Counter(
        entry.verdict
        for (id, scale), entry in ledger.entries.items()
        if scale in SCALES and registration.claim(id).status in ("core", "sharp")
    )
    x = 14.0
    for verdict in (verdict for verdict in SYMBOLS if shown[verdict]):
        words = f"{verdict.value} {shown[verdict]}"
        parts += [_mark(verdict, x, height - 27), text(x + 22, height - 14, words)]
        x += 44 + 7.2 * len(words)
    return document(2 * COLUMN, height, parts)


def in_words(ledger: Ledger, registration: Registration) -> str:
    """What `grid` shows, for those who cannot see it."""
    said = []
    for name, status in (("core claims", "core"), ("stricter forms", "sharp")):
        counts = Counter(
            entry.verdict
            for (id, scale), entry in ledger.entries.items()
            if scale in SCALES and registration.claim(id).status == status
        )
        listed = ", ".join(f"{counts[v]} {v.value}" for v in SYMBOLS if counts[v])
        said.append(f"{name}: {listed}")
    return f"Verdict of every claim at each of {', '.join(SCALES)}. {'; '.join(said)}."


def _column(
    x: float, heading: str, claims: Sequence[Claim], entries: Mapping[tuple[str, str], Entry]
) -> Iterator[str]:
    yield text(x, 24, heading, size=14, weight="bold")
    for i, scale in enumerate(SCALES):
        yield text(x + NAME + CELL * (i + 0.5), 46, scale, anchor="middle", fill=MUTED)
    for i, claim in enumerate(claims):
        y = TOP + ROW * i
        if i % 2 == 0:
            width = NAME + CELL * len(SCALES)
            yield f'<rect x="{x - 4:g}" y="{y}" width="{width}" height="{ROW}" fill="#f1f3f5"/>'
        yield text(x, y + 14, claim.id, size=12)
        for j, scale in enumerate(SCALES):
            entry = entries.get((claim.id, scale))
            if entry is not None and entry.verdict in SYMBOLS:
                yield _mark(entry.verdict, x + NAME + CELL * (j + 0.5) - 7, y + 3)


WAYS = (
    ("rotated", "through R", BLUE, '<circle cx="8" cy="8" r="6"/>'),
    (
        "principal",
        "through axes matched by second moments",
        OCHRE,
        '<path d="M3 3h10v10H3z"/>',
    ),
)
"""Ways of carrying the sibling's stream over: name in the ledger, in words, colour, shape."""
STITCHED = "stitching.rotation_preserves_function"
PANEL, LABEL, LINE = 290, 92, 24  # px
LOW, HIGH = -1.0, 1.0


def recovered(ledger: Ledger) -> dict[str, dict[str, dict[str, float]]]:
    """Recovered loss by scale, site and way: 1 is as good as the anchor's own stream, 0 as bad as
    the mean activation. Empty where the ledger has no figures."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for scale in SCALES:
        entry = ledger.entries.get((STITCHED, scale))
        for way, *_ in WAYS:
            prefix = f"recovered_{way}_"
            for name, value in (entry.beside if entry is not None else {}).items():
                if name.startswith(prefix) and not isinstance(value, str):
                    site = name.removeprefix(prefix)
                    found.setdefault(scale, {}).setdefault(site, {})[way] = float(value)
    return found


def stitching(ledger: Ledger) -> str:
    """Recovered loss at every site, one panel a scale. An SVG document."""
    found = recovered(ledger)
    rows = max((len(sites) for sites in found.values()), default=0)
    height = 74 + LINE * rows + 44
    parts, x = [], 12.0
    for _, words, colour, shape in WAYS:
        parts += [symbol(shape, colour, x, 10), text(x + 22, 23, words)]
        x += 60 + 7 * len(words)
    for i, (scale, sites) in enumerate(found.items()):
        left = 12.0 + i * PANEL
        parts.append(text(left, 54, scale, weight="bold", size=13))
        bottom = 66 + LINE * len(sites)
        for tick in (-1, 0, 1):
            at = _at(left, tick)
            parts.append(upright(at, 62, bottom, MUTED if tick == 0 else FAINT))
            parts.append(text(at, bottom + 16, str(tick).replace("-", "−"), anchor="middle"))
        for j, (site, values) in enumerate(sites.items()):
            y = 62 + LINE * j
            parts.append(text(left, y + 16, site, size=12))
            for way, _, colour, shape in WAYS:
                if way in values:
                    at = _at(left, min(max(values[way], LOW), HIGH))
                    parts.append(symbol(shape, colour, at - 8, y + 4))
    axis = (
        "recovered loss, mean over pairs: 1 as good as the model's own stream, 0 as bad as its mean"
    )
    parts.append(text(12, height - 10, axis, fill=MUTED))
    return document(12 + PANEL * max(len(found), 1), height, parts)


def stitching_in_words(ledger: Ledger) -> str:
    """What `stitching` shows, for those who cannot see it."""
    said = []
    for scale, sites in recovered(ledger).items():
        spans = []
        for way, words, *_ in WAYS:
            values = [found[way] for found in sites.values() if way in found]
            if values:
                spans.append(f"{words} {min(values):.2f} to {max(values):.2f}")
        said.append(f"at {scale} {', '.join(spans)}")
    return (
        "Recovered loss of a model that goes on from a sibling's stream, by site: "
        f"{'; '.join(said)}."
    )


def _at(left: float, value: float) -> float:
    return left + LABEL + (value - LOW) / (HIGH - LOW) * (PANEL - LABEL - 30)


def _mark(verdict: Verdict, x: float, y: float) -> str:
    look = SYMBOLS[verdict]
    shape = drawn(look, f'fill="none" stroke="{ON}" stroke-width="1.8"')
    title = f"<title>{verdict.value}</title>"
    place = f'transform="translate({x:g} {y:g}) scale(.88)"'
    return f'<g {place} fill="{look.colour[1]}">{title}{shape}</g>'
