"""What changed between two runs, verdict by verdict, from their verdicts.json.

A verdict changed if a claim at a scale came to another verdict, or was judged in one run and not in
the other; a claim that neither run judged has no verdict to change. Other figures under the same
verdict are listed, and are no change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polyrot.judge.bar import Bar
from polyrot.judge.verdicts import place, show_ends
from polyrot.measured import Interval
from polyrot.report.markdown import code, escaped, row
from polyrot.report.states import CONCLUDED

JUDGED = tuple(verdict.value for verdict in CONCLUDED)
SAME = 1e-9  # relative; below it two figures are one
RUN_KEYS = ("date", "commit", "device", "device_name", "scales", "versions", "registration_sha256")

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One claim at one scale before and after; None where a run does not speak of it."""

    name: str
    before: Entry | None
    after: Entry | None

    @property
    def verdict(self) -> bool:
        """Whether the verdict changed."""
        one, other = (_verdict(entry) for entry in (self.before, self.after))
        return one != other and (one in JUDGED or other in JUDGED)

    @property
    def figure(self) -> bool:
        """Whether the figures differ, whatever the verdicts."""
        one, other = (_measured(entry) for entry in (self.before, self.after))
        if one is None or other is None:
            return one is not other
        # so that NaN, which no record may hold, is no figure like another
        return not abs(one - other) <= SAME * max(abs(one), abs(other))


@dataclass(frozen=True)
class Comparison:
    """Two runs: claims whose verdict changed, those with other figures alone, how many are the
    same, and as lines of text what else of the runs differs and which claims the two judged by
    another bar or text."""

    verdicts: tuple[Change, ...]
    figures: tuple[Change, ...]
    same: int
    runs: tuple[str, ...]
    judged_otherwise: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether any verdict changed."""
        return bool(self.verdicts)

    def markdown(self, before: str, after: str) -> str:
        """As tables, for a terminal or a job summary."""
        n = len(self.verdicts)
        lines = [
            f"# Verdicts: {escaped(before)} → {escaped(after)}",
            "",
            f"{n or 'No'} verdict{'' if n == 1 else 's'} changed, {len(self.figures)} with other "
            f"figures under the same verdict, {self.same} the same.",
        ]
        for heading, changes in (
            ("Verdicts that changed", self.verdicts),
            ("Other figures, same verdict", self.figures),
        ):
            if changes:
                lines += ["", f"## {heading}", "", *_table(changes)]
        if self.judged_otherwise:
            lines += ["", "## Judged by another bar or text", ""]
            lines += [f"- {escaped(text)}" for text in self.judged_otherwise]
        if self.runs:
            lines += ["", "## The runs", "", *(f"- {escaped(text)}" for text in self.runs)]
        return "\n".join(lines)


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """Compare two records as `polyrot.report.record.read_record` gives them."""
    sides = [{(v["claim"], v["scale"]): v for v in run["verdicts"]} for run in (before, after)]
    changes = [
        Change(f"{claim}[{scale}]", sides[0].get((claim, scale)), sides[1].get((claim, scale)))
        for claim, scale in dict.fromkeys([*sides[1], *sides[0]])
    ]
    verdicts = tuple(change for change in changes if change.verdict)
    figures = tuple(change for change in changes if not change.verdict and change.figure)
    same = len(changes) - len(verdicts) - len(figures)
    return Comparison(
        verdicts,
        figures,
        same,
        tuple(_runs(before["run"], after["run"])),
        tuple(_judged_otherwise(changes)),
    )


def _judged_otherwise(changes: Sequence[Change]) -> list[str]:
    """One line for each claim (not scale) and each thing it was judged by that differs: its bar,
    what was measured and over what, and which controls stood beside it."""
    lines: dict[str, None] = {}
    for change in changes:
        if change.before is None or change.after is None:
            continue
        claim = change.after["claim"]
        bars = [Bar.from_json(entry["bar"]) for entry in (change.before, change.after)]
        if bars[0] != bars[1]:
            lines[f"{claim}: bar {bars[0].describe()} → {bars[1].describe()}"] = None
        for key in ("measures", "over", "controls"):
            one, other = (_judged_by(entry, key) for entry in (change.before, change.after))
            if one != other:
                lines[f"{claim}: {key}: {one or 'nothing'} → {other or 'nothing'}"] = None
    return list(lines)


def _judged_by(entry: Entry, key: str) -> str:
    """A text of the claim by which its figures were taken: where the measure is still the one
    before an amendment, the text as it was registered first. Of "controls", their names."""
    if key == "controls":
        return ", ".join(dict.fromkeys(control["claim"] for control in entry["controls"]))
    if entry["measured_as_before"]:
        for made in entry["amendments"]:
            for change in made["changes"]:
                if change["key"] == key:
                    return change["old"] or ""
    return entry[key] or ""


def _runs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{key}: {_plain(before[key])} → {_plain(after[key])}"
        for key in RUN_KEYS
        if before[key] != after[key]
    ]
    if before["registration_sha256"] != after["registration_sha256"]:
        lines.insert(0, "THE BARS DIFFER: the two runs were judged by different registrations")
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(changes: Sequence[Change]) -> list[str]:
    lines = ["| claim | verdict | measured | bar |", "|---|---|---|---|"]
    for change in changes:
        one, other = _verdict(change.before), _verdict(change.after)
        entry = change.after if change.after is not None else change.before
        bar = Bar.from_json(entry["bar"]).describe() if entry is not None else ""
        cells = (
            code(change.name, cell=True),
            one if one == other else f"{one} → **{other}**",
            escaped(" → ".join(_shown(entry) for entry in (change.before, change.after))),
            escaped(bar),
        )
        lines.append(row(cells))
    return lines


def _verdict(entry: Entry | None) -> str:
    return str(entry["verdict"]) if entry is not None else "absent"


def _measured(entry: Entry | None) -> float | None:
    return entry["measured"] if entry is not None else None


def _shown(entry: Entry | None) -> str:
    if entry is None or entry["measured"] is None:
        return "–"
    text = Bar.from_json(entry["bar"]).show(entry["measured"])
    if entry["label"]:
        text += f" at {place(entry['label'])}"
    interval = Interval.from_json(entry["interval"])
    if interval is not None:
        text += f" ({show_ends(*interval[:2])})"
    return text
