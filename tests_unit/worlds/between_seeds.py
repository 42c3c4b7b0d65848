"""Bars between seeds and agreement of architectures, where what is true of them is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor

from polyrot.measured import Measured
from polyrot.measures import architecture
from polyrot.measures.architecture import Extrapolation
from polyrot.measures.bars import across as between, behaviour, published_search
from polyrot.measures.bars.across import Across
from polyrot.measures.bars.behaviour import Behaviour
from polyrot.measures.bars.kept import siblings_and_anchor
from polyrot.measures.bars.published_search import PublishedSearch
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import cohort as cohorts, task
from polyrot.toy.folding import TENSORS
from polyrot.toy.transformer import Params
from tests_unit.maps.rotated_pair import strong_params
from tests_unit.worlds.asked import HELD, OUT, REFUTED, UNDECIDED, Case
from tests_unit.worlds.toys import Bars, Toys, moved_inside

FOUR = SimpleNamespace(seeds=(0, 1, 2, 3, 4))


class Two(Bars):
    """Two toys, with what the bars between seeds are measured from."""

    @cached_property
    def across(self) -> Across:
        with patch.object(behaviour, "INPUTS", 100):
            return Across.of(between.measure_across(*siblings_and_anchor(self.cohort), 2000))

    @cached_property
    def published_search(self) -> PublishedSearch:
        drawn = torch_generator(3, "starts")
        found = siblings_and_anchor(self.cohort)
        return published_search.search(*found, drawn, starts=2, rounds=3)

    @cached_property
    def self_alignments(self) -> Tensor:
        return torch.tensor([self.self_alignment])

    @cached_property
    def untrained_agreement(self) -> Measured:
        with patch.object(cohorts, "AGREEMENT_SEQUENCES", 32):
            return architecture.untrained_agreement(self.cohort)


def with_another(*names: str) -> Params:
    """The anchor with some tensors of a stranger's."""
    stranger = strong_params(5)
    return {**strong_params(), **{name: stranger[name] for name in names}}


@dataclass(frozen=True)
class Figures:
    """Planted figures of four pairs. kl: of the siblings; decoy: of each one's decoy; spread: of
    the draws, relative. ours, published: largest per-tensor MSE before the refinement; shared: of
    the cohort that shares input and output, by either search. own, long: accuracy of the depth head
    of a toy on the lengths of its training and on longer ones."""

    kl: tuple[float, ...] = (5e-5, 2e-5, 3e-5, 4e-4)
    decoy: float = 0.1
    spread: float = 0.1
    ours: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5)
    published: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5)
    shared: tuple[float, ...] = (0.05, 0.05, 0.05, 0.05)
    itself: float = 1e-13
    own: float = 0.9999
    long: float = 0.95

    toy_cohort = FOUR

    @property
    def across(self) -> Across:
        each = torch.tensor((1e-12, *self.kl, *[self.decoy] * 4), dtype=torch.float64)
        kl = each[:, None].expand(-1, len(task.HEADS))
        luck = 1 + self.spread * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        draws = luck[:, None, None] * kl
        found = Behaviour(kl[:, :, None].clone(), torch.tensor([1000]), draws.mean(2), draws)
        return Across.of(found)

    @property
    def alignment(self) -> SimpleNamespace:
        return SimpleNamespace(searched=torch.tensor(self.ours))

    @property
    def published_search(self) -> PublishedSearch:
        return _search(self.published)

    @property
    def shared_searches(self) -> tuple[SimpleNamespace, PublishedSearch]:
        return SimpleNamespace(searched=torch.tensor(self.shared)), _search(self.shared)

    @property
    def self_alignments(self) -> Tensor:
        return torch.tensor([1e-13] * 7 + [self.itself])

    @property
    def extrapolation(self) -> Extrapolation:
        own, long = (
            torch.tensor([1.0, x, 1.0], dtype=torch.float64) for x in (self.own, self.long)
        )
        error = torch.full((3,), 2e-4, dtype=torch.float64)
        return Extrapolation(own, error, long, error)


def _search(largest: tuple[float, ...]) -> PublishedSearch:
    mse = torch.zeros(len(largest), len(TENSORS), dtype=torch.float64)
    mse[:, 2] = torch.tensor(largest)
    return PublishedSearch(mse, 2 * mse, mse)


