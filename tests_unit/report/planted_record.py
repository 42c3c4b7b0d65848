"""Planted verdicts and the record of a run made of them, for the tests of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from polyrot.judge.bar import Bar
from polyrot.judge.registration import (
    REGISTERED_SHA256,
    Amendment,
    Change,
    Claim,
    Registration,
)
from polyrot.judge.verdicts import Conclusion, Finding, Verdict, conclude, judge
from polyrot.measured import Figure, Interval, Measured
from polyrot.report.gathered import CohortFacts, Gathered
from polyrot.report.record import run_record

RUN = {
    "versions": {"python": "3.11.9", "torch": "2.6.0"},
    "device": "cpu",
    "device_name": "x86_64, 2 threads",
    "scales": ["paper", "toy_a", "toy_b", "neox"],
    "date": "2026-11-23",
    "commit": "abc1234567",
    "options": {"--schedule": "shipped"},
    "duration_s": 12.5,
}
SCALES = ("toy_a", "toy_b", "neox")
BAR = Bar(at_least=0.5)


def claim(id: str, status: str, *controls: str, **more: Any) -> Claim:
    known: dict[str, Any] = {
        "section": "1",
        "scales": SCALES,
        "says": "One thing is so: it is.",
        "measures": "a share",
        "bar": BAR,
        "paper": "0.9",
        "controls": controls,
    }
    return Claim(id=id, status=status, **{**known, **more})


REGISTRATION = Registration(
    (
        claim("cosine.match", "core"),
        claim("naive.fails", "core"),
        claim("bars.missed", "core", paper="0.2: missed by a factor of 2"),
        claim("cosine.noise_control", "control", "cosine.match"),
        claim("naive.shift_control", "control", "naive.fails"),
        claim("cosine.universal", "sharp", section="title, 9", says="Features are so: all."),
    ),
    "2026-11-22",
    0.01,
    REGISTERED_SHA256,
)
_NEW_BAR = Bar(at_least=0.5, was=Bar(at_least=0.4))
AMENDED = replace(
    REGISTRATION,
    amendments=(
        Amendment(
            "cosine.match",
            "2026-11-27",
            "Mind a|b <c>.",
            (Change("over", "all", "pairs x <sites>"),),
        ),
        Amendment(
            "naive.fails",
            "2026-11-28",
            "Another unit.",
            (Change("bar", _NEW_BAR.was, _NEW_BAR), Change("measures", "part", "a share")),
        ),
    ),
    claims=tuple(
        replace(c, bar=_NEW_BAR) if c.id == "naive.fails" else c for c in REGISTRATION.claims
    ),
    measured_as_before=frozenset({"cosine.match"}),
)
"""The same with two amendments; the first is not in the measure yet."""
HELD, REFUTED = 0.75, 0.25  # values that meet and miss the bar


def finding(
    id: str,
    scale: str,
    values: float | Sequence[float],
    beside: Mapping[str, Figure] | None = None,
    registration: Registration = REGISTRATION,
    departures: Sequence[str] = (),
) -> Finding:
    """As `judge` makes it of planted values, one label a value; several have intervals, which lie
    wholly on their side of the bar, and a ceiling of 1. Within 0.05 of the bar a value is open."""
    planted = np.atleast_1d(values)
    several = len(planted) > 1
    measured = Measured(
        planted,
        tuple(f"0-{i + 1}" for i in range(len(planted))),
        beside=beside or {},
        intervals=tuple(Interval(x - 0.05, x + 0.05, "sequences") for x in planted.tolist()),
        ceilings=(1.0,) * len(planted) if several else (),
    )
    return judge(registration.claim(id), scale, measured, departures)


def not_run(id: str, scale: str) -> Finding:
    return Finding(id, scale, Verdict.NOT_RUN, f"no cohort at {scale}", command=f"get {scale}")


def concluded(*findings: Finding, registration: Registration = REGISTRATION) -> list[Conclusion]:
    return conclude(findings, registration)


def record_of(
    *findings: Finding, registration: Registration = REGISTRATION, **run: Any
) -> dict[str, Any]:
    """The record of a run with these findings, with cohorts, times and artifacts."""
    gathered = Gathered(
        cohorts=(CohortFacts("toy_a", (0, 1, 2), 64, ("pre", "post"), "f" * 64),),
        values={
            f.key: [
                {"label": label, "value": value, "interval": None, "ceiling": f.ceiling}
                for label, value in (("0-1", f.measured), ("0-2", 0.9))
            ]
            for f in findings
            if f.measured is not None
        },
        seconds={"cosine": 1.25},
        shipped=(
            {
                "kind": "toy",
                "name": "toy_a-seed0",
                "fingerprint": "1" * 64,
                "sha256": "2" * 64,
                "device": "cpu",
                "when": "2026-11-23",
                "seconds": 3.0,
            },
        ),
    )
    conclusions = concluded(*findings, registration=registration)
    return run_record(conclusions, registration, {**RUN, **run}, gathered)
