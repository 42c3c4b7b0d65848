"""The record of a run for machines (verdicts.json) and for pasting (verdicts.md).

The JSON is described by verdicts.schema.json beside this file; whatever changes its meaning raises
SCHEMA_VERSION.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polyrot.judge.bar import Bar, RegistrationError
from polyrot.judge.registration import Registration
from polyrot.judge.verdicts import Conclusion, Verdict, place, show_interval
from polyrot.measured import Interval
from polyrot.report.conclusion import answer
from polyrot.report.folder import MARKDOWN, RECORD
from polyrot.report.gathered import Gathered
from polyrot.report.markdown import code, escaped, row
from polyrot.report.provenance import options_line
from polyrot.report.table import (
    BEFORE,
    EXPLAINED,
    before_mark,
    control_words,
    sentences,
    words,
)
from polyrot.runtime.documents import BadDocument, read_json
from polyrot.runtime.files import write_atomically
from polyrot.runtime.schema import against_schema

SCHEMA_VERSION = 5
SCHEMA = Path(__file__).with_name("verdicts.schema.json")


class RecordError(ValueError):
    """A file that is no verdicts.json of this version."""


def run_record(
    conclusions: Sequence[Conclusion],
    registration: Registration,
    run: Mapping[str, Any],
    gathered: Gathered | None = None,
) -> dict[str, Any]:
    """Everything a run found, ready for JSON. `run` is its provenance as in
    `polyrot.report.provenance.of_run`."""
    beyond = gathered if gathered is not None else Gathered()
    return {
        "schema_version": SCHEMA_VERSION,
        "run": {
            **run,
            "registration_sha256": registration.sha256,
            "as_registered": registration.as_registered,
            **beyond.provenance(run["scales"]),
        },
        "conclusion": list(answer(conclusions, registration)),
        "summary": sentences(conclusions, registration),
        "verdicts": [_verdict(conclusion, registration, beyond) for conclusion in conclusions],
    }


def write_record(folder: Path, record: Mapping[str, Any], text: str) -> None:
    """Write verdicts.json, and `text` as verdicts.md, into the existing `folder`."""
    document = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / RECORD, document)
    write_atomically(folder / MARKDOWN, text)


def read_record(path: Path) -> dict[str, Any]:
    """A verdicts.json of this version. Raises RecordError saying what the file is not."""
    try:
        record = read_json(path)
    except BadDocument as error:
        raise RecordError(f"{path} is no record: {error}") from error
    version = record.get("schema_version") if isinstance(record, dict) else None
    if version is None:
        raise RecordError(f"{path} is no verdicts.json: it has no schema_version")
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"{path} has schema_version {version}, this polyrot reads {SCHEMA_VERSION}: make it "
            "again with `pytest claims --report DIR`, or read it with the polyrot that wrote it"
        )
    wrong = against_schema(record, SCHEMA) or next(_contradictions(record), "")
    if wrong:
        raise RecordError(f"{path}: {wrong}")
    return dict(record)


def _contradictions(record: Mapping[str, Any]) -> Iterator[str]:
    """What a schema cannot say: how parts of a record belong together."""
    seen = set()
    for i, entry in enumerate(record["verdicts"]):
        where, name = f"verdicts[{i}]", f"{entry['claim']}[{entry['scale']}]"
        if name in seen:
            yield f"{where}: {name} is there twice"
        seen.add(name)
        bars = [entry["bar"]]
        for made in entry["amendments"]:
            for change in made["changes"]:
                bars += [change[side] for side in ("old", "new") if change["key"] == "bar"]
        for bar in bars:
            try:
                Bar.from_json(bar)
            except RegistrationError as error:
                yield f"{where}: {error}"
        for ends, value in [
            (entry["interval"], entry["measured"]),
            *((one["interval"], one["value"]) for one in entry["values"]),
        ]:
            found = Interval.from_json(ends)
            if found is not None and (value is None or not found.low <= value <= found.high):
                yield f"{where}: {value} does not lie in its interval {found.low} to {found.high}"
        if entry["missed"] + entry["open"] > entry["checked"]:
            yield f"{where}: more values missed and open than checked"


def markdown(
    conclusions: Sequence[Conclusion],
    registration: Registration,
    run: Mapping[str, Any],
    kept: Sequence[str] = (),
) -> str:
    """A table of what was judged, the rest by name, and the provenance in one line. kept: a line on
    each run that was kept beside the ledger."""
    lines = ["# Verdicts", ""]
    if not registration.as_registered:
        lines += ["**Not judged against the registered bars.**", ""]
    lines += [f"{escaped(text)}\n" for text in answer(conclusions, registration)]
    lines += [f"- {escaped(text)}" for text in sentences(conclusions, registration)]
    lines += [
        "",
        "| claim | scale | measured (95 %) | bar | ceiling | paper | control | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    unjudged: dict[str, list[str]] = {}
    for conclusion in conclusions:
        finding, verdict = conclusion.finding, words(conclusion, registration)
        if conclusion.verdict is Verdict.NOT_WRITTEN:
            continue
        if conclusion.verdict is Verdict.NOT_RUN:
            command = f"; to run: {code(finding.command)}" if finding.command else ""
            reason = f"{verdict} ({escaped(finding.why)}{command})" if finding.why else verdict
            unjudged.setdefault(reason, []).append(f"`{finding.name}`")
            continue
        claim = registration.claim(finding.claim)
        cells = (
            f"`{finding.claim}`{before_mark(finding.claim, registration)}",
            finding.scale,
            escaped(_measured(conclusion, registration)),
            escaped(claim.bar.describe()),
            "" if finding.ceiling is None else claim.bar.show(finding.ceiling),
            escaped(claim.paper),
            control_words(conclusion.controls),
            verdict if conclusion.verdict is Verdict.HELD else f"**{verdict}**",
        )
        lines.append(row(cells))
    lines += [f"\n{reason}: {', '.join(names)}" for reason, names in unjudged.items()]
    lines += _unwritten(conclusions)
    if any(control.from_ledger for c in conclusions for control in c.controls):
        lines += ["", "\\* a control that did not run this time, as the ledger has it"]
    lines += _explained(conclusions)
    lines += _departures(conclusions)
    lines += _amendments(conclusions, registration)
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    provenance = (
        f"{run['date']}, commit {run['commit']}, {run['device']} ({run['device_name']}), "
        f"scales {', '.join(run['scales'])}, options {options_line(run['options'])}, "
        f"{run['duration_s']:.0f} s; {versions}; "
        f"registration {registration.sha256[:12]}"
    )
    lines += ["", escaped(provenance), ""]
    if kept:
        lines += ["Runs kept beside the ledger (claims/RECORDS.md):", ""]
        lines += [*(f"- {escaped(line)}" for line in kept), ""]
    return "\n".join(lines)


def _explained(conclusions: Sequence[Conclusion]) -> list[str]:
    """Why each verdict that value and bar alone do not explain."""
    found = [
        c for c in conclusions if c.verdict in EXPLAINED or "demonstration" in c.finding.beside
    ]
    if not found:
        return []
    return ["", "## Why", ""] + [
        f"- `{c.finding.name}`, {c.verdict.value}: {escaped(c.why)}" for c in found
    ]


def _departures(conclusions: Sequence[Conclusion]) -> list[str]:
    """How the models and dictionaries were made otherwise than the paper's, and which verdicts
    rest on that."""
    rests: dict[str, list[str]] = {}
    for conclusion in conclusions:
        for text in conclusion.finding.departures:
            rests.setdefault(text, []).append(conclusion.finding.name)
    if not rests:
        return []
    lines = ["", "## Departures from the paper's protocol", ""]
    for text, names in rests.items():
        families = Counter(name.split(".")[0] for name in names)
        listed = ", ".join(f"{family} {n}" for family, n in families.items())
        lines.append(f"- {escaped(text)} ({len(names)} verdicts: {listed})")
    return lines


def _unwritten(conclusions: Sequence[Conclusion]) -> list[str]:
    """Registered claims without a test: one line a family, each claim with its scales."""
    families: dict[str, dict[str, list[str]]] = {}
    for conclusion in conclusions:
        if conclusion.verdict is Verdict.NOT_WRITTEN:
            claim = conclusion.finding.claim
            scales = families.setdefault(claim.split(".")[0], {}).setdefault(claim, [])
            scales.append(conclusion.finding.scale)
    if not families:
        return []
    return ["", "## Not written: registered, no test yet", ""] + [
        f"- {family}: " + ", ".join(f"`{claim}[{','.join(at)}]`" for claim, at in claims.items())
        for family, claims in families.items()
    ]


def _amendments(conclusions: Sequence[Conclusion], registration: Registration) -> list[str]:
    """What was amended of the claims that are shown, when and why."""
    shown = {conclusion.finding.claim for conclusion in conclusions}
    found = [made for made in registration.amendments if made.claim in shown]
    if not found:
        return []
    lines = ["", "## Amendments", ""]
    if any(made.claim in registration.measured_as_before for made in found):
        lines += [f"{BEFORE} still judged by the measure before the amendment.", ""]
    for made in found:
        mark = before_mark(made.claim, registration)
        lines.append(
            f"- `{made.claim}`{mark}, {made.date}: {escaped(made.describe())}. "
            f"{escaped(made.reason)}"
        )
    return lines


def _measured(conclusion: Conclusion, registration: Registration) -> str:
    finding = conclusion.finding
    if finding.measured is None:
        return finding.why.splitlines()[0] if finding.why else ""
    show = registration.claim(finding.claim).bar.show
    text = show(finding.measured)
    if finding.interval is not None:
        text += f" ({show_interval(finding.interval)})"
    if finding.checked > 1:
        text += f", worst of {finding.checked}: {place(finding.label)}"
    return text


def _verdict(
    conclusion: Conclusion, registration: Registration, gathered: Gathered
) -> dict[str, Any]:
    finding = conclusion.finding
    claim = registration.claim(finding.claim)
    return {
        **finding.to_json(),
        "verdict": conclusion.verdict.value,
        "verdict_why": conclusion.why,
        "status": claim.status,
        "section": claim.section,
        "says": claim.says,
        "measures": claim.measures,
        "over": claim.over,
        "paper": claim.paper,
        "bar": claim.bar.to_json(),
        "registered": claim.registered or registration.registered,
        "registered_after": claim.registered_after,
        "amendments": [made.to_json() for made in registration.amendments_of(claim.id)],
        "measured_as_before": claim.id in registration.measured_as_before,
        "values": list(gathered.values.get(finding.key, ())),
        **({"tables": dict(tables)} if (tables := gathered.tables.get(finding.key)) else {}),
        "controls": [
            {
                "claim": control.claim,
                "scale": control.scale,
                "outcome": control.outcome.value if control.outcome is not None else None,
                "from_ledger": control.from_ledger,
            }
            for control in conclusion.controls
        ],
    }
