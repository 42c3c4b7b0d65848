"""Tiny residual networks whose siblings are made from the anchor by a known change of weights.

A position's stream begins as the embedding of its token plus that of the token before; each block
adds relu(x @ w_in + b_in) @ w_out; logits are x @ unembed + bias. What a sibling is to the anchor
is exact: a rotated stream, permuted and scaled neurons, a shifted stream, a louder one, and so on,
with the same logits; or other weights altogether.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from polyrot.cohorts.cohort import (
    CohortDefaults,
    Split,
    agreement_by_pair,
    error_over_sequences,
    pair_labels,
    share_of_distinct,
)
from polyrot.cohorts.interventions import Target
from polyrot.measured import Measured
from polyrot.runtime.seeding import torch_generator
from tests_unit.worlds.planted import haar

WIDTH, NEURONS, BLOCKS, CLASSES, VOCABULARY, LENGTH = 24, 48, 4, 6, 40, 12
LAST = 0.4
"""Size of the last block's writes: what is steered before it is read mostly as it is."""
SEQUENCES: dict[str, int] = {"dictionary": 100, "fit": 400, "score": 64}
CONTRASTS = {"depth": (0, 1), "sticky_invalid": (2, 3), "closer": (4, 5)}
"""Names of the toy's contrasts: class to raise, class at which it is raised."""
PUBLISHED = {f"{name}_as_published": classes for name, classes in CONTRASTS.items()}
PUBLISHED_SIZE = 0.25
"""The same on the sequences that are scored, so small that doses tell accuracies apart."""
MANY = tuple(range(7))
"""Seeds where siblings differ by chance, whose mean over two pairs decides nothing."""
PROBES = {f"probe_{k}": 10 ** (k / 5 - 4) for k in range(20)}
"""Further directions, and the share of their squared norm in what the read-out reads."""
SITES = ("resid_pre_0", *(f"resid_post_{i}" for i in range(BLOCKS)))

MLPS: Mapping[str, str] = {f"mlp_{i}": SITES[i + 1] for i in range(BLOCKS)}

Weights = dict[str, Tensor]


def fresh(seed: int) -> Weights:
    """Random weights, far from linear."""
    g = torch_generator(seed, "tiny network")
    w = {
        "embed": torch.randn(VOCABULARY, WIDTH, generator=g),
        "before": 0.7 * torch.randn(VOCABULARY, WIDTH, generator=g),
        "unembed": torch.randn(WIDTH, CLASSES, generator=g) / WIDTH**0.5,
        "bias": torch.zeros(CLASSES),
    }
    for i in range(BLOCKS):
        w[f"w_in_{i}"] = 1.5 * torch.randn(WIDTH, NEURONS, generator=g) / WIDTH**0.5
        w[f"b_in_{i}"] = 0.3 * torch.randn(NEURONS, generator=g)
        size = 1.0 if i < BLOCKS - 1 else LAST
        w[f"w_out_{i}"] = size * torch.randn(NEURONS, WIDTH, generator=g) / NEURONS**0.5
    return w


def stream(w: Weights, r: Tensor, back: Tensor) -> Weights:
    """The same network with its stream times r; `back` is r's inverse."""
    turned = {}
    for name, x in w.items():
        if name in ("embed", "before") or name.startswith("w_out"):
            turned[name] = x @ r
        elif name == "unembed" or name.startswith("w_in"):
            turned[name] = back @ x
        else:
            turned[name] = x
    return turned


def rotated(w: Weights, i: int) -> Weights:
    q = haar(WIDTH, "network", i, special=True)
    return stream(w, q, q.T)


def permuted(w: Weights, i: int) -> Weights:
    order = torch.randperm(WIDTH, generator=torch_generator(0, "stream order", i))
    q = torch.eye(WIDTH)[order]
    return stream(w, q, q.T)


def half_turn(w: Weights, i: int) -> Weights:
    """Everything reversed: -1 on each of an even number of dimensions, determinant +1."""
    q = -torch.eye(WIDTH)
    return stream(w, q, q)


def turned_subspace(w: Weights, i: int) -> Weights:
    """Turned in the directions that the read-out does not read, the same in those it does."""
    axes = torch.linalg.qr(w["unembed"].double(), mode="complete").Q.float()
    inner = torch.eye(WIDTH)
    inner[CLASSES:, CLASSES:] = haar(WIDTH - CLASSES, "unread", i, special=True)
    q = axes @ inner @ axes.T
    return stream(w, q, q.T)


def louder(w: Weights, i: int) -> Weights:
    """A stream four times as large, read a quarter as much."""
    eye = torch.eye(WIDTH)
    return stream(w, 4 * eye, eye / 4)


def softer(w: Weights, i: int) -> Weights:
    """A stream a quarter as large, read four times as much."""
    eye = torch.eye(WIDTH)
    return stream(w, eye / 4, 4 * eye)


