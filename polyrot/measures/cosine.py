"""How well the decoder columns of a cohort's dictionaries match across models.

Every figure here is of likeness, so it has a ceiling: what the same code makes of a second
dictionary of the anchor (`one_other`). From a start of its own that is another dictionary, and how
far the two agree bounds what those of two models can show. From the anchor's own start it is the
anchor's very dictionary, so that the ceiling is 1; what an exact copy of the anchor gives there,
its stream turned by a Haar matrix, is recorded beside and bounds nothing, as a sibling in the
anchor's own basis may match better.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import ortho_group
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, pair_labels
from polyrot.dictionaries.sae import Dictionary, quality
from polyrot.dictionaries.sparsity import LEAST_EV, Choice
from polyrot.maps.matching import matched_fraction, max_cosine
from polyrot.measured import Measured, PairSite, interval_about
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits, seeds_used
from polyrot.runtime.seeding import numpy_generator

BySite = Mapping[tuple[int, str], Dictionary]
"""Dictionaries by model (0 is the anchor) and site."""


@dataclass(frozen=True)
class Agreement:
    """For each column of the anchor's decoder, the best cosine in the sibling's; by pair and site.

    fraction: share of columns with a best cosine above 0.5. mean: mean best cosine. cosines:
    [pairs, sites, columns], each column's.
    live_fraction: the fraction among columns active on the score split, in both dictionaries. A
    column that is dead in both may match because neither ever moved from a shared start.
    """

    fraction: PairSite
    mean: PairSite
    live_fraction: PairSite
    cosines: Tensor

    def __post_init__(self) -> None:
        """Say what kind of number each is, which tables kept earlier do not."""
        for name, unit in (
            ("fraction", "fraction"),
            ("mean", "correlation"),
            ("live_fraction", "fraction"),
        ):
            object.__setattr__(self, name, replace(getattr(self, name), unit=unit))

    def below(self, perfect: Mapping[str, PairSite] | None = None) -> Agreement:
        """The same with the ceilings of its tables: `one_other` of a second start on the anchor,
        or 1, where all dictionaries have one start."""
        sites = self.fraction.sites
        ones = np.ones(len(sites))
        fraction, mean = (
            replace(
                getattr(self, name),
                ceiling=ones if perfect is None else perfect[name].at(sites).values[0],
            )
            for name in ("fraction", "mean")
        )
        return replace(self, fraction=fraction, mean=mean)


def _tables(
    cohort: Cohort, sites: Sequence[str], cell: Callable[[int, str], tuple[float, ...]]
) -> list[PairSite]:
    """One table for each figure that `cell(model, site)` gives, over the siblings."""
    models = range(1, len(cohort.seeds))
    cells = np.array([[cell(m, s) for s in sites] for m in models])
    return [
        PairSite(cells[..., k], pair_labels(cohort), tuple(sites), seeds=seeds_used(cohort))
        for k in range(cells.shape[-1])
    ]


def live_features(cohort: Cohort, saes: BySite) -> dict[tuple[int, str], Tensor]:
    """Which features of each dictionary are active on any token of the score split: bool [f]."""
    return {
        (m, s): quality(sae, cohort.activations("score", s)[m]).live for (m, s), sae in saes.items()
    }


def agreement(cohort: Cohort, saes: BySite, sites: Sequence[str]) -> Agreement:
    """Raw agreement of the anchor's decoders with each sibling's, no rotation."""
    live = live_features(cohort, {k: v for k, v in saes.items() if k[1] in sites})
    kept: list[Tensor] = []

    def cell(model: int, site: str) -> tuple[float, ...]:
        a, b = saes[0, site].decoder, saes[model, site].decoder
        cosines = max_cosine(a, b, features="columns")
        kept.append(cosines.cpu().float())
        masks = live[0, site].cpu(), live[model, site].cpu()
        lively = max_cosine(a, b, *masks, features="columns")
        return matched_fraction(cosines), float(cosines.mean()), matched_fraction(lively)

    fraction, mean, live_fraction = _tables(cohort, sites, cell)
    shape = (len(cohort.seeds) - 1, len(sites))
    return Agreement(fraction, mean, live_fraction, torch.stack(kept).unflatten(0, shape))


def one_other(
    anchors: Mapping[str, Dictionary],
    others: Mapping[str, Dictionary],
    sites: Sequence[str],
    label: str,
) -> tuple[dict[str, PairSite], Tensor]:
    """Of one other dictionary a site: "fraction" of the anchor's columns matched and "mean" best
    cosine, [1, sites] each, and the best cosines, [1, sites, columns]."""
    cosines = torch.stack(
        [max_cosine(anchors[s].decoder, others[s].decoder, features="columns") for s in sites]
    )
    found = {
        "fraction": [matched_fraction(row) for row in cosines],
        "mean": [float(row.mean()) for row in cosines],
    }
    tables = {n: PairSite(np.array([row]), (label,), tuple(sites)) for n, row in found.items()}
    return tables, cosines[None].cpu().float()


def noise_agreement(saes: BySite, sites: Sequence[str]) -> tuple[PairSite, Tensor]:
    """Fraction of the anchor's columns matched by an SAE from the same start that only ever saw
    noise (model 1 of `saes`), [1, sites], and the best cosines behind it, [1, sites, columns]."""
    anchors, others = ({s: saes[m, s] for s in sites} for m in (0, 1))
    tables, cosines = one_other(anchors, others, sites, "noise")
    return tables["fraction"], cosines


def _gain(a: Tensor, b: Tensor, through: Tensor) -> tuple[float, float, float]:
    """Mean best cosine of columns a [d, f] in `through` @ b less that in b; that in b; and that in
    `through` @ b."""
    before, after = (
        float(max_cosine(a, c, features="columns").mean()) for c in (b, through.to(b) @ b)
    )
    return after - before, before, after


def gain_by_rotation(cohort: Cohort, saes: BySite, fits: Fits, sites: Sequence[str]) -> PairSite:
    """Mean best cosine once the sibling's decoder is rotated by R, minus before.

    Recorded beside it: the same gain through a Haar matrix in place of R, which is that of chance.
    """
    rng = numpy_generator(NULL_DRAWS_SEED, "Haar in place of R")

    def cell(model: int, site: str) -> tuple[float, ...]:
        a, b = saes[0, site].decoder, saes[model, site].decoder
        r = fits.matched[site][model - 1].r
        haar = torch.from_numpy(ortho_group.rvs(len(r), random_state=rng))
        gain, before, after = _gain(a, b, r.T)
        return gain, _gain(a, b, haar)[0], before, after

    gain, chance, before, after = _tables(cohort, sites, cell)
    return gain.also(
        gain_through_haar=float(chance.values.mean()),
        mean_before=float(before.values.mean()),
        mean_after=float(after.values.mean()),
    )


def perfect_gain(
    anchors: Mapping[str, Dictionary], again: Mapping[str, Dictionary], sites: Sequence[str]
) -> PairSite:
    """The gain [1, sites] of an exact copy of the anchor, turned by a Haar matrix that R undoes:
    its dictionaries are the anchor's second ones (`again`, by site), turned likewise."""
    rng = numpy_generator(NULL_DRAWS_SEED, "a turned copy of the anchor")
    gains = []
    for site in sites:
        a, b = anchors[site].decoder, again[site].decoder
        turn = torch.from_numpy(ortho_group.rvs(len(b), random_state=rng)).to(b)
        gains.append(_gain(a, turn @ b, turn.T)[0])
    return PairSite(np.array([gains]), ("the anchor, turned",), tuple(sites))


