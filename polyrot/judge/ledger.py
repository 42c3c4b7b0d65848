"""The ledger, claims/verdicts.toml: what was found last, per claim and scale."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

from polyrot.judge.registration import Registration
from polyrot.judge.verdicts import Conclusion, Finding, Verdict, conclude
from polyrot.measured import Figure, Interval, Seeds, Source
from polyrot.runtime.documents import BadDocument, read_toml
from polyrot.runtime.files import write_atomically


class LedgerError(ValueError):
    """The ledger is malformed or speaks of something that is not registered."""


@dataclass(frozen=True)
class Entry:
    """A ledger line. `verdict` is the concluded one, `nulls` the controls that make a claim that
    held not diagnostic or undecided, `beside` figures without a bar, without which some verdicts
    mislead, to four digits; date is ISO, device "cpu" or "cuda". The rest as in `Finding`."""

    verdict: Verdict
    why: str
    nulls: tuple[str, ...] = ()
    measured: float | None = None
    label: str = ""
    interval: Interval | None = None
    ceiling: float | None = None
    n: int = 0
    checked: int = 0
    missed: int = 0
    open: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    seeds: Seeds = field(default_factory=dict)
    beside: Mapping[str, Figure] = field(default_factory=dict)
    device: str = ""
    date: str = ""
    commit: str = ""

    @property
    def outcome(self) -> Verdict:
        """What the test itself found: a claim that `nulls` take from held."""
        taken = self.verdict is Verdict.NOT_DIAGNOSTIC or bool(self.nulls)
        return Verdict.HELD if taken else self.verdict


@dataclass(frozen=True)
class Ledger:
    """The last verdicts by (claim id, scale), as kept in claims/verdicts.toml; `left_out` are the
    scales of which it is not to be asked."""

    entries: Mapping[tuple[str, str], Entry] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()

    @classmethod
    def load(cls, path: Path, registration: Registration) -> Ledger:
        """Read `path`; a file that does not exist is an empty ledger. Raises LedgerError for a line
        of no registered claim or scale, an unknown key, a verdict or a figure that is none."""
        if not path.exists() and not path.is_symlink():
            return cls()
        try:
            document = read_toml(path)
        except BadDocument as error:
            raise LedgerError(str(error)) from error
        registered = {(claim.id, scale) for claim, scale in registration.pairs()}
        entries = {}
        for id, scales in document.items():
            for scale, table in scales.items() if isinstance(scales, dict) else [("", scales)]:
                name = f"{path}: {id}[{scale}]"
                if (id, scale) not in registered:
                    raise LedgerError(f"{name} is no registered claim at one of its scales")
                entries[id, scale] = _entry(name, table)
        return cls(entries)

    def without(self, scale: str) -> Ledger:
        """The same where the models of a scale are others: it expects nothing of them."""
        kept = {key: entry for key, entry in self.entries.items() if key[1] != scale}
        return Ledger(kept, self.left_out | {scale})

    def findings(self) -> list[Finding]:
        """What it says of each claim itself, whatever the controls."""
        return [
            Finding(id, scale, entry.outcome, entry.why)
            for (id, scale), entry in self.entries.items()
        ]

    def updated(
        self,
        conclusions: Iterable[Conclusion],
        registration: Registration,
        *,
        device: str,
        date: str,
        commit: str,
    ) -> Ledger:
        """The ledger after a run on `device` ("cpu", "cuda") on an ISO `date`.

        Only what the run judged is replaced; a claim that was not run keeps what is known of it.
        The verdicts of other entries follow, if one of their controls has changed.
        """
        entries = dict(self.entries)
        for conclusion in conclusions:
            finding = conclusion.finding
            known = self.entries.get(finding.key)
            waits = finding.outcome is Verdict.NOT_RUN and bool(finding.command)
            judged_before = known is not None and known.verdict is not Verdict.NOT_RUN
            if not finding.judged and (judged_before or not waits):
                continue
            command = f" (to run it: {finding.command})" if finding.command else ""
            entries[finding.key] = Entry(
                verdict=finding.outcome,  # `reconcluded` adds the controls
                why=finding.why + command,
                measured=finding.measured,
                label=finding.label,
                interval=finding.interval,
                ceiling=finding.ceiling,
                n=finding.n,
                checked=finding.checked,
                missed=finding.missed,
                open=finding.open,
                counts=finding.counts,
                seeds=finding.seeds,
                beside=_rounded(finding.beside),
                device=device,
                date=date,
                commit=commit,
            )
        return Ledger(entries).reconcluded(registration)

    def changes(self, conclusions: Iterable[Conclusion]) -> list[str]:
        """Verdicts that a run changes, one line each ("claim[scale]: held -> refuted (why)")."""
        return [
            f"{c.finding.name}: {entry.verdict.value} -> {c.verdict.value} ({c.why})"
            for c, entry in self._judged(conclusions)
            if entry is not None and entry.verdict is not c.verdict
        ]

    def lacks(self, conclusions: Iterable[Conclusion]) -> int:
        """How many of the verdicts of a run it does not have yet."""
        return sum(entry is None for _, entry in self._judged(conclusions))

    def _judged(self, conclusions: Iterable[Conclusion]) -> list[tuple[Conclusion, Entry | None]]:
        """What a run judged at scales of which this is to be asked, with what is known of it."""
        return [
            (c, self.entries.get(c.finding.key))
            for c in conclusions
            if c.finding.judged and c.finding.scale not in self.left_out
        ]

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

    def reconcluded(self, registration: Registration) -> Ledger:
        """With the verdicts that follow from what it says of controls."""
        entries = {}
        for conclusion in conclude(self.findings(), registration):
            nulls = tuple(control.name for control in conclusion.deciding)
            key = conclusion.finding.key
            entries[key] = replace(self.entries[key], verdict=conclusion.verdict, nulls=nulls)
        return Ledger(entries)


def _rounded(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """Rounded before they are kept, so that a ledger comes back as it was written."""
    return {
        name: figure if isinstance(figure, str) else float(f"{figure:.4g}")
        for name, figure in figures.items()
    }


def _fields(entry: Entry) -> dict[str, Any]:
    return {key.name: getattr(entry, key.name) for key in fields(entry)}


def _table(entry: Entry) -> dict[str, Any]:
    """The entry's keys as they are written: none that says nothing."""
    table = {**_fields(entry), "verdict": entry.verdict.value}
    table |= {key: getattr(entry, key) or None for key in ("n", "checked", "missed", "open")}
    return {
        key: value
        for key, value in table.items()
        if value is not None and value not in ("", (), {})
    }


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_integer(value: Any) -> bool:
    return type(value) is int  # a bool is an int too


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_list(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(fits, value))


