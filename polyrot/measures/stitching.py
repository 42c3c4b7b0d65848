"""Stitching: the sibling up to a site, its stream mapped, the anchor from there on.

If a rotation carries one model's computation over to the other's basis, the anchor goes on from the
sibling's rotated stream as from its own. How well it does is the recovered loss (preregistration):
1 is the anchor itself, 0 is what it does when at that site it is given its mean activation, and
knows nothing of the token. Maps are fitted on the fit split and scored on the score split. Stitched
networks: Lenc and Vedaldi 2015 (arXiv 1411.5908), Bansal et al. 2021 (arXiv 2106.07682).

By arm, what becomes of the sibling's stream:

- `rotated`: Procrustes; `scaled`: with the one scale that fits best; `affine`: least squares;
- `shift`: the anchor's mean in place of its own; `identity`: nothing at all;
- `principal`: principal axes matched by rank of variance, signs drawn: second moments alone;
- `shuffled`: Procrustes on tokens paired at random; `haar`: a Haar matrix in place of R.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import pair_labels
from polyrot.cohorts.interventions import OpenCohort, OpenRun
from polyrot.maps.bootstrap import sequence_weights
from polyrot.maps.null_space import haar_block
from polyrot.maps.procrustes import ActivationMap
from polyrot.measured import Measured, PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED, Fits, fit_all, seeds_used
from polyrot.measures.transfer import ExactCopies
from polyrot.runtime.seeding import derive, torch_generator

ARMS = ("rotated", "scaled", "affine", "shift", "identity", "principal", "shuffled", "haar")
OF_LIKENESS = ("rotated", "affine", "principal", "shuffled")
"""Arms that statements of likeness are made of, and controls of them: these have a ceiling."""
SCORES = ("recovered", "kl", "agreement")
LEAST_GAP = 0.05
"""Nats that the mean activation must cost, at least, for what is recovered of them to be told."""
TOKENS = 4096
"""Of the score split, about: every arm of every pair and site runs on all of them."""
POSITIONS = 1024
"""Run at once, padding included: logits over a large vocabulary are what fills the memory."""
COPIES = 4
"""Exact copies of the anchor, each turned, shuffled and signed anew, whose mean is the ceiling."""
DRAWS = 200
"""Of the sequences, for the interval of a single pair."""
VERSION = 1  # of what is kept; raise when a change of code changes what is measured


@dataclass(frozen=True)
class Stitching:
    """By arm, pair and site, on held-out tokens; internal sites.

    recovered: the recovered loss; where the mean activation costs less than LEAST_GAP, it is
    divided by that. kl: of the stitched model's outputs from the anchor's, nats a token, mean over
    heads. agreement: share of tokens on which the two put out the same, mean over heads. gap: by
    site, what the mean activation costs, nats. loss: the anchor's own, nats.
    """

    recovered: Mapping[str, PairSite]
    kl: Mapping[str, PairSite]
    agreement: Mapping[str, PairSite]
    gap: Mapping[str, float]
    loss: float

    def preserves(self, sites: Sequence[str]) -> Measured:
        """Recovered loss through R, by site; of every arm everything is recorded beside."""
        return self._judged(self.recovered["rotated"], sites, ARMS)

    def naive(self, sites: Sequence[str]) -> Measured:
        """Recovered loss with the mean replaced and nothing else. No ceiling: it says that the two
        differ."""
        return self._judged(self.recovered["shift"], sites, ("shift", "identity"))

    def gained_by_affine(self, sites: Sequence[str]) -> Measured:
        """Recovered loss through the affine map less that through R."""
        gain = self.recovered["affine"] - self.recovered["rotated"]
        return self._judged(gain, sites, ("affine", "rotated", "scaled"))

    def beyond(self, arm: str, sites: Sequence[str]) -> Measured:
        """Recovered loss through R less that of another arm."""
        gain = self.recovered["rotated"] - self.recovered[arm]
        return self._judged(gain, sites, ("rotated", arm))

    def by_site(self) -> dict[str, dict[str, float]]:
        """Recovered loss by arm and site, mean over pairs: for a table of a pair."""
        return {
            f"stitched_{arm}": dict(zip(found.sites, found.values.mean(0).tolist(), strict=True))
            for arm, found in self.recovered.items()
        }

    def _judged(self, found: PairSite, sites: Sequence[str], arms: Sequence[str]) -> Measured:
        """One value per site; its sample is the pairs, and of a single pair the sequences."""
        beside: dict[str, float] = {f"gap_{site}": self.gap[site] for site in sites}
        for name in SCORES:
            for arm in arms:
                row = getattr(self, name)[arm].at(sites).values.mean(0).tolist()
                beside |= {f"{name}_{arm}_{s}": x for s, x in zip(sites, row, strict=True)}
        measured = over_pairs_or_sequences(found.at(sites).also(anchor_loss=self.loss, **beside))
        low = [site for site in sites if self.gap[site] < LEAST_GAP]
        told = ", ".join(f"{site} {self.gap[site]:.3g}" for site in low)
        return measured.unless(
            f"the mean activation costs less than {LEAST_GAP} nats ({told})" if low else ""
        )

    def to_tables(self) -> tuple[dict[str, PairSite], dict[str, Tensor]]:
        """Everything by name, for the store."""
        tables = {f"{n} {arm}": x for n in SCORES for arm, x in getattr(self, n).items()}
        plain = {"gap": list(self.gap.values()), "loss": [self.loss]}
        return tables, {n: torch.tensor(x, dtype=torch.float64) for n, x in plain.items()}

    @classmethod
    def from_tables(
        cls, tables: Mapping[str, PairSite], tensors: Mapping[str, Tensor]
    ) -> Stitching:
        """What `to_tables` gave."""
        recovered, kl, agreement = (
            {arm: tables[f"{name} {arm}"] for arm in ARMS} for name in SCORES
        )
        gap = dict(zip(recovered["rotated"].sites, tensors["gap"].tolist(), strict=True))
        return cls(recovered, kl, agreement, gap, float(tensors["loss"]))


def over_pairs_or_sequences(table: PairSite) -> Measured:
    """One value per site, mean over pairs: the interval is of the pairs, and of a single pair of
    its sequences, where the table has resamples."""
    found = table.mean_over_pairs()
    if len(table.pairs) > 1 or table.resamples is None:
        return found
    return replace(found, replicates=None, intervals=table.each().intervals)


def recipe(cohort: OpenCohort) -> dict[str, object]:
    """What decides it, for the store."""
    return {
        "version": VERSION,
        "cohort": cohort.fingerprint,
        "nulls": NULL_DRAWS_SEED,
        "tokens": TOKENS,
        "copies": COPIES,
        "draws": DRAWS,
    }


# ------------------------------------------------------------------------------------- the measure


@torch.no_grad()
def measure_stitching(
    cohort: OpenCohort,
    fits: Fits,
    *,
    tokens: int = TOKENS,
    copies: int = COPIES,
    draws: int = DRAWS,
    seed: int = NULL_DRAWS_SEED,
) -> Stitching:
    """Every arm of every pair at every internal site.

    fits: of the cohort, at its internal sites or more. tokens: of the score split's first
    sequences, and those that are run with the last of them; of two sequences at least. copies: of
    the anchor, for the ceilings; 0 leaves them out. draws: of sequences, of a single pair. seed:
    turns copies, draws Haar matrices and sequences.
    """
    sites, pairs = tuple(cohort.internal), pair_labels(cohort)
    perfect = ExactCopies(cohort, sites, copies, derive(seed, "exact copies, stitching"))
    exact = fit_all(perfect, derive(seed, "fits of exact copies, stitching")) if copies else None
    pairwise = [(i + 1, _maps(fits, sites, i, ARMS, seed)) for i in range(len(pairs))]
    best = [(i, _maps(exact, sites, i, OF_LIKENESS, seed)) for i in range(copies) if exact]
    sums: list[_Sums] = []
    for part in _parts(cohort.tokens("score")):
        anchor = cohort.clean_run(0, part)
        judge = _Judge.of(anchor, sites[0])
        own = {site: anchor.site(site) for site in sites}
        mean = {site: fits.shift[site][0].mean_b.expand_as(x) for site, x in own.items()}
        turned = {site: perfect.beside(x, site)[1:] for site, x in own.items()}
        sums.append(
            _Sums(
                judge.by_sequence(torch.ones_like(judge.loss)),
                judge.by_sequence(judge.loss),
                np.stack([judge.scores(site, x)[0] for site, x in mean.items()]),
                np.stack([_row(judge, _streams(cohort, i, part, sites), m) for i, m in pairwise]),
                np.stack([_row(judge, {s: x[i] for s, x in turned.items()}, m) for i, m in best])
                if best
                else np.zeros((0, len(part))),
            )
        )
        if sum(len(s.tokens) for s in sums) > 1 and sum(s.tokens.sum() for s in sums) >= tokens:
            break
    found = _Sums(*(np.concatenate(each, axis=-1) for each in zip(*sums, strict=True)))
    weights = np.ones((1, len(found.tokens)))
    if draws and len(pairs) == 1:
        drawn = torch_generator(seed, "sequences, stitching")
        more = sequence_weights(len(found.tokens), draws, drawn).numpy()
        weights = np.concatenate([weights, more])
    counts = {"tokens": int(found.tokens.sum()), "sequences": len(found.tokens)}

    def table(name: str, arm: str) -> PairSite:
        values = found.figures(name, found.pairs[:, ARMS.index(arm)], weights)
        ceiling = None
        if copies and arm in OF_LIKENESS:
            rows = found.copies[:, OF_LIKENESS.index(arm)]
            ceiling = found.figures(name, rows, weights[:1])[0].mean(0)
        return PairSite(
            values[0],
            pairs,
            sites,
            seeds=seeds_used(cohort, seed),
            counts=counts,
            resamples=values[1:] if len(values) > 1 else None,
            ceiling=ceiling,
        )

    recovered, kl, agreement = ({arm: table(name, arm) for arm in ARMS} for name in SCORES)
    gap = (found.mean - found.own).sum(1) / found.tokens.sum()
    loss = float(found.own.sum() / found.tokens.sum())
    return Stitching(recovered, kl, agreement, dict(zip(sites, gap.tolist(), strict=True)), loss)


class _Sums(NamedTuple):
    """Sums over tokens, by sequence. tokens, own: [sequences], the anchor's loss. mean: [sites,
    sequences], its loss on its mean activation. pairs, copies: [.., arms, scores, sites,
    sequences], the scores being loss, KL and agreement."""

    tokens: np.ndarray
    own: np.ndarray
    mean: np.ndarray
    pairs: np.ndarray
    copies: np.ndarray

    def figures(self, name: str, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """One of SCORES, [draws, .., sites], from an arm's rows [.., scores, sites, sequences];
        weights [draws, sequences] say how often each sequence counts."""
        tokens = weights @ self.tokens
        if name != "recovered":
            total = np.einsum("ws,pjs->wpj", weights, rows[:, SCORES.index(name)])
            return total / tokens[:, None, None]
        gap = np.maximum(weights @ (self.mean - self.own).T, LEAST_GAP * tokens[:, None])
        return np.einsum("ws,pjs->wpj", weights, self.mean - rows[:, 0]) / gap[:, None]


@dataclass(frozen=True)
class _Head:
    """The anchor's own outputs at one head, over kept tokens: labels and likeliest class [tokens],
    probabilities [tokens, classes], their sum of p log p [tokens]."""

    labels: Tensor
    top: Tensor
    p: Tensor
    p_log_p: Tensor


@dataclass(frozen=True)
class _Judge:
    """Scores the anchor on one batch with another stream at a site. rows: sequence of each kept
    token; loss: its own, by kept token, nats."""

    anchor: OpenRun
    heads: Mapping[str, _Head]
    rows: Tensor
    loss: Tensor

    @classmethod
    def of(cls, anchor: OpenRun, site: str) -> _Judge:
        none = torch.zeros_like(anchor.site(site)[:1, :1])[None]
        heads, total = {}, []
        for name, logits in anchor.outputs(site, none).items():
            log_p = logits[0][anchor.kept].log_softmax(-1)
            labels, p = anchor.answers()[name][anchor.kept], log_p.exp()
            heads[name] = _Head(labels, log_p.argmax(-1), p, (p * log_p).sum(-1))
            total.append(-log_p.gather(-1, labels[:, None])[:, 0])
        return cls(anchor, heads, anchor.kept.nonzero()[:, 0], torch.stack(total).mean(0))

    def by_sequence(self, values: Tensor) -> np.ndarray:
        """Sums [.., sequences] of values [.., tokens]."""
        out = torch.zeros(
            *values.shape[:-1], len(self.anchor.kept), dtype=torch.float64, device=values.device
        )
        return out.index_add_(-1, self.rows, values.double()).cpu().numpy()

    def scores(self, site: str, stream: Tensor) -> np.ndarray:
        """[loss, KL and agreement; sequences] with `stream` [batch, position, width] at `site`."""
        found = self.anchor.outputs(site, (stream - self.anchor.site(site))[None])
        total: Tensor | float = 0.0
        for name, head in self.heads.items():
            logits = found[name][0][self.anchor.kept]
            normal = logits.logsumexp(-1)
            loss = normal - logits.gather(-1, head.labels[:, None])[:, 0]
            kl = head.p_log_p + normal - torch.einsum("tc,tc->t", head.p, logits)
            same = (logits.argmax(-1) == head.top).to(loss)
            total = total + torch.stack([loss, kl, same])
        assert isinstance(total, Tensor)
        return self.by_sequence(total / len(self.heads))


Through = Mapping[str, Mapping[str, Callable[[Tensor], Tensor]]]
"""One sibling's maps: arm -> site -> from its stream to the anchor's."""


def _row(judge: _Judge, streams: Mapping[str, Tensor], maps: Through) -> np.ndarray:
    """[arms, scores, sites, sequences] of a sibling, whose `streams` are by site."""
    return np.stack(
        [
            np.stack([judge.scores(site, through(streams[site])) for site, through in m.items()], 1)
            for m in maps.values()
        ]
    )


def _streams(
    cohort: OpenCohort, model: int, tokens: Tensor, sites: Sequence[str]
) -> dict[str, Tensor]:
    run = cohort.clean_run(model, tokens)
    return {site: run.site(site) for site in sites}


def _maps(fits: Fits, sites: Sequence[str], i: int, arms: Sequence[str], seed: int) -> Through:
    """Those of pair number `i`."""
    fitted: dict[str, Mapping[str, Sequence[ActivationMap]]] = {
        "rotated": fits.matched,
        "scaled": fits.scaled,
        "affine": fits.affine,
        "shift": fits.shift,
        "principal": fits.principal,
        "shuffled": fits.shuffled,
    }

    def one(arm: str, site: str) -> Callable[[Tensor], Tensor]:
        if arm == "identity":
            return lambda x: x
        if arm == "haar":
            rotation = fits.matched[site][i]
            drawn = torch_generator(seed, "a Haar matrix, stitching", site, fits.pairs[i])
            drawn_r = haar_block(len(rotation.r), drawn).to(rotation.r)
            return replace(rotation, r=drawn_r).apply
        return fitted[arm][site][i].apply

    return {arm: {site: one(arm, site) for site in sites} for arm in arms}


def _parts(rows: Tensor) -> Iterator[Tensor]:
    """Sequences [sequences, position], a few at a time."""
    yield from rows.split(max(1, POSITIONS // rows.shape[1]))
