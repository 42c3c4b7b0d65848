"""The verdict on a pair in words: does A's dictionary work on B through R?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from polyrot.measured import PairSite

HOME = 0.5
"""EV of a dictionary that works: at home, and so on B (registered of the former)."""
BEYOND_NULLS = 0.05
"""How much better R must do than the mean alone or shuffled tokens (registered)."""
MORE = "more tokens (--tokens) would tell"

Says = Literal["yes", "no", "cannot tell"]


@dataclass(frozen=True)
class Value:
    """A figure of one site with the ends of its interval, itself where it has none."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, table: PairSite, site: str) -> Value:
        """Of a table of one pair."""
        each = table.at([site]).each()
        value, found = float(each.values[0]), each.interval(0)
        return cls(value, value, value) if found is None else cls(value, found.low, found.high)

    def against(self, bar: float) -> Says:
        """Whether it lies at or above a bar, interval and all."""
        if self.low >= bar:
            return "yes"
        return "no" if self.high < bar else "cannot tell"

    def __str__(self) -> str:
        ends = f" [{self.low:.3g}, {self.high:.3g}]" if self.low < self.high else ""
        return f"{self.value:.3g}{ends}"


@dataclass(frozen=True)
class Answer:
    """At one site, because of what."""

    site: str
    says: Says
    because: str


def answer(
    site: str,
    home: Value,
    naive: Value,
    rotated: Value,
    gain: Value,
    beyond: Value,
    ceiling: float | None = None,
    related: str = "",
) -> Answer:
    """Whether A's dictionary works on B through R at a site.

    home, naive, rotated: EV on A, on B as it is, on B through R. gain: rotated - naive. beyond:
    rotated less the larger of those through the mean alone and of shuffled tokens; ceiling: the
    same of an exact copy of A. related: why the two are no independent siblings.

    It works where EV through R is at least HOME, BEYOND_NULLS above the nulls, and above that of no
    map at all. Nothing can be told by a dictionary that does not work on A, where the basis is
    shared, or where an exact copy of A would do no better than the nulls.
    """

    def told(says: Says, because: str) -> Answer:
        return Answer(site, says, because)

    unknown: Says = "cannot tell"
    if home.against(HOME) == "no":
        return told(unknown, f"it does not work on A: EV {home}, where {HOME} is asked")
    if home.against(HOME) == unknown:
        return told(unknown, f"it is open whether it works on A: EV {home}, bar {HOME}; {MORE}")
    if related:
        return told(
            unknown, f"the two are no independent siblings, {related} (EV on B as it is {naive})"
        )
    if ceiling is not None and ceiling < BEYOND_NULLS:
        return told(
            unknown,
            "this dictionary does not need R: of an exact rotated copy of A the EV is only "
            f"{ceiling:.3g} above the nulls, where {BEYOND_NULLS} is asked",
        )
    checks = (
        (rotated, HOME, "EV through R"),
        (beyond, BEYOND_NULLS, "EV through R less that of the mean or of shuffled tokens"),
        (gain, 0.0, "EV through R less that of no map"),
    )
    for wanted in ("no", unknown):
        for value, bar, what in checks:
            if value.against(bar) == wanted:
                open_ = f", interval and bar overlap; {MORE}" if wanted == unknown else ""
                return told(wanted, f"{what} is {value}, where {bar:g} is asked{open_}")
    return told(
        "yes",
        f"EV is {rotated} through R and {naive} without, {home} on A itself, and {beyond} above "
        "what the mean or shuffled tokens give",
    )


def in_words(answers: Sequence[Answer]) -> list[str]:
    """The verdict, and where there are several sites, the reason at each."""
    asked = "A's dictionary works on B through R"
    if len(answers) == 1:
        (only,) = answers
        return [f"{asked}: {only.says}, because at {only.site} {only.because}"]
    sites: dict[str, list[str]] = {}
    for each in answers:
        sites.setdefault(each.says, []).append(each.site)
    parts = [
        f"{says} at {'every site' if len(sites) == 1 else ', '.join(where)}"
        for says, where in sites.items()
    ]
    reasons = [f"  {each.site}: {each.says}, because {each.because}" for each in answers]
    return [f"{asked}: {'; '.join(parts)}", *reasons]
