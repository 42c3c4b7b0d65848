"""The README's account of what the suite concludes, made from the ledger and from nothing else.

`python -m polyrot.report readme` writes it between two markers; a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from polyrot.judge.ledger import Entry, Ledger
from polyrot.judge.registration import SCALES, Claim, Registration
from polyrot.judge.verdicts import Conclusion, Finding, Verdict
from polyrot.report.conclusion import three_sentences
from polyrot.report.table import BEFORE, CONTROL_WORDS, before_mark
from polyrot.runtime.files import write_atomically

BEGIN = "<!-- made from claims/verdicts.toml by `python -m polyrot.report readme`: begin -->"
END = "<!-- made from claims/verdicts.toml: end -->"
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
            claim.bar.describe(),
            claim.paper,
            verdict,
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def filled(readme: str, text: str) -> str:
    """`readme` with `text` between the markers. Raises ValueError where they are not there."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README has lost a marker: {BEGIN} ... {END}")
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


def write(root: Path) -> Path:
    """Fill the README of the repository at `root` from its ledger."""
    registration = Registration.load(root / "claims" / "preregistration.toml")
    ledger = Ledger.load(root / "claims" / "verdicts.toml", registration)
    readme = root / "README.md"
    text = filled(readme.read_text(encoding="utf-8"), account(ledger, registration))
    write_atomically(readme, text)
    return readme
