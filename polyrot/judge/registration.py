"""The pre-registration: claims and bars, checked key by key, and by hash that nothing was moved."""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

REGISTERED_SHA256 = "24d9c38b424b340c5c03baa39dc70e6b0cc23a5fccbc2c8b5faaabff6b78142d"
SCALES = ("paper", "toy_a", "toy_b", "neox", "pythia", "pair")
DEFAULT_SCALES = ("paper", "toy_a", "toy_b", "neox")
STATUSES = ("core", "sharp", "supporting", "control", "prediction")
NAMES = {
    str: "non-empty string",
    list: "non-empty list of strings",
    dict: "non-empty table",
    date: "date, such as 2026-11-22",
}
SIGNS = {"equals": "=", "at_least": "≥", "above": ">", "at_most": "≤", "below": "<"}


class RegistrationError(ValueError):
    """The registration is malformed, contradicts itself, or is not the one that was registered."""


@dataclass(frozen=True)
class Bar:
    """Limits on one number. `above` and `below` are strict, `equals` is exact; `was` is the old bar
    where an amendment put these limits in its place.

    Raises RegistrationError if there is none, one is no finite number, or nothing satisfies them.
    """

    equals: float | None = None
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    was: Bar | None = None

    def __post_init__(self) -> None:
        limits = self._limits()
        if not limits:
            raise RegistrationError(f"no bar: give at least one of {', '.join(SIGNS)}")
        for key, limit in limits.items():
            if (
                isinstance(limit, bool)
                or not isinstance(limit, int | float)
                or not math.isfinite(limit)
            ):
                raise RegistrationError(f"bar {key} = {limit!r} is not a finite number")
        if "equals" in limits and len(limits) > 1:
            raise RegistrationError("bar has equals and another limit")
        for strict, loose in (("above", "at_least"), ("below", "at_most")):
            if strict in limits and loose in limits:
                raise RegistrationError(f"bar has both {strict} and {loose}")
        low = limits.get("at_least", limits.get("above", -math.inf))
        high = limits.get("at_most", limits.get("below", math.inf))
        if low > high or (low == high and {"above", "below"} & limits.keys()):
            raise RegistrationError(f"bar that nothing satisfies: {self.describe()}")

    def satisfied(self, x: float) -> bool:
        """Whether x is within the bar. Raises ValueError if x is not finite."""
        if not math.isfinite(x):
            raise ValueError(f"{x} cannot be judged")
        return (
            (self.equals is None or x == self.equals)
            and (self.at_least is None or x >= self.at_least)
            and (self.above is None or x > self.above)
            and (self.at_most is None or x <= self.at_most)
            and (self.below is None or x < self.below)
        )

    def margin(self, x: float) -> float:
        """Distance of x to the nearest limit, negative beyond it."""
        margins = []
        for key, limit in self._limits().items():
            if key == "equals":
                margins.append(-abs(x - limit))
            else:
                margins.append(x - limit if key in ("at_least", "above") else limit - x)
        return min(margins)

    def worst(self, values: Iterable[float]) -> int:
        """Index of the value that misses the bar most, or comes closest to missing it."""
        # A value on a strict limit misses with margin 0, so satisfaction comes before the margin.
        ranked = [(self.satisfied(x), self.margin(x)) for x in values]
        return ranked.index(min(ranked))

    def describe(self) -> str:
        """ "≥ 0.96", "0.35 … 0.7", "= 104448", amended "≥ 0.95 (was ≥ 0.96)"."""
        limits = self._limits()
        if limits.keys() == {"at_least", "at_most"}:
            text = f"{self.at_least:.10g} … {self.at_most:.10g}"
        else:
            text = ", ".join(f"{SIGNS[key]} {limit:.10g}" for key, limit in limits.items())
        return text if self.was is None else f"{text} (was {self.was.describe()})"

    def show(self, x: float) -> str:
        """x in as few digits, at least four, as leave it on its side of the bar."""
        for digits in range(4, 17):
            text = f"{x:.{digits}g}"
            if self.satisfied(float(text)) == self.satisfied(x):
                return f"{x:.0f}" if x == round(x) and abs(x) < 1e9 else text
        return repr(x)

    def _limits(self) -> dict[str, float]:
        found = {key: getattr(self, key) for key in SIGNS}
        return {key: limit for key, limit in found.items() if limit is not None}


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

    @property
    def family(self) -> str:
        return self.id.split(".")[0]

    @property
    def is_control(self) -> bool:
        return self.status == "control"


