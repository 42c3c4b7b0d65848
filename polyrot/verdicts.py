"""From measured values to findings, from findings and controls to verdicts, and the ledger of both.

A finding is what one claim test saw at one scale, whatever its controls. A verdict adds the
controls: a claim that held, but whose null passes too, is not diagnostic.
"""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

from polyrot.measured import Figure, Measured, Seeds
from polyrot.registration import Claim, Registration


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


class LedgerError(ValueError):
    """The ledger is malformed or speaks of something that is not registered."""


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
        return self.claim, self.scale

    @property
    def name(self) -> str:
        return f"{self.claim}[{self.scale}]"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "outcome": self.outcome.value}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Finding:
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
    def null_passes(self) -> bool:
        return self.outcome is Verdict.REFUTED


@dataclass(frozen=True)
class Conclusion:
    """A finding, what its controls say, and the verdict that follows."""

    finding: Finding
    verdict: Verdict
    controls: tuple[ControlFinding, ...] = ()

    @property
    def why(self) -> str:
        """The finding's reason, and for what is not diagnostic the nulls that pass too."""
        if self.verdict is not Verdict.NOT_DIAGNOSTIC:
            return self.finding.why
        nulls = "; ".join(
            f"the null of {control.claim}[{control.scale}] passes"
            f"{' (ledger)' if control.from_ledger else ''}: {control.why}"
            for control in self.controls
            if control.null_passes
        )
        return f"{self.finding.why}, but {nulls}"


def conclude(
    findings: Iterable[Finding], registration: Registration, ledger: Ledger | None = None
) -> list[Conclusion]:
    """Verdicts in the registration's order. A control that this run did not judge is looked up in
    the ledger. A refuted claim stays refuted whatever its controls."""
    found = {finding.key: finding for finding in findings}
    recorded = ledger.entries if ledger is not None else {}
    conclusions = []
    for claim, scale in registration.pairs():
        finding = found.get((claim.id, scale))
        if finding is None:
            continue
        controls = tuple(
            _control_finding(control.id, at, found, recorded)
            for control, at in registration.controls_at(claim.id, scale)
        )
        verdict = finding.outcome
        if verdict is Verdict.HELD and any(control.null_passes for control in controls):
            verdict = Verdict.NOT_DIAGNOSTIC
        conclusions.append(Conclusion(finding, verdict, controls))
    return conclusions


def _control_finding(
    id: str,
    scale: str,
    found: Mapping[tuple[str, str], Finding],
    recorded: Mapping[tuple[str, str], Entry],
) -> ControlFinding:
    finding = found.get((id, scale))
    judged = finding is not None and finding.outcome in (Verdict.HELD, Verdict.REFUTED)
    entry = recorded.get((id, scale))
    if not judged and entry is not None and entry.outcome in (Verdict.HELD, Verdict.REFUTED):
        return ControlFinding(id, scale, entry.outcome, entry.why, from_ledger=True)
    if finding is not None:
        return ControlFinding(id, scale, finding.outcome, finding.why)
    return ControlFinding(id, scale, None, "")


@dataclass(frozen=True)
class Entry:
    """A ledger line. `verdict` is the concluded one, `nulls` the controls that make it not
    diagnostic; date is ISO, device "cpu" or "cuda"."""

    verdict: Verdict
    why: str
    nulls: tuple[str, ...] = ()
    measured: float | None = None
    label: str = ""
    interval: tuple[float, float] | None = None
    n: int = 0
    seeds: Seeds = field(default_factory=dict)
    device: str = ""
    date: str = ""
    commit: str = ""

    @property
    def outcome(self) -> Verdict:
        """What the test itself found: not diagnostic is a claim that held."""
        return Verdict.HELD if self.verdict is Verdict.NOT_DIAGNOSTIC else self.verdict


