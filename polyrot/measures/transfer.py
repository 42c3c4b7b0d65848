"""What the anchor's dictionary makes of a sibling's activations, untouched and mapped.

All scores are explained variances on the score split, of the dictionary's own input: of the
sibling's activations as they are, or as a map carries them to the anchor's basis.

A single pair's interval is of the score split's sequences, the maps and the dictionary being what
they are. What statements of likeness can reach at all is measured on exact copies of the anchor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, CohortDefaults, NotOffered, Split
from polyrot.dictionaries.sae import Dictionary
from polyrot.maps.bootstrap import SequenceSums, sequence_weights
from polyrot.maps.null_space import haar_block
from polyrot.maps.procrustes import ActivationMap
from polyrot.measured import Interval, Measured, PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits, fit_all, seeds_used
from polyrot.measures.prefixes import seen_share
from polyrot.runtime.seeding import derive, torch_generator

DRAWS = 200
"""Of the score split's sequences, with replacement: the standard error of a score is known to a
twentieth (1 / sqrt(2 * 200))."""
COPIES = 4
"""Exact copies of the anchor, each turned, shuffled and signed anew, whose mean is the ceiling: as
many as the toys have siblings, as what a shuffle leaves differs from draw to draw, 0.2 to 0.8."""
OF_LIKENESS = (
    "rotated_ev",
    "rotated_ev_grand",
    "shuffled_ev",
    "principal_ev",
    "pointwise_ev",
    "affine_ev",
)
"""Tables with a ceiling, beside the anchor's own: those of which statements of likeness are made,
and of their controls."""


@dataclass(frozen=True)
class Transfer:
    """Explained variances by pair and site.

    self: the anchor's dictionary on the anchor (the same for each pair). naive: on the sibling.
    shifted: on the sibling with the anchor's mean. rotated: centred, rotated, with the anchor's
    mean. shuffled, principal: as rotated, through the rotations of the controls. noise: on a
    Gaussian of the anchor's mean and covariance. permuted: on the anchor with every dimension
    shuffled on its own. pointwise, affine: no dictionary, the anchor's activations predicted from
    the sibling's through the rotation and through the unconstrained affine map.
    The `_grand` tables are the pipeline's score, around one scalar mean.
    See `measure_transfer` for resamples, ceilings and what is recorded beside.
    """

    self_ev: PairSite
    naive_ev: PairSite
    shifted_ev: PairSite
    rotated_ev: PairSite
    shuffled_ev: PairSite
    principal_ev: PairSite
    noise_ev: PairSite
    permuted_ev: PairSite
    pointwise_ev: PairSite
    affine_ev: PairSite
    naive_ev_grand: PairSite
    rotated_ev_grand: PairSite

    def __post_init__(self) -> None:
        """Say what kind of number they are, which tables kept earlier do not."""
        for each in fields(self):
            object.__setattr__(self, each.name, replace(getattr(self, each.name), unit="ev"))

    def gap_closed_by_shift(self, sites: Sequence[str]) -> Measured:
        """Share of the gap self - naive that replacing the mean closes, by site, mean over pairs.

        Out of reach where a site has no gap of which a share could be closed: its mean over pairs
        is not above 0, interval and all. A pair without any gap counts as one of which nothing was
        closed.
        """
        tables = self.self_ev, self.naive_ev, self.shifted_ev
        own, naive, shifted = (table.at(sites) for table in tables)
        gap, gain = own - naive, shifted - naive
        means = gap.mean_over_pairs()
        ends = {site: means.ends(j) for j, site in enumerate(sites)}
        none = [
            f"{site} ({low:.3g} to {high:.3g})" for site, (low, high) in ends.items() if low <= 0
        ]
        closed = np.zeros_like(gap.values)
        np.divide(gain.values, gap.values, out=closed, where=gap.values != 0)
        share = replace(gap, values=closed, resamples=None)
        unmet = "no gap self - naive of which a share could be closed, at " if none else ""
        return share.mean_over_pairs().unless(unmet + ", ".join(none))

    def naive_off_own(self, sites: Sequence[str]) -> PairSite:
        """|naive - self| EV; its ceiling has the anchor, not a turned copy, for a sibling."""
        own = self.self_ev.at(sites)
        return abs(replace(self.naive_ev.at(sites), ceiling=own.values[0]) - own)

    def recovery_beyond(self, untrained: Transfer, sites: Sequence[str]) -> PairSite:
        """Rotated EV less that of `untrained` siblings.

        Without a ceiling: how well the untrained ones recover is what is asked, and no bound of it.
        Were it taken for one, the control would be out of reach just where it is plainly refuted.
        """
        found = self.rotated_ev.at(sites) - untrained.rotated_ev.at(sites)
        return replace(found, ceiling=None)

    def noise_beyond_sibling(self, sites: Sequence[str]) -> Measured:
        """Noise EV less naive EV, mean over pairs; its ceiling has the anchor for a sibling."""
        noise, own, naive = (t.at(sites) for t in (self.noise_ev, self.self_ev, self.naive_ev))
        best = (noise - own).values[0]
        return replace(noise - naive, ceiling=best).mean_over_pairs()


@dataclass(frozen=True)
class GaussianLaw:
    """A normal law: mean [d] and a root [d, d] of its covariance, root @ root.T, float64."""

    mean: Tensor
    root: Tensor

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` draws [n, d], float64."""
        shape, device = (n, len(self.mean)), self.mean.device
        drawn = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
        return drawn @ self.root.T + self.mean