def inside(w: Weights, i: int) -> Weights:
    """Neurons in another order, each scaled up and read down; the stream as it was."""
    changed = dict(w)
    for block in range(BLOCKS):
        g = torch_generator(0, "neurons", i, block)
        order = torch.randperm(NEURONS, generator=g)
        scale = 4 ** (2 * torch.rand(NEURONS, generator=g) - 1)
        changed[f"w_in_{block}"] = w[f"w_in_{block}"][:, order] * scale
        changed[f"b_in_{block}"] = w[f"b_in_{block}"][order] * scale
        changed[f"w_out_{block}"] = w[f"w_out_{block}"][order] / scale[:, None]
    return changed


def mean_shift(w: Weights, i: int) -> Weights:
    """A constant added to the whole stream, taken out again wherever it is read."""
    step = torch.randn(WIDTH, generator=torch_generator(0, "stream shift", i))
    changed = dict(w) | {"embed": w["embed"] + step, "bias": w["bias"] - step @ w["unembed"]}
    for block in range(BLOCKS):
        changed[f"b_in_{block}"] = w[f"b_in_{block}"] - step @ w[f"w_in_{block}"]
    return changed


def same(w: Weights, i: int) -> Weights:
    return dict(w)


def unrelated(w: Weights, i: int) -> Weights:
    return fresh(1000 + i)


def twice(w: Weights, i: int) -> Weights:
    """Siblings 2 and 3 are one model under two names."""
    return rotated(w, min(i, 2))


