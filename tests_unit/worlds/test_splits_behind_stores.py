"""Splits that are read on the way to an artifact: dictionaries, sparsity, bars, interventions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyrot.cohorts.cohort import ScaleFacts
from polyrot.dictionaries import collection, groups, sparsity
from polyrot.dictionaries.groups import Group, Spec
from polyrot.dictionaries.sae import Dictionary, quality
from polyrot.dictionaries.training import Schedule
from polyrot.haar.frames import common_rank
from polyrot.measures.bars import joint, kept
from polyrot.measures.bars.overlap import activation_overlap
from polyrot.measures.fits import fit_all
from polyrot.measures.haar import controls, whitened
from polyrot.store import Artifact, Runtime, Store
from polyrot.toy.run import mean_writes
from polyrot.workshop import workshop as workshops
from polyrot.workshop.profiles import PROFILES
from tests_unit.maps.rotated_pair import strong_params
from tests_unit.worlds.splits import Apart, D, law_of
from tests_unit.worlds.toys import Bars, Toys, moved_inside

SITE = Apart.sites[1]


class Toyish(Apart):
    """With the toy's grid of l1."""

    facts = ScaleFacts(language=False, relative_l1=False)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(Store(tmp_path))


@pytest.fixture(scope="module")
def toys() -> Toys:
    return Toys("moved inside", moved_inside(strong_params()))


def test_what_is_said_of_a_dictionary_is_of_the_fit_split(runtime: Runtime) -> None:
    apart = Apart()
    specs = tuple(Spec(m, SITE, 0) for m in (0, 1))
    group = Group("two", specs, Schedule(steps=1, batch=8), expansion=1)
    made = collection.trained(runtime, apart, group)

    def again(_: object) -> Artifact:
        raise AssertionError("it is in the store")

    saved = runtime.store.get_or_build(collection.KIND, collection.recipe(apart, group), again)
    for spec, told in zip(specs, saved.meta["quality"], strict=True):
        own = quality(made[spec], apart.activations("fit", SITE)[spec.model])
        assert told["ev"] == pytest.approx(own.ev)
        assert told["l0"] == pytest.approx(own.l0)


def test_sparsity_is_chosen_on_the_anchors_fit_split(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three dictionaries: each is sparse enough on one of three sets of activations alone."""
    apart, wanted = Toyish(), sparsity.l0_range(Apart())
    x = {
        "anchor, fit": apart.activations("fit", SITE)[0],
        "anchor, score": apart.activations("score", SITE)[0],
        "sibling, fit": apart.activations("fit", SITE)[1],
    }
    grid = {}
    for i, tokens in enumerate(x.values()):
        # As many features as there may be: each fires on all tokens of `tokens` and few others.
        mean = tokens.mean(0)
        near = torch.stack([mean] * D)
        at = 0.9 * float(mean.square().sum())
        active = torch.full((D,), -1e3)
        active[: int(wanted[1])] = -at
        grid[Spec(0, SITE, 0, groups.L1_GRID[i])] = Dictionary(
            near.T, active, torch.eye(D), torch.zeros(D), torch.zeros(D)
        )
    l0 = [[quality(d, t).l0 for t in x.values()] for d in grid.values()]
    picks = [sparsity.choose_l1(grid, t, SITE, l0=wanted).l1 for t in x.values()]
    assert picks[0] not in picks[1:], (l0, picks)
    monkeypatch.setattr(workshops.Workshop, "group", lambda self, cohort, group: grid)
    workshop = workshops.Workshop(runtime, next(iter(PROFILES.values())))
    assert workshop.chosen(apart)[SITE][0].l1 == picks[0]


def test_a_relative_grid_is_in_units_of_the_anchors_fit_split() -> None:
    apart = Apart()
    found = groups.l1_grid(apart, SITE)
    assert apart.read() == {"fit"}
    x = apart.activations("fit", SITE)[0]
    unit = found[0] / groups.RELATIVE_GRID[0]
    assert 0.7 < unit / float((x.var(0).mean() / D).sqrt()) < 1.42  # to the nearest power of two


def test_the_anchor_is_held_against_itself_on_the_score_split() -> None:
    apart = Apart()
    fits = fit_all(apart)
    assert apart.read() == {"fit"}
    controls.same_model_rejections(apart, fits, None)
    assert apart.read() == {"score"}


def test_whitened_maps_are_of_the_fit_split() -> None:
    apart = Apart(seeds=(0, 1))
    found = whitened.shared_features(apart, None, [SITE])
    assert apart.read() == {"fit"}
    both = [x.numpy() for x in apart.activations("fit", SITE)[:2]]
    assert found.beside[f"rank_{SITE}"] == common_rank(both, 0.99)


def test_joint_alignment_sees_the_fit_split(
    runtime: Runtime, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    class Enough(Exception):
        pass

    def spy(*given: Any, **how: Any) -> None:
        seen.extend(given)
        raise Enough

    monkeypatch.setattr(joint, "align_jointly", spy)
    aligned = Bars(toys).alignment
    with pytest.raises(Enough):
        kept.joint_alignments(runtime, toys, aligned)
    at = [toys.activations("fit", site) for site in toys.internal]
    wanted = activation_overlap(toys.internal, at)
    torch.testing.assert_close(seen[3].cross, wanted.cross)
    variance = [float(x[0].double().var(0, correction=0).mean()) for x in at]
    np.testing.assert_allclose(seen[4], variance)


def test_a_toys_means_are_of_the_fit_split_and_its_effects_of_the_score_split(toys: Toys) -> None:
    fit = mean_writes(toys.folded(1), toys.tokens("fit"))
    torch.testing.assert_close(toys.mean_writes(1), fit)
    other = mean_writes(toys.folded(1), toys.tokens("score"))
    assert (toys.mean_writes(1) - other).abs().max() > 1e-3
    score = {tuple(row) for row in toys.tokens("score").tolist()}
    assert {tuple(row) for row in toys.intervention_tokens(4).tolist()} < score


def test_laws_of_the_splits_are_far_apart() -> None:
    laws = [law_of(split, SITE).origin for split in ("dictionary", "fit", "score")]
    gaps = [float((a - b).norm()) for i, a in enumerate(laws) for b in laws[:i]]
    assert min(gaps) > 2
