"""What a run hands to its report beyond the findings. Nothing here needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyrot.cohorts.cohort import Cohort


@dataclass(frozen=True)
class CohortFacts:
    """Which models were judged. `fingerprint` is of everything that made them."""

    scale: str
    seeds: tuple[int, ...]
    width: int
    sites: tuple[str, ...]
    fingerprint: str

    @classmethod
    def of(cls, cohort: Cohort) -> CohortFacts:
        """What the report tells of a cohort."""
        return cls(
            cohort.scale, tuple(cohort.seeds), cohort.width, tuple(cohort.sites), cohort.fingerprint
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {**asdict(self), "seeds": list(self.seeds), "sites": list(self.sites)}


@dataclass(frozen=True)
class Gathered:
    """figures: values of `polyrot.report.figures`, a part of one figure each. failures: why one
    could not be made. values: by claim and scale, every value that was checked, with its label.
    seconds: of all tests, by family. shipped: entries of the manifest of shipped artifacts. tables:
    by claim and scale, how many tables behind its figures were read, and how many measured."""

    figures: tuple[Any, ...] = ()
    failures: tuple[str, ...] = ()
    cohorts: tuple[CohortFacts, ...] = ()
    values: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    shipped: tuple[Mapping[str, Any], ...] = ()
    tables: Mapping[tuple[str, str], Mapping[str, int]] = field(default_factory=dict)

    def provenance(self, scales: Sequence[str]) -> dict[str, Any]:
        """What verdicts.json tells of it in `run`; of the shipped artifacts those of `scales`."""
        keys = ("kind", "name", "fingerprint", "sha256", "device", "when", "seconds")
        return {
            "cohorts": [facts.to_json() for facts in self.cohorts],
            "seconds": {family: round(s, 2) for family, s in self.seconds.items()},
            "shipped": [
                {key: entry[key] for key in keys}
                for entry in self.shipped
                if any(entry["name"].startswith(scale) for scale in scales)
            ],
        }
