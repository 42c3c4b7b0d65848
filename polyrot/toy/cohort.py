"""A cohort of Dyck-3 transformers as the claims see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import (
    SPLITS,
    CohortDefaults,
    ScaleFacts,
    Split,
    agreement_by_pair,
    check_seeds,
    error_over_sequences,
    pair_labels,
    share_of_distinct,
)
from polyrot.cohorts.interventions import Target
from polyrot.measured import Measured
from polyrot.runtime.seeding import torch_generator
from polyrot.store import fingerprint
from polyrot.toy import directions, task, transformer
from polyrot.toy.folding import Folded, fold
from polyrot.toy.run import MLPS, ToyRun, mean_writes, readers
from polyrot.toy.transformer import Params

DATA_SEED = 20260605
N_SEQUENCES: dict[str, int] = {"dictionary": 4096, "fit": 1024, "score": 1024}
CONTENT = (2, 48)  # of the sequences that activations are taken on
CHUNK = {"cpu": 32, "cuda": 512}
"""Sequences run at once, by kind of device: the patterns of so few stay in a CPU's cache."""
AGREEMENT_SEQUENCES = 2048  # of each distribution
N_POPULATION = 2048  # sequences of the dictionary split that directions are taken on, beside "fit"


def split_tokens(device: torch.device | str = "cpu") -> dict[Split, Tensor]:
    """Token batches [sequences, 64] of the three splits, no sequence in two of them."""
    return dict(zip(SPLITS, _drawn(str(device), *(N_SEQUENCES[s] for s in SPLITS)), strict=True))


@lru_cache(2)
def _drawn(device: str, *sizes: int) -> tuple[Tensor, ...]:
    """The same for every cohort, and for nobody to write into."""
    wanted = sum(sizes)
    generator = torch_generator(DATA_SEED, "toy activations")
    drawn = task.sequences(2 * wanted, generator, content_range=CONTENT)
    _, inverse = torch.unique(drawn, dim=0, return_inverse=True)
    order = torch.arange(len(drawn))
    first = torch.full((int(inverse.max()) + 1,), len(drawn)).scatter_reduce(
        0, inverse, order, "amin"
    )
    # Short strings recur by chance: each is kept where it was drawn first.
    distinct = drawn[first.sort().values[:wanted]]
    return tuple(part.to(device) for part in distinct.split(list(sizes)))


SHARED_FACTS = ScaleFacts(
    language=False,
    published_l1=1e-3,
    relative_l1=False,
    every_site=True,
    wide=True,
    drift=True,
    firing_sites=("resid_mid_0", "resid_post_0", "resid_post_1"),
)
"""Of seeds that share their embedding and unembeddings: the paper's own cohort."""
INDEPENDENT_FACTS = replace(SHARED_FACTS, shared_start=False, wide=False, drift=False)
"""Of seeds that share nothing: a control beside the paper's cohort."""