def universality(
    cohort: Cohort,
    saes: BySite,
    second_start: Mapping[str, Dictionary],
    fits: Fits,
    choices: Mapping[str, Choice],
    haar_draws: int = 8,
) -> PairSite:
    """Fraction of live columns matched after R minus that with Haar matrices in place of R.

    `second_start`: the anchor's dictionaries from another start, by site. `choices`: the sparsity
    of all of them, by site, and what the anchor's give there. Recorded beside: both fractions, what
    two starts on one model share, Haar's included, and l1, L0 and EV.
    """
    sites = list(choices)
    rng = numpy_generator(NULL_DRAWS_SEED, "Haar in place of R, sparse")
    live = live_features(cohort, saes)
    again = live_features(cohort, {(0, s): d for s, d in second_start.items()})

    def cell(model: int, site: str) -> tuple[float, ...]:
        a, b = saes[0, site].decoder, saes[model, site].decoder
        masks = live[0, site].cpu(), live[model, site].cpu()
        r = fits.matched[site][model - 1].r.to(b)
        through_r = matched_fraction(max_cosine(a, r.T @ b, *masks, features="columns"))
        draws = ortho_group.rvs(len(r), size=haar_draws, random_state=rng)
        through_haar = [
            matched_fraction(
                max_cosine(a, torch.from_numpy(q).to(b) @ b, *masks, features="columns")
            )
            for q in draws
        ]
        two_starts = matched_fraction(
            max_cosine(
                a,
                second_start[site].decoder,
                live[0, site].cpu(),
                again[0, site].cpu(),
                features="columns",
            )
        )
        chance = float(np.mean(through_haar))
        return through_r - chance, through_r, chance, two_starts

    difference, through_r, chance, two_starts = _tables(cohort, sites, cell)
    by_site = {
        f"{name}_{site}": float(table.values[:, j].mean())
        for name, table in (("through_R", through_r), ("haar", chance), ("two_starts", two_starts))
        for j, site in enumerate(sites)
    }
    chosen = {
        f"{name}_{site}": float(getattr(choice, name))
        for site, choice in choices.items()
        for name in ("l1", "l0", "ev")
    }
    return difference.also(**by_site, **chosen)


def up_to_rotation(table: PairSite, starts: PairSite, l0: tuple[float, float]) -> Measured:
    """The table of `universality` as the claim has it: by site, the mean over pairs.

    Ceiling, recorded beside as well: the same of two starts on one model, which is that of
    `between_starts`, mean over pairs of starts, each less its own share through Haar matrices. Out
    of reach where a site's dictionaries are not as registered: L0 within `l0`, EV of at least 0.9,
    on the anchor.
    """
    ceiling = starts.at(table.sites).values.mean(0)
    found = table.also(least_l0=l0[0], largest_l0=l0[1], **_by_start(table.sites, ceiling))
    return found.mean_over_pairs().below(ceiling).unless(_not_as_registered(table, l0))


