"""From measured values to findings, and from findings and their controls to verdicts.

A finding is what one claim test saw at one scale, whatever its controls. It goes value by value,
each with its own interval: out of reach where a precondition of the registration is unmet or a
perfect sibling would miss the bar; else refuted where some value lies beyond the bar with its whole
interval (undecided where a reading that the registration admits was not measured); else undecided
where the interval of some value contains a limit; else held. What was measured on models that stand
in for the registered ones decides nothing: it is undecided. Where the registration admits several
readings, that which favours the claim is judged (`reading`). A verdict adds the controls: a claim
that held, but one of whose controls fails (is refuted or out of reach), is not diagnostic; one of
whose controls is undecided is undecided too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from polyrot.judge.bar import Bar
from polyrot.judge.registration import Claim, Registration
from polyrot.measured import Figure, Interval, Measured, Seeds


class Verdict(Enum):
    """What is known of a claim at a scale."""

    HELD = "held"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NOT_DIAGNOSTIC = "not diagnostic"
    OUT_OF_REACH = "out of reach"
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


JUDGED = (Verdict.HELD, Verdict.REFUTED, Verdict.UNDECIDED, Verdict.OUT_OF_REACH)
"""Outcomes of values that were held against a bar."""


@dataclass(frozen=True)
class Finding:
    """What the test of one claim found at one scale.

    measured: the value that decides, of the worst ones, with its label, its 95 % interval and its
    ceiling (what a perfect sibling gives). n: the sample of the intervals: pairs, sequences, draws.
    checked: how many values were held against the bar; missed: how many of them lie beyond it,
    interval and all; open: how many have an interval that contains a limit. departures: how what it
    rests on was made otherwise than the paper says. For outcomes that are not judged `why` alone
    speaks.
    """

    claim: str
    scale: str
    outcome: Verdict
    why: str
    measured: float | None = None
    label: str = ""
    n: int = 0
    checked: int = 0
    missed: int = 0
    open: int = 0
    interval: Interval | None = None
    ceiling: float | None = None
    beside: Mapping[str, Figure] = field(default_factory=dict)
    seeds: Seeds = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    departures: tuple[str, ...] = ()
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
        return self.outcome in JUDGED

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a report."""
        interval = None if self.interval is None else self.interval.to_json()
        return {**asdict(self), "outcome": self.outcome.value, "interval": interval}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Finding:
        """What `to_json` wrote."""
        return cls(
            **{
                **document,
                "outcome": Verdict(document["outcome"]),
                "interval": Interval.from_json(document["interval"]),
                "departures": tuple(document["departures"]),
            }
        )


class ClaimNotHeld(AssertionError):
    """The measured values do not meet the bar. One readable line."""

    def __init__(self, claim: Claim, finding: Finding) -> None:
        text = f"{finding.name} {finding.outcome.value}: {finding.why}"
        super().__init__(f"{text}; paper: {claim.paper or '-'}")
        self.claim = claim
        self.finding = finding

    def __reduce__(self) -> tuple[type[ClaimNotHeld], tuple[Claim, Finding]]:
        return type(self), (self.claim, self.finding)


class ClaimRefuted(ClaimNotHeld):
    """Some value lies beyond the bar, interval and all."""


class ClaimUndecided(ClaimNotHeld):
    """No value lies beyond the bar, but the interval of some value contains a limit; or some does,
    and a reading that the registration admits was not measured; or other models than the registered
    ones were measured."""


class ClaimOutOfReach(ClaimNotHeld):
    """No models could have met the bar, or what the registration requires is unmet."""


NOT_HELD: Mapping[Verdict, type[ClaimNotHeld]] = {
    Verdict.REFUTED: ClaimRefuted,
    Verdict.UNDECIDED: ClaimUndecided,
    Verdict.OUT_OF_REACH: ClaimOutOfReach,
}
"""What a claim test raises, by its outcome."""


def reading(claim: Claim, measured: Measured) -> Measured:
    """Of the readings that the registration admits, that which favours the claim: one that
    satisfies it before one that leaves it open, and that before one that refutes it or by which it
    is out of reach; and of such the one whose worst value is best by the bar."""
    return max(
        (measured.beside_readings(), *measured.readings),
        key=lambda each: (
            FAVOUR.get(_judge(claim, "", each, ()).outcome, 0),
            min(claim.bar.rank(float(value)) for value in each.values),
        ),
    )


FAVOUR = {Verdict.HELD: 1, Verdict.OUT_OF_REACH: -1, Verdict.REFUTED: -2}
"""How far an outcome speaks for a claim; those that leave it open, 0."""


def judge(claim: Claim, scale: str, measured: Measured, departures: Sequence[str] = ()) -> Finding:
    """Hold every value of `measured`, with its interval, against the claim's bar; of several
    readings, those of the one that favours the claim."""
    return _judge(claim, scale, reading(claim, measured), departures)


