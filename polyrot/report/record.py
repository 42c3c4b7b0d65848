"""The record of a run for machines (verdicts.json) and for pasting (verdicts.md).

The JSON is described by verdicts.schema.json beside this file; whatever changes its meaning raises
SCHEMA_VERSION.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyrot.ledger import write_atomically
from polyrot.registration import Registration
from polyrot.report.table import control_words, sentences, words
from polyrot.verdicts import Conclusion, Verdict

SCHEMA_VERSION = 1
SCHEMA = Path(__file__).with_name("verdicts.schema.json")


def run_record(
    conclusions: Sequence[Conclusion], registration: Registration, run: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything a run found, ready for JSON. `run` is its provenance: versions, device,
    device_name, scales, date, commit, duration_s."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run": {
            **run,
            "registration_sha256": registration.sha256,
            "as_registered": registration.as_registered,
        },
        "summary": sentences(conclusions, registration),
        "verdicts": [_verdict(conclusion, registration) for conclusion in conclusions],
    }


def write_report(
    folder: Path,
    conclusions: Sequence[Conclusion],
    registration: Registration,
    run: Mapping[str, Any],
) -> None:
    """Write verdicts.json and verdicts.md into the existing `folder`."""
    record = run_record(conclusions, registration, run)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / "verdicts.json", text)
    write_atomically(folder / "verdicts.md", markdown(conclusions, registration, run))


def markdown(
    conclusions: Sequence[Conclusion], registration: Registration, run: Mapping[str, Any]
) -> str:
    """A table of what was judged, the rest by name, and the provenance in one line."""
    lines = ["# Verdicts", ""]
    if not registration.as_registered:
        lines += ["**Not judged against the registered bars.**", ""]
    lines += [f"- {sentence}" for sentence in sentences(conclusions, registration)]
    lines += [
        "",
        "| claim | scale | measured | bar | paper | control | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    unjudged: dict[str, list[str]] = {}
    for conclusion in conclusions:
        finding, verdict = conclusion.finding, words(conclusion, registration)
        if conclusion.verdict in (Verdict.NOT_RUN, Verdict.NOT_WRITTEN):
            command = f"; to run: `{finding.command}`" if finding.command else ""
            reason = f"{verdict} ({finding.why}{command})" if finding.why else verdict
            unjudged.setdefault(reason, []).append(f"`{finding.name}`")
            continue
        claim = registration.claim(finding.claim)
        cells = (
            f"`{finding.claim}`",
            finding.scale,
            _measured(conclusion, registration),
            claim.bar.describe(),
            claim.paper,
            control_words(conclusion.controls),
            verdict if conclusion.verdict is Verdict.HELD else f"**{verdict}**",
        )
        escaped = [cell.replace("|", "\\|") for cell in cells]
        lines.append(f"| {' | '.join(escaped)} |")
    lines += [f"\n{reason}: {', '.join(names)}" for reason, names in unjudged.items()]
    if any(control.from_ledger for c in conclusions for control in c.controls):
        lines += ["", "\\* a control that did not run this time, as the ledger has it"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    lines += [
        "",
        f"{run['date']}, commit {run['commit']}, {run['device']} ({run['device_name']}), "
        f"scales {', '.join(run['scales'])}, {run['duration_s']:.0f} s; {versions}; "
        f"registration {registration.sha256[:12]}",
        "",
    ]
    return "\n".join(lines)


def _measured(conclusion: Conclusion, registration: Registration) -> str:
    finding = conclusion.finding
    if finding.measured is None:
        return finding.why.splitlines()[0] if finding.why else ""
    show = registration.claim(finding.claim).bar.show
    text = show(finding.measured)
    if finding.n > 1:
        text += f" (worst of {finding.n}: {finding.label})"
    if finding.interval is not None:
        text += f"; mean over pairs {finding.interval[0]:.4g} to {finding.interval[1]:.4g}"
    return text


def _verdict(conclusion: Conclusion, registration: Registration) -> dict[str, Any]:
    finding = conclusion.finding
    claim = registration.claim(finding.claim)
    bar = {
        key: limit
        for key in ("equals", "at_least", "above", "at_most", "below")
        if (limit := getattr(claim.bar, key)) is not None
    }
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
        "bar": bar,
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
