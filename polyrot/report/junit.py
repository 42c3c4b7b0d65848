"""Single properties of a claim test, readable in JUnit XML (``pytest claims --junitxml=FILE``)."""

from __future__ import annotations

import json
from collections.abc import Iterable

from polyrot.judge.ledger import Ledger
from polyrot.judge.registration import Registration
from polyrot.judge.verdicts import Finding, conclude, show_interval
from polyrot.measured import Measured
from polyrot.report.table import words


def properties(
    finding: Finding,
    earlier: Iterable[Finding],
    registration: Registration,
    ledger: Ledger,
) -> list[tuple[str, str]]:
    """The finding as JSON, by which the suite itself reads it, and its figures one by one.

    `verdict` takes the controls into account as far as they are known when the test ends: those of
    the `earlier` findings, and for the others the ledger's.
    """
    findings = [*earlier, finding]
    concluded = {c.finding.key: c for c in conclude(findings, registration, ledger.findings())}
    claim = registration.claim(finding.claim)
    found = [
        ("finding", json.dumps(finding.to_json())),
        ("claim", finding.claim),
        ("scale", finding.scale),
        ("status", claim.status),
        ("verdict", words(concluded[finding.key], registration)),
        ("bar", claim.bar.describe()),
        ("why", finding.why),
    ]
    if finding.measured is not None:
        found.append(("measured", f"{finding.measured:.9g}"))
    if finding.interval is not None:
        found.append(("interval", show_interval(finding.interval, digits=9)))
    if finding.ceiling is not None:
        found.append(("ceiling", f"{finding.ceiling:.9g}"))
    if claim.paper:
        found.append(("paper", claim.paper))
    return found


def values(measured: Measured) -> tuple[str, str]:
    """Every value that is held against the bar: label, value, interval and ceiling."""
    found = [
        {
            "label": label,
            "value": value,
            "interval": None if interval is None else interval.to_json(),
            "ceiling": measured.ceilings[i] if measured.ceilings else None,
        }
        for i, (label, value, interval) in enumerate(
            zip(measured.labels, measured.values.tolist(), measured.intervals, strict=True)
        )
    ]
    return "values", json.dumps(found)
