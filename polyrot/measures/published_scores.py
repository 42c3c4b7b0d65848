"""Explained variance as the paper scores it: one batch for R and for the score, one scalar mean.

The paper takes one fixed batch, fits R on it and scores on the same tokens. Its score divides the
mean squared error by the variance of all entries of the dictionary's own input: of the sibling's
activations as they are (unbiased), or as R carries them to the anchor's basis. Means over siblings
are what it reports (arXiv 2605.24577, sections 8.1 to 8.4, and its pipeline).

Where text and pipeline have two settings, every setting is scored and the one that favours the
paper is judged (`PublishedScores`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, pair_labels
from polyrot.dictionaries.sae import Dictionary
from polyrot.maps.explained_variance import explained_variance_grand
from polyrot.maps.procrustes import Rotation, fit_from_moments, pair_moments
from polyrot.measured import Measured, PairSite, favourable, favoured
from polyrot.measures.fits import NULL_DRAWS_SEED, seeds_used
from polyrot.measures.transfer import COPIES, ExactCopies
from polyrot.runtime.seeding import derive, torch_generator

TOY_SEQUENCES, LANGUAGE_SEQUENCES = 1024, 256
"""Of the paper's one batch: the first of the score split, or all where it has fewer."""


def batch_of(cohort: Cohort) -> int:
    """How many sequences of the score split are the paper's one batch."""
    return LANGUAGE_SEQUENCES if cohort.facts.language else TOY_SEQUENCES


@dataclass(frozen=True)
class Scores:
    """The paper's scores by pair and site, in one setting: the anchor's dictionary on the anchor
    (own, the same for each pair), on the sibling (naive), and on the sibling rotated.

    rotated has a ceiling, what exact copies of the anchor give by the same code, and own is one.
    """

    own: PairSite
    naive: PairSite
    rotated: PairSite

    def __post_init__(self) -> None:
        """Say what kind of number they are."""
        for each in fields(self):
            object.__setattr__(self, each.name, replace(getattr(self, each.name), unit="ev"))


Table = Callable[[Scores], PairSite]


@dataclass(frozen=True)
class PublishedScores:
    """The paper's scores in every setting that its text or its pipeline has, by name, and what is
    judged of them: the favourable setting, one for all values, the others' figures beside."""

    readings: Mapping[str, Scores]
    unread: str = ""
    """A setting that was not measured."""
    departures: tuple[str, ...] = ()
    """How models and dictionaries of further settings were trained otherwise than the paper's."""

    def naive(self, sites: Sequence[str]) -> Measured:
        """Naive EV by site, mean over pairs."""
        return self._judged(_naive, sites)

    def rotated(self, sites: Sequence[str]) -> Measured:
        """Rotated EV by site, mean over pairs."""
        return self._judged(_rotated, sites)

    def short_of_own(self, sites: Sequence[str]) -> Measured:
        """Self EV minus rotated EV by site, mean over pairs."""
        return self._judged(lambda scores: scores.own - scores.rotated, sites)

    def favoured_tables(self, sites: Sequence[str]) -> tuple[PairSite, PairSite]:
        """Naive and rotated EV, all sites, each in the setting that favours the paper at `sites`,
        where naive EV is low and rotated EV is high."""
        return (
            _naive(self.readings[favoured(self._means(_naive, sites), "low")]),
            _rotated(self.readings[favoured(self._means(_rotated, sites), "high")]),
        )

    def _means(self, table: Table, sites: Sequence[str]) -> dict[str, Measured]:
        return {
            name: table(each).at(sites).mean_over_pairs() for name, each in self.readings.items()
        }

    def _judged(self, table: Table, sites: Sequence[str]) -> Measured:
        found = self._means(table, sites)
        made = next(iter(found.values())) if len(found) == 1 else favourable(found)
        return made.without(self.unread)


def _naive(scores: Scores) -> PairSite:
    return scores.naive


def _rotated(scores: Scores) -> PairSite:
    return scores.rotated


def published_scores(
    cohort: Cohort,
    saes: Mapping[str, Dictionary],
    seed: int = NULL_DRAWS_SEED,
    *,
    copies: int = COPIES,
) -> Scores:
    """Score the anchor's dictionaries `saes`, by site, as the paper does, on the paper's one batch.

    seed: draws what the batch does not determine of R, and the copies. At how many of the sites
    that is anything is recorded beside.
    Raises BadActivations, naming scale, site and pair, for a batch of fewer tokens than dimensions.
    """
    sites = tuple(saes)
    kept = cohort.sequences("score") < batch_of(cohort)
    pairs, perfect = pair_labels(cohort), ExactCopies(cohort, sites, copies, derive(seed, "copies"))
    own, naive, rotated, ceiling = (np.zeros((len(pairs), len(sites))) for _ in range(4))
    completed = 0
    for j, site in enumerate(sites):
        x, sae = cohort.activations("score", site)[:, kept], saes[site]
        anchor, where = x[0], f"{cohort.scale}, {site}, as published"
        own[:, j] = unbiased_grand_ev(anchor, sae(anchor))
        naive[:, j] = [unbiased_grand_ev(a, sae(a)) for a in x[1:]]
        maps = _maps(x[1:], anchor, where, seed, site)
        rotated[:, j] = _through(maps, x[1:], sae)
        completed += any(each.rank < cohort.width for each in maps)
        turned = perfect.beside(anchor, site)[1:]
        exact = _maps(turned, anchor, f"{where}, exact copies", seed, site, "copies")
        ceiling[:, j] = np.mean(_through(exact, turned, sae))
    beside = {"sites_where_R_is_completed": float(completed)}
    numbers = cohort.sequences("score")[kept]
    counts = {"tokens": int(kept.sum()), "sequences": int(numbers.max()) + 1}

    def table(values: np.ndarray, best: np.ndarray | None = None) -> PairSite:
        return PairSite(
            values, pairs, sites, beside, seeds_used(cohort, seed), counts, ceiling=best
        )

    return Scores(table(own, own[0]), table(naive), table(rotated, ceiling[0]))


def unbiased_grand_ev(x: Tensor, x_hat: Tensor) -> float:
    """The pipeline's score of x [tokens, d] by x_hat, dividing by the unbiased variance.

    >>> from torch import tensor
    >>> x = tensor([[0.0], [2.0]])
    >>> unbiased_grand_ev(x, x + 1), explained_variance_grand(x, x + 1)
    (0.5, 0.0)
    """
    n = x.numel()
    return 1 - (1 - explained_variance_grand(x, x_hat)) * (n - 1) / n


def _maps(siblings: Tensor, anchor: Tensor, where: str, seed: int, *fitted: str) -> list[Rotation]:
    """R of each sibling to the anchor on these very tokens."""
    moments = pair_moments(list(siblings), anchor, where=where)
    null = [
        torch_generator(seed, "null space, as published", *fitted, pair)
        for pair in range(len(moments))
    ]
    return fit_from_moments(moments, generators=null)


def _through(maps: Sequence[Rotation], siblings: Tensor, sae: Dictionary) -> list[float]:
    """The scores of the siblings' rotated activations, each over its own variance."""
    carried = [each.apply(a) for each, a in zip(maps, siblings, strict=True)]
    return [explained_variance_grand(x, sae(x)) for x in carried]