@dataclass(frozen=True)
class Amendment:
    """A mistake in the bar of `claim` put right: on which ISO `date`, for which `reason`. `bar` is
    the new one, and `bar.was` the old."""

    claim: str
    date: str
    reason: str
    bar: Bar


@dataclass(frozen=True)
class Registration:
    """All registered claims and the amendments of their bars, in the order of the file.

    A claim has the bar of its last amendment. `alpha` is the family-wise level, after Holm.
    """

    claims: tuple[Claim, ...]
    registered: str
    alpha: float
    sha256: str
    amendments: tuple[Amendment, ...] = ()

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
            document = tomllib.loads(content.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
            current[made.claim] = replace(current[made.claim], bar=made.bar)
            amendments.append(made)
        registered = str(meta["registered"])
        return cls(tuple(current.values()), registered, alpha, sha256, tuple(amendments))

    @property
    def as_registered(self) -> bool:
        return self.sha256 == REGISTERED_SHA256

    def claim(self, id: str) -> Claim:
        """Raises KeyError if no claim has this id."""
        for claim in self.claims:
            if claim.id == id:
                return claim
        raise KeyError(f"no registered claim {id}")

    def pairs(self, scales: Iterable[str] = SCALES) -> list[tuple[Claim, str]]:
        """Every claim at each of its scales that is among `scales`, in the order of the file."""
        asked = set(scales)
        return [(claim, scale) for claim in self.claims for scale in claim.scales if scale in asked]

    def controls_at(self, id: str, scale: str) -> list[tuple[Claim, str]]:
        """The controls of claim `id` at `scale`, each with the scale at which it is judged.

        A control that is arithmetic on published figures (scale "paper") speaks for every scale of
        its claims.
        """
        return [
            (control, at)
            for control in self.claims
            if id in control.controls
            for at in dict.fromkeys((scale, "paper"))
            if at in control.scales
        ]


def _claim(table: Mapping[str, Any]) -> Claim:
    name = f"claim {table.get('id', '(without id)')}"
    known = {key.name for key in fields(Claim)}
    optional = {"paper", "over", "controls", "registered_after"}
    _check_keys(name, table, known, known - optional)
    _check_types(name, table, {"scales": list, "controls": list, "bar": dict})
    if not re.fullmatch(r"[a-z]\w*\.[a-z]\w*", table["id"]):
        raise RegistrationError(f"{name}: an id is family.name in lower case")
    if table["status"] not in STATUSES:
        raise RegistrationError(
            f"{name}: unknown status {table['status']!r}; known: {', '.join(STATUSES)}"
        )
    for key in ("scales", "controls"):
        if len(set(table.get(key, ()))) < len(table.get(key, ())):
            raise RegistrationError(f"{name}: {key} lists something twice")
    unknown = [scale for scale in table["scales"] if scale not in SCALES]
    if unknown:
        raise RegistrationError(f"{name}: unknown scale {unknown[0]!r}; known: {', '.join(SCALES)}")
    lists = {key: tuple(table[key]) for key in ("scales", "controls") if key in table}
    return Claim(**{**table, **lists, "bar": _bar(name, table["bar"])})


def _amendment(table: Mapping[str, Any], claims: Mapping[str, Claim]) -> Amendment:
    name = f"amendment of {table.get('claim', '(without claim)')}"
    known = {key.name for key in fields(Amendment)}
    _check_keys(name, table, known, known)
    _check_types(name, table, {"date": date, "bar": dict})
    if table["claim"] not in claims:
        raise RegistrationError(f"{name}: no such claim is registered")
    bar = replace(_bar(name, table["bar"]), was=claims[table["claim"]].bar)
    return Amendment(table["claim"], str(table["date"]), table["reason"], bar)


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


def _check_types(where: str, table: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """Every value is of its key's kind, str unless `kinds` says otherwise, and not empty."""
    for key, value in table.items():
        kind = kinds.get(key, str)
        items = value if isinstance(value, list) else ()
        strings = all(isinstance(item, str) for item in items)
        if not isinstance(value, kind) or not value or not strings:
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