@dataclass(frozen=True)
class Ledger:
    """The last verdicts by (claim id, scale), as kept in claims/verdicts.toml."""

    entries: Mapping[tuple[str, str], Entry] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, registration: Registration) -> Ledger:
        """Read `path`; a file that does not exist is an empty ledger. Raises LedgerError for a line
        of no registered claim or scale, an unknown key, a verdict that is none."""
        if not path.exists():
            return cls()
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise LedgerError(f"{path}: {error}") from error
        registered = {(claim.id, scale) for claim, scale in registration.pairs()}
        entries = {}
        for id, scales in document.items():
            for scale, table in scales.items() if isinstance(scales, dict) else [("", scales)]:
                name = f"{path}: {id}[{scale}]"
                if (id, scale) not in registered:
                    raise LedgerError(f"{name} is no registered claim at one of its scales")
                entries[id, scale] = _entry(name, table)
        return cls(entries)

    def updated(
        self, conclusions: Iterable[Conclusion], registration: Registration, **provenance: str
    ) -> Ledger:
        """The ledger after a run, with provenance device, date, commit.

        Only what the run judged is replaced; a claim that was not run keeps what is known of it.
        The verdicts of other entries follow, if one of their controls has changed.
        """
        entries = dict(self.entries)
        for conclusion in conclusions:
            finding = conclusion.finding
            unjudged = conclusion.verdict is Verdict.NOT_RUN
            if conclusion.verdict in (Verdict.ERROR, Verdict.NOT_WRITTEN):
                continue
            if unjudged and self._judged(finding.key):
                continue
            command = f" (to run it: {finding.command})" if finding.command else ""
            entries[finding.key] = Entry(
                verdict=conclusion.verdict,
                why=finding.why + command,
                measured=finding.measured,
                label=finding.label,
                interval=finding.interval,
                n=finding.n,
                seeds=finding.seeds,
                **provenance,
            )
        return Ledger(entries)._reconcluded(registration)

    def changes(self, conclusions: Iterable[Conclusion]) -> list[str]:
        """What differs between this ledger and a run, one line each: "claim[scale]: a -> b"."""
        lines = []
        for conclusion in conclusions:
            finding, verdict = conclusion.finding, conclusion.verdict
            entry = self.entries.get(finding.key)
            if verdict in (Verdict.ERROR, Verdict.NOT_WRITTEN, Verdict.NOT_RUN):
                continue
            if entry is None or entry.verdict is not verdict:
                before = entry.verdict.value if entry else "not in the ledger"
                lines.append(f"{finding.name}: {before} -> {verdict.value} ({conclusion.why})")
        return lines

    def save(self, path: Path, registration: Registration) -> None:
        """Write in the registration's order, by way of a temporary file."""
        blocks = [
            "# Written by `pytest claims --update-verdicts`. One table per claim and scale.\n"
        ]
        for claim, scale in registration.pairs():
            entry = self.entries.get((claim.id, scale))
            if entry is not None:
                lines = [f'["{claim.id}".{scale}]']
                lines += [f"{key} = {_toml(value)}" for key, value in _table(entry).items()]
                blocks.append("\n".join(lines) + "\n")
        write_atomically(path, "\n".join(blocks))

    def _judged(self, key: tuple[str, str]) -> bool:
        return key in self.entries and self.entries[key].verdict is not Verdict.NOT_RUN

    def _reconcluded(self, registration: Registration) -> Ledger:
        outcomes = [
            Finding(id, scale, entry.outcome, entry.why)
            for (id, scale), entry in self.entries.items()
        ]
        entries = {}
        for conclusion in conclude(outcomes, registration):
            nulls = tuple(
                f"{control.claim}[{control.scale}]"
                for control in conclusion.controls
                if control.null_passes and conclusion.verdict is Verdict.NOT_DIAGNOSTIC
            )
            key = conclusion.finding.key
            entries[key] = replace(self.entries[key], verdict=conclusion.verdict, nulls=nulls)
        return Ledger(entries)


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 `text` to a temporary file beside `path`, then rename it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp's own mode would hide the file from other users
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _fields(entry: Entry) -> dict[str, Any]:
    return {key.name: getattr(entry, key.name) for key in fields(entry)}


def _table(entry: Entry) -> dict[str, Any]:
    """The entry's keys as they are written: none that says nothing."""
    table = {**_fields(entry), "verdict": entry.verdict.value, "n": entry.n or None}
    return {
        key: value
        for key, value in table.items()
        if value is not None and value not in ("", (), {})
    }


def _entry(name: str, table: Any) -> Entry:
    if not isinstance(table, dict):
        raise LedgerError(f"{name} must be a table")
    known = {key.name for key in fields(Entry)}
    unknown = sorted(table.keys() - known)
    if unknown:
        raise LedgerError(f"{name}: unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")
    try:
        verdict = Verdict(table.get("verdict"))
    except ValueError:
        raise LedgerError(f"{name}: {table.get('verdict')!r} is no verdict") from None
    tuples = {key: tuple(table[key]) for key in ("interval", "nulls") if key in table}
    return Entry(**{"why": "", **table, **tuples, "verdict": verdict})


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(float(f"{value:.9g}"))
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + " }"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value)
