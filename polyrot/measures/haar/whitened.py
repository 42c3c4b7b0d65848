"""Do siblings share features? Their maps in whitened principal frames against Haar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polyrot.cohorts.cohort import Cohort, pair_labels
from polyrot.haar.battery import BatteryResult, haar_battery, holm
from polyrot.haar.frames import WhitenedContrast, common_rank, whitened_contrast, whitened_map
from polyrot.haar.nulls import Store
from polyrot.haar.orthogonal import FloatArray, sample_haar
from polyrot.measured import Measured, PairSite
from polyrot.measures.fits import COHORTS_OF_COPIES, NULL_DRAWS_SEED
from polyrot.measures.haar.calibrated import PValues, monte_carlo_range, rejected
from polyrot.measures.haar.free import draws_to_decide
from polyrot.measures.haar.rotations import BOTH, Which
from polyrot.runtime.seeding import numpy_generator

RECIPE_VERSION = 2  # raise when a change of code changes what is measured


def shared_features(
    cohort: Cohort, store: Store | None, sites: Sequence[str], variance: float = 0.99
) -> Measured:
    """Share of pairs and sites whose whitened map is rejected as Haar with matched tokens, minus
    the share with shuffled tokens; each a family of its own for Holm. All maps of a site have one
    rank, with which every model keeps the share `variance`. A range where Monte-Carlo error leaves
    it open which maps are rejected.

    The ceiling is the same of exact copies of the anchor, one at each site: the median of
    COHORTS_OF_COPIES such differences, as shuffled tokens of copies are rejected once in so often,
    too.
    """
    siblings: list[WhitenedContrast] = []
    copies: list[list[WhitenedContrast]] = [[] for _ in range(COHORTS_OF_COPIES)]
    ranks = {}
    draws = draws_to_decide(len(sites) * (len(cohort.seeds) - 1))

    def contrast(a: FloatArray, b: FloatArray, rank: int, *purpose: str | int) -> WhitenedContrast:
        rng = numpy_generator(NULL_DRAWS_SEED, "whitened", *purpose)
        return whitened_contrast(a, b, rng, rank=rank, draws=draws, store=store)

    for site in sites:
        x = cohort.activations("fit", site).cpu()
        rank = common_rank([each.numpy() for each in x], variance)
        ranks[f"rank_{site}"] = float(rank)
        anchor = x[0].double().numpy()

        siblings += [
            contrast(x[m].double().numpy(), anchor, rank, site, m) for m in range(1, len(x))
        ]
        for number, found in enumerate(copies):
            rng = numpy_generator(NULL_DRAWS_SEED, "whitened copy", number, site)
            turned = anchor @ sample_haar(anchor.shape[1], 1, rng, "SO")[0].T
            found.append(contrast(turned, anchor, rank, site, f"copy {number}"))
    tested = {which: _tested([getattr(each, which) for each in siblings]) for which in BOTH}
    measured = _difference(tested["matched"], tested["shuffled"], draws).also(
        matched_rejected=float(rejected(tested["matched"].p).mean()),
        shuffled_rejected=float(rejected(tested["shuffled"].p).mean()),
        largest_matched_p=float(holm(tested["matched"].p).max()),
        **ranks,
    )
    of_copies = [_share_rejected(c, "matched") - _share_rejected(c, "shuffled") for c in copies]
    return measured.below(float(np.median(of_copies)))


@dataclass(frozen=True)
class Whitened:
    """The battery on whitened maps of matched tokens, [pairs, sites]: family p-values before Holm,
    as they decide `shared_features`, their Monte-Carlo errors, and the rank of the maps at each
    site."""

    p: PairSite
    error: PairSite
    rank: PairSite

    @property
    def tested(self) -> PValues:
        """One p-value a map, pair by pair."""
        names = tuple(f"{pair} {site}" for pair in self.p.pairs for site in self.p.sites)
        sites = self.p.sites * len(self.p.pairs)
        return PValues(self.p.values.ravel(), self.error.values.ravel(), names, sites)


def whitened_maps(
    cohort: Cohort, store: Store | None, sites: Sequence[str], variance: float = 0.99
) -> Whitened:
    """Of every sibling at the sites, by the maps, ranks and null draws of `shared_features`."""
    pairs = pair_labels(cohort)
    p, errors, ranks = np.zeros((3, len(pairs), len(sites)))
    draws = draws_to_decide(len(pairs) * len(sites))
    for j, site in enumerate(sites):
        x = cohort.activations("fit", site).cpu()
        rank = common_rank([each.numpy() for each in x], variance)
        ranks[:, j] = rank
        anchor, *siblings = (each.double().numpy() for each in x)
        for i, sibling in enumerate(siblings):
            rng = numpy_generator(NULL_DRAWS_SEED, "whitened", site, i + 1)
            found = whitened_map(sibling, anchor, rng, rank=rank)
            result = haar_battery(found, draws=draws, store=store)
            p[i, j], errors[i, j] = result.p_value, result.p_error
    seeds, names = {"null": NULL_DRAWS_SEED}, tuple(sites)
    return Whitened(
        *(
            PairSite(values, pairs, names, seeds=seeds, counts={"draws": draws})
            for values in (p, errors, ranks)
        )
    )


def rejected_beyond_untrained(trained: Whitened, untrained: Whitened) -> Measured:
    """Share of whitened maps that are rejected as Haar, trained minus untrained siblings'; each a
    family of its own for Holm. A range where Monte-Carlo error leaves it open which are.

    Without a ceiling: how often the untrained ones are rejected is what is asked, and no bound.
    """
    ranks = {
        f"rank_{name}_{site}": float(rank)
        for name, each in (("trained", trained), ("untrained", untrained))
        for site, rank in zip(each.rank.sites, each.rank.values[0], strict=True)
    }
    draws = min(each.p.counts["draws"] for each in (trained, untrained))
    return _difference(trained.tested, untrained.tested, draws).also(
        trained_rejected=float(rejected(trained.p.values).mean()),
        untrained_rejected=float(rejected(untrained.p.values).mean()),
        smallest_untrained_p=float(holm(untrained.p.values).min()),
        largest_untrained_p=float(holm(untrained.p.values).max()),
        **ranks,
    )


def _difference(first: PValues, second: PValues, draws: int) -> Measured:
    """The share of the first that is rejected minus that of the second, with its range."""
    shares = [float(rejected(each.p).mean()) for each in (first, second)]
    (low, high), (second_low, second_high) = (each.rejected_range() for each in (first, second))
    return Measured(
        np.array([shares[0] - shares[1]]),
        ("",),
        seeds={"null": NULL_DRAWS_SEED},
        counts={"draws": draws},
        intervals=monte_carlo_range(low - second_high, high - second_low),
    )


def _tested(results: Sequence[BatteryResult]) -> PValues:
    p, errors = (np.array([getattr(r, key) for r in results]) for key in ("p_value", "p_error"))
    unnamed = ("",) * len(results)
    return PValues(p, errors, unnamed, unnamed)


def _share_rejected(found: Sequence[WhitenedContrast], which: Which) -> float:
    return float(rejected([getattr(each, which).p_value for each in found]).mean())