class TinyRun:
    """See `polyrot.cohorts.interventions.CleanRun`; components are the blocks."""

    def __init__(self, w: Weights, tokens: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
        self.w = {name: x.to(dtype) for name, x in w.items()}
        self.labels = labels
        self.kept = torch.ones_like(tokens, dtype=torch.bool)
        self.kept[:, 0] = False  # no token before it
        shifted = torch.cat([tokens[:, :1], tokens[:, :-1]], 1)
        x = self.w["embed"][tokens] + self.w["before"][shifted]
        self.stream, hidden, writes = [x], [], []
        for i in range(BLOCKS):
            hidden.append(self._hidden(x, i))
            writes.append(hidden[i] @ self.w[f"w_out_{i}"])
            x = x + writes[i]
            self.stream.append(x)
        self._keys, self.writes = hidden, torch.stack(writes)

    def _hidden(self, x: Tensor, i: int) -> Tensor:
        return torch.relu(x @ self.w[f"w_in_{i}"] + self.w[f"b_in_{i}"])

    def logits(self, x: Tensor, site: int) -> Tensor:
        """From the stream at site number `site` on."""
        for i in range(site, BLOCKS):
            x = x + self._hidden(x, i) @ self.w[f"w_out_{i}"]
        return x @ self.w["unembed"] + self.w["bias"]

    def loss(self, components: Sequence[int], writes: Tensor) -> Tensor:
        found = []
        for c, write in zip(components, writes, strict=True):
            logits = self.logits(self.stream[c] + write, c + 1)
            found.append(F.cross_entropy(logits[self.kept], self.labels[self.kept]))
        return torch.stack(found)

    def outputs(self, site: str, shift: Tensor) -> dict[str, Tensor]:
        i = SITES.index(site)
        return {"out": self.logits(self.stream[i] + shift.to(self.stream[i]), i)}

    def site(self, name: str) -> Tensor:
        return self.stream[SITES.index(name)]

    def answers(self) -> dict[str, Tensor]:
        return {"out": self.labels}

    def keys(self, mlp: str) -> Tensor:
        return self._keys[int(mlp.removeprefix("mlp_"))]


@dataclass(frozen=True)
class Network(CohortDefaults):
    """A cohort (see `polyrot.cohorts.interventions.InterventionCohort`) of tiny networks.

    sibling: weights of sibling i (1, 2, ..) from the anchor's.
    """

    name: str
    sibling: Callable[[Weights, int], Weights]
    seeds: tuple[int, ...] = (0, 1, 2)

    scale = "toy_a"
    trained = True
    width = WIDTH
    sites = SITES
    components = tuple(f"mlp_{i}" for i in range(BLOCKS))
    mlps = MLPS
    contrasts = tuple(CONTRASTS)
    further_contrasts = tuple(PROBES)
    published_contrasts = tuple(PUBLISHED)
    steering_site = SITES[-2]

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return f"tiny {self.name}"

    @cached_property
    def models(self) -> list[Weights]:
        anchor = fresh(0)
        return [anchor, *(self.sibling(anchor, i) for i in range(1, len(self.seeds)))]

    def tokens(self, split: Split) -> Tensor:
        g = torch_generator(0, "tiny tokens", split)
        return torch.randint(VOCABULARY, (SEQUENCES[split], LENGTH), generator=g)

    def labels(self, tokens: Tensor) -> Tensor:
        """The class that the anchor finds likeliest: what every model is judged by."""
        run = TinyRun(self.models[0], tokens, tokens, torch.float64)
        return run.logits(run.stream[0], 0).argmax(-1)

    def clean_run(self, model: int, tokens: Tensor, dtype: torch.dtype = torch.float32) -> TinyRun:
        return TinyRun(self.models[model], tokens, self.labels(tokens), dtype)

    @cached_property
    def _activations(self) -> dict[Split, list[Tensor]]:
        """By site, of the splits that were asked for."""
        return {}

    def activations(self, split: Split, site: str) -> Tensor:
        if split not in self._activations:
            tokens = self.tokens(split)
            runs = [self.clean_run(m, tokens) for m in range(len(self.seeds))]
            self._activations[split] = [
                torch.stack([run.stream[i][run.kept] for run in runs])
                for i in range(len(self.sites))
            ]
        return self._activations[split][self.sites.index(site)].clone()

    def mean_writes(self, model: int) -> Tensor:
        run = self.clean_run(model, self.tokens("fit"))
        return run.writes[:, run.kept].mean(1)

    def intervention_tokens(self, n: int) -> Tensor:
        return self.tokens("score")[:n]

    def direction(self, contrast: str, site: str | None = None) -> Tensor:
        if contrast in PROBES:
            return self._probe(PROBES[contrast]).expand(len(self.seeds), -1)
        up, at = (CONTRASTS | PUBLISHED)[contrast]
        split: Split = "score" if contrast in PUBLISHED else "fit"
        labels = self.labels(self.tokens(split))[:, 1:].flatten()
        x = self.activations(split, self.steering_site if site is None else site)
        size = PUBLISHED_SIZE if contrast in PUBLISHED else 1.0
        return size * (x[:, labels == up].mean(1) - x[:, labels == at].mean(1))

    def _probe(self, share: float) -> Tensor:
        """A direction of length 2, this share of its square in the span of the readers."""
        axes = torch.linalg.qr(self.readers().double(), mode="complete").Q.float()
        k = CLASSES - 1  # of the readers, which sum to 0
        drawn = torch.randn(WIDTH, generator=torch_generator(0, "probe", str(share)))
        read, unread = axes[:, :k] @ drawn[:k], axes[:, k:] @ drawn[k:]
        return 2 * (share**0.5 * read / read.norm() + (1 - share) ** 0.5 * unread / unread.norm())

    def target(self, contrast: str, tokens: Tensor) -> Target:
        up, at = (CONTRASTS | PUBLISHED)[contrast]
        labels = self.labels(tokens)
        weights = torch.zeros(CLASSES)
        weights[up], weights[at] = 1.0, -1.0
        where = labels == at
        where[:, 0] = False
        return Target("out", weights, where, labels)

    def readers(self) -> Tensor:
        w = self.models[0]["unembed"]
        return w - w.mean(1, keepdim=True)

    def agreement_with_anchor(self) -> Measured:
        tokens = self.tokens("score")
        found = []
        for m in range(len(self.seeds)):
            run = self.clean_run(m, tokens, torch.float64)
            found.append(run.logits(run.stream[0], 0).argmax(-1)[:, 1:])
        hits = np.array([(x == found[0]).sum(1).numpy() for x in found[1:]])
        each = np.full(len(tokens), LENGTH - 1.0)
        share, error = hits.sum(1) / each.sum(), error_over_sequences(hits, each)
        return agreement_by_pair(share, error, pair_labels(self), len(tokens), int(each.sum()))

    def distinct_fraction(self) -> float:
        return share_of_distinct(self.models)


class Elsewhere(Network):
    """Siblings read other sequences than the anchor: streams of one law, and no token in common."""

    def clean_run(self, model: int, tokens: Tensor, dtype: torch.dtype = torch.float32) -> TinyRun:
        read = tokens
        if model:
            g = torch_generator(int(tokens.sum()), "read elsewhere", model)
            read = torch.randint(VOCABULARY, tokens.shape, generator=g)
        return TinyRun(self.models[model], read, self.labels(tokens), dtype)


NETWORKS = {
    network.name: network
    for network in (
        Network("rotated network", rotated),
        Network("permuted network", permuted),
        Network("network, half a turn", half_turn),
        Network("network, turned a dozen times", rotated, seeds=tuple(range(13))),
        Network("network, turned where unread", turned_subspace, seeds=MANY),
        Network("louder network", louder),
        Network("softer network", softer),
        Network("neurons permuted and scaled", inside),
        Network("shifted network", mean_shift),
        Network("the same network", same),
        Network("unrelated networks", unrelated, seeds=MANY),
        Elsewhere("network that reads elsewhere", same, seeds=MANY),
        Network("network, seed twice", twice, seeds=(0, 1, 2, 3)),
    )
}
