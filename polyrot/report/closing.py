"""What a finished run amounts to: conclusions, the ledger rewritten, the record written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyrot.judge.bar import Bar
from polyrot.judge.ledger import Ledger
from polyrot.judge.registration import Registration
from polyrot.judge.verdicts import NOT_HELD, Conclusion, Finding, Verdict, conclude
from polyrot.report import records
from polyrot.report.gathered import Gathered
from polyrot.report.record import markdown, run_record, write_record
from polyrot.report.table import WIDTH, wrapped


@dataclass(frozen=True)
class Closing:
    """The conclusions of a run, lines on what it changed and wrote, and whether it could write
    everything that was asked for."""

    conclusions: tuple[Conclusion, ...]
    messages: tuple[str, ...]
    all_written: bool
    changed: int = 0
    new: int = 0
    rewritten: bool = False
    controls: frozenset[str] = frozenset()
    """Ids of controls, which fail where a claim is refuted."""

    @property
    def without_a_test(self) -> bool:
        """Whether a registered claim has no test, so that a whole run says too little."""
        return any(c.verdict is Verdict.NOT_WRITTEN for c in self.conclusions)

    def last_line(self, exit_status: int) -> str:
        """What the run amounts to, in one sentence, and what its exit status says.

        "As recorded in claims/verdicts.toml: 12 held, 17 refuted, 1 control fails, 2 not run; 0
        verdicts changed, so exit status 0. ..."
        """
        counts = Counter(c.verdict for c in self.conclusions)
        refuted = [c.finding.claim for c in self.conclusions if c.verdict is Verdict.REFUTED]
        failed = sum(claim in self.controls for claim in refuted)
        said = {v: f"{counts[v]} {v.value}" for v in Verdict if counts[v]}
        said.pop(Verdict.NOT_WRITTEN, None)
        not_run = said.pop(Verdict.NOT_RUN, None)
        if failed:
            fail = f"{failed} control{' fails' if failed == 1 else 's fail'}"
            others = len(refuted) - failed
            said[Verdict.REFUTED] = f"{others} refuted, {fail}" if others else fail
        found = ", ".join(said.values()) or "nothing judged"
        found += f", {not_run}" if not_run else ""
        state = "NOT as recorded in" if self.changed else "As recorded in"
        if self.rewritten:
            state = "Recorded now in"
        if counts[Verdict.NOT_WRITTEN]:
            found += f", {counts[Verdict.NOT_WRITTEN]} without a test, which is an error"
        changes = f"{self.changed} verdict{'' if self.changed == 1 else 's'} changed"
        changes += f", {self.new} not in it yet" if self.new else ""
        expected = exit_status == 0 or self.changed or self.new or self.without_a_test
        so = "so exit status" if expected else "but something else failed: exit status"
        text = f"{state} claims/verdicts.toml: {found}; {changes}, {so} {exit_status}."
        if any(counts[verdict] for verdict in NOT_HELD):
            text += " `--runxfail` fails on every claim that did not hold."
        return text


def close_run(
    findings: Sequence[Finding],
    registration: Registration,
    ledger: Ledger,
    run: Mapping[str, Any],
    *,
    rewrite_ledger: Path | None = None,
    report: Path | None = None,
    gathered: Gathered | None = None,
    width: int = WIDTH,
) -> Closing:
    """Conclude; with `rewrite_ledger` save the updated ledger there, with `report` write record,
    and with `gathered` page and figures too, into that folder. `run` is the provenance as in
    `run_record`; what changed and what was amended is said in lines of `width` columns. What cannot
    be written is named in the messages: no error costs the conclusions.
    """
    conclusions = conclude(findings, registration, ledger.findings())
    changes, new = ledger.changes(conclusions), ledger.lacks(conclusions)
    messages = _amendments(conclusions, registration, width)
    unwritten = []
    lines = [*changes, *([f"{new} verdicts that were not in it"] if new else [])]
    heading = "not as the ledger has it (--update-verdicts rewrites it):" if lines else ""
    if rewrite_ledger is not None:
        where = {key: run[key] for key in ("device", "date", "commit")}
        try:
            ledger.updated(conclusions, registration, **where).save(rewrite_ledger, registration)
            heading = f"ledger rewritten{', changed:' if lines else ', nothing changed'}"
        except OSError as error:
            unwritten.append(f"NOT rewritten: the ledger {rewrite_ledger}: {error}")
    messages += [heading] if heading else []
    for line in lines:
        messages += wrapped(line, width=width)
    if rewrite_ledger is not None and run["commit"].endswith("-dirty"):
        messages.append(
            f"warning: the ledger names commit {run['commit']}, which nobody can check out: "
            "commit first, then run again"
        )
    if report is not None:
        try:
            record = run_record(conclusions, registration, run, gathered)
            text = markdown(conclusions, registration, run, records.lines())
            write_record(report, record, text)
            messages.append(f"report written to {report}")
        except OSError as error:
            unwritten.append(f"NOT written, or not whole: the report in {report}: {error}")
        else:
            if gathered is not None:
                try:
                    messages += _page(report, record, gathered)
                except Exception as error:  # a page must not cost the conclusions
                    unwritten.append(
                        f"NOT written: the page in {report}: {type(error).__name__}: {error}"
                    )
    return Closing(
        tuple(conclusions),
        (*messages, *unwritten),
        not unwritten,
        changed=len(changes),
        new=new,
        rewritten=rewrite_ledger is not None and not unwritten,
        controls=frozenset(c.id for c in registration.claims if c.status == "control"),
    )


def _amendments(
    conclusions: Sequence[Conclusion], registration: Registration, width: int
) -> list[str]:
    """Which bars of claims in this run were amended, when and why; of other amendments, which the
    report has in full, how many."""
    shown = {conclusion.finding.claim for conclusion in conclusions if conclusion.finding.judged}
    lines, others = [], 0
    for made in registration.amendments:
        if made.claim not in shown:
            continue
        bars = [change.new for change in made.changes if isinstance(change.new, Bar)]
        others += not bars
        for bar in bars:
            text = f"bar of {made.claim} amended on {made.date}: {bar.describe()}; {made.reason}"
            lines += wrapped(text, "", width)
    if others:
        plural = "" if others == 1 else "s"
        lines += wrapped(
            f"{others} amendment{plural} of what is measured, over what, or what controls what; "
            "--report DIR has each with its reason",
            "",
            width,
        )
    return lines


def _page(folder: Path, record: Mapping[str, Any], gathered: Gathered) -> list[str]:
    """Why figures of the page were left out, a line each."""
    from polyrot.report.html import write_page

    failures = write_page(folder, record, gathered.figures, gathered.failures)
    return [f"figure left out: {text}" for text in failures]


def missing(
    findings: Collection[tuple[str, str]],
    registration: Registration,
    scales: Sequence[str],
    written: Collection[str],
) -> list[Finding]:
    """What a whole run owes beyond the `findings` it has; `written` are the claims with a test."""
    owed = []
    for claim, scale in registration.pairs(scales):
        if (claim.id, scale) in findings:
            continue
        if claim.id in written:
            why = "the run stopped before it"
            owed.append(Finding(claim.id, scale, Verdict.NOT_RUN, why))
        else:
            owed.append(Finding(claim.id, scale, Verdict.NOT_WRITTEN, ""))
    return owed
