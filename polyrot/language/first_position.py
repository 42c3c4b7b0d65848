"""What the first position of a sequence does to the figures: attention sinks.

Many language models write a stream at their first position, whatever the token, whose norm is tens
to thousands of times that of the others (Xiao et al. 2023, arXiv 2309.17453; Sun et al. 2024, arXiv
2402.17762). It then is most of the variance, one direction of it is all that a rotation must find,
and an explained variance over all positions says hardly anything of the rest: two unrelated models
can have 0.96 with it and nothing without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from polyrot.defaults import SKIP_POSITIONS
from polyrot.dictionaries.sae import Dictionary
from polyrot.language.activations import TextCohort
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.procrustes import Rotation, fit_from_moments, pair_moments

FACTOR = 3.0
"""Above it, the ratio of norms is noted."""
RECIPE_VERSION = 1  # raise when a change of code changes what is measured
SEQUENCES = 32
"""Of the score split, over which norms are taken."""


@dataclass(frozen=True)
class FirstPosition:
    """By site: `ratios`, one for each model, the mean norm at the first position over the median
    norm at all; `here`, figures of the positions that are judged (pointwise EV through R, and of
    given dictionaries the EV of their own model, untouched and rotated; mean over pairs); `there`,
    the same with the other choice: without the first position where it is judged, with every
    position where some are skipped. Both are empty where no ratio is above FACTOR and none is
    skipped. skip: positions that are left out of what is judged.
    """

    ratios: Mapping[str, Sequence[float]]
    skip: int = 0
    here: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    there: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def large(self) -> dict[str, float]:
        """Sites whose largest ratio is above FACTOR, and that ratio."""
        largest = {site: max(found) for site, found in self.ratios.items()}
        return {site: ratio for site, ratio in largest.items() if ratio > FACTOR}

    @property
    def other(self) -> str:
        """What stands behind the name of a figure of `there`: the positions that it is of."""
        return "[0:]" if self.skip else "[1:]"

    def notes(self) -> tuple[str, ...]:
        """What a reader must know; empty where no ratio is large."""
        if not (large := self.large):
            return ()
        site = max(large, key=lambda name: large[name])
        more = f" ({len(large)} of {len(self.ratios)} sites are above {FACTOR:g})"
        begins = (
            f"note: at {site} the norm of the first position is {large[site]:.3g} times the "
            f"median{more}: an attention sink, which may decide every figure that includes it"
        )
        if self.skip:
            return (
                f"{begins}; {SKIP_POSITIONS} {self.skip} leaves it out of what is judged, and [0:] "
                "marks the figures that have all positions",
            )
        return (
            f"{begins}; figures marked [1:] are without the first position, and {SKIP_POSITIONS} 1 "
            "judges by those",
        )

    def lines(self) -> list[str]:
        """For a scale of many models: the largest ratio of each site, and both figures."""
        lines = [f"{'site':<16}{'first / median norm':>20}"]
        names = list(next(iter(self.here.values()), {}))
        lines[0] += "".join(f"{name:>18}{name + self.other:>20}" for name in names)
        for site, ratios in self.ratios.items():
            cells = "".join(
                f"{self.here[site][name]:>18.3f}{self.there[site][name]:>20.3f}" for name in names
            )
            lines.append(f"{site:<16}{max(ratios):>20.3g}{cells}")
        return [*lines, *self.notes()]

    def rows(self, letters: Sequence[str]) -> dict[str, dict[str, float]]:
        """For the table of a pair, by name and site: the ratio of each model, called by its letter,
        and the figures of `there`."""
        found = {
            f"first/median {letter}": {site: r[i] for site, r in self.ratios.items()}
            for i, letter in enumerate(letters)
        }
        for site, row in self.here.items():
            if "self_ev" not in row:  # elsewhere the pair's own table has it
                found.setdefault("pointwise_ev", {})[site] = row["pointwise_ev"]
        for site, row in self.there.items():
            for name, value in row.items():
                found.setdefault(name + self.other, {})[site] = value
        return found


def first_position(
    cohort: TextCohort, saes: Mapping[str, Dictionary] | None = None
) -> FirstPosition:
    """Measure it; figures only where a ratio is large or positions are skipped.

    saes: dictionaries of the anchor, by site. Raises BadActivations where a map cannot be fitted.
    """
    ratios = first_ratios(cohort)
    found = FirstPosition(ratios, cohort.skip)
    if not found.large and not cohort.skip:
        return found
    other = cohort.skipping(0 if cohort.skip else 1)
    return FirstPosition(
        ratios, cohort.skip, _figures(cohort, saes or {}), _figures(other, saes or {})
    )


def first_ratios(cohort: TextCohort) -> dict[str, list[float]]:
    """By site and model, the mean norm at the first position over the median norm at all."""
    norms = cohort.norms("score", SEQUENCES)
    return {site: [ratio(of_model) for of_model in found] for site, found in norms.items()}


def ratio(norms: Tensor) -> float:
    """Of norms [sequences, position], the mean at the first position over the median of all."""
    return float(norms[:, 0].double().mean() / norms.double().median().clamp(min=1e-300))


def _figures(cohort: TextCohort, saes: Mapping[str, Dictionary]) -> dict[str, dict[str, float]]:
    """Fitted on the fit split, which is left before the score split is begun."""
    fitted: dict[str, list[Rotation]] = {}
    for site in cohort.sites:
        x = cohort.activations("fit", site)
        moments = pair_moments(list(x[1:]), x[0], where=f"{cohort.scale}, {site}")
        fitted[site] = fit_from_moments(moments)
    found: dict[str, dict[str, float]] = {}
    for site in cohort.sites:
        x = cohort.activations("score", site)
        rotated = [r.apply(a) for r, a in zip(fitted[site], x[1:], strict=True)]
        row = {"pointwise_ev": [explained_variance(x[0], y) for y in rotated]}
        if site in saes:
            sae = saes[site]
            row["self_ev"] = [explained_variance(x[0], sae(x[0]))]
            row["naive_ev"] = [explained_variance(a, sae(a)) for a in x[1:]]
            row["rotated_ev"] = [explained_variance(y, sae(y)) for y in rotated]
        found[site] = {name: float(np.mean(values)) for name, values in row.items()}
    return found


__all__ = ["FACTOR", "FirstPosition", "first_position", "first_ratios", "ratio"]
