"""The page of a run: index.html, one file that needs nothing from elsewhere.

It is made from the record alone (verdicts.json) and the values of the figures, so that a page can
be built again from the files of a report. Everything from data is escaped; only SVG that this
package draws goes in as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from polyrot.judge.bar import Bar
from polyrot.judge.registration import Amendment
from polyrot.judge.verdicts import ControlFinding, Verdict, show_interval
from polyrot.measured import Interval
from polyrot.report import figures
from polyrot.report.figures import Drawn
from polyrot.report.folder import FIGURES, PAGE, check_report
from polyrot.report.record import read_record
from polyrot.report.strip import strip
from polyrot.report.table import CONTROL_WORDS, control_words
from polyrot.runtime.files import write_atomically

UNJUDGED = (Verdict.NOT_RUN.value, Verdict.NOT_WRITTEN.value)
HEADINGS = {
    "architecture": "Architecture and function",
    "cosine": "Decoder cosine",
    "naive": "Naive transfer",
    "procrustes": "Transfer through one rotation",
    "haar": "Is the rotation a Haar draw?",
    "steering": "Steering",
    "editing": "Weight edits",
    "drift": "Drift over a training run",
    "attribution": "Attribution",
    "bars": "The four bars",
    "lenses": "The five lenses",
    "triplet": "Cosine beside explained variance",
    "frontier": "Other models",
    "stitching": "One model's lower half, another's upper half",
    "firing": "Firing patterns",
    "similarity": "Similarity that no rotation changes",
}


@dataclass(frozen=True)
class Row:
    """One claim at one scale, as the table shows it. `mark` names the shape of the verdict."""

    claim: str
    name: str
    says: str
    measures: str
    status: str
    scale: str
    measured: str
    where: str
    interval: str
    strip: Markup
    bar: str
    ceiling: str
    paper: str
    control: str
    verdict: str
    words: str
    mark: str
    why: str
    command: str
    amendments: tuple[str, ...]
    measured_as_before: bool
    departures: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One family of claims: its table, its figures, and a line for each figure left out."""

    id: str
    heading: str
    post: str
    rows: tuple[Row, ...]
    figures: tuple[Drawn, ...]
    elsewhere: tuple[Drawn, ...]
    left_out: tuple[str, ...]


def write_page(
    folder: Path,
    record: Mapping[str, Any],
    parts: Sequence[figures.Value] = (),
    failures: Sequence[str] = (),
) -> list[str]:
    """Write index.html, figures.json and the figures as SVG and PDF into the existing `folder`.

    `parts` are values of figures, or parts of them; the overview of claims and controls and the
    power of the Haar tests are drawn without. Returns why figures could not be made.
    """
    # standing ones last: what the record says now, not what a figures.json kept
    values = figures.joined([*parts, *figures.standing(record)])
    drawn, broken = figures.draw_all(values, folder)
    failures = [*failures, *broken]
    page = render(record, drawn, values, failures)
    figures.write_values(folder / FIGURES, values, failures)
    write_atomically(folder / PAGE, page)
    return failures


def write_page_of(path: Path, folder: Path) -> Path:
    """`write_page` from a verdicts.json, and the figures.json beside it if there is one, into
    `folder`, which is made; the path of the page. Raises ValueError for files that are none, and
    Unwritable, before anything is written."""
    record = read_record(path)
    beside = path.with_name(FIGURES)
    there = beside.exists() or beside.is_symlink()
    values, failures = figures.read_values(beside) if there else ((), ())
    check_report(folder)
    write_page(folder, record, values, failures)
    return folder / PAGE


