"""The closing table of a run, as plain text of at most 120 columns with styles for a terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

from polyrot.judge.registration import STATUSES, Registration
from polyrot.judge.verdicts import JUDGED, Conclusion, ControlFinding, Verdict

WIDTH = 120
HEADINGS = ("claim", "scale", "measured", "bar", "ceiling", "paper", "control", "verdict")
STYLES = {
    Verdict.HELD: "green",
    Verdict.REFUTED: "red",
    Verdict.UNDECIDED: "yellow",
    Verdict.NOT_DIAGNOSTIC: "yellow",
    Verdict.OUT_OF_REACH: "yellow",
    Verdict.ERROR: "red",
}
CONTROL_WORDS = {Verdict.HELD: "control holds", Verdict.REFUTED: "control fails"}
"""Of the control's own bar: what its null does differs from control to control."""
COUNTED = {Verdict.HELD: ("holds", "hold"), Verdict.REFUTED: ("fails", "fail")}
EXPLAINED = (
    Verdict.UNDECIDED,
    Verdict.NOT_DIAGNOSTIC,
    Verdict.OUT_OF_REACH,
    Verdict.ERROR,
)
"""Verdicts whose reason is told under the table: it is not read off value and bar."""
GAP = "  "
BEFORE = "†"
"""Marks a claim that is still judged by the measure before its amendment."""

Segment = tuple[str, str]  # text, and the name of a terminal style or ""
Line = list[Segment]


def words(conclusion: Conclusion, registration: Registration) -> str:
    """The verdict in words; a control holds or fails."""
    if registration.claim(conclusion.finding.claim).is_control:
        return CONTROL_WORDS.get(conclusion.verdict, conclusion.verdict.value)
    return conclusion.verdict.value


def control_words(controls: Sequence[ControlFinding]) -> str:
    """ "control holds", "2 of 3 fail", "1 of 3 not run"; "" if there are no controls. The worst of
    them speaks: failing before out of reach, undecided, and not run."""
    if not controls:
        return ""
    total = len(controls)
    source = " *" if any(control.from_ledger for control in controls) else ""
    judged = {c.outcome for c in controls} & set(JUDGED)
    for outcome, one, some in (
        (Verdict.REFUTED, "control fails", "fail"),
        (Verdict.OUT_OF_REACH, "out of reach", "out of reach"),
        (Verdict.UNDECIDED, "undecided", "undecided"),
    ):
        if outcome in judged:
            n = sum(control.outcome is outcome for control in controls)
            return (one if total == 1 else f"{n} of {total} {some}") + source
    unknown = sum(control.outcome not in JUDGED for control in controls)
    if unknown:
        return ("not run" if total == 1 else f"{unknown} of {total} not run") + source
    return ("control holds" if total == 1 else f"{total} controls hold") + source


def render(conclusions: Sequence[Conclusion], registration: Registration) -> list[Line]:
    """Judged claims in rows by family, the others named in one line per family and reason."""
    judged = [c for c in conclusions if c.verdict not in (Verdict.NOT_RUN, Verdict.NOT_WRITTEN)]
    rows = [_cells(conclusion, registration) for conclusion in judged]
    widths = _widths(rows)
    lines: list[Line] = []
    if rows:
        lines.append([(_row(HEADINGS, widths), "bold")])
    unwritten = [c for c in conclusions if c.verdict is Verdict.NOT_WRITTEN]
    families = dict.fromkeys(
        registration.claim(c.finding.claim).family for c in conclusions if c not in unwritten
    )
    for family in families:
        members = [
            c
            for c in conclusions
            if c.finding.claim.split(".")[0] == family and c.verdict is not Verdict.NOT_WRITTEN
        ]
        sections = dict.fromkeys(
            section
            for c in members
            for section in registration.claim(c.finding.claim).section.split(", ")
        )
        lines.append([(f"{family} (section {', '.join(sections)})", "bold")])
        for conclusion, cells in zip(judged, rows, strict=True):
            if conclusion in members:
                row = _row((*cells[:-1], ""), widths).rstrip()
                before = row.ljust(sum(widths[:-1]) + len(GAP) * (len(widths) - 1))
                lines.append([(before, ""), (cells[-1], STYLES.get(conclusion.verdict, ""))])
        lines += [[(text, "")] for text in _unjudged(members)]
    lines += [[(text, "")] for text in _notes(conclusions, registration)]
    lines += [[(text, "")] for text in _unwritten(unwritten)]
    return lines