class ToyCohort(CohortDefaults):
    """See `polyrot.cohorts.cohort.Cohort`. `params` has the anchor first; `trained` is False for
    siblings as they were before their first step; `facts` is what the scale is judged by.

    Raises ValueError for a seed given twice."""

    def __init__(
        self,
        scale: str,
        seeds: tuple[int, ...],
        params: Params,
        made_by: list[str],
        *,
        trained: bool = True,
        facts: ScaleFacts = SHARED_FACTS,
    ) -> None:
        check_seeds(scale, seeds)
        self.scale = scale
        self.seeds = seeds
        self.params = params
        self.trained = trained
        self.facts = facts
        self.sites = transformer.SITES
        self.named_sites = transformer.SITES[-1:]
        self.from_second_block = transformer.SITES[-1:]
        self.width = transformer.D_MODEL
        self.mlps: Mapping[str, str] = MLPS
        self.fingerprint = fingerprint(
            "toy-cohort",
            {
                "made_by": made_by,
                "trained": trained,
                "data_seed": DATA_SEED,
                "n_sequences": N_SEQUENCES,
                "content": list(CONTENT),
            },
        )
        self._tokens = split_tokens(params["embed"].device)
        self._activations: dict[Split, dict[str, Tensor]] = {}
        self._mean_writes: dict[int, Tensor] = {}
        self._population: tuple[directions.Features, dict[str, Tensor]] | None = None

    def tokens(self, split: Split) -> Tensor:
        """The split's sequences, int64 [sequences, 64]."""
        return self._tokens[split]

    def fixed_directions(self, site: str) -> Tensor:  # noqa: ARG002  # the same at all
        """The dimensions of the position buffer, which is added to every model's stream before the
        first block. The norms are of root mean square and fix nothing: none takes a mean off."""
        return torch.eye(self.width)[: transformer.N_POSITION_DIMS]

    def activations(self, split: Split, site: str) -> Tensor:
        """See `Cohort`; every site of a split is run at once and kept."""
        if split not in self._activations:
            self._activations[split] = self._run(self._tokens[split])
        return self._activations[split][site]

    def sequences(self, split: Split) -> Tensor:
        """See `Cohort`."""
        return (self._tokens[split] != task.PAD).nonzero()[:, 0]

    @torch.no_grad()
    def agreement_with_anchor(self) -> Measured:
        """Over the positions of the three held-out distributions, the lowest of the three output
        heads; the worst pair's on each distribution alone beside."""
        device = self.params["embed"].device
        each = len(task.DISTRIBUTIONS), AGREEMENT_SEQUENCES
        shape = (len(task.HEADS), len(self.seeds) - 1, *each)
        same, n = np.zeros(shape), np.zeros(each)
        for i, name in enumerate(task.DISTRIBUTIONS):
            generator = torch_generator(DATA_SEED, "agreement", name)
            drawn = task.sequences(AGREEMENT_SEQUENCES, generator, name).to(device)
            size = CHUNK[device.type]
            for first, chunk in enumerate(drawn.split(size)):
                rows = slice(first * size, first * size + len(chunk))
                keep = chunk != task.PAD
                logits = transformer.forward(self.params, chunk).logits
                for j, head in enumerate(task.HEADS):
                    top = logits[head].argmax(-1)
                    same[j, :, i, rows] = ((top[1:] == top[:1]) & keep).sum(2).cpu().numpy()
                n[i, rows] = keep.sum(1).cpu().numpy()
        by_head = same.sum((2, 3)) / n.sum()
        error = error_over_sequences(same.reshape(*shape[:2], -1), n.reshape(-1))
        lowest = by_head.argmin(0)[None]
        beside = {f"mean_{h}": float(x.mean()) for h, x in zip(task.HEADS, by_head, strict=True)}
        alone = (same.sum(3) / n.sum(1)).min((0, 1)).tolist()
        beside |= {f"lowest_{d}": x for d, x in zip(task.DISTRIBUTIONS, alone, strict=True)}
        return agreement_by_pair(
            np.take_along_axis(by_head, lowest, 0)[0],
            np.take_along_axis(error, lowest, 0)[0],
            pair_labels(self),
            n.size,
            int(n.sum()),
            beside,
            {"models": list(self.seeds), "data": DATA_SEED},
        )

    def distinct_fraction(self) -> float:
        """See `Cohort`."""
        models = [transformer.select(self.params, [m]) for m in range(len(self.seeds))]
        return share_of_distinct(models)

    def untrained(self) -> ToyCohort:
        """The seeds before their first step, on the same sequences."""
        params = transformer.initialise(self.seeds, self.params["embed"].device)
        made_by = [f"initialise {list(self.seeds)}"]
        return ToyCohort(self.scale, self.seeds, params, made_by, trained=False, facts=self.facts)

    # ----------------------------------------- see polyrot.cohorts.interventions.InterventionCohort

    components = transformer.COMPONENTS
    contrasts = tuple(directions.PAPER)
    further_contrasts = tuple(directions.FURTHER)
    published_contrasts = tuple(directions.PUBLISHED)
    steering_site = directions.STEERING_SITE

    def folded(self, model: int) -> Folded:
        """One model, its gains folded into the weights that read them."""
        return fold(transformer.select(self.params, [model]))

    def clean_run(self, model: int, tokens: Tensor, dtype: torch.dtype = torch.float32) -> ToyRun:
        """See `InterventionCohort`."""
        return ToyRun(self.folded(model), tokens, dtype)

    def mean_writes(self, model: int) -> Tensor:
        """See `InterventionCohort`."""
        if model not in self._mean_writes:
            fit = self.tokens("fit")
            self._mean_writes[model] = mean_writes(self.folded(model), fit)
        return self._mean_writes[model].clone()

    def intervention_tokens(self, n: int) -> Tensor:
        """See `InterventionCohort`."""
        tokens = self.tokens("score")[:n]
        # By length, so that a few at a time hold little padding.
        return tokens[(tokens != task.PAD).sum(1).argsort(stable=True)]

    def direction(self, contrast: str, site: str | None = None) -> Tensor:
        """See `InterventionCohort`."""
        matched = directions.PAPER | directions.FURTHER
        known = matched | directions.PUBLISHED
        if contrast not in known:
            raise KeyError(f"no contrast {contrast!r}; have {', '.join(known)}")
        site = self.steering_site if site is None else site
        kept = [s for s in self.sites if s in {self.steering_site, *self.mlps.values()}]
        offered = kept if contrast in matched else self.sites
        if site not in offered:
            raise KeyError(f"no such site: {site}; of {contrast} have {', '.join(offered)}")
        if contrast not in matched:
            features, x = (
                directions.Features.of(self.tokens("score")),
                self.activations("score", site),
            )
            return torch.einsum("t,mtd->md", known[contrast].row_weights(features).to(x), x)
        if self._population is None:
            more = self.tokens("dictionary")[:N_POPULATION]
            # Invalid sequences of depth 4 are rare: the fit split alone holds about twenty.
            features = directions.Features.of(torch.cat([self.tokens("fit"), more]))
            run = self._run(more)
            self._population = features, {site: run[site] for site in kept}
        features, more_x = self._population
        x = torch.cat([self.activations("fit", site), more_x[site]], dim=1)
        return torch.einsum("t,mtd->md", known[contrast].row_weights(features).to(x), x)

    def target(self, contrast: str, tokens: Tensor) -> Target:
        """See `InterventionCohort`."""
        return directions.target(contrast, tokens)

    def readers(self) -> Tensor:
        """See `InterventionCohort`."""
        return readers(self.folded(0))

    def forget(self, split: Split) -> None:
        """Free the activations of a split; they are computed anew when asked for."""
        self._activations.pop(split, None)

    @torch.no_grad()
    def _run(self, tokens: Tensor) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {site: [] for site in self.sites}
        for chunk in tokens.split(CHUNK[tokens.device.type]):
            captured = transformer.forward(self.params, chunk, capture=self.sites).captured
            keep = chunk != task.PAD
            for site, x in captured.items():
                parts[site].append(x[:, keep])
        return {site: torch.cat(x, dim=1) for site, x in parts.items()}
