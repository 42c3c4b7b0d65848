"""The pre-registration: claims and bars, checked key by key, and by hash that nothing was moved."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from polyrot.judge.bar import SIGNS, Bar, RegistrationError
from polyrot.runtime.documents import BadDocument, toml_of

REGISTERED_SHA256 = "28a16832d8764d69e8b5af8dfb8113d7e3b15cd9370f0211c05a51e1e9f84b21"
SCALES = ("paper", "toy_a", "toy_b", "neox", "pythia", "pair")
DEFAULT_SCALES = ("paper", "toy_a", "toy_b", "neox")
STATUSES = ("core", "sharp", "supporting", "control", "prediction")
NAMES = {
    str: "non-empty string",
    list: "non-empty list of strings",
    dict: "non-empty table",
    date: "date, such as 2026-11-22",
}


@dataclass(frozen=True)
class Claim:
    """One registered statement; the meaning of the fields is at the head of the registration."""

    id: str
    section: str
    status: str
    scales: tuple[str, ...]
    says: str
    measures: str
    bar: Bar
    paper: str = ""
    over: str | None = None
    controls: tuple[str, ...] = ()
    registered_after: str = ""
    registered: str = ""

    @property
    def family(self) -> str:
        """The part of the id before the dot: claims of one file."""
        return self.id.split(".")[0]

    @property
    def is_control(self) -> bool:
        """Whether it is a null that other claims need."""
        return self.status == "control"


AMENDED = ("bar", "over", "measures", "controls")
"""Keys of a claim that an amendment may put something else in place of."""
AS_PUBLISHED = "_as_published"


@dataclass(frozen=True)
class Change:
    """One key of a claim before and after an amendment: a Bar, a text, a tuple of ids, or None
    where there was nothing."""

    key: str
    old: Any
    new: Any

    def describe(self) -> str:
        """ "bar ≥ 0.6 (was ≥ 0.5)", "over: pairs (was: pairs x sites)"."""
        if isinstance(self.new, Bar):
            return f"bar {self.new.describe()}"
        return f"{self.key}: {_text(self.new)} (was: {_text(self.old)})"

    def to_json(self) -> dict[str, Any]:
        """For the record of a run."""

        def plain(value: Any) -> Any:
            if isinstance(value, Bar):
                return value.to_json()
            return list(value) if isinstance(value, tuple) else value

        return {"key": self.key, "old": plain(self.old), "new": plain(self.new)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Change:
        """What `to_json` wrote."""

        def typed(value: Any) -> Any:
            if isinstance(value, Mapping):
                return Bar.from_json(value)
            return tuple(value) if isinstance(value, list) else value

        return cls(document["key"], typed(document["old"]), typed(document["new"]))


def _text(value: Any) -> str:
    if value is None or value == ():
        return "nothing"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Amendment:
    """A mistake in `claim` put right: on which ISO `date`, for which `reason`, and what changed. A
    new bar's `was` is the old one."""

    claim: str
    date: str
    reason: str
    changes: tuple[Change, ...]

    def describe(self) -> str:
        """What it put in place of what, in one line."""
        return "; ".join(change.describe() for change in self.changes)

    def to_json(self) -> dict[str, Any]:
        """For the record of a run."""
        return {
            "date": self.date,
            "reason": self.reason,
            "changes": [change.to_json() for change in self.changes],
        }

    @classmethod
    def from_json(cls, claim: str, document: Mapping[str, Any]) -> Amendment:
        """What `to_json` wrote of an amendment of `claim`."""
        changes = tuple(Change.from_json(change) for change in document["changes"])
        return cls(claim, document["date"], document["reason"], changes)


MEASURED_AS_BEFORE: frozenset[str] = frozenset()
"""Claims whose `measures` or `over` was amended and whose measure here is still the one before:
their verdicts say so. A claim leaves this list together with the code that measures it anew."""


