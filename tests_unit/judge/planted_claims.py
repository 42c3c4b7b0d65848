"""Planted claims, and what a run found of them."""

from __future__ import annotations

from polyrot.judge.bar import Bar
from polyrot.judge.ledger import Ledger
from polyrot.judge.registration import Claim, Registration
from polyrot.judge.verdicts import Finding, Verdict, conclude, judge
from polyrot.measured import Interval, Measured

PROVENANCE = {"device": "cpu", "date": "2026-11-23", "commit": "abc"}


def claim(id: str, scales: tuple[str, ...] = ("toy_a",), *controls: str) -> Claim:
    return Claim(
        id=id,
        section="1",
        status="control" if controls else "core",
        scales=scales,
        says="says",
        measures="measures",
        bar=Bar(at_least=0.5),
        paper="0.9, a figure with a long explanation behind it, far too long for any column",
        controls=controls,
    )


REGISTRATION = Registration(
    (
        claim("f.held", ("toy_a", "toy_b")),
        claim("f.other", ("toy_a", "neox")),
        claim("g.control", ("toy_a",), "f.held"),
        claim("g.paper", ("paper",), "f.other"),
    ),
    "2026-11-22",
    0.01,
    "0" * 64,
)


def finding(
    id: str, scale: str, value: float, half: float | None = None, ceiling: float | None = None
) -> Finding:
    """Of one value, with an interval of `half` on either side, and a ceiling."""
    found = () if half is None else (Interval(value - half, value + half, "pairs"),)
    made = Measured([value], ("",), intervals=found)
    made = made if ceiling is None else made.below(ceiling)
    return judge(REGISTRATION.claim(id), scale, made)


def verdicts(*findings: Finding, ledger: Ledger | None = None) -> dict[str, Verdict]:
    recorded = ledger.findings() if ledger else ()
    return {c.finding.name: c.verdict for c in conclude(findings, REGISTRATION, recorded)}
