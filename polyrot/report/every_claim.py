"""claims/VERDICTS.md: every registered claim with all that the ledger knows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polyrot.judge.ledger import Ledger
from polyrot.judge.registration import DEFAULT_SCALES, Claim, Registration
from polyrot.judge.verdicts import Conclusion, Finding, Verdict, conclude, place, show_interval
from polyrot.report.conclusion import three_sentences
from polyrot.report.markdown import escaped, row
from polyrot.report.said import STATUS_WORDS, section_words
from polyrot.report.table import (
    BEFORE,
    EXPLAINED,
    before_mark,
    control_words,
    sentences,
    words,
)

INTRODUCTION = """\
# Every claim and its verdicts

Made from [preregistration.toml](preregistration.toml) and [verdicts.toml](verdicts.toml) by
`python -m polyrot.report readme`; nothing here is written by hand. What the verdict words mean is
in the [README](../README.md#verdict-words) and, at length, in [LIMITS.md](LIMITS.md).

A *ceiling* is what the same code gives for a perfect sibling. *Controls* are nulls that must not
pass: where one fails, the claim proves nothing. "seeds 0 -> 3" is the anchor, seed 0, and its
sibling, seed 3. Sections say of which text they are, the post or the paper.
"""
CELLS = ("scale", "measured (95 %)", "ceiling", "controls", "verdict")


def of_ledger(ledger: Ledger, registration: Registration) -> list[Conclusion]:
    """Everything that the ledger concludes, with figures and controls."""
    findings = [
        Finding(
            id,
            scale,
            entry.outcome,
            entry.why,
            entry.measured,
            entry.label,
            interval=entry.interval,
            ceiling=entry.ceiling,
            n=entry.n,
            checked=entry.checked,
            beside=entry.beside,
        )
        for (id, scale), entry in ledger.entries.items()
    ]
    return conclude(findings, registration)


def markdown(ledger: Ledger, registration: Registration, tests: Mapping[str, str]) -> str:
    """The whole file. tests: claim id -> node id of the test that judges it."""
    conclusions = of_ledger(ledger, registration)
    found: dict[str, list[Conclusion]] = {}
    for conclusion in conclusions:
        found.setdefault(conclusion.finding.claim, []).append(conclusion)
    families = dict.fromkeys(claim.family for claim in registration.claims)
    parts = [
        INTRODUCTION,
        "\n".join(f"- {escaped(text)}" for text in sentences(conclusions, registration)),
        "\n\n".join(escaped(text) for text in three_sentences(conclusions, registration)),
        "Families: " + ", ".join(f"[{family}](#{family})" for family in families),
    ]
    if registration.measured_as_before:
        parts.append(f"{BEFORE} amended, and still judged by the measure before the amendment")
    for family in families:
        parts.append(f"## {family}")
        parts += [
            _claim(claim, found.get(claim.id, []), registration, tests)
            for claim in registration.claims
            if claim.family == family
        ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _claim(
    claim: Claim,
    conclusions: Sequence[Conclusion],
    registration: Registration,
    tests: Mapping[str, str],
) -> str:
    """One claim: what it says, how it is judged, and what came of it at each scale."""
    over = f", over {escaped(claim.over)}" if claim.over else ""
    lines = [
        f"### {claim.id}{before_mark(claim.id, registration)}",
        "",
        f"> {escaped(claim.says)}",
        "",
        f"- {_status(claim)}; {escaped(section_words([claim.section]))}; registered "
        f"{claim.registered or registration.registered}",
        f"- measured: {escaped(claim.measures)}{over}",
        f"- bar: {escaped(claim.bar.describe())}",
    ]
    if claim.paper:
        lines.append(f"- paper: {escaped(claim.paper)}")
    if claim.registered_after:
        lines.append(f"- registered after having seen: {escaped(claim.registered_after)}")
    controls = [c.id for c in registration.claims if claim.id in c.controls]
    if controls:
        lines.append(f"- controlled by {_linked(controls)}")
    if claim.controls:
        lines.append(f"- a control of {_linked(claim.controls)}")
    for made in registration.amendments_of(claim.id):
        lines.append(
            f"- amended on {made.date}: {escaped(made.describe())}. {escaped(made.reason)}"
        )
    if claim.id in tests:
        lines.append(f"- judged alone by `pytest {tests[claim.id]}{_asked_for(claim)}`")
    judged = [c for c in conclusions if c.finding.measured is not None]
    if judged:
        lines += ["", row(CELLS), "|---" * len(CELLS) + "|"]
        lines += [_row(conclusion, registration) for conclusion in judged]
    for conclusion in judged:
        if conclusion.verdict in EXPLAINED and conclusion.verdict is not Verdict.UNDECIDED:
            why = f"{conclusion.finding.scale}, {words(conclusion, registration)}: {conclusion.why}"
            lines += ["", escaped(why)]
    seen = {c.finding.scale for c in judged}
    rest = [scale for scale in claim.scales if scale not in seen]
    if rest:
        reasons = {c.finding.scale: c.finding.why for c in conclusions}
        known = [f"{scale} ({escaped(reasons[scale])})" for scale in rest if reasons.get(scale)]
        others = [scale for scale in rest if not reasons.get(scale)]
        lines += ["", f"Not run: {', '.join([*known, *others])}."]
    return "\n".join(lines)


def _asked_for(claim: Claim) -> str:
    """What the command of a claim needs where none of its scales is judged by default."""
    if set(claim.scales) & set(DEFAULT_SCALES):
        return ""
    return " --pair A B --text corpus.txt" if "pair" in claim.scales else " --scale pythia"


def _status(claim: Claim) -> str:
    return STATUS_WORDS[claim.status][0]


def _linked(ids: Sequence[str]) -> str:
    return ", ".join(f"[`{id}`](#{anchor(id)})" for id in ids)


def anchor(id: str) -> str:
    """The fragment that a renderer of Markdown makes of a claim's heading.

    >>> anchor("haar.battery")
    'haarbattery'
    """
    return id.replace(".", "").lower()


def _row(conclusion: Conclusion, registration: Registration) -> str:
    finding = conclusion.finding
    show = registration.claim(finding.claim).bar.show
    assert finding.measured is not None  # only such are given rows
    measured = show(finding.measured)
    if finding.interval is not None:
        measured += f" ({show_interval(finding.interval)})"
    if finding.label:
        worst = f"worst of {finding.checked}: " if finding.checked > 1 else ""
        measured += f", {worst}{place(finding.label)}"
    verdict = words(conclusion, registration)
    return row(
        (
            finding.scale,
            escaped(measured),
            "" if finding.ceiling is None else show(finding.ceiling),
            control_words(conclusion.controls),
            verdict if conclusion.verdict is Verdict.HELD else f"**{verdict}**",
        )
    )