@dataclass(frozen=True)
class Registration:
    """All registered claims and their amendments, in the order of the file.

    A claim is as its last amendment left it. `alpha` is the family-wise level, after Holm.
    `measured_as_before`: those of MEASURED_AS_BEFORE that it amends.
    """

    claims: tuple[Claim, ...]
    registered: str
    alpha: float
    sha256: str
    amendments: tuple[Amendment, ...] = ()
    measured_as_before: frozenset[str] = frozenset()

    @classmethod
    def load(cls, path: Path, *, registered: bool = True) -> Registration:
        """Read and check `path`.

        Raises RegistrationError naming claim and key, and, unless `registered` is False, if the
        file is not byte for byte the registered one.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise RegistrationError(f"cannot read the registration: {error}") from error
        sha256 = hashlib.sha256(content).hexdigest()
        if registered and sha256 != REGISTERED_SHA256:
            raise RegistrationError(
                f"{path} is not the registered registration: its sha256 is {sha256}, "
                f"that of the registered one {REGISTERED_SHA256}. "
                "A bar is never moved after a result is seen."
            )
        try:
            document = toml_of(content.decode())
        except (BadDocument, UnicodeDecodeError) as error:
            raise RegistrationError(f"{path}: {error}") from error
        return cls._parse(document, sha256)

    @classmethod
    def _parse(cls, document: Mapping[str, Any], sha256: str) -> Registration:
        required = {"meta", "claim"}
        _check_keys("the registration", document, required | {"amendment"}, required)
        meta = document["meta"]
        _check_keys("[meta]", meta, {"registered", "alpha"}, {"registered", "alpha"})
        _check_types("[meta]", {"registered": meta["registered"]}, {"registered": date})
        alpha = meta["alpha"]
        if not isinstance(alpha, float) or not 0 < alpha < 1:
            raise RegistrationError(f"[meta]: alpha must be between 0 and 1, not {alpha!r}")
        claims = tuple(_claim(table) for table in _tables(document, "claim"))
        _check_references(claims)
        current = {claim.id: claim for claim in claims}
        amendments = []
        for table in _tables(document, "amendment"):
            made = _amendment(table, current)
            new = {change.key: change.new for change in made.changes}
            current[made.claim] = replace(current[made.claim], **new)
            try:
                _check_references(tuple(current.values()))
            except RegistrationError as error:
                raise RegistrationError(f"amendment of {made.claim}: {error}") from None
            amendments.append(made)
        amended = tuple(current.values())
        registered = str(meta["registered"])
        before = MEASURED_AS_BEFORE & {made.claim for made in amendments}
        return cls(amended, registered, alpha, sha256, tuple(amendments), before)

    @property
    def as_registered(self) -> bool:
        """Whether the file is byte for byte the registered one."""
        return self.sha256 == REGISTERED_SHA256

    def claim(self, id: str) -> Claim:
        """Raises KeyError if no claim has this id."""
        for claim in self.claims:
            if claim.id == id:
                return claim
        raise KeyError(f"no registered claim {id}")

    def amendments_of(self, id: str) -> tuple[Amendment, ...]:
        """Those of claim `id`, the oldest first."""
        return tuple(made for made in self.amendments if made.claim == id)

    def judged_over(self, claim: Claim) -> str | None:
        """What the claim's test aggregates over: as amended, or where the measure is still the one
        before, as it was registered first."""
        if claim.id in self.measured_as_before:
            for made in self.amendments_of(claim.id):
                for change in made.changes:
                    if change.key == "over":
                        return str(change.old) if change.old is not None else None
        return claim.over

    def pairs(self, scales: Iterable[str] = SCALES) -> list[tuple[Claim, str]]:
        """Every claim at each of its scales that is among `scales`, in the order of the file."""
        asked = set(scales)
        return [(claim, scale) for claim in self.claims for scale in claim.scales if scale in asked]

    def controls_at(self, id: str, scale: str) -> list[tuple[Claim, str]]:
        """The controls of claim `id` at `scale`, each with the scale at which it is judged.

        A control that is arithmetic on published figures (scale "paper") speaks for those scales of
        its claims at which it is not judged itself. What controls a claim controls its form "as
        published" too.
        """
        controlled = dict.fromkeys((id, id.removesuffix(AS_PUBLISHED)))
        by_place = {
            place: control for each in controlled for place, control in self._controlling(each)
        }
        return [
            (control, at)
            for _, control in sorted(by_place.items())
            for at in (scale if scale in control.scales else "paper",)
            if at in control.scales
        ]

    def _controlling(self, id: str) -> list[tuple[int, Claim]]:
        """The claims that control `id`, each with its place in the file."""
        return self._controls.get(id, [])

    @cached_property
    def _controls(self) -> dict[str, list[tuple[int, Claim]]]:
        found: dict[str, list[tuple[int, Claim]]] = {}
        for place, control in enumerate(self.claims):
            for id in control.controls:
                found.setdefault(id, []).append((place, control))
        return found


def _claim(table: Mapping[str, Any]) -> Claim:
    name = f"claim {table.get('id', '(without id)')}"
    known = {key.name for key in fields(Claim)}
    optional = {"paper", "over", "controls", "registered_after", "registered"}
    _check_keys(name, table, known, known - optional)
    _check_types(name, table, {"scales": list, "controls": list, "bar": dict, "registered": date})
    if not re.fullmatch(r"[a-z]\w*\.[a-z]\w*", table["id"]):
        raise RegistrationError(f"{name}: an id is family.name in lower case")
    if table["status"] not in STATUSES:
        raise RegistrationError(
            f"{name}: unknown status {table['status']!r}; known: {', '.join(STATUSES)}"
        )
    _check_twice(name, table)
    unknown = [scale for scale in table["scales"] if scale not in SCALES]
    if unknown:
        raise RegistrationError(f"{name}: unknown scale {unknown[0]!r}; known: {', '.join(SCALES)}")
    lists: dict[str, Any] = {
        key: tuple(table[key]) for key in ("scales", "controls") if key in table
    }
    if "registered" in table:
        lists["registered"] = str(table["registered"])
    return Claim(**{**table, **lists, "bar": _bar(name, table["bar"])})


def _amendment(table: Mapping[str, Any], claims: Mapping[str, Claim]) -> Amendment:
    name = f"amendment of {table.get('claim', '(without claim)')}"
    required = {"claim", "date", "reason"}
    _check_keys(name, table, required | set(AMENDED), required)
    _check_types(name, table, {"date": date, "bar": dict, "controls": list})
    _check_twice(name, table)
    if table["claim"] not in claims:
        raise RegistrationError(f"{name}: no such claim is registered")
    claim, changes = claims[table["claim"]], []
    for key in AMENDED:
        if key not in table:
            continue
        old, new = getattr(claim, key), table[key]
        if key == "bar":
            new = replace(_bar(name, new), was=old)
            same = replace(new, was=claim.bar.was) == old
        else:
            new = tuple(new) if key == "controls" else new
            same = new == old
        if same:
            raise RegistrationError(f"{name}: {key} is what it was")
        changes.append(Change(key, old, new))
    if not changes:
        raise RegistrationError(f"{name}: amends nothing; give one of {', '.join(AMENDED)}")
    return Amendment(claim.id, str(table["date"]), table["reason"], tuple(changes))


def _bar(name: str, limits: Mapping[str, Any]) -> Bar:
    _check_keys(f"{name}, bar", limits, set(SIGNS), set())
    try:
        return Bar(**limits)
    except RegistrationError as error:
        raise RegistrationError(f"{name}: {error}") from None


def _check_references(claims: tuple[Claim, ...]) -> None:
    by_id: dict[str, Claim] = {}
    for claim in claims:
        if claim.id in by_id:
            raise RegistrationError(f"claim {claim.id} is registered twice")
        by_id[claim.id] = claim
    for claim in claims:
        if claim.is_control != bool(claim.controls):
            raise RegistrationError(
                f"claim {claim.id}: `controls` belongs to claims of status control, "
                "and each of those needs it"
            )
        for id in claim.controls:
            if id not in by_id:
                raise RegistrationError(f"claim {claim.id}: controls {id}, which is not registered")
            if by_id[id].is_control:
                raise RegistrationError(
                    f"claim {claim.id}: controls {id}, which is itself a control"
                )
            if "paper" not in claim.scales and not set(claim.scales) & set(by_id[id].scales):
                raise RegistrationError(f"claim {claim.id}: controls {id}, but they share no scale")


def _tables(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    tables = document.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise RegistrationError(f"the registration: {key} must be tables, each headed [[{key}]]")
    return tables


def _check_twice(where: str, table: Mapping[str, Any]) -> None:
    for key in ("scales", "controls"):
        if len(set(table.get(key, ()))) < len(table.get(key, ())):
            raise RegistrationError(f"{where}: {key} lists something twice")


def _check_types(where: str, table: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """Every value is of its key's kind, str unless `kinds` says otherwise, and not empty."""
    for key, value in table.items():
        kind = kinds.get(key, str)
        items = value if isinstance(value, list) else ()
        strings = all(isinstance(item, str) for item in items)
        # a date with an hour is a datetime, which Python counts as a date
        fits = isinstance(value, kind) and not isinstance(value, datetime)
        if not fits or not value or not strings:
            raise RegistrationError(f"{where}: {key} must be a {NAMES[kind]}, not {value!r}")


def _check_keys(where: str, table: Any, known: set[str], required: set[str]) -> None:
    if not isinstance(table, dict):
        raise RegistrationError(f"{where} must be a table, not {table!r}")
    for key in table:
        if key not in known:
            raise RegistrationError(
                f"{where}: unknown key {key!r}; known: {', '.join(sorted(known))}"
            )
    for key in sorted(required - table.keys()):
        raise RegistrationError(f"{where}: key {key!r} is missing")