def gaussian_law(x: Tensor) -> GaussianLaw:
    """The Gaussian with the mean and covariance of x [tokens, d].

    By the eigendecomposition, which does not mind a covariance of lower rank.
    """
    wide = x.double()
    values, axes = torch.linalg.eigh(torch.cov(wide.T, correction=0))
    return GaussianLaw(wide.mean(0), axes * values.clamp_min(0).sqrt())


def permuted_dimensions(x: Tensor, generator: torch.Generator) -> Tensor:
    """x [tokens, d] with the rows of every dimension shuffled on their own: marginals kept."""
    order = torch.rand(x.shape, generator=generator, device=x.device).argsort(0)
    return x.gather(0, order)


class ExactCopies(CohortDefaults):
    """The anchor of a cohort and exact copies of it as siblings: its activations, turned by a Haar
    matrix, another one for each copy and site."""

    def __init__(self, cohort: Cohort, sites: Sequence[str], copies: int, seed: int) -> None:
        self.scale = f"{cohort.scale}, exact copies of the anchor"
        self.seeds = tuple(range(copies + 1))
        self.sites, self.width = tuple(sites), cohort.width
        self.fingerprint = f"copies of {cohort.fingerprint}"
        self._cohort, self._seed = cohort, seed

    def activations(self, split: Split, site: str) -> Tensor:
        """See `polyrot.cohorts.cohort.Cohort`."""
        return self.beside(self._cohort.activations(split, site)[0], site)

    def beside(self, anchor: Tensor, site: str) -> Tensor:
        """The anchor's activations [tokens, width] at a site, and those of its copies, stacked."""
        turns = [
            haar_block(self.width, torch_generator(self._seed, "turn of a copy", site, i))
            for i in self.seeds[1:]
        ]
        return torch.stack([anchor, *(anchor @ turn.to(anchor) for turn in turns)])