def _judge(claim: Claim, scale: str, measured: Measured, departures: Sequence[str]) -> Finding:
    bar, values = claim.bar, [float(value) for value in measured.values]
    ends = [measured.ends(i) for i in range(len(values))]
    beyond = [i for i, (low, high) in enumerate(ends) if bar.missed_by_all(low, high)]
    met = [i for i, (low, high) in enumerate(ends) if bar.met_by_all(low, high)]
    unclear = [i for i in range(len(values)) if i not in beyond and i not in met]
    low = [i for i, ceiling in enumerate(measured.ceilings) if not bar.reached(ceiling)]
    if measured.unmet or low:
        outcome, deciding = Verdict.OUT_OF_REACH, low or list(range(len(values)))
        ranked = list(measured.ceilings) if low else values
    elif beyond:
        outcome = Verdict.UNDECIDED if measured.unread else Verdict.REFUTED
        deciding, ranked = beyond, values
    elif unclear:
        outcome, deciding, ranked = Verdict.UNDECIDED, unclear, values
    else:
        outcome, deciding, ranked = Verdict.HELD, met, values
    if measured.stand_in and outcome is not Verdict.OUT_OF_REACH:
        outcome = Verdict.UNDECIDED
    worst = deciding[bar.worst(ranked[i] for i in deciding)]
    return Finding(
        claim=claim.id,
        scale=scale,
        outcome=outcome,
        why=_why(bar, measured, outcome, worst, deciding, missed=deciding is beyond),
        measured=values[worst],
        label=measured.labels[worst],
        n=measured.n,
        checked=len(values),
        missed=len(beyond),
        open=len(unclear),
        interval=measured.interval(worst),
        ceiling=measured.ceilings[worst] if measured.ceilings else None,
        beside=dict(measured.beside),
        seeds={name: _plain_seeds(seeds) for name, seeds in measured.seeds.items()},
        counts=dict(measured.counts),
        departures=tuple(departures),
    )


def _why(
    bar: Bar,
    measured: Measured,
    outcome: Verdict,
    worst: int,
    deciding: Sequence[int],
    *,
    missed: bool,
) -> str:
    """The value that decides with its interval and ceiling, the bar, and how many are like it.
    missed: whether those that decide miss the bar."""
    total, interval = len(measured.values), measured.interval(worst)
    by_ceiling = outcome is Verdict.OUT_OF_REACH and not measured.unmet
    text = f"{'worst ' if total > 1 and not by_ceiling else ''}"
    text += bar.show(float(measured.values[worst]))
    if measured.labels[worst]:
        text += f" at {place(measured.labels[worst])}"
    if interval is not None:
        text += f" (95 % {show_interval(interval)})"
    text += f", bar {bar.describe()}"
    if outcome is Verdict.OUT_OF_REACH:
        if measured.unmet:
            return f"{measured.unmet}; {text}"
        ceiling = bar.show(measured.ceilings[worst])
        text += f", where a perfect sibling gives {ceiling}"
        return text + (f", as for {len(deciding)} of {total} values" if total > 1 else "")
    if missed:
        text += f", {len(deciding)} of {total} values miss it" if total > 1 else ""
        if measured.unread:
            text += f"; not measured, and admitted: {measured.unread}"
    elif bar.met_by_all(*measured.ends(worst)):
        text += ", which all values meet" if total > 1 and measured.stand_in else ""
    elif outcome is Verdict.UNDECIDED:
        others = f"{len(deciding)} of {total} intervals contain" if total > 1 else "which contains"
        text += f", {others} a limit"
    return f"{text}; {measured.stand_in}" if measured.stand_in else text


def place(label: str) -> str:
    """Where a value was measured, in words: a label begins with the pairs of seeds that it is of,
    each the anchor first.

    >>> place("0-3 resid_mid_0")
    'seeds 0 -> 3, resid_mid_0'
    """
    pairs, rest = [], label.split(" ")
    while rest and re.fullmatch(r"\d+-\d+", rest[0]):
        pairs.append(rest.pop(0).replace("-", " -> "))
    if not pairs:
        return label
    return ", ".join([f"seeds {', '.join(pairs)}", *([" ".join(rest)] if rest else [])])


def show_interval(interval: Interval, digits: int = 4) -> str:
    """ "0.71 to 0.74, sequences", or of one that is open above "at least 4, pairs"."""
    return f"{show_ends(*interval[:2], digits)}, {interval.of}"


def show_ends(low: float, high: float, digits: int = 4) -> str:
    """ "0.71 to 0.74", or "at least 4"."""
    if math.isinf(high):
        return f"at least {low:.{digits}g}"
    return f"{low:.{digits}g} to {high:.{digits}g}"


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
        """Whether it misses its own bar, or cannot meet it: what it controls proves nothing."""
        return self.outcome in (Verdict.REFUTED, Verdict.OUT_OF_REACH)

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
        """The finding's reason; where it held, also the controls that take that from it, and those
        that were not run; of a control that cannot come out otherwise, that it is a demonstration.
        """
        shown = self.finding.beside.get("demonstration")
        if shown is not None:
            return f"{self.finding.why}; a demonstration, not a test: {shown}"
        if self.finding.outcome is not Verdict.HELD:
            return self.finding.why
        said = [
            f"the control {control.name} {CONTROL_SAYS[control.outcome]}"
            f"{' (ledger)' if control.from_ledger else ''}: {control.why}"
            for control in self.deciding
            if control.outcome is not None
        ]
        text = f"{self.finding.why}, but {'; '.join(said)}" if said else self.finding.why
        missing = [c.name for c in self.controls if c.outcome not in JUDGED]
        return f"{text}; not run: the control {', '.join(missing)}" if missing else text

    @property
    def deciding(self) -> tuple[ControlFinding, ...]:
        """The controls because of which a claim that held is not diagnostic, or undecided."""
        if self.verdict is Verdict.NOT_DIAGNOSTIC:
            return tuple(control for control in self.controls if control.fails)
        if self.verdict is Verdict.UNDECIDED and self.finding.outcome is Verdict.HELD:
            return tuple(c for c in self.controls if c.outcome is Verdict.UNDECIDED)
        return ()


CONTROL_SAYS = {
    Verdict.REFUTED: "fails",
    Verdict.OUT_OF_REACH: "is out of reach",
    Verdict.UNDECIDED: "is undecided",
}


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
        if verdict is Verdict.HELD:
            if any(control.fails for control in controls):
                verdict = Verdict.NOT_DIAGNOSTIC
            elif any(control.outcome is Verdict.UNDECIDED for control in controls):
                verdict = Verdict.UNDECIDED
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
