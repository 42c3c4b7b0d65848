"""What every scale offers: seeds, sites, activations of a split. Claims know nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from polyrot.measured import Measured, interval_about

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["dictionary", "fit", "score"]
SPLITS: tuple[Split, ...] = ("dictionary", "fit", "score")
"""Disjoint sets of sequences: dictionaries are trained on the first, maps between models fitted on
the second, and everything is scored on the third."""


@dataclass(frozen=True)
class ScaleFacts:
    """What the paper and the registration say of a scale, beside its models.

    The defaults are those of two or more language models that someone brings.

    language: language models, rather than the toy.
    published_l1: the sparsity that the paper trains their dictionaries with.
    relative_l1: of the sparse dictionaries l1 is chosen in units of what a feature costs at a site,
    rather than from the toy's grid.
    every_site: there are dictionaries of every site and checkpoint; else at the sites that the
    paper names, and of checkpoints the early one's at the middle site.
    shared_start: siblings' dictionaries are also trained from the anchor's own start, as the paper
    trains them, and on noise from it.
    wide: the anchor has wide dictionaries too.
    drift: one run's checkpoints have dictionaries.
    drift_l1: the sparsity of those, where it is another; None where it is not.
    from_paper: the paper's own models: their dictionaries keep the paper's protocol.
    firing_sites: those at which the paper reports firing patterns; none where it does at every one.
    """

    language: bool = True
    published_l1: float = 1e-5
    relative_l1: bool = True
    every_site: bool = False
    shared_start: bool = True
    wide: bool = False
    drift: bool = False
    drift_l1: float | None = None
    from_paper: bool = False
    firing_sites: tuple[str, ...] = ()


class NotOffered(RuntimeError):
    """A cohort lacks what was asked of it; the message says whose it is and what is missing."""


class NoCheckpoints(ValueError):
    """Of a run fewer than two states are there: it kept no others, or came without them."""


class Cohort(Protocol):
    """Models of one architecture, the anchor first. Inherit from `CohortDefaults` to write one."""

    @property
    def scale(self) -> str:
        """Name of the scale, for people and messages alone: nothing is decided by it."""
        ...

    @property
    def trained(self) -> bool:
        """False for models as they were before their first step."""
        ...

    @property
    def seeds(self) -> tuple[int, ...]:
        """One number for each model; of one run's checkpoints its steps, earliest first."""
        ...

    @property
    def sites(self) -> tuple[str, ...]:
        """Every distinct residual site, the embedding first."""
        ...

    @property
    def internal(self) -> tuple[str, ...]:
        """The sites after the embedding."""
        ...

    @property
    def named_sites(self) -> tuple[str, ...]:
        """Those at which the paper reports decoder cosines."""
        ...

    @property
    def from_second_block(self) -> tuple[str, ...]:
        """Those from the second block's output onward."""
        ...

    @property
    def middle(self) -> str:
        """The site that drift is reported at."""
        ...

    @property
    def skip(self) -> int:
        """How many positions at the beginning of every sequence its activations leave out."""
        ...

    @property
    def width(self) -> int:
        """Dimensions of the residual stream."""
        ...

    @property
    def facts(self) -> ScaleFacts:
        """What the paper and the registration say of the scale."""
        ...

    @property
    def departures(self) -> tuple[str, ...]:
        """How the training of the models departs from the paper's protocol, a sentence each; see
        `polyrot.cohorts.departures`."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of everything that made the models and their activations."""
        ...

    def agreement_with_anchor(self) -> Measured:
        """Top-1 agreement of every sibling with the anchor on held-out inputs, one value a pair.
        Raises NotOffered where the cohort has activations alone."""
        ...

    def distinct_fraction(self) -> float:
        """Share of all pairs, siblings among themselves included, whose weights differ by more than
        1 % in norm. Raises NotOffered where the cohort has activations alone."""
        ...

    def untrained(self) -> Cohort:
        """The same seeds before their first step, on the same sequences. Raises NotOffered where
        they are not known."""
        ...

    def activations(self, split: Split, site: str) -> Tensor:
        """[models, tokens, width]: the same tokens for every model, padding left out."""
        ...

    def sequences(self, split: Split) -> Tensor:
        """int64 [tokens]: the sequence that each token of `activations(split, ..)` is of, from 0
        on. Tokens of one hang together: intervals over tokens are bootstraps over sequences."""
        ...

    def fixed_directions(self, site: str) -> Tensor | None:
        """[k, width], linearly independent: directions at a site that the architecture fixes, the
        same in every model however it was trained. None where it leaves all of them free."""
        ...

    def forget(self, split: Split) -> None:
        """Free the activations of a split; they are computed anew when asked for."""
        ...


