"""Runs that were kept beside the ledger: other widths, other devices, longer schedules.

A record is the verdicts.json of a run, as it was written, in RECORDS. It is shown beside the
ledger, in claims/RECORDS.md and where a run tells of its origin, and decides nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyrot.judge.bar import Bar
from polyrot.judge.ledger import Ledger
from polyrot.judge.registration import Registration
from polyrot.judge.verdicts import show_interval
from polyrot.measured import Interval
from polyrot.report.compare import JUDGED
from polyrot.report.markdown import escaped, row
from polyrot.report.provenance import options_line
from polyrot.report.record import RecordError, read_record
from polyrot.runtime.checkout import NotACheckout, checkout
from polyrot.runtime.files import write_atomically

RECORDS = "fixtures/shipped/records"
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_INTRODUCTION = f"""\
# Runs kept beside the ledger

Made from the records in `{RECORDS}` by `python -m polyrot.report readme`; nothing here
is written by hand. The ledger, [verdicts.toml](verdicts.toml), is of the shipped models. A run of
other models (wider, longer, on another device) is judged against the same bars, is kept whole, and
changes no verdict of the ledger; `polyrot report html RECORD` makes its page.
"""
_NONE = """\
None was kept so far. [How to make one](../docs/running.md#language-models-as-wide-as-pythia-70m)
says what a run at Pythia-70m's width takes, and how it is kept."""


@dataclass(frozen=True)
class Kept:
    """A record and its name."""

    name: str
    record: Mapping[str, Any]

    @property
    def run(self) -> Mapping[str, Any]:
        """Where and how it was made."""
        found: Mapping[str, Any] = self.record["run"]
        return found

    @property
    def judged(self) -> list[Mapping[str, Any]]:
        """What it came to a verdict on."""
        return [v for v in self.record["verdicts"] if v["verdict"] in JUDGED]

    @property
    def counted(self) -> str:
        """ "12 held, 7 refuted"."""
        counts = Counter(v["verdict"] for v in self.judged)
        return ", ".join(f"{counts[word]} {word}" for word in JUDGED if counts[word])

    @property
    def account(self) -> str:
        """What it is, and what came of it."""
        run = self.run
        models = "; ".join(
            f"{c['scale']}, {len(c['seeds'])} seeds of width {c['width']}" for c in run["cohorts"]
        )
        return (
            f"{models or ', '.join(run['scales'])} on {run['device_name']}, {run['date']}, "
            f"options {options_line(run['options'])}: {self.counted}"
        )


def keep(path: Path, name: str, root: Path) -> Path:
    """Copy the record at `path` under this name into the checkout at `root`; where it lies now.

    Raises RecordError: no record of this version, judged by other bars than the checkout's, nothing
    judged, a name that is no file's or is taken.
    """
    if not _NAME.fullmatch(name):
        raise RecordError(f"{name!r} is no name: letters a to z, digits and single hyphens")
    record = read_record(path)
    registered = Registration.load(root / "claims" / "preregistration.toml")
    if record["run"]["registration_sha256"] != registered.sha256:
        raise RecordError(f"{path} was judged by other bars than those of {root}: it can't be kept")
    if not Kept(name, record).judged:
        raise RecordError(f"{path} has no verdict: nothing to keep")
    to = root / RECORDS / f"{name}.json"
    if to.exists():
        raise RecordError(f"{to} is there: choose another --name, or delete it first")
    to.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(to, json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    return to


def kept(root: Path) -> list[Kept]:
    """All of the checkout at `root`, by name. Raises RecordError for one that cannot be read."""
    paths = sorted((root / RECORDS).glob("*.json"))
    return [Kept(path.stem, read_record(path)) for path in paths]


def lines() -> list[str]:
    """One for each of the checkout in which the working directory lies; none outside of one."""
    try:
        return [f"{each.name}: {each.account}" for each in kept(checkout())]
    except NotACheckout:
        return []


def markdown(records: Sequence[Kept], ledger: Ledger) -> str:
    """claims/RECORDS.md: each record's account and its verdicts beside the ledger's."""
    parts = [_INTRODUCTION]
    if not records:
        parts.append(_NONE)
    for each in records:
        parts.append(f"## {each.name}")
        parts.append(escaped(each.account))
        parts += [escaped(text) for text in each.record["conclusion"]]
        parts.append("\n".join(_table(each, ledger)))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(each: Kept, ledger: Ledger) -> Iterator[str]:
    yield row(("claim", "scale", "bar", "measured (95 %)", "verdict", "in the ledger"))
    yield "|---" * 6 + "|"
    for entry in each.judged:
        bar = Bar.from_json(entry["bar"])
        measured = "" if entry["measured"] is None else bar.show(entry["measured"])
        interval = Interval.from_json(entry["interval"])
        if measured and interval is not None:
            measured += f" ({show_interval(interval)})"
        word = entry["verdict"]
        beside = ledger.entries.get((entry["claim"], entry["scale"]))
        other = "" if beside is None else beside.verdict.value
        if beside is not None and beside.measured is not None:
            other += f", {bar.show(beside.measured)}"
        yield row(
            (
                f"`{entry['claim']}`",
                entry["scale"],
                escaped(bar.describe()),
                escaped(measured),
                word if word == "held" else f"**{word}**",
                escaped(other),
            )
        )
