"""The README's account of what the suite concludes, made from the ledger and from nothing else, and
its list of departures from the paper's protocol, made from the schedules of what is shipped.

`python -m polyrot.report readme` writes each between two markers; a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from polyrot.cohorts.departures import of_bar_b
from polyrot.defaults import POSITIONS
from polyrot.judge.ledger import Entry, Ledger
from polyrot.judge.registration import SCALES, Claim, Registration
from polyrot.judge.verdicts import Conclusion, Finding, Verdict
from polyrot.report.conclusion import three_sentences
from polyrot.report.markdown import escaped, row
from polyrot.report.table import BEFORE, CONTROL_WORDS, before_mark
from polyrot.runtime.files import write_atomically
from polyrot.store import Runtime, Store
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop

BEGIN = "<!-- made from claims/verdicts.toml by `python -m polyrot.report readme`: begin -->"
END = "<!-- made from claims/verdicts.toml: end -->"
BEGIN_DEPARTURES = "<!-- made from the schedules by `python -m polyrot.report readme`: begin -->"
END_DEPARTURES = "<!-- made from the schedules: end -->"
SCHEDULE = "shipped"
HEADINGS = {
    "core": "The paper's core claims",
    "sharp": "Stricter forms of them",
    "prediction": "Its predictions",
    "control": "Controls: where one fails, what it controls proves nothing",
}
"""By status; what is merely supporting is left to the report."""


def account(ledger: Ledger, registration: Registration) -> str:
    """Three sentences, and a table of verdicts by status: Markdown."""
    conclusions = [
        Conclusion(
            Finding(
                id,
                scale,
                entry.outcome,
                entry.why,
                entry.measured,
                entry.label,
                beside=entry.beside,
            ),
            entry.verdict,
        )
        for (id, scale), entry in ledger.entries.items()
    ]
    parts = [" ".join(three_sentences(conclusions, registration))]
    for status, heading in HEADINGS.items():
        rows = [
            row
            for claim in registration.claims
            if claim.status == status
            for row in _rows(claim, ledger.entries, before_mark(claim.id, registration))
        ]
        if rows:
            head = [
                "| claim | scale | measured | bar | paper | verdict |",
                "|---|---|---|---|---|---|",
            ]
            title = f"<details{' open' if status == 'core' else ''}>\n<summary>{heading}</summary>"
            parts.append("\n".join([title, "", *head, *rows, "", "</details>"]))
    if any(BEFORE in part for part in parts):
        parts.append(f"{BEFORE} amended, and still judged by the measure before the amendment")
    return "\n\n".join(parts)


def _rows(claim: Claim, entries: Mapping[tuple[str, str], Entry], mark: str) -> list[str]:
    """One line for each scale that was judged; claims are named by their ids, with `mark`."""
    rows = []
    for scale in SCALES:
        entry = entries.get((claim.id, scale))
        if entry is None or entry.measured is None:
            continue
        verdict = entry.verdict.value
        if claim.is_control:
            verdict = CONTROL_WORDS.get(entry.verdict, verdict)
        elif entry.verdict is not Verdict.HELD:
            verdict = f"**{verdict}**"
        cells = (
            f"`{claim.id}`{mark}",
            scale,
            claim.bar.show(entry.measured),
            escaped(claim.bar.describe()),
            escaped(claim.paper),
            verdict,
        )
        rows.append(row(cells))
    return rows


def departures(shipped: Path) -> str:
    """How what lies in the directory `shipped` was made otherwise than the paper says: a Markdown
    list, by the schedules and by what the trained seeds say of their making."""
    with TemporaryDirectory() as nothing:
        store = Store(Path(nothing), shipped=shipped)
        made = Workshop(Runtime(store), PROFILES[SCHEDULE]).departures
    return "\n".join(f"- {text}" for text in (*made, *of_bar_b(POSITIONS)))


def filled(readme: str, text: str, markers: tuple[str, str] = (BEGIN, END)) -> str:
    """`readme` with `text` between the markers. Raises ValueError where they are not there."""
    head, begin, rest = readme.partition(markers[0])
    _, end, tail = rest.partition(markers[1])
    if not begin or not end:
        raise ValueError(f"the README has lost a marker: {markers[0]} ... {markers[1]}")
    return f"{head}{begin}\n\n{text}\n\n{end}{tail}"


def write(root: Path) -> Path:
    """Fill the README of the repository at `root` from its ledger and what it ships."""
    registration = Registration.load(root / "claims" / "preregistration.toml")
    ledger = Ledger.load(root / "claims" / "verdicts.toml", registration)
    readme = root / "README.md"
    try:
        before = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{readme} cannot be read: {error.strerror or error}") from error
    text = filled(before, account(ledger, registration))
    listed = departures(root / "fixtures" / "shipped")
    text = filled(text, listed, (BEGIN_DEPARTURES, END_DEPARTURES))
    write_atomically(readme, text)
    return readme