@dataclass
class _Cells:
    """Scores of the score split, and of draws of its sequences, by table: [1 + draws, pairs,
    sites], the split itself first."""

    weights: Tensor  # [1 + draws, sequences], the first row of ones
    sequence: Tensor  # [tokens]
    pairs: int
    sites: int

    def __post_init__(self) -> None:
        shape = (len(self.weights), self.pairs, self.sites)
        self.values = {each.name: np.zeros(shape) for each in fields(Transfer)}

    def put(self, name: str, i: int | slice, j: int, x: Tensor, x_hat: Tensor) -> None:
        """The score of x [tokens, d] by x_hat, and where there is one, the pipeline's score."""
        sums = SequenceSums.of(x, x_hat, self.sequence)
        self._fill(name, i, j, sums.scores(self.weights))
        if f"{name}_grand" in self.values:
            self._fill(f"{name}_grand", i, j, sums.grand_scores(self.weights))

    def _fill(self, name: str, i: int | slice, j: int, scores: Tensor) -> None:
        found = scores.cpu().numpy()
        self.values[name][:, i, j] = found if isinstance(i, int) else found[:, None]

    def put_pairs(
        self,
        fits: Fits,
        j: int,
        dictionary: Dictionary,
        anchor: Tensor,
        siblings: Tensor,
        wanted: Sequence[str],
    ) -> None:
        """Those of the `wanted` tables that are of a pair, at site `j` of `fits`.

        anchor: [tokens, d]; siblings: [pairs, tokens, d].
        """
        site = fits.sites[j]
        for i, a in enumerate(siblings):
            through: dict[str, ActivationMap | None] = {
                "naive_ev": None,
                "shifted_ev": fits.shift[site][i],
                "rotated_ev": fits.matched[site][i],
                "shuffled_ev": fits.shuffled[site][i],
                "principal_ev": fits.principal[site][i],
            }
            predictors: dict[str, ActivationMap] = {
                "pointwise_ev": fits.matched[site][i],
                "affine_ev": fits.affine[site][i],
            }
            for name, mapping in through.items():
                if name in wanted:
                    x = a if mapping is None else mapping.apply(a)
                    self.put(name, i, j, x, dictionary(x))
            for name, predictor in predictors.items():
                if name in wanted:
                    self.put(name, i, j, anchor, predictor.apply(a))


def measure_transfer(
    cohort: Cohort,
    fits: Fits,
    saes: Mapping[str, Dictionary],
    seed: int = NULL_DRAWS_SEED,
    *,
    draws: int = DRAWS,
    copies: int = COPIES,
    likeness: Sequence[str] = OF_LIKENESS,
) -> Transfer:
    """Score the anchor's dictionaries `saes` (by site) on every sibling.

    seed: draws the noise, the sequences and the copies. draws: of the score split's sequences, the
    same for every table, pair and site; 0, or a split of one sequence, leaves resamples out.
    copies: of the anchor, whose scores by the same code are the ceilings of the tables `likeness`;
    0 leaves ceilings out. With draws, recorded beside the rotated and the pointwise scores: the
    share of tokens whose prefix was fitted on, where the cohort has tokens.
    """
    perfect = ExactCopies(cohort, fits.sites, copies, derive(seed, "exact copies"))
    # The fit split is left before the score split is begun: a large cohort holds one at a time.
    laws = {site: gaussian_law(cohort.activations("fit", site)[0]) for site in fits.sites}
    exact = fit_all(perfect, derive(seed, "fits of exact copies")) if copies else None
    sequence = cohort.sequences("score")
    sequences = int(sequence.max()) + 1
    weights = torch.ones(1, sequences, dtype=torch.float64)
    if draws and sequences > 1:
        generator = torch_generator(seed, "sequences")
        weights = torch.cat([weights, sequence_weights(sequences, draws, generator)])
    weights = weights.to(sequence.device)
    cells = _Cells(weights, sequence, len(fits.pairs), len(fits.sites))
    ceilings = _Cells(weights[:1], sequence, copies, len(fits.sites))
    for j, site in enumerate(fits.sites):
        x, sae = cohort.activations("score", site), saes[site]
        anchor, siblings = x[0], x[1:]
        drawn = torch_generator(seed, "matched noise", site, device=x.device)
        gaussian = laws[site].draw(len(anchor), drawn).to(x.dtype)
        permuted = permuted_dimensions(anchor, drawn)
        for name, given in (("self_ev", anchor), ("noise_ev", gaussian), ("permuted_ev", permuted)):
            cells.put(name, slice(None), j, given, sae(given))
        cells.put_pairs(fits, j, sae, anchor, siblings, list(cells.values))
        if exact is not None:
            turned = perfect.beside(anchor, site)[1:]
            ceilings.put_pairs(exact, j, sae, anchor, turned, likeness)
    beside = _prefixes(cohort) if draws else {}
    counts = {"tokens": len(sequence), "sequences": sequences}

    def ceiling(name: str) -> np.ndarray | None:
        """[sites], where the table has one; the anchor's own score is its own."""
        if not copies or name not in ("self_ev", *likeness):
            return None
        of = cells if name == "self_ev" else ceilings
        mean: np.ndarray = of.values[name][0].mean(0)
        return mean

    return Transfer(
        **{
            name: PairSite(
                values[0],
                fits.pairs,
                fits.sites,
                beside if name in ("rotated_ev", "pointwise_ev") else {},
                seeds_used(cohort, seed),
                counts,
                resamples=values[1:] if len(values) > 1 else None,
                ceiling=ceiling(name),
            )
            for name, values in cells.values.items()
        }
    )


