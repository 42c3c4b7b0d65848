"""The figures of a report: a value type each, drawn from that value alone.

A run hands its values over (fixtures/figures.py), parts of one figure merge, and what nobody
measured is left out with a line that says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from polyrot.judge.verdicts import JUDGED
from polyrot.report.figures import (
    along_run,
    cosine,
    effects,
    firing,
    frontier,
    glance,
    growth,
    match,
    power,
    reconstruction,
    rotation,
    steering,
    steering_arms,
    stitching,
    style,
    tradeoff,
)
from polyrot.report.figures.values import Words, decode, encode
from polyrot.report.folder import DRAWN
from polyrot.runtime.documents import read_json
from polyrot.runtime.files import write_atomically
from polyrot.runtime.schema import against_schema

Value = Any
"""A frozen dataclass with `scale`, `words()` and `merged(other)`."""
VERSION = 1  # of figures.json
SCHEMA = Path(__file__).with_name("figures.schema.json")


@dataclass(frozen=True)
class Kind:
    """One sort of figure. `families` of claims that it belongs to, its home first."""

    name: str
    title: str
    families: tuple[str, ...]
    value: type[Value]
    draw: Callable[[Value], Figure]


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "claims_and_controls", "Claims against their controls", (), glance.Glance, glance.draw
        ),
        Kind(
            "decoder_cosine", "Decoder cosine", ("cosine",), cosine.DecoderCosine, cosine.draw
        ),
        Kind(
            "match_curve", "Match along training of the SAEs", ("cosine",), match.MatchCurve,
            match.draw,
        ),
        Kind(
            "ev_by_site",
            "Explained variance by site",
            ("naive", "procrustes"),
            reconstruction.EVBySite,
            reconstruction.draw,
        ),
        Kind(
            "growth", "Siblings along training", ("procrustes",), growth.GrowthCurve, growth.draw
        ),
        Kind(
            "firing", "Firing patterns by site", ("firing",), firing.FiringBySite, firing.draw
        ),
        Kind(
            "rotation", "Distance and eigenphases", ("haar",), rotation.RotationSpectrum,
            rotation.draw,
        ),
        Kind("haar_power", "Power of the Haar tests", ("haar",), power.Power, power.draw),
        Kind(
            "steering", "Steering dose curves", ("steering",), steering.DoseCurves, steering.draw
        ),
        Kind(
            "steering_arms", "Steering arms", ("steering",), steering_arms.ArmsByDirection,
            steering_arms.draw,
        ),
        Kind(
            "stitching", "Stitching", ("stitching",), stitching.StitchedLoss, stitching.draw
        ),
        Kind(
            "dictionary_on_b", "A's dictionary on B", ("frontier",), frontier.DictionaryOnB,
            frontier.draw,
        ),
        Kind(
            "effects", "Predicted against measured effects", ("attribution", "bars"),
            effects.Effects, effects.draw,
        ),
        Kind(
            "patching_along_run", "Attribution patching along training", ("attribution",),
            along_run.PatchingAlongRun, along_run.draw,
        ),
        Kind("tradeoff", "The trade-off behind Bar P", ("bars",), tradeoff.TradeOff, tradeoff.draw),
    )
}  # fmt: skip
FROM_MEASUREMENTS = (
    "decoder_cosine",
    "match_curve",
    "ev_by_site",
    "growth",
    "firing",
    "rotation",
    "steering",
    "steering_arms",
    "stitching",
    "dictionary_on_b",
    "effects",
    "patching_along_run",
    "tradeoff",
)
"""Kinds that need a family of claims to have run; the others are drawn from the record."""
_JUDGED = frozenset(verdict.value for verdict in JUDGED)


@dataclass(frozen=True)
class Drawn:
    """A figure as the page shows it: where it belongs, its words, and an SVG element."""

    kind: Kind
    name: str
    words: Words
    svg: str


def kind_of(value: Value) -> Kind:
    """Raises KeyError for what is no figure's value."""
    for kind in KINDS.values():
        if isinstance(value, kind.value):
            return kind
    raise KeyError(f"no figure is drawn from {type(value).__name__}")


def to_json(value: Value) -> dict[str, Any]:
    """As figures.json and the workers of pytest-xdist carry it."""
    return {"kind": kind_of(value).name, "value": encode(value)}


def from_json(document: Any) -> Value:
    """The inverse of `to_json`. Raises ValueError for what is none."""
    if not isinstance(document, Mapping) or document.get("kind") not in KINDS:
        raise ValueError(f"no figure: expected a kind of {', '.join(KINDS)}")
    return decode(KINDS[document["kind"]].value, document.get("value"))