def render(
    record: Mapping[str, Any],
    drawn: Sequence[Drawn],
    values: Sequence[figures.Value],
    failures: Sequence[str] = (),
) -> str:
    """The page as text."""
    entries = record["verdicts"]
    return _template().render(
        record=record,
        run=record["run"],
        sections=_sections(record, drawn, values),
        overview=[d for d in drawn if not d.kind.families],
        failures=failures,
        verdicts=[v.value for v in Verdict if any(e["verdict"] == v.value for e in entries)],
        scales=list(dict.fromkeys(e["scale"] for e in entries)),
        marks={v.value: _mark(v.value) for v in Verdict},
        filters={v.value: _filter(v) for v in Verdict},
        from_ledger=any(c["from_ledger"] for e in entries for c in e["controls"]),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("polyrot.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["svg"] = Markup  # of this package's own drawing
    return environment.get_template("report.html")


def _sections(
    record: Mapping[str, Any], drawn: Sequence[Drawn], values: Sequence[figures.Value]
) -> list[Section]:
    families = dict.fromkeys(e["claim"].split(".")[0] for e in record["verdicts"])
    left_out = figures.left_out(record, values)
    sections = []
    for family in families:
        entries = [e for e in record["verdicts"] if e["claim"].split(".")[0] == family]
        posts = dict.fromkeys(part for e in entries for part in e["section"].split(", "))
        rows = [_row(entry) for entry in entries]
        sections.append(
            Section(
                family,
                HEADINGS.get(family, family),
                ", ".join(posts),
                tuple(sorted(rows, key=lambda row: row.verdict in UNJUDGED)),
                tuple(d for d in drawn if _home(d, families) == family),
                tuple(
                    d for d in drawn if family in d.kind.families and _home(d, families) != family
                ),
                tuple(line for kind, line in left_out if kind.families[0] == family),
            )
        )
    return sections


def _home(drawn: Drawn, families: Mapping[str, Any]) -> str | None:
    """The first family of the figure's that the page has."""
    return next((family for family in drawn.kind.families if family in families), None)


def _row(entry: Mapping[str, Any]) -> Row:
    bar = Bar.from_json(entry["bar"])
    measured, interval = entry["measured"], entry["interval"]
    values = [value["value"] for value in entry["values"]]
    controls = [
        ControlFinding(
            c["claim"],
            c["scale"],
            Verdict(c["outcome"]) if c["outcome"] is not None else None,
            "",
            c["from_ledger"],
        )
        for c in entry["controls"]
    ]
    n, label, ceiling = entry["checked"], entry["label"], entry["ceiling"]
    where = f"worst of {n}: {label}" if n > 1 else label
    shown = show_interval(Interval(*interval)) if interval is not None else ""
    ends = interval[:2] if interval is not None else None
    drawn = "" if measured is None else strip(bar, measured, values, ends, ceiling)
    return Row(
        claim=entry["claim"],
        name=entry["claim"].split(".", 1)[1].replace("_", " "),
        says=entry["says"],
        measures=entry["measures"] + (f"; over {entry['over']}" if entry["over"] else ""),
        status=entry["status"],
        scale=entry["scale"],
        measured=bar.show(measured) if measured is not None else "",
        where=where,
        interval=shown,
        strip=Markup(drawn),
        bar=bar.describe(),
        ceiling="" if ceiling is None else bar.show(ceiling),
        paper=entry["paper"],
        control=control_words(controls),
        verdict=entry["verdict"],
        words=_words(entry),
        mark=_mark(entry["verdict"]),
        why=entry["verdict_why"],
        command=entry["command"],
        amendments=tuple(_amendment(entry["claim"], made) for made in entry["amendments"]),
        measured_as_before=entry["measured_as_before"],
        departures=tuple(entry["departures"]),
    )


def _amendment(claim: str, document: Mapping[str, Any]) -> str:
    """ "2026-11-27: over: pairs (was: pairs x sites). As ..."."""
    made = Amendment.from_json(claim, document)
    return f"{made.date}: {made.describe()}. {made.reason}"


def _words(entry: Mapping[str, Any]) -> str:
    """The verdict in words; a control holds or fails."""
    verdict = Verdict(entry["verdict"])
    if entry["status"] == "control":
        return CONTROL_WORDS.get(verdict, verdict.value)
    return verdict.value


def _filter(verdict: Verdict) -> str:
    """ "refuted, control fails": one state, whatever it is called of a control."""
    of_controls = CONTROL_WORDS.get(verdict)
    return f"{verdict.value}, {of_controls}" if of_controls else verdict.value


def _mark(verdict: str) -> str:
    """The id of a verdict's shape."""
    return verdict.replace(" ", "-")