def _prefixes(cohort: Cohort) -> dict[str, float]:
    try:
        return {"prefix_seen_share": seen_share(cohort)}
    except NotOffered:
        return {}


# ---------------------------------------------------------------- what claims read off the tables


def of_anchor(table: PairSite) -> Measured:
    """By site, the values of a table that are the anchor's alone and so the same for every pair:
    their sample is not the pairs but the score split's sequences."""
    drawn = None if table.resamples is None else table.resamples[:, :1]
    return replace(table, values=table.values[:1], pairs=("anchor",), resamples=drawn).each()


def lowest_site(table: PairSite) -> Measured:
    """The mean over pairs at the site where it is lowest."""
    return table.at([table.sites[int(table.values.mean(0).argmin())]]).mean_over_pairs()


def spread_over_sites(table: PairSite) -> Measured:
    """The largest site mean less the smallest; its ceiling is the spread of a perfect sibling's.

    The sample of its interval is the pairs' differences between these two sites.
    """
    means = table.values.mean(0)
    top, bottom = int(means.argmax()), int(means.argmin())
    of_pairs = table.values[:, top] - table.values[:, bottom]
    found = Measured(
        np.array([of_pairs.mean()]),
        (f"{table.sites[top]} - {table.sites[bottom]}",),
        of_pairs[None],
        {**table.beside, **table.not_identified},
        table.seeds,
        {"pairs": len(table.pairs), "sites": len(table.sites), **table.counts},
        unit="positive",
    )
    return found if table.ceiling is None else found.below(float(np.ptp(table.ceiling)))


def rank_of(site: str, table: PairSite) -> Measured:
    """1 where `site` has the lowest mean over pairs, 2 where one site is lower, and so on.

    A range where it is open which sites are lower: those whose difference from `site` has an
    interval, over pairs, that contains 0.
    """
    others = [other for other in table.sites if other != site]
    gaps = table.at(others).values - table.at([site]).values
    means = Measured(gaps.mean(0), tuple(others), gaps.T)
    lower = np.array([means.ends(j) for j in range(len(others))]) < 0
    range_ = Interval(1 + float(lower[:, 1].sum()), 1 + float(lower[:, 0].sum()), "pairs")
    return Measured(
        np.array([1 + float((means.values < 0).sum())]),
        (site,),
        beside={f"mean_{n}": x for n, x in site_means(table).items()} | table.not_identified,
        seeds=table.seeds,
        counts={"pairs": len(table.pairs), "sites": len(table.sites), **table.counts},
        intervals=(range_,) if len(table.pairs) > 1 else (),
    )


def misled_fraction(cosine: PairSite, naive: PairSite, high: float = 0.85) -> Measured:
    """Share of pairs and sites whose mean best cosine is `high` while naive EV is negative.

    A range where it is open whether some naive EV is: its interval, over sequences, contains 0.
    Raises ValueError for tables of different pairs or sites.
    """
    if (cosine.pairs, cosine.sites) != (naive.pairs, naive.sites):
        raise ValueError("cosines and naive EVs are of different pairs or sites")
    each = naive.each()
    is_high, is_negative = cosine.values.ravel() >= high, each.values < 0
    fails = np.array([each.ends(i) for i in range(len(is_high))]) < 0
    surely, possibly = (float((is_high & of).mean()) for of in (fails[:, 1], fails[:, 0]))
    return Measured(
        np.array([float((is_high & is_negative).mean())]),
        ("",),
        beside={"high_cosine": float(is_high.mean()), "negative_ev": float(is_negative.mean())},
        seeds={**cosine.seeds, **naive.seeds},
        counts=each.counts,
        intervals=() if naive.resamples is None else (Interval(surely, possibly, "sequences"),),
    )


def site_means(table: PairSite) -> dict[str, float]:
    """Mean over pairs, by site."""
    return dict(zip(table.sites, table.values.mean(0).tolist(), strict=True))