def joined(values: Iterable[Value]) -> tuple[Value, ...]:
    """One value for each kind and scale: parts that claims handed over apart are put together."""
    parts: dict[tuple[str, str], list[Value]] = {}
    for value in values:
        parts.setdefault((kind_of(value).name, value.scale), []).append(value)
    merged = [reduce(lambda one, other: one.merged(other), found) for found in parts.values()]
    order = list(KINDS)
    return tuple(sorted(merged, key=lambda value: order.index(kind_of(value).name)))


def standing(record: Mapping[str, Any]) -> list[Value]:
    """Figures that need no measured object: from the record, the paper, and the package."""
    families = {entry["claim"].split(".")[0] for entry in _judged(record)}
    found: list[Value] = []
    overview = glance.Glance.of(record)
    if overview.lines:
        found.append(overview)
    if "haar" in families:
        found += power.load()
    if any(
        e["scale"] == "paper" and e["claim"].startswith("attribution.") for e in _judged(record)
    ):
        found.append(effects.Effects.of_published_table())
    return found


def left_out(record: Mapping[str, Any], values: Sequence[Value]) -> list[tuple[Kind, str]]:
    """A line for every figure that this run could have had and has not."""
    there = {(kind_of(value).name, value.scale) for value in values}
    lines = []
    for name in FROM_MEASUREMENTS:
        kind = KINDS[name]
        members = [e for e in record["verdicts"] if e["claim"].split(".")[0] in kind.families]
        reasons: dict[str, list[str]] = {}
        for scale in dict.fromkeys(e["scale"] for e in members):
            if (name, scale) not in there and scale != "paper":
                reasons.setdefault(_reason(members, scale), []).append(scale)
        if not members:
            reasons = {f"no claim of {style.listed(list(kind.families))} ran": []}
        for reason, scales in reasons.items():
            at = f" ({', '.join(scales)})" if scales else ""
            lines.append((kind, f"{kind.title}{at}: left out, {reason}"))
    return lines


def _reason(members: Sequence[Mapping[str, Any]], scale: str) -> str:
    here = [entry for entry in members if entry["scale"] == scale]
    if any(entry["outcome"] in _JUDGED for entry in here):
        return "no claim that ran at this scale measures it"
    return next((entry["why"] for entry in here if entry["why"]), here[0]["outcome"])


def _judged(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [entry for entry in record["verdicts"] if entry["outcome"] in _JUDGED]


def draw_all(values: Sequence[Value], folder: Path) -> tuple[list[Drawn], list[str]]:
    """Draw every value, write SVG and PDF into `folder`/figures: what the page needs of each, and
    for a figure that could not be drawn why."""
    target = folder / DRAWN
    target.mkdir(exist_ok=True)
    drawn, failures = [], []
    for value in values:
        name = f"{kind_of(value).name}_{value.scale}"
        try:
            drawn.append(_drawn(value, name, target))
        except Exception as error:  # a picture must not cost the page its verdicts
            failures.append(f"{name}: {type(error).__name__}: {error}")
    return drawn, failures


def _drawn(value: Value, name: str, folder: Path) -> Drawn:
    kind, words = kind_of(value), value.words()
    figure = kind.draw(value)
    svg = style.svg_text(figure)
    style.save(figure, folder / name, svg)
    element = style.inline_svg(svg, name, words.title, words.description)
    return Drawn(kind, name, words, element)


def write_values(path: Path, values: Sequence[Value], failures: Sequence[str]) -> None:
    """figures.json: what every figure was drawn from, and why some could not be made."""
    document = {
        "schema_version": VERSION,
        "figures": [to_json(value) for value in values],
        "failures": list(failures),
    }
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def read_values(path: Path) -> tuple[tuple[Value, ...], tuple[str, ...]]:
    """Values and failures of a figures.json. Raises ValueError for another file."""
    document = read_json(path)
    if not isinstance(document, dict) or document.get("schema_version") != VERSION:
        raise ValueError(f"{path}: no figures.json of version {VERSION}")
    if wrong := against_schema(document, SCHEMA):
        raise ValueError(f"{path}: {wrong}")
    try:
        values = tuple(map(from_json, document["figures"]))
        joined(values)
    except Exception as error:  # whatever parts that do not belong together raise
        raise ValueError(f"{path}: {error}") from error
    return values, tuple(document["failures"])
