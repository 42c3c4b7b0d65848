"""A cohort of one's own: what it need not say follows, and what it lacks it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from polyrot.cohorts.cohort import (
    CohortDefaults,
    NotOffered,
    ScaleFacts,
    Split,
    check_seeds,
    error_over_sequences,
    share_of_distinct,
)
from polyrot.dictionaries import collection, groups
from polyrot.dictionaries.training import Schedule
from polyrot.measures.fits import fit_all
from polyrot.measures.transfer import measure_transfer
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Runtime, Store
from polyrot.toy import seeds
from polyrot.workshop.parts import PARTS
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop

SCHEDULE = Schedule(steps=2, batch=8)


class Minimal(CohortDefaults):
    """As little as a cohort can be."""

    scale, seeds, width, fingerprint = "mine", (0, 1, 2), 8, "mine, version 1"
    sites = ("resid_pre_0", *(f"resid_post_{i}" for i in range(4)))

    def activations(self, split: Split, site: str) -> Tensor:
        generator = torch_generator(0, split, site)
        return torch.randn(len(self.seeds), 64, self.width, generator=generator)


def test_what_a_cohort_need_not_say() -> None:
    made = Minimal()
    assert made.trained
    assert made.internal == ("resid_post_0", "resid_post_1", "resid_post_2", "resid_post_3")
    assert made.named_sites == ("resid_post_1", "resid_post_2")
    assert made.from_second_block == ("resid_post_1", "resid_post_2", "resid_post_3")
    assert made.middle == "resid_post_1"
    assert made.fixed_directions("resid_post_0") is None
    made.forget("fit")
    assert made.sequences("score").tolist() == list(range(64))
    short = Minimal()
    short.sites = Minimal.sites[:2]
    assert short.named_sites == ("resid_post_0",)


def test_it_is_measured_without_a_word_about_its_scale(tmp_path: Path) -> None:
    made = Minimal()
    group = groups.anchor(made, SCHEDULE)
    saes = collection.trained(Runtime(Store(tmp_path)), made, group)
    found = measure_transfer(made, fit_all(made), {s.site: d for s, d in saes.items()})
    assert found.naive_ev.pairs == ("0-1", "0-2")


def test_what_it_lacks_is_named(tmp_path: Path) -> None:
    made = Minimal()
    workshop = Workshop(Runtime(Store(tmp_path)), PROFILES["tiny"])
    for ask in (made.agreement_with_anchor, made.distinct_fraction, made.untrained):
        with pytest.raises(NotOffered, match="scale mine"):
            ask()
    with pytest.raises(NotOffered, match="before their first step"):
        workshop.train(PARTS["untrained"], made)
    with pytest.raises(NotOffered, match="scale mine have no checkpoints of one run"):
        workshop.checkpoints("mine")


def test_facts_decide_dictionaries_and_schedule() -> None:
    made, toy = Minimal(), Minimal()
    toy.facts = seeds.TOYS["toy_a"].facts
    shared = tuple(dict.fromkeys((*made.named_sites, made.sites[-1])))
    for make, language, every in (
        (groups.published, shared, made.named_sites),
        (groups.own, made.internal, made.sites),
        (groups.noise, made.named_sites, made.named_sites),
    ):
        for cohort, sites, l1 in ((made, language, 1e-5), (toy, every, 1e-3)):
            specs = make(cohort, SCHEDULE).specs
            assert tuple(dict.fromkeys(spec.site for spec in specs)) == sites
            assert {spec.l1 for spec in specs} == {l1}
    assert {(s.model, s.site) for s in groups.drift(made, SCHEDULE).specs} == {(0, made.middle)}
    assert len(groups.drift(toy, SCHEDULE).specs) == 2 * len(toy.sites)
    profile, paper = PROFILES["full"], Minimal()
    paper.facts = ScaleFacts(from_paper=True)
    assert profile.dictionaries_of(made) is profile.language_dictionaries
    assert profile.dictionaries_of(toy) is profile.dictionaries
    assert profile.dictionaries_of(paper) is profile.pythia_dictionaries


def test_the_planned_grid_is_as_large_as_the_trained_one() -> None:
    made, toy = Minimal(), Minimal()
    toy.facts = seeds.TOYS["toy_b"].facts
    for cohort in (made, toy):
        trained = groups.sparse_grid(cohort, SCHEDULE)
        planned = groups.planned_grid(cohort, SCHEDULE)
        assert [(s.model, s.site) for s in planned.specs] == [
            (s.model, s.site) for s in trained.specs
        ]
    assert groups.planned_grid(toy, SCHEDULE) == groups.sparse_grid(toy, SCHEDULE)


# ------------------------------------------------------------------------- agreement, distinctness


def test_error_of_a_share_of_clustered_tokens_is_that_of_a_bootstrap() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, 60, size=300).astype(float)
    # Half of the sequences agree on all of their tokens, the others on one in ten.
    hits = np.where(rng.random(300) < 0.5, tokens, 0.1 * tokens)
    drawn = rng.integers(300, size=(4000, 300))
    spread = (hits[drawn].sum(1) / tokens[drawn].sum(1)).std()
    error = float(error_over_sequences(hits[None], tokens)[0])
    assert error == pytest.approx(spread, rel=0.05)
    as_tokens = (0.55 * 0.45 / tokens.sum()) ** 0.5
    assert error > 4 * as_tokens, "tokens of one sequence are no sample of their own"


def test_each_number_is_one_models() -> None:
    check_seeds("mine", (3, 1, 2))
    with pytest.raises(ValueError, match="mine: seed 1 is given twice"):
        check_seeds("mine", (3, 1, 2, 1))


def test_distinct_pairs_are_counted_among_siblings_too() -> None:
    a, b, c = ({"w": torch.full((2,), x)} for x in (1.0, 2.0, 3.0))
    assert share_of_distinct([a, b, c]) == 1
    assert share_of_distinct([a, b, b]) == pytest.approx(2 / 3)
    assert share_of_distinct([a, a]) == 0
