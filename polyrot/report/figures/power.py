"""Power of the Haar tests (section 5), from a table that is shipped: measuring it takes minutes.

``python -m polyrot.report power`` measures it anew and rewrites power.json beside this file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from polyrot.haar.figure import power_figure
from polyrot.haar.power import CRITERIA, PUBLISHED, PowerTable
from polyrot.report.figures import style
from polyrot.report.figures.values import Table, Words, decode, encode, table
from polyrot.runtime.files import write_atomically

SHIPPED = Path(__file__).with_name("power.json")


@dataclass(frozen=True)
class Power:
    """Share of `draws` matrices of each alternative that each criterion rejects as not Haar, and
    when and by which command that was measured."""

    d: int
    draws: int
    null_draws: int
    level: float
    seed: int
    alternatives: tuple[str, ...]
    criteria: tuple[str, ...]
    power: Table
    seconds: float
    date: str
    command: str

    @property
    def scale(self) -> str:
        """No scale's: it is the tests' own. Names the file."""
        return f"d{self.d}"

    @classmethod
    def of(cls, found: PowerTable, date: str, command: str) -> Power:
        """Raises ValueError where an alternative does not exist at this d: a table is whole."""
        if np.isnan(found.power).any():
            missing = found.alternatives[int(np.isnan(found.power).any(axis=1).argmax())]
            raise ValueError(f"no power against {missing} at d = {found.d}: take a power of two")
        return cls(
            found.d,
            found.draws,
            found.null_draws,
            found.level,
            found.seed,
            found.alternatives,
            found.criteria,
            table(found.power),
            round(found.seconds, 1),
            date,
            command,
        )

    def table(self) -> PowerTable:
        """As `polyrot.haar` has it."""
        known = {field.name: getattr(self, field.name) for field in fields(PowerTable)}
        return PowerTable(**{**known, "power": np.array(self.power)})

    def merged(self, other: Power) -> Power:
        """The later one: it is made of one piece."""
        return other

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        names = [n for n in self.alternatives if n not in ("Haar", "PQ, unknown Haar Q")]
        seen = {c: sum(self.table().get(n, c) >= 0.9 for n in names) for c in ("battery", "KS .99")}
        return Words(
            f"Power of the Haar tests, d = {self.d}",
            f"Share of n = {self.draws:,} orthogonal matrices of each kind that each test rejects "
            f"as not Haar at level {self.level:g} (null tables of {self.null_draws:,} draws). The "
            "first row is the size: how often a true Haar draw is rejected. Right of the line: the "
            f"published criteria. Measured {self.date} by `{self.command}`.",
            f"Of {len(names)} kinds of matrices that are not Haar, the battery rejects "
            f"{seen['battery']} at least nine times in ten, the published KS criterion "
            f"{seen['KS .99']}, which also rejects {self.table().get('Haar', 'KS .99'):.0%} of "
            "true Haar draws.",
        )


def load(path: Path = SHIPPED) -> tuple[Power, ...]:
    """The tables of a file, by dimension. Raises ValueError for a damaged one."""
    tables = tuple(decode(Power, entry) for entry in json.loads(path.read_text(encoding="utf-8")))
    for found in tables:
        size = (len(found.alternatives), len(found.criteria))
        if np.shape(found.power) != size:
            raise ValueError(f"{path}: d = {found.d}: power {np.shape(found.power)}, not {size}")
        unknown = set(found.criteria) - CRITERIA.keys()
        if unknown or not set(PUBLISHED) <= set(found.criteria):
            raise ValueError(f"{path}: d = {found.d}: criteria are not those of polyrot.haar.power")
    return tuple(sorted(tables, key=lambda found: found.d))


def keep(found: Power, path: Path = SHIPPED) -> None:
    """Write `found` into `path`, in place of what is there for the same dimension."""
    known: Mapping[int, Power] = {p.d: p for p in load(path)} if path.exists() else {}
    tables = {**known, found.d: found}
    text = json.dumps([encode(tables[d]) for d in sorted(tables)], indent=1, ensure_ascii=False)
    write_atomically(path, text + "\n")


@style.styled
def draw(value: Power) -> Figure:
    """The figure of a value."""
    with mpl.rc_context({"axes.grid": False}):
        return power_figure(value.table())
