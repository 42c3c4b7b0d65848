"""How alike siblings' activations are to the anchor's, whatever rotation and scale lie between.

Linear CKA on the score split: no map is fitted, and none is needed, as a rotation does not change
it (Kornblith et al. 2019, arXiv 1905.00414; without bias: Murphy et al. 2024, arXiv 2405.01012).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, pair_labels
from polyrot.maps.cka import linear_cka_over_sequences
from polyrot.measured import Measured, PairSite, interval_about
from polyrot.measures.fits import NULL_DRAWS_SEED
from polyrot.measures.transfer import ExactCopies
from polyrot.runtime.seeding import derive

VERSION = 1  # of what is kept; raise when a change of code changes what is measured


@dataclass(frozen=True)
class Similarity:
    """By pair and site, on the score split. cka: debiased linear CKA of anchor and sibling; its
    ceiling is that of an exact copy of the anchor. error: its standard error over sequences; 0
    where the split is one sequence."""

    cka: PairSite
    error: PairSite

    def to_tables(self) -> dict[str, PairSite]:
        """Both by name, for the store."""
        return {"cka": self.cka, "error": self.error}

    @classmethod
    def from_tables(cls, tables: Mapping[str, PairSite]) -> Similarity:
        """What `to_tables` gave."""
        return cls(tables["cka"], tables["error"])

    def mean_over_pairs(self, sites: Sequence[str]) -> Measured:
        """One value per site; its sample is the pairs, and of a single pair the sequences."""
        found = self.cka.at(sites).mean_over_pairs()
        errors = self.error.at(sites).values
        if len(errors) > 1:
            return found
        intervals = tuple(
            interval_about(float(value), float(error), "sequences", found.unit) if error else None
            for value, error in zip(found.values, errors[0], strict=True)
        )
        return replace(found, replicates=None, intervals=intervals)

    def beyond_untrained(self, untrained: Similarity, sites: Sequence[str]) -> PairSite:
        """CKA less that of `untrained` siblings.

        Without a ceiling, as in `Transfer.recovery_beyond`: how alike the untrained ones are is
        what is asked, and no bound of it.
        """
        found = self.cka.at(sites) - untrained.cka.at(sites)
        beside = dict(
            zip(
                (f"untrained_{site}" for site in sites),
                untrained.cka.at(sites).values.mean(0).tolist(),
                strict=True,
            )
        )
        return replace(found.also(**beside), ceiling=None)

    def by_site(self) -> dict[str, float]:
        """Mean over pairs."""
        return dict(zip(self.cka.sites, self.cka.values.mean(0).tolist(), strict=True))


def recipe(cohort: Cohort) -> dict[str, object]:
    """What decides it, for the store."""
    return {"version": VERSION, "cohort": cohort.fingerprint, "nulls": NULL_DRAWS_SEED}


def measure_similarity(cohort: Cohort, seed: int = NULL_DRAWS_SEED) -> Similarity:
    """Of every pair at every site. seed: turns the exact copy.

    Raises BadActivations: too few tokens to tell what varies from noise, or nothing varies.
    """
    pairs, sites = pair_labels(cohort), tuple(cohort.sites)
    perfect = ExactCopies(cohort, sites, 1, derive(seed, "exact copy, CKA"))
    sequence = cohort.sequences("score")
    cka, error = (np.zeros((len(pairs), len(sites))) for _ in "ce")
    ceiling = np.zeros(len(sites))
    for j, site in enumerate(sites):
        x = cohort.activations("score", site)
        for i, sibling in enumerate(x[1:]):
            cka[i, j], error[i, j] = _cka(sibling, x[0], sequence)
        ceiling[j], _ = _cka(perfect.beside(x[0], site)[1], x[0], sequence)
    counts = {"tokens": len(sequence), "sequences": int(sequence.max()) + 1}
    seeds = {"models": list(cohort.seeds)}

    def table(values: np.ndarray, **more: object) -> PairSite:
        return PairSite(values, pairs, sites, seeds=seeds, counts=counts, **more)  # type: ignore[arg-type]

    return Similarity(
        table(cka, unit="correlation", ceiling=ceiling), table(error, unit="positive")
    )


def _cka(a: Tensor, b: Tensor, sequence: Tensor) -> tuple[float, float]:
    """Value, at most 1 where rounding would exceed it, and error."""
    value, error = linear_cka_over_sequences(a, b, sequence)
    return float(np.clip(value, -1, 1)), 0.0 if np.isnan(error) else error
