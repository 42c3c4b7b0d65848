"""The closing table of a run, as plain text that fits a terminal's columns, with styles for it."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from polyrot.judge.registration import STATUSES, Registration
from polyrot.judge.verdicts import JUDGED, Conclusion, ControlFinding, Verdict
from polyrot.report.said import STATUS_WORDS, section_words

WIDTH = 120
NARROWEST, WIDEST = 60, 160
"""Between which the table follows the terminal."""
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
DROPPED = ("paper", "ceiling", "control")
"""Columns that a table too narrow for all leaves out, in this order; the report has them."""
LEAST_PAPER = 16
"""Columns below which a published figure is cut so short that it says nothing."""
NAME = 32
"""Columns of a claim's name in a table that has not room for the longest; a longer name has a line
of its own, so that it can be copied whole."""
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


def render(
    conclusions: Sequence[Conclusion],
    registration: Registration,
    width: int = WIDTH,
    tests: Mapping[str, str] | None = None,
) -> list[Line]:
    """Judged claims in rows by family, the others named in one line per family and reason, in lines
    of at most `width` columns. tests: claim id -> node id; each claim then has that of its test
    below it, to be copied. An id longer than `width` is not broken."""
    judged = [c for c in conclusions if c.verdict not in (Verdict.NOT_RUN, Verdict.NOT_WRITTEN)]
    rows = [_cells(conclusion, registration) for conclusion in judged]
    layout = _Layout.of(rows, width)
    lines: list[Line] = []
    if rows:
        lines.append([(layout.row(HEADINGS), "bold")])
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
        where = section_words(registration.claim(c.finding.claim).section for c in members)
        heading = wrapped(f"{family} ({where})", indent="", width=width)
        lines += [[(text, "bold")] for text in heading]
        for i, (conclusion, cells) in enumerate(zip(judged, rows, strict=True)):
            if conclusion not in members:
                continue
            id = conclusion.finding.claim
            if len(cells[0]) > layout.widths[0]:
                if not i or judged[i - 1].finding.claim != id:
                    lines.append([(cells[0], "")])
                cells = ("", *cells[1:])
            row = layout.row((*cells[:-1], ""))
            before = row.ljust(layout.before_verdict)
            lines.append([(before, ""), (cells[-1], STYLES.get(conclusion.verdict, ""))])
            last = i + 1 == len(judged) or judged[i + 1].finding.claim != id
            if tests is not None and id in tests and last:
                lines.append([(GAP + GAP + tests[id], "")])
        lines += [[(text, "")] for text in _unjudged(members, width)]
    if rows and layout.dropped:
        text = f"no room here for {', '.join(layout.dropped)}: COLUMNS={WIDEST}, or --report DIR"
        lines += [[(line, "")] for line in wrapped(text, indent="", width=width)]
    lines += [[(text, "")] for text in _notes(conclusions, registration, width)]
    lines += [[(text, "")] for text in _unwritten(unwritten, width)]
    return lines


def sentences(conclusions: Iterable[Conclusion], registration: Registration) -> list[str]:
    """ "core claims: 9 held, 5 refuted (of 14, by claim and scale)", one per status."""
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
            of = f"of {len(members)}, by claim and scale"
            texts.append(f"{STATUS_WORDS[status][1]}: {', '.join(parts)} ({of})")
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


@dataclass(frozen=True)
class _Layout:
    """How wide each column of `HEADINGS` is, 0 for one that there is no room for."""

    widths: tuple[int, ...]

    @property
    def dropped(self) -> list[str]:
        """Columns that there is no room for."""
        return [name for name in DROPPED if not self.widths[HEADINGS.index(name)]]

    @classmethod
    def of(cls, rows: Sequence[Sequence[str]], width: int) -> _Layout:
        """The widest that fits `width` columns; a name is not given more than it needs."""
        full = {
            name: max(map(len, column))
            for name, column in zip(HEADINGS, zip(HEADINGS, *rows, strict=True), strict=True)
        }
        needs = dict(full)
        needs["paper"] = min(full["paper"], LEAST_PAPER)
        if _room(needs, width) < 0:
            needs["claim"] = min(needs["claim"], NAME)
        for name in DROPPED:
            if _room(needs, width) < 0:
                needs[name] = 0
        needs["claim"] = max(needs["claim"] + min(_room(needs, width), 0), len(HEADINGS[0]))
        for name in ("claim", "paper"):
            if needs[name]:
                more = full[name] - needs[name]
                needs[name] += min(max(_room(needs, width), 0), more)
        return cls(tuple(needs[name] for name in HEADINGS))

    @property
    def before_verdict(self) -> int:
        """Columns in front of the last one."""
        return sum(width + len(GAP) for width in self.widths[:-1] if width)

    def row(self, cells: Sequence[str]) -> str:
        """The cells of the columns that there is room for, in line."""
        return GAP.join(
            shorten(cell, width).ljust(width)
            for cell, width in zip(cells, self.widths, strict=True)
            if width
        ).rstrip()


def _room(needs: Mapping[str, int], width: int) -> int:
    """Columns that are left over; below 0 there are too few."""
    shown = [n for n in needs.values() if n]
    return width - sum(shown) - len(GAP) * (len(shown) - 1)


def shorten(text: str, width: int) -> str:
    """`text`, cut to `width` with an ellipsis."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _unjudged(members: Iterable[Conclusion], width: int) -> list[str]:
    """Not run: every claim named with its scales, in one paragraph per reason."""
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
        texts += wrapped(f"{reason}: {listed}", width=width)
    return texts


def before_mark(claim: str, registration: Registration) -> str:
    """ " †" for a claim that is still judged by the measure before its amendment, else ""."""
    return f" {BEFORE}" if claim in registration.measured_as_before else ""


def _unwritten(members: Sequence[Conclusion], width: int) -> list[str]:
    """How many registered claims have no test yet, by family; their names are in the report."""
    if not members:
        return []
    claims = dict.fromkeys(conclusion.finding.claim for conclusion in members)
    counts = Counter(claim.split(".")[0] for claim in claims)
    listed = ", ".join(f"{family} {n}" for family, n in counts.items())
    text = (
        f"not written: {len(claims)} registered claim{'' if len(claims) == 1 else 's'} without "
        f"a test ({len(members)}, by claim and scale), named in the report (--report DIR): {listed}"
    )
    return wrapped(text, indent="", width=width)


def _notes(conclusions: Sequence[Conclusion], registration: Registration, width: int) -> list[str]:
    texts = []
    for conclusion in conclusions:
        if conclusion.verdict in EXPLAINED or "demonstration" in conclusion.finding.beside:
            name = f"{conclusion.verdict.value}: {conclusion.finding.name}"
            texts += wrapped(f"{name}: {conclusion.why}", indent="", width=width)
    if any(control.from_ledger for c in conclusions for control in c.controls):
        texts.append("* a control that did not run this time, as the ledger has it")
    if any(before_mark(c.finding.claim, registration) for c in conclusions if c.finding.judged):
        texts.append(f"{BEFORE} amended, and still judged by the measure before the amendment")
    return texts


def wrapped(text: str, indent: str = GAP, width: int = WIDTH) -> list[str]:
    """`text` in lines of at most `width`, indented, continuations more so."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent + GAP,
        break_long_words=False,
        break_on_hyphens=False,
    )
