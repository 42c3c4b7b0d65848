"""The page of a run: index.html, one file that needs nothing from elsewhere.

It is made from the record (verdicts.json) and the values of the figures, so that a page can be
built again from the files of a report; the sources of the tests are those of the checkout in which
it is made. Everything from data is escaped; only SVG that this package draws goes in as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from polyrot.judge.registration import SCALES, STATUSES
from polyrot.judge.verdicts import Verdict
from polyrot.report import figures, records, states
from polyrot.report.figures import Drawn
from polyrot.report.folder import FIGURES, PAGE, check_report
from polyrot.report.record import read_record
from polyrot.report.rows import Row, grids, registered, row_of
from polyrot.report.said import SCALE_WORDS, STATUS_WORDS, section_words
from polyrot.report.sources import Source, read_sources
from polyrot.report.table import CONTROL_WORDS
from polyrot.runtime.files import write_atomically

UNJUDGED = (Verdict.NOT_RUN.value, Verdict.NOT_WRITTEN.value)
FOLDED = ("claims_and_controls", "haar_power")
"""Kinds of figures that a reader opens: large, and not of a claim's own measurement."""
MEANING: Mapping[Verdict, str] = {
    Verdict.HELD: "every value meets the bar, which was registered before anything was measured",
    Verdict.REFUTED: "some value lies beyond the bar with its whole 95 % interval",
    Verdict.UNDECIDED: "no value does, but the interval of some value contains the bar; or a "
    "reading that the registration admits was not measured; or a control is undecided",
    Verdict.NOT_DIAGNOSTIC: "it held, but one of its controls fails or is out of reach, so that "
    "it proves nothing",
    Verdict.OUT_OF_REACH: "a perfect sibling, such as an exact rotated copy of the anchor, would "
    "miss the bar too (its figure is the ceiling), or what the registration requires is unmet",
    Verdict.NOT_RUN: "with its reason, and the command that would run it",
    Verdict.NOT_WRITTEN: "registered, and no test yet",
    Verdict.ERROR: "the test crashed, which says nothing of the claim",
}
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
class State:
    """A verdict that the page has: its name and meaning, and how many rows are in it."""

    verdict: str
    words: str
    mark: str
    meaning: str
    count: int


@dataclass(frozen=True)
class Section:
    """One family of claims: its table, its figures, and a line for each figure left out."""

    id: str
    heading: str
    of: str
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
    page = render(record, drawn, values, failures, read_sources(), records.lines())
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
    tests: Mapping[str, Source] | None = None,
    kept: Sequence[str] = (),
) -> str:
    """The page as text. tests: the sources of the tests by claim, none where they are not known.
    kept: a line on each run that was kept beside the ledger."""
    entries, tests = record["verdicts"], tests or {}
    rows = {(e["claim"], e["scale"]): row_of(e, tests.get(e["claim"])) for e in entries}
    return _template().render(
        record=record,
        run=record["run"],
        sections=_sections(record, rows, drawn, values),
        overview=[d for d in drawn if not d.kind.families],
        folded=FOLDED,
        failures=failures,
        grids=grids(list(rows.values())),
        states=_states(entries),
        statuses=[
            (status, STATUS_WORDS[status][1])
            for status in STATUSES
            if any(e["status"] == status for e in entries)
        ],
        scales=[
            (scale, SCALE_WORDS[scale])
            for scale in SCALES
            if any(e["scale"] == scale for e in entries)
        ],
        registered=registered(entries, tests),
        symbols=Markup(states.symbols()),
        from_ledger=any(c["from_ledger"] for e in entries for c in e["controls"]),
        n_rows=len(rows),
        kept=kept,
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
    record: Mapping[str, Any],
    rows: Mapping[tuple[str, str], Row],
    drawn: Sequence[Drawn],
    values: Sequence[figures.Value],
) -> list[Section]:
    families = dict.fromkeys(e["claim"].split(".")[0] for e in record["verdicts"])
    left_out = figures.left_out(record, values)
    sections = []
    for family in families:
        entries = [e for e in record["verdicts"] if e["claim"].split(".")[0] == family]
        here = [rows[entry["claim"], entry["scale"]] for entry in entries]
        sections.append(
            Section(
                family,
                HEADINGS.get(family, family),
                section_words(dict.fromkeys(e["section"] for e in entries)),
                tuple(sorted(here, key=lambda row: row.verdict in UNJUDGED)),
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


def _states(entries: Sequence[Mapping[str, Any]]) -> list[State]:
    counts = Counter(entry["verdict"] for entry in entries)
    found = []
    for verdict in Verdict:
        if n := counts[verdict.value]:
            of_controls = CONTROL_WORDS.get(verdict)
            words = f"{verdict.value}, {of_controls}" if of_controls else verdict.value
            found.append(State(verdict.value, words, states.name(verdict), MEANING[verdict], n))
    return found
