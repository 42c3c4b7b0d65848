"""From measured values to findings, and from findings and their controls to verdicts.

A finding is what one claim test saw at one scale, whatever its controls. A verdict adds the
controls: a claim that held, but one of whose controls fails (misses its own bar), is not
diagnostic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from polyrot.judge.registration import Claim, Registration
from polyrot.measured import Figure, Measured, Seeds


class Verdict(Enum):
    """What is known of a claim at a scale."""

    HELD = "held"
    REFUTED = "refuted"
    NOT_DIAGNOSTIC = "not diagnostic"
    NOT_RUN = "not run"
    NOT_WRITTEN = "not written"
    ERROR = "error"


class NotRun(Exception):
    """Raised by a fixture that cannot provide what a claim needs; the claim is shown as not run.

    reason   why, in one line
    command  what to type so that it runs
    """

    def __init__(self, reason: str, command: str) -> None:
        super().__init__(f"{reason} (to run it: {command})")
        self.reason = reason
        self.command = command

    def __reduce__(self) -> tuple[type[NotRun], tuple[str, str]]:
        return NotRun, (self.reason, self.command)


@dataclass(frozen=True)
class Finding:
    """What the test of one claim found at one scale. `measured` is the worst value, `n` how many
    values were checked, `missed` how many of them miss the bar, `interval` the 95 % interval of the
    mean over pairs at the worst value. For outcomes other than held and refuted `why` alone speaks.
    """

    claim: str
    scale: str
    outcome: Verdict
    why: str
    measured: float | None = None
    label: str = ""
    n: int = 0
    missed: int = 0
    interval: tuple[float, float] | None = None
    beside: Mapping[str, Figure] = field(default_factory=dict)
    seeds: Seeds = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    command: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Claim id and scale."""
        return self.claim, self.scale

    @property
    def name(self) -> str:
        """As "claim[scale]"."""
        return f"{self.claim}[{self.scale}]"

    @property
    def judged(self) -> bool:
        """Whether values were held against the bar."""
        return self.outcome in (Verdict.HELD, Verdict.REFUTED)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a report."""
        return {**asdict(self), "outcome": self.outcome.value}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Finding:
        """What `to_json` wrote."""
        interval = document["interval"]
        return cls(
            **{
                **document,
                "outcome": Verdict(document["outcome"]),
                "interval": tuple(interval) if interval is not None else None,
            }
        )


class ClaimRefuted(AssertionError):
    """The measured values miss the bar. One readable line."""

    def __init__(self, claim: Claim, finding: Finding) -> None:
        super().__init__(f"{finding.name} refuted: {finding.why}; paper: {claim.paper or '-'}")
        self.claim = claim
        self.finding = finding

    def __reduce__(self) -> tuple[type[ClaimRefuted], tuple[Claim, Finding]]:
        return ClaimRefuted, (self.claim, self.finding)


def judge(claim: Claim, scale: str, measured: Measured) -> Finding:
    """Check every value of `measured` against the claim's bar."""
    values = [float(value) for value in measured.values]
    bar = claim.bar
    worst = bar.worst(values)
    missed = sum(not bar.satisfied(value) for value in values)
    why = f"{'worst ' if len(values) > 1 else ''}{bar.show(values[worst])}"
    if measured.labels[worst]:
        why += f" at {measured.labels[worst]}"
    why += f", bar {bar.describe()}"
    if missed and len(values) > 1:
        why += f", {missed} of {len(values)} values miss it"
    return Finding(
        claim=claim.id,
        scale=scale,
        outcome=Verdict.REFUTED if missed else Verdict.HELD,
        why=why,
        measured=values[worst],
        label=measured.labels[worst],
        n=len(values),
        missed=missed,
        interval=measured.interval(worst),
        beside=dict(measured.beside),
        seeds={name: _plain_seeds(seeds) for name, seeds in measured.seeds.items()},
        counts=dict(measured.counts),
    )


def _plain_seeds(seeds: Any) -> int | list[int]:
    return [int(seed) for seed in seeds] if hasattr(seeds, "__iter__") else int(seeds)


@dataclass(frozen=True)
class ControlFinding:
    """What is known of one control, from this run or else from the ledger; None if nothing is."""

    claim: str
    scale: str
    outcome: Verdict | None
    why: str
    from_ledger: bool = False

    @property
    def fails(self) -> bool:
        """Whether it misses its own bar, so that what it controls proves nothing."""
        return self.outcome is Verdict.REFUTED

    @property
    def name(self) -> str:
        """As "claim[scale]"."""
        return f"{self.claim}[{self.scale}]"


@dataclass(frozen=True)
class Conclusion:
    """A finding, what its controls say, and the verdict that follows."""

    finding: Finding
    verdict: Verdict
    controls: tuple[ControlFinding, ...] = ()

    @property
    def why(self) -> str:
        """The finding's reason, and for what is not diagnostic the controls that fail."""
        if self.verdict is not Verdict.NOT_DIAGNOSTIC:
            return self.finding.why
        failing = "; ".join(
            f"the control {control.name} fails"
            f"{' (ledger)' if control.from_ledger else ''}: {control.why}"
            for control in self.controls
            if control.fails
        )
        return f"{self.finding.why}, but {failing}"


def conclude(
    findings: Iterable[Finding], registration: Registration, recorded: Iterable[Finding] = ()
) -> list[Conclusion]:
    """Verdicts in the registration's order. A control that this run did not judge is looked up
    among the `recorded` (the ledger's). A refuted claim stays refuted whatever its controls."""
    found = {finding.key: finding for finding in findings}
    earlier = {finding.key: finding for finding in recorded if finding.judged}
    conclusions = []
    for claim, scale in registration.pairs():
        finding = found.get((claim.id, scale))
        if finding is None:
            continue
        controls = tuple(
            _control_finding((control.id, at), found, earlier)
            for control, at in registration.controls_at(claim.id, scale)
        )
        verdict = finding.outcome
        if verdict is Verdict.HELD and any(control.fails for control in controls):
            verdict = Verdict.NOT_DIAGNOSTIC
        conclusions.append(Conclusion(finding, verdict, controls))
    return conclusions


def _control_finding(
    key: tuple[str, str],
    found: Mapping[tuple[str, str], Finding],
    earlier: Mapping[tuple[str, str], Finding],
) -> ControlFinding:
    finding = found.get(key)
    if key in earlier and not (finding is not None and finding.judged):
        return ControlFinding(*key, earlier[key].outcome, earlier[key].why, from_ledger=True)
    if finding is not None:
        return ControlFinding(*key, finding.outcome, finding.why)
    return ControlFinding(*key, None, "")