def _is_interval(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and _is_number(value[0])
        and (_is_number(value[1]) or value[1] == math.inf)
        and value[2] in get_args(Source)
    )


def _is_seeds(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_integer(seeds) or _is_list(seeds, _is_integer) for seeds in value.values()
    )


KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("verdict", "why", "label", "device", "date", "commit"), ("a string", _is_string)
    ),
    "nulls": ("a list of strings", lambda nulls: _is_list(nulls, _is_string)),
    "measured": ("a finite number", _is_number),
    "interval": (
        'two finite numbers (the second may be inf) and what they are an interval of, "pairs"',
        lambda found: _is_interval(found),
    ),
    "ceiling": ("a finite number", _is_number),
    **dict.fromkeys(
        ("n", "checked", "missed", "open"), ("a count", lambda n: _is_integer(n) and n >= 0)
    ),
    "counts": (
        "a table of counts",
        lambda counts: isinstance(counts, dict) and all(map(_is_integer, counts.values())),
    ),
    "seeds": ("a table of integers or lists of them", _is_seeds),
    "beside": ("a table", lambda figures: isinstance(figures, dict)),
}
"""What the keys of an entry hold: in words, and whether a value of TOML is of that kind."""


def _entry(name: str, table: Any) -> Entry:
    if not isinstance(table, dict):
        raise LedgerError(f"{name} must be a table")
    unknown = sorted(table.keys() - KINDS.keys())
    if unknown:
        raise LedgerError(f"{name}: unknown key {unknown[0]!r}; known: {', '.join(sorted(KINDS))}")
    try:
        verdict = Verdict(table.get("verdict"))
    except ValueError:
        raise LedgerError(f"{name}: {table.get('verdict')!r} is no verdict") from None
    for key, value in table.items():
        kind, fits = KINDS[key]
        if not fits(value):
            raise LedgerError(f"{name}: {key} must be {kind}, not {value!r}")
    tuples: dict[str, Any] = {"nulls": tuple(table["nulls"])} if "nulls" in table else {}
    if "interval" in table:
        tuples["interval"] = Interval(*table["interval"])
    beside = _beside(name, table.get("beside", {}))
    return Entry(**{"why": "", **table, **tuples, "beside": beside, "verdict": verdict})


def _beside(name: str, table: Mapping[str, Any]) -> dict[str, Figure]:
    for key, figure in table.items():
        if not _is_string(figure) and not _is_number(figure):
            raise LedgerError(f"{name}: beside {key} = {figure!r} is no figure")
    return {key: f if isinstance(f, str) else float(f) for key, f in table.items()}


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
