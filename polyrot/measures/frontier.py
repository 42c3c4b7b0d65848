"""What is measured of any two models: the claims on the frontier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries.collection import EXPANSION, Group, Spec, own_start
from polyrot.dictionaries.loading import Saved
from polyrot.dictionaries.sae import Dictionary
from polyrot.dictionaries.training import Schedule
from polyrot.haar.orthogonal import determinant_sign
from polyrot.haar.published import published_ks
from polyrot.language.pair import parted
from polyrot.maps.matching import matched_fraction, max_cosine
from polyrot.measured import Interval, Measured, PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits
from polyrot.measures.haar.published import distances, half_gap
from polyrot.measures.haar.rotations import rotation_stack
from polyrot.measures.transfer import Transfer, measure_transfer
from polyrot.runtime.seeding import numpy_generator


def sibling_group(
    cohort: Cohort, schedule: Schedule, sites: Sequence[str], expansion: int = EXPANSION
) -> Group:
    """B's own dictionaries, each from its own start, to compare A's decoder with."""
    l1 = cohort.facts.published_l1
    specs = tuple(Spec(1, site, own_start(1), l1) for site in sites)
    return Group("own", specs, schedule, expansion)


OF_R = ("magnitude", "split_half", "det", "ks_p")
NAIVE_SERVES = 0.05


@dataclass(frozen=True)
class Frontier:
    """What is measured of one pair: figures by site and name.

    At sites where A has a dictionary: the EVs of `Transfer`, and of the decoders the mean best
    cosine with B's own dictionary and the fraction matched. At all: magnitude ||R - I||_F /
    sqrt(2 d), split_half (the same between fits on two halves of the tokens), det (its sign), ks_p
    (the published test of R's phases against Haar), and what was measured elsewhere. gains: rotated
    EV - naive EV at the former sites, with resamples of the score split. notes: what may be wrong
    with A's dictionary.
    """

    by_site: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, int]
    gains: PairSite
    notes: tuple[str, ...] = ()

    def gain(self) -> Measured:
        """Rotated EV - naive EV at every site with a dictionary of A, with the interval of the
        score split's sequences. It says that A's basis does not serve B: no ceiling."""
        each = self.gains.each()
        values = dict(zip(self.gains.sites, each.values.tolist(), strict=True))
        return self._measured(values, lambda name: name not in OF_R, each.intervals)

    def nearly_one(self) -> str:
        """Why the two are no independent siblings, as registered: naive EV is within NAIVE_SERVES
        of self EV wherever A has a dictionary. Empty where it is not."""
        gaps = [r["self_ev"] - r["naive_ev"] for r in self.by_site.values() if "naive_ev" in r]
        if max(gaps) > NAIVE_SERVES:
            return ""
        return f"naive EV is within {NAIVE_SERVES} of self EV at every site"

    def magnitude(self) -> Measured:
        """||R - I||_F / sqrt(2 d) at every site, of the R that was fitted."""
        return self._measured(
            {site: row["magnitude"] for site, row in self.by_site.items()},
            lambda name: name in OF_R[1:],
        )

    def lines(self, at_once: int = 7) -> list[str]:
        """A table of everything: a line for each figure, a column for each site, `at_once` sites
        beside each other."""
        names, sites = max(map(list, self.by_site.values()), key=len), list(self.by_site)
        lines = []
        for start in range(0, len(sites), at_once):
            part = sites[start : start + at_once]
            lines.append(" " * 18 + "".join(f"{site:>14}" for site in part))
            for name in names:
                found = (self.by_site[site].get(name) for site in part)
                cells = ("-" if value is None else f"{value:.3f}" for value in found)
                lines.append(f"{name:<18}" + "".join(f"{cell:>14}" for cell in cells))
        return [*lines, *self.notes]

    def _measured(
        self,
        values: Mapping[str, float],
        recorded: Callable[[str], bool],
        intervals: tuple[Interval | None, ...] = (),
    ) -> Measured:
        beside: dict[str, float | str] = {
            f"{name}_{site}": value
            for site, row in self.by_site.items()
            for name, value in row.items()
            if recorded(name)
        }
        return Measured(
            np.array(list(values.values())),
            tuple(values),
            None,
            {**beside, **({"notes": "; ".join(self.notes)} if self.notes else {})},
            {"null draws": NULL_DRAWS_SEED},
            {**self.counts, "sites": len(values)},
            intervals,
        )


EVS = {
    "self_ev": "self_ev",
    "naive_ev": "naive_ev",
    "shifted_ev": "mean_shift_ev",
    "rotated_ev": "rotated_ev",
    "shuffled_ev": "shuffled_ev",
    "principal_ev": "principal_axes_ev",
    "noise_ev": "noise_ev",
    "pointwise_ev": "pointwise_ev",
    "affine_ev": "affine_ev",
}
"""Tables of `Transfer`, and what they are called in the record."""


def notes_on(sae: Saved, name: str) -> tuple[str, ...]:
    """What a dictionary's file says that does not go with model A, called `name`, or with how its
    activations are taken here."""
    short = PurePath(parted(name)[0]).name.lower()
    trained_on = sae.model.rpartition("/")[2].lower()
    other = [f"note: the dictionary names {sae.model} as its model, not {name}"]
    return (
        *(other if trained_on and trained_on != short else ()),
        *(f"note: the dictionary was trained on {text}" for text in sae.otherwise),
    )


def measure_frontier(
    cohort: Cohort,
    fits: Fits,
    saes: Mapping[str, Dictionary],
    others: Mapping[str, Dictionary],
    notes: Sequence[str] = (),
    beside: Mapping[str, Mapping[str, float]] | None = None,
) -> Frontier:
    """Everything of one pair.

    fits: every map from B to A, at every site. saes: A's dictionaries by site, at one site or more.
    others: B's own at the same sites. notes: see `notes_on`; one is added for every site at which
    A's dictionary suits B better. beside: further figures by name and site, measured elsewhere.
    """
    at = [site for site in fits.sites if site in saes]
    transfer: Transfer = measure_transfer(cohort, fits.at(at), saes, copies=0)
    rows: dict[str, dict[str, float]] = {site: {} for site in fits.sites}
    for j, site in enumerate(at):
        for name, called in EVS.items():
            rows[site][called] = float(getattr(transfer, name).values[0, j])
        mine, theirs = saes[site].decoder, others[site].decoder
        given = mine.norm(dim=0).cpu() > 0  # someone else's may have columns of zeros
        cosines = max_cosine(mine, theirs, given, features="columns")
        rows[site]["mean_cosine"] = float(cosines.mean())
        rows[site]["matched"] = matched_fraction(cosines)
    rs = rotation_stack(fits)
    found = {
        "magnitude": distances(fits).values[0] / (2 * cohort.width) ** 0.5,
        "split_half": half_gap(fits).values[0],
        "det": determinant_sign(rs),
        "ks_p": published_ks(rs, numpy_generator(NULL_DRAWS_SEED, "published reference")).p_values,
    }
    for name, values in found.items():
        for site, value in zip(fits.sites, values, strict=True):
            rows[site][name] = float(value)
    for name, by_site in (beside or {}).items():
        for site, value in by_site.items():
            rows[site][name] = value
    gains = transfer.rotated_ev - transfer.naive_ev
    counts = {"pairs": 1, **gains.counts}
    swapped = [
        f"note: at {site} the dictionary of A reconstructs B better than A: is it B's?"
        for site in at
        if rows[site]["naive_ev"] > rows[site]["self_ev"]
    ]
    return Frontier(rows, counts, gains, (*notes, *swapped))
