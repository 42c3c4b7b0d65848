"""What is measured of any two models: the claims on the frontier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries.groups import EXPANSION, Group, Spec, own_start
from polyrot.dictionaries.loading import Saved
from polyrot.dictionaries.sae import Dictionary, quality
from polyrot.dictionaries.training import Schedule
from polyrot.haar.orthogonal import determinant_sign
from polyrot.haar.published import published_ks
from polyrot.language.pair import parted
from polyrot.maps.matching import matched_fraction, max_cosine
from polyrot.maps.procrustes import frobenius_distance, split_half_share
from polyrot.measured import Interval, Measured, PairSite
from polyrot.measures.answers import Answer, Value, answer, in_words
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits
from polyrot.measures.haar.published import distances, half_gap
from polyrot.measures.haar.rotations import rotation_stack
from polyrot.measures.transfer import COPIES, Transfer, measure_transfer
from polyrot.runtime.seeding import numpy_generator


def sibling_group(
    cohort: Cohort, schedule: Schedule, sites: Sequence[str], expansion: int = EXPANSION
) -> Group:
    """B's own dictionaries, each from its own start, to compare A's decoder with."""
    l1 = cohort.facts.published_l1
    specs = tuple(Spec(1, site, own_start(1), l1) for site in sites)
    return Group("own", specs, schedule, expansion)


OF_R = ("magnitude", "magnitude_shuffled", "rank", "split_half", "split_half_share", "det", "ks_p")
NAIVE_SERVES = 0.05
BEYOND = ("rotated_ev", "shifted_ev", "shuffled_ev")
"""Tables of which it is asked what an exact copy of A would give."""


@dataclass(frozen=True)
class Frontier:
    """What is measured of one pair: figures by site and name.

    At sites where A has a dictionary: the EVs of `Transfer`, L0 (mean active features a token, on
    A), and of the decoders the mean best cosine with B's own dictionary and the fraction matched,
    where B has one. At all: magnitude ||R - I||_F / sqrt(2 d), the same of a rotation fitted on
    shuffled tokens, R's rank, split_half (the distance between fits on two halves of the tokens),
    split_half_share (of R that the halves agree on), det (its sign), ks_p (the published test of
    R's phases against Haar), and what was measured elsewhere. transfer: at the former sites, with
    resamples of the score split, and what exact copies of A give. notes: what was read, and what
    may be wrong with it. related: why the two are no independent siblings, where that was known
    before.
    """

    by_site: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, int]
    transfer: Transfer
    notes: tuple[str, ...] = ()
    related: str = ""

    def gain(self) -> Measured:
        """Rotated EV - naive EV at every site with a dictionary of A, with the interval of the
        score split's sequences. It says that A's basis does not serve B: no ceiling."""
        gains = self.transfer.rotated_ev - self.transfer.naive_ev
        return self._of_sites(gains, lambda name: name not in OF_R)

    def at_home(self) -> Measured:
        """Self EV at every site with a dictionary of A. It is of no sibling: no ceiling."""
        found = replace(self.transfer.self_ev, ceiling=None)
        return self._of_sites(found, lambda name: name == "l0")

    def beyond_nulls(self) -> Measured:
        """Rotated EV less the larger of those through the mean alone and through a rotation of
        shuffled tokens, at the same sites; the ceiling is what exact copies of A give."""
        return self._of_sites(self._beyond(), lambda name: name in EVS.values())

    def nearly_one(self) -> str:
        """Why the two are no independent siblings, as registered: known before, or naive EV is
        within NAIVE_SERVES of self EV wherever A has a dictionary. Empty where it is not."""
        gaps = [r["self_ev"] - r["naive_ev"] for r in self.by_site.values() if "naive_ev" in r]
        if self.related or max(gaps) > NAIVE_SERVES:
            return self.related
        return f"naive EV is within {NAIVE_SERVES} of self EV at every site"

    def magnitude(self) -> Measured:
        """||R - I||_F / sqrt(2 d) at every site, of the R that was fitted."""
        return self._measured(self._row("magnitude"), lambda name: name in OF_R[1:])

    def magnitude_of_shuffled(self) -> Measured:
        """|1 - ||R - I||_F / sqrt(2 d)| at every site, of the R fitted on shuffled tokens. It says
        that the two rotations differ: no ceiling."""
        found = {site: abs(1 - x) for site, x in self._row("magnitude_shuffled").items()}
        return self._measured(found, lambda name: name.startswith("magnitude"))

    def answers(self) -> tuple[Answer, ...]:
        """Does A's dictionary work on B through R? One answer for each site that has one."""
        pair, related = self.transfer, self.nearly_one()
        gains, beyond = pair.rotated_ev - pair.naive_ev, self._beyond()
        return tuple(
            answer(
                site,
                Value.of(pair.self_ev, site),
                Value.of(pair.naive_ev, site),
                Value.of(pair.rotated_ev, site),
                Value.of(gains, site),
                Value.of(beyond, site),
                None if beyond.ceiling is None else float(beyond.at([site]).ceiling[0]),  # type: ignore[index]
                related,
            )
            for site in pair.self_ev.sites
        )

    def lines(self, at_once: int = 7) -> list[str]:
        """A table of everything: a line for each figure, a column for each site, `at_once` sites
        beside each other; then the notes, and the verdict in words."""
        sites = list(self.by_site)
        longest_first = sorted(self.by_site.values(), key=len, reverse=True)
        names = list(dict.fromkeys(name for row in longest_first for name in row))
        lines = []
        for start in range(0, len(sites), at_once):
            part = sites[start : start + at_once]
            lines.append(" " * 18 + "".join(f"{site:>14}" for site in part))
            for name in names:
                found = (self.by_site[site].get(name) for site in part)
                cells = ("-" if value is None else f"{value:.3f}" for value in found)
                lines.append(f"{name:<18}" + "".join(f"{cell:>14}" for cell in cells))
        return [*lines, *self.notes, *in_words(self.answers())]

    def _beyond(self) -> PairSite:
        nulls = self.transfer.shifted_ev.larger(self.transfer.shuffled_ev)
        return self.transfer.rotated_ev - nulls

    def _row(self, name: str) -> dict[str, float]:
        return {site: row[name] for site, row in self.by_site.items()}

    def _of_sites(self, table: PairSite, recorded: Callable[[str], bool]) -> Measured:
        """One value a site with a dictionary, with its interval and its ceiling."""
        each = table.each()
        values = dict(zip(table.sites, each.values.tolist(), strict=True))
        found = self._measured(values, recorded, each.intervals)
        return found if table.ceiling is None else found.below(table.ceiling)

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
    *,
    read: Saved | None = None,
    related: str = "",
    copies: int = COPIES,
) -> Frontier:
    """Everything of one pair.

    fits: every map from B to A, at every site. saes: A's dictionaries by site, at one site or more.
    others: B's own at the same sites, or none. notes: see `notes_on`; one is added for every site
    at which A's dictionary suits B better. beside: further figures by name and site, measured
    elsewhere. read: A's dictionary, where it came from a directory: a line says what it is.
    related: see `Frontier`. copies: exact ones of A, for what perfect siblings would give.
    """
    at = [site for site in fits.sites if site in saes]
    transfer = measure_transfer(cohort, fits.at(at), saes, copies=copies, likeness=BEYOND)
    rows: dict[str, dict[str, float]] = {site: {} for site in fits.sites}
    for j, site in enumerate(at):
        for name, called in EVS.items():
            rows[site][called] = float(getattr(transfer, name).values[0, j])
        rows[site]["l0"] = quality(saes[site], cohort.activations("score", site)[0]).l0
        if site not in others:
            continue
        mine, theirs = saes[site].decoder, others[site].decoder
        given = mine.norm(dim=0).cpu() > 0  # someone else's may have columns of zeros
        cosines = max_cosine(mine, theirs, given, features="columns")
        rows[site]["mean_cosine"] = float(cosines.mean())
        rows[site]["matched"] = matched_fraction(cosines)
    rs = rotation_stack(fits)
    haar_distance = (2 * cohort.width) ** 0.5
    found = {
        "magnitude": distances(fits).values[0] / haar_distance,
        "magnitude_shuffled": [
            frobenius_distance(fits.shuffled[site][0].r) / haar_distance for site in fits.sites
        ],
        "rank": [fits.matched[site][0].rank for site in fits.sites],
        "split_half": half_gap(fits).values[0],
        "split_half_share": [
            split_half_share(*(half[0].r for half in fits.halves[site])) for site in fits.sites
        ],
        "det": determinant_sign(rs),
        "ks_p": published_ks(rs, numpy_generator(NULL_DRAWS_SEED, "published reference")).p_values,
    }
    for name, values in found.items():
        for site, value in zip(fits.sites, values, strict=True):
            rows[site][name] = float(value)
    for name, by_site in (beside or {}).items():
        for site, value in by_site.items():
            rows[site][name] = value
    counts = {"pairs": 1, **transfer.rotated_ev.counts}
    swapped = [
        f"note: at {site} the dictionary of A reconstructs B better than A: is it B's?"
        for site in at
        if rows[site]["naive_ev"] > rows[site]["self_ev"]
    ]
    account = []
    if read is not None and read.site in at:
        row = rows[read.site]
        account = [f"read: {read.account()}; on A: L0 {row['l0']:.1f}, EV {row['self_ev']:.3f}"]
    return Frontier(rows, counts, transfer, (*account, *notes, *swapped), related)