PLANTED = Figures()
FIGURES = {
    "three pairs of four pass": PLANTED,
    "one pair of four passes": replace(PLANTED, kl=(5e-5, 2e-3, 3e-3, 4e-4)),
    "of three that pass one is open": replace(PLANTED, kl=(5e-5, 2e-5, 9e-5, 4e-4)),
    "decoys that pass": replace(PLANTED, decoy=5e-5),
    "our search finds too much": replace(PLANTED, ours=(0.1, 0.1, 0.1, 0.1)),
    "one pair that either search aligns": replace(
        PLANTED, ours=(0.5, 0.1, 0.5, 0.5), published=(0.5, 0.2, 0.5, 0.5)
    ),
    "no worse when independent": replace(PLANTED, shared=(0.5, 0.4, 0.5, 0.6)),
    "worse when independent, at one pair": replace(PLANTED, shared=(0.01, 0.01, 0.2, 0.01)),
    "an element that the search does not undo": replace(PLANTED, itself=0.3),
    "depth is carried far": replace(PLANTED, long=0.999),
    "depth is lost beyond": replace(PLANTED, long=0.6),
    "depth is lost by as much as sequences differ": replace(PLANTED, long=0.9899),
    "depth was not learnt": replace(PLANTED, own=0.99),
}
TOYS = {
    "a copy, moved inside": lambda: moved_inside(strong_params()),
    "a stranger": lambda: strong_params(5),
    "a second MLP of its own": lambda: with_another("w_in_1", "w_out_1"),
    "a first MLP of its own": lambda: with_another("w_in_0", "w_out_0"),
}
COPY, STRANGER, SECOND, FIRST = TOYS


def evidence(world: str) -> Two | Figures:
    """By the name of its world."""
    return FIGURES[world] if world in FIGURES else Two(Toys(world, TOYS[world]()))


CASES = [
    Case("bars.behavioural_across", COPY, HELD, "the anchor itself"),
    Case("bars.behavioural_across", STRANGER, REFUTED, "another function"),
    Case("bars.behavioural_across", "three pairs of four pass", HELD, "planted so"),
    Case("bars.behavioural_across", "one pair of four passes", REFUTED, "planted so"),
    Case("bars.behavioural_across", "of three that pass one is open", UNDECIDED, "draws decide"),
    Case("bars.decoy_across_control", COPY, HELD, "a copy's depths are blurred"),
    Case("bars.decoy_across_control", "decoys that pass", REFUTED, "planted so"),
    Case("bars.parametric_before_refinement", COPY, REFUTED, "the search undoes a symmetry"),
    Case("bars.parametric_before_refinement", "three pairs of four pass", HELD, "planted so"),
    Case("bars.parametric_before_refinement", "our search finds too much", HELD, "the favourable"),
    Case(
        "bars.parametric_before_refinement",
        "one pair that either search aligns",
        REFUTED,
        "by either reading",
    ),
    Case("bars.parametric_worse_when_independent", "three pairs of four pass", HELD, "ten times"),
    Case("bars.parametric_worse_when_independent", "no worse when independent", REFUTED, "equal"),
    Case(
        "bars.parametric_worse_when_independent",
        "worse when independent, at one pair",
        UNDECIDED,
        "the pairs differ too much",
    ),
    Case("bars.self_alignment_control", COPY, HELD, "the search undoes a symmetry"),
    Case(
        "bars.self_alignment_control",
        "an element that the search does not undo",
        REFUTED,
        "planted so",
    ),
    Case("bars.error_sits_in_the_second_mlp", SECOND, HELD, "nothing else differs"),
    Case("bars.error_sits_in_the_second_mlp", FIRST, REFUTED, "it is the first that differs"),
    Case("architecture.untrained_agreement_control", STRANGER, HELD, "other functions"),
    Case("architecture.untrained_agreement_control", COPY, REFUTED, "logits are the anchor's"),
    Case("architecture.length_extrapolation", "three pairs of four pass", HELD, "0.95"),
    Case("architecture.length_extrapolation", "depth is carried far", REFUTED, "nothing drops"),
    Case("architecture.length_extrapolation", "depth is lost beyond", REFUTED, "it drops too far"),
    Case(
        "architecture.length_extrapolation",
        "depth is lost by as much as sequences differ",
        UNDECIDED,
        "its interval holds 0.99",
    ),
    Case("architecture.length_extrapolation", "depth was not learnt", OUT, "a precondition"),
]
