"""What the page says of each claim: a row for each scale, and an entry for each claim."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from polyrot.judge.bar import Bar
from polyrot.judge.registration import SCALES, STATUSES, Amendment
from polyrot.judge.verdicts import ControlFinding, Verdict, show_interval
from polyrot.measured import Interval
from polyrot.report import states
from polyrot.report.said import STATUS_WORDS, label_words, section_words, why_words
from polyrot.report.sources import Source
from polyrot.report.strip import strip
from polyrot.report.table import CONTROL_WORDS, control_words

Entry = Mapping[str, Any]  # of one verdict in a record


@dataclass(frozen=True)
class Row:
    """One claim at one scale, as the table shows it.

    measured_now: of the tables behind it, how many the run measured, if any.
    mark: the symbol of the verdict. alone: the command that judges it and nothing else. command:
    what would run a claim that was not run.
    """

    id: str
    claim: str
    family: str
    name: str
    says: str
    status: str
    status_words: str
    scale: str
    measured: str
    where: str
    interval: str
    strip: Markup
    measured_now: str
    bar: str
    ceiling: str
    paper: str
    control: str
    verdict: str
    words: str
    mark: str
    why: str
    command: str
    alone: str
    measured_as_before: bool
    departures: tuple[str, ...]


@dataclass(frozen=True)
class Registered:
    """One claim as it is registered, with the source of its test where that is known."""

    id: str
    facts: tuple[tuple[str, str], ...]
    test: Source | None


@dataclass(frozen=True)
class GridRow:
    """One claim: a row of the page for each scale at which it is registered, else None."""

    claim: str
    family: str
    name: str
    cells: tuple[Row | None, ...]


@dataclass(frozen=True)
class Grid:
    """The claims of one status by scale."""

    status: str
    words: str
    scales: tuple[str, ...]
    rows: tuple[GridRow, ...]


def row_of(entry: Entry, test: Source | None = None) -> Row:
    """The row of a verdict; `test` is the test of its claim."""
    bar = Bar.from_json(entry["bar"])
    measured, interval = entry["measured"], Interval.from_json(entry["interval"])
    values = [value["value"] for value in entry["values"]]
    n, label, ceiling = entry["checked"], label_words(entry["label"]), entry["ceiling"]
    where = f"worst of {n}{': ' if label else ''}{label}" if n > 1 else label
    ends = interval[:2] if interval is not None else None
    drawn = "" if measured is None else strip(bar, measured, values, ends, ceiling)
    family, name = entry["claim"].split(".", 1)
    return Row(
        id=f"{entry['claim']}.{entry['scale']}",
        claim=entry["claim"],
        family=family,
        name=name,
        says=entry["says"],
        status=entry["status"],
        status_words=STATUS_WORDS[entry["status"]][0],
        scale=entry["scale"],
        measured=bar.show(measured) if measured is not None else "",
        where=where,
        interval=show_interval(interval) if interval is not None else "",
        strip=Markup(drawn),
        measured_now=_measured_now(entry.get("tables")),
        bar=bar.describe(),
        ceiling="" if ceiling is None else bar.show(ceiling),
        paper=entry["paper"],
        control=control_words([_control(c) for c in entry["controls"]]),
        verdict=entry["verdict"],
        words=_words(entry),
        mark=states.name(Verdict(entry["verdict"])),
        why=why_words(entry["verdict_why"], entry["label"]),
        command=entry["command"],
        alone=_alone(entry, test),
        measured_as_before=entry["measured_as_before"],
        departures=tuple(entry["departures"]),
    )


def registered(entries: Sequence[Entry], tests: Mapping[str, Source]) -> list[Registered]:
    """Every claim of a record once, by family in the order of the record."""
    by_claim: dict[str, list[Entry]] = {}
    for entry in entries:
        by_claim.setdefault(entry["claim"], []).append(entry)
    families = list(dict.fromkeys(id.split(".")[0] for id in by_claim))
    order = sorted(by_claim, key=lambda id: families.index(id.split(".")[0]))
    return [Registered(id, _facts(by_claim[id]), tests.get(id)) for id in order]


def grids(rows: Sequence[Row]) -> list[Grid]:
    """Claims by scale, the statuses in the registration's order, each with the scales it has."""
    found = []
    for status in STATUSES:
        here = [row for row in rows if row.status == status]
        scales = tuple(scale for scale in SCALES if any(row.scale == scale for row in here))
        claims: dict[str, dict[str, Row]] = {}
        for row in here:
            claims.setdefault(row.claim, {})[row.scale] = row
        if claims:
            listed = tuple(
                GridRow(id, family, name, tuple(at.get(scale) for scale in scales))
                for id, at in claims.items()
                for family, name in [id.split(".", 1)]
            )
            words = f"{len(claims)} {STATUS_WORDS[status][len(claims) != 1]}"
            found.append(Grid(status, words, scales, listed))
    return found


def _facts(entries: Sequence[Entry]) -> tuple[tuple[str, str], ...]:
    first = entries[0]
    controls = dict.fromkeys(c["claim"] for e in entries for c in e["controls"])
    made = [Amendment.from_json(first["claim"], amendment) for amendment in first["amendments"]]
    facts = (
        ("says", first["says"]),
        ("from", section_words([first["section"]])),
        ("status", STATUS_WORDS[first["status"]][0]),
        ("scales in this run", ", ".join(e["scale"] for e in entries)),
        ("measures", first["measures"]),
        ("over", first["over"] or ""),
        ("bar", Bar.from_json(first["bar"]).describe()),
        ("paper", first["paper"]),
        ("controls", ", ".join(controls)),
        ("registered", first["registered"]),
        ("seen before that", first["registered_after"]),
        *(("amended", f"{a.date}: {a.describe()}. {a.reason}") for a in made),
    )
    return tuple((name, text) for name, text in facts if text)


def _measured_now(tables: Mapping[str, int] | None) -> str:
    if not tables or not (made := tables["measured"]):
        return ""
    total = made + tables["read"]
    return "measured in this run" + ("" if made == total else f": {made} of {total} tables")


def _control(found: Mapping[str, Any]) -> ControlFinding:
    outcome = Verdict(found["outcome"]) if found["outcome"] is not None else None
    return ControlFinding(found["claim"], found["scale"], outcome, "", found["from_ledger"])


def _alone(entry: Entry, test: Source | None) -> str:
    """By the node id of the test: `-k` would find every name that contains this one."""
    if test is None:
        return ""
    return f"pytest {shlex.quote(test.node(entry['scale']))} --scale {entry['scale']}"


def _words(entry: Entry) -> str:
    """The verdict in words; a control holds or fails."""
    verdict = Verdict(entry["verdict"])
    if entry["status"] == "control":
        return CONTROL_WORDS.get(verdict, verdict.value)
    return verdict.value