class CohortDefaults:
    """A base for cohorts: everything of `Cohort` that follows from the rest.

    A cohort of one's own says `scale`, `seeds`, `sites`, `width`, `fingerprint` and `activations`;
    each of the others can be set or overridden. The fingerprint must change whenever an activation
    may, or what else a method gives: dictionaries and tables are kept by it. (`--cohort` extends it
    by sites, sequences, tokens and fixed directions.) The splits share no sequence, and each has at
    least twice as many tokens as the models are wide.

    >>> import torch
    >>> class Mine(CohortDefaults):
    ...     scale, seeds, width, fingerprint = "pair", (0, 1), 8, "two random models, version 1"
    ...     sites = ("resid_pre_0", "resid_post_0", "resid_post_1")
    ...
    ...     def activations(self, split, site):
    ...         number = 3 * SPLITS.index(split) + self.sites.index(site)
    ...         drawn = torch.Generator().manual_seed(number)
    ...         return torch.randn(len(self.seeds), 64, self.width, generator=drawn)
    >>> mine = Mine()
    >>> mine.internal, mine.middle, pair_labels(mine)
    (('resid_post_0', 'resid_post_1'), 'resid_post_0', ('0-1',))
    """

    scale: str
    seeds: tuple[int, ...]
    sites: tuple[str, ...]
    width: int
    fingerprint: str
    skip: int = 0
    trained: bool = True
    facts: ScaleFacts = ScaleFacts()
    departures: tuple[str, ...] = ()

    if TYPE_CHECKING:  # each cohort's own

        def activations(self, split: Split, site: str) -> Tensor:
            """See `Cohort`."""
            ...

    @cached_property
    def internal(self) -> tuple[str, ...]:
        """Every site after the first, which is the embedding's."""
        return tuple(self.sites[1:])

    @cached_property
    def named_sites(self) -> tuple[str, ...]:
        """The paper's "intermediate layers": the internal sites but for the first and the last."""
        return self.internal[1:-1] or self.internal

    @cached_property
    def from_second_block(self) -> tuple[str, ...]:
        """Where each block has one site: all but the embedding's and the first block's."""
        return tuple(self.sites[2:])

    @cached_property
    def middle(self) -> str:
        """The middle site."""
        return self.sites[len(self.sites) // 2]

    def agreement_with_anchor(self) -> Measured:
        """Raises NotOffered: outputs are not known."""
        raise NotOffered(f"the cohort of scale {self.scale} has no outputs to compare")

    def distinct_fraction(self) -> float:
        """Raises NotOffered: weights are not known."""
        raise NotOffered(f"the cohort of scale {self.scale} has no weights to compare")

    def untrained(self) -> Cohort:
        """Raises NotOffered: not known."""
        raise NotOffered(
            f"the models of scale {self.scale} are not known as they were before their first step"
        )

    def sequences(self, split: Split) -> Tensor:
        """Every token is taken for a sequence of its own, as it is not known which belong together:
        the intervals of single pairs are then too narrow. A cohort that knows better overrides it.
        """
        import torch

        x = self.activations(split, self.sites[0])
        return torch.arange(x.shape[1], device=x.device)

    def fixed_directions(self, site: str) -> Tensor | None:  # noqa: ARG002  # others know by site
        """None: nothing is known of the architecture."""
        return None

    def forget(self, split: Split) -> None:
        """Nothing is held."""


def weights_differ(a: Mapping[str, Tensor], b: Mapping[str, Tensor], share: float = 0.01) -> bool:
    """Whether two models' weights differ by more than `share` of the first's norm. Those that have
    not the same tensors do."""
    if {n: x.shape for n, x in a.items()} != {n: x.shape for n, x in b.items()}:
        return True
    gap = sum(float((a[name].double() - b[name].double()).square().sum()) for name in a)
    norm = sum(float(a[name].double().square().sum()) for name in a)
    return not math.isfinite(gap) or gap > share**2 * norm


def check_seeds(scale: str, seeds: Sequence[int]) -> None:
    """Raises ValueError, naming it, for a number that two models of a cohort have: a model given
    twice agrees with itself."""
    seen: set[int] = set()
    for seed in seeds:
        if seed in seen:
            raise ValueError(f"{scale}: seed {seed} is given twice; each model has its own number")
        seen.add(seed)


def share_of_distinct(models: Sequence[Mapping[str, Tensor]]) -> float:
    """Share of all pairs of models, siblings among themselves included, whose weights differ by
    more than 1 % in norm."""
    pairs = list(itertools.combinations(models, 2))
    return sum(weights_differ(a, b) for a, b in pairs) / len(pairs)


def error_over_sequences(hits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Standard error of the share hits / tokens, whose sample is sequences: [..] from hits [..,
    sequences] and tokens [sequences] (a ratio of means, linearised: Cochran 1977, section 6.4).

    >>> error_over_sequences(np.array([[4.0, 0.0, 2.0, 2.0]]), np.full(4, 4.0))
    array([0.204...])
    """
    n, total = len(tokens), tokens.sum()
    share = hits.sum(-1, keepdims=True) / total
    error: np.ndarray = np.sqrt(np.square(hits - share * tokens).sum(-1) * n / (n - 1)) / total
    return error


def agreement_by_pair(
    share: np.ndarray,
    error: np.ndarray,
    pairs: Sequence[str],
    sequences: int,
    positions: int,
    beside: Mapping[str, float] | None = None,
    seeds: Mapping[str, int | Sequence[int]] | None = None,
) -> Measured:
    """Top-1 agreement with the anchor, [pairs], each with the interval of its own sequences.

    Its ceiling is 1: an exact rotated copy puts out the anchor's logits.
    """
    return Measured(
        share,
        tuple(pairs),
        None,
        dict(beside or {}),
        dict(seeds or {}),
        {"positions": positions, "sequences": sequences},
        tuple(
            interval_about(float(x), float(e), "sequences", "fraction")
            for x, e in zip(share, error, strict=True)
        ),
        "fraction",
    ).below(1.0)


def pair_labels(cohort: Cohort) -> tuple[str, ...]:
    """One label for each (anchor, other seed), such as "0-3"."""
    anchor, *others = cohort.seeds
    return tuple(f"{anchor}-{other}" for other in others)