def sentences(conclusions: Iterable[Conclusion], registration: Registration) -> list[str]:
    """ "core claims: 9 held, 5 refuted (of 14 claim-scale pairs)", one per status."""
    texts = []
    by_status: dict[str, list[Conclusion]] = {status: [] for status in STATUSES}
    for conclusion in conclusions:
        by_status[registration.claim(conclusion.finding.claim).status].append(conclusion)
    for status, members in by_status.items():
        if members:
            counts = Counter(c.verdict for c in members)
            parts = [
                f"{counts[verdict]} {_counted(status, verdict, counts[verdict])}"
                for verdict in Verdict
                if counts[verdict]
            ]
            name = "controls" if status == "control" else f"{status} claims"
            if status == "prediction":
                name = "predictions"
            texts.append(f"{name}: {', '.join(parts)} (of {len(members)} claim-scale pairs)")
    return texts


def _counted(status: str, verdict: Verdict, count: int) -> str:
    if status == "control" and verdict in COUNTED:
        return COUNTED[verdict][count != 1]
    return verdict.value


def _cells(conclusion: Conclusion, registration: Registration) -> tuple[str, ...]:
    finding = conclusion.finding
    claim = registration.claim(finding.claim)
    return (
        GAP + finding.claim.split(".", 1)[1] + before_mark(finding.claim, registration),
        finding.scale,
        claim.bar.show(finding.measured) if finding.measured is not None else "-",
        claim.bar.describe(),
        claim.bar.show(finding.ceiling) if finding.ceiling is not None else "-",
        claim.paper or "-",
        control_words(conclusion.controls) or "-",
        words(conclusion, registration),
    )


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    paper = HEADINGS.index("paper")
    others = sum(widths) - widths[paper] + len(GAP) * (len(widths) - 1)
    widths[paper] = min(widths[paper], max(WIDTH - others, len("paper")))
    return widths


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(
        shorten(cell, width).ljust(width) for cell, width in zip(cells, widths, strict=True)
    ).rstrip()


def shorten(text: str, width: int) -> str:
    """`text`, cut to `width` with an ellipsis."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _unjudged(members: Iterable[Conclusion]) -> list[str]:
    """Not run: every pair named, in one paragraph per reason."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for conclusion in members:
        finding = conclusion.finding
        if conclusion.verdict is Verdict.NOT_RUN:
            command = f"; to run: {finding.command}" if finding.command else ""
            reason = f"not run ({finding.why}{command})"
        else:
            continue
        names = reasons.setdefault(reason, {})
        names.setdefault(finding.claim.split(".", 1)[1], []).append(finding.scale)
    texts = []
    for reason, names in reasons.items():
        listed = ", ".join(f"{name}[{','.join(scales)}]" for name, scales in names.items())
        texts += wrapped(f"{reason}: {listed}")
    return texts


def before_mark(claim: str, registration: Registration) -> str:
    """ " †" for a claim that is still judged by the measure before its amendment, else ""."""
    return f" {BEFORE}" if claim in registration.measured_as_before else ""


def _unwritten(members: Sequence[Conclusion]) -> list[str]:
    """How many registered claims have no test yet, by family; their names are in the report."""
    if not members:
        return []
    claims = dict.fromkeys(conclusion.finding.claim for conclusion in members)
    counts = Counter(claim.split(".")[0] for claim in claims)
    listed = ", ".join(f"{family} {n}" for family, n in counts.items())
    text = (
        f"not written: {len(claims)} registered claim{'' if len(claims) == 1 else 's'} without "
        f"a test ({len(members)} claim-scale pairs), named in the report (--report DIR): {listed}"
    )
    return wrapped(text, indent="")


def _notes(conclusions: Sequence[Conclusion], registration: Registration) -> list[str]:
    texts = []
    for conclusion in conclusions:
        if conclusion.verdict in EXPLAINED or "demonstration" in conclusion.finding.beside:
            name = f"{conclusion.verdict.value}: {conclusion.finding.name}"
            texts += wrapped(f"{name}: {conclusion.why}", indent="")
    if any(control.from_ledger for c in conclusions for control in c.controls):
        texts.append("* a control that did not run this time, as the ledger has it")
    if any(before_mark(c.finding.claim, registration) for c in conclusions if c.finding.judged):
        texts.append(f"{BEFORE} amended, and still judged by the measure before the amendment")
    return texts


def wrapped(text: str, indent: str = GAP) -> list[str]:
    """`text` in lines of at most WIDTH, indented, continuations more so."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + GAP,
        break_long_words=False,
        break_on_hyphens=False,
    )