def _by_start(sites: Sequence[str], shares: np.ndarray) -> dict[str, float]:
    return {f"between_starts_{s}": float(x) for s, x in zip(sites, shares, strict=True)}


def _beside(table: PairSite, name: str) -> np.ndarray:
    return np.array([float(table.beside[f"{name}_{site}"]) for site in table.sites])


def _not_as_registered(table: PairSite, l0: tuple[float, float]) -> str:
    """At which sites the sparse dictionaries of `universality` miss what is asked of them."""
    ev, mean_l0, reasons = _beside(table, "ev"), _beside(table, "l0"), []
    for what, values, missed in (
        (f"EV below {LEAST_EV}", ev, ev < LEAST_EV),
        (f"L0 below {l0[0]:g}", mean_l0, mean_l0 < l0[0]),
        (f"L0 above {l0[1]:g}", mean_l0, mean_l0 > l0[1]),
    ):
        if missed.any():
            low, high = values[missed].min(), values[missed].max()
            reasons.append(
                f"{what} at {missed.sum()} of {len(missed)} sites ({low:.3g} to {high:.3g})"
            )
    return f"the dictionaries are not as registered: {', '.join(reasons)}" if reasons else ""


def between_starts(
    cohort: Cohort, starts: Mapping[int, Mapping[str, Dictionary]], haar_draws: int = 8
) -> PairSite:
    """What dictionaries of one model, the anchor, share: by pair of starts and site the fraction of
    live columns matched, less that through Haar matrices. starts: by start, dictionaries by site.
    """
    sites = list(next(iter(starts.values())))
    rng = numpy_generator(NULL_DRAWS_SEED, "Haar in place of R, between starts")
    live = {
        (start, site): quality(sae, cohort.activations("score", site)[0]).live.cpu()
        for start, saes in starts.items()
        for site, sae in saes.items()
    }

    def shared(one: int, other: int, site: str) -> float:
        a, b = starts[one][site].decoder, starts[other][site].decoder
        masks = live[one, site], live[other, site]
        draws = ortho_group.rvs(len(a), size=haar_draws, random_state=rng)
        chance = [
            matched_fraction(
                max_cosine(a, torch.from_numpy(q).to(b) @ b, *masks, features="columns")
            )
            for q in draws
        ]
        return matched_fraction(max_cosine(a, b, *masks, features="columns")) - float(
            np.mean(chance)
        )

    pairs = list(itertools.combinations(starts, 2))
    values = np.array([[shared(*pair, site) for site in sites] for pair in pairs])
    return PairSite(values, tuple(f"{a}-{b}" for a, b in pairs), tuple(sites))


def relative_to_ceiling(table: PairSite, starts: PairSite, l0: tuple[float, float]) -> Measured:
    """The table of `universality`, mean over pairs, over that of `between_starts`, mean over pairs
    of starts, by site. Two dictionaries of one model give 1.

    Its interval is of the pairs of siblings and of the starts at once (a jackknife over starts, as
    their pairs overlap). Out of reach as `up_to_rotation`, and where starts share nothing.
    """
    n, share, ceiling = len(table.pairs), table.values.mean(0), starts.values.mean(0)
    names = sorted({name for pair in starts.pairs for name in pair.split("-")}, key=int)
    without = np.array(
        [
            starts.values[[name not in pair.split("-") for pair in starts.pairs]].mean(0)
            for name in names
        ]
    )
    k = len(names)
    of_starts = np.sqrt((k - 1) / k * np.square(without - without.mean(0)).sum(0))
    of_pairs = table.values.std(0, ddof=1) / n**0.5 if n > 1 else np.zeros_like(share)
    least = [
        interval_about(float(value), float(error), "pairs", freedom=k - 1).low
        for value, error in zip(ceiling, of_starts, strict=True)
    ]
    nothing = [site for site, low in zip(table.sites, least, strict=True) if low <= 0]
    safe = np.where(ceiling > 0, ceiling, 1.0)
    ratio = share / safe
    error = np.hypot(of_pairs, ratio * of_starts) / safe
    freedom = min(n, k) - 1
    unmet = _not_as_registered(table, l0)
    if nothing and not unmet:
        unmet = f"what starts on one model share is not above Haar's at {', '.join(nothing)}"
    beside = _by_start(starts.sites, ceiling)
    beside |= {f"siblings_{s}": float(x) for s, x in zip(table.sites, share, strict=True)}
    beside |= table.not_identified
    found = Measured(
        ratio,
        table.sites,
        beside=beside,
        seeds=dict(table.seeds),
        counts={"pairs": n, "starts": k, "sites": len(table.sites)},
        intervals=tuple(
            interval_about(float(r), float(e), "pairs", freedom=freedom)
            for r, e in zip(ratio, error, strict=True)
        )
        if freedom
        else (),
    )
    return found.below(1.0).unless(unmet)
