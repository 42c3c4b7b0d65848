"""The anchor's second dictionary, and that of its turned copy: what they start from and see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from polyrot.cohorts.cohort import SPLITS, CohortDefaults
from polyrot.dictionaries import collection, groups
from polyrot.dictionaries.loading import read_group
from polyrot.dictionaries.sae import quality
from polyrot.dictionaries.training import Schedule
from polyrot.maps.matching import max_cosine
from polyrot.runtime.device import BF16, FLOAT32
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Runtime, Store

D = 8
SHORT = Schedule(steps=25, batch=64, precision=BF16)


class Planted(CohortDefaults):
    scale, seeds, width, fingerprint = "pair", (0, 1), D, "planted"
    sites = ("resid_pre_0", "resid_post_0", "resid_post_1", "resid_post_2")

    def activations(self, split: str, site: str) -> torch.Tensor:
        g = torch_generator(0, "planted", split, site)
        assert split in SPLITS
        scale = torch.arange(1, D + 1.0)  # turning shows
        return torch.randn(2, 400, D, generator=g) * scale + scale


def test_a_second_start_is_the_anchor_from_another_start_at_the_same_sparsity() -> None:
    cohort = Planted()
    anchor, again = (g(cohort, SHORT) for g in (groups.anchor, groups.second_start))
    assert [s.site for s in again.specs] == list(cohort.internal)
    assert {s.model for s in again.specs} == {0}
    assert {s.l1 for s in again.specs} == {s.l1 for s in anchor.specs}
    starts = {s.start for s in again.specs}
    assert starts == {groups.SECOND_START}
    others = (*anchor.specs, *groups.own(cohort, SHORT).specs)
    assert starts.isdisjoint({s.start for s in others})


def test_a_turned_copy_starts_where_the_anchor_does() -> None:
    cohort = Planted()
    copy = groups.turned(cohort, SHORT)
    assert [s.site for s in copy.specs] == list(cohort.named_sites)
    assert set(copy.specs) <= set(groups.anchor(cohort, SHORT).specs)
    plain = replace(copy, data="activations")
    assert collection.recipe(cohort, copy) != collection.recipe(cohort, plain)


@pytest.mark.parametrize("make", [groups.second_start, groups.turned])
def test_both_train_in_float32_and_otherwise_as_the_schedule_says(make) -> None:
    assert make(Planted(), SHORT).schedule == replace(SHORT, precision=FLOAT32)


def test_a_turned_copy_sees_the_anchors_stream_turned_and_nothing_else() -> None:
    cohort = Planted()
    group = groups.turned(cohort, SHORT)
    x, source = collection.training_data(cohort, group, group.specs)
    for spec, i in zip(group.specs, source, strict=True):
        plain = cohort.activations("dictionary", spec.site)[0]
        turn = collection.turn(D, spec.site)
        torch.testing.assert_close(turn @ turn.T, torch.eye(D, dtype=turn.dtype))
        torch.testing.assert_close(x[i], plain @ turn.float())
        assert float((x[i] - plain).norm()) > float(plain.norm()) / 2
    (one, other) = (collection.turn(D, site) for site in cohort.sites[1:3])
    assert float((one - other).norm()) > 1
    # All other data are what they were.
    anchor = groups.anchor(cohort, SHORT)
    x, source = collection.training_data(cohort, anchor, anchor.specs)
    assert torch.equal(x[source[0]], cohort.activations("dictionary", anchor.specs[0].site)[0])


def test_its_quality_is_that_on_what_it_saw(tmp_path: Path) -> None:
    cohort, runtime = Planted(), Runtime(Store(tmp_path))
    group = groups.turned(cohort, Schedule(steps=400, batch=128, rate=3e-3))
    found = collection.trained(runtime, cohort, group)
    (file,) = (tmp_path / "dictionaries").glob("*turned*.safetensors")
    said = read_group(file)[0]["meta"]["quality"]
    anchors = collection.trained(runtime, cohort, replace(group, data="activations"))
    for (spec, dictionary), q in zip(found.items(), said, strict=True):
        x = cohort.activations("fit", spec.site)[0]
        turned = x @ collection.turn(D, spec.site).float()
        assert q["ev"] == pytest.approx(quality(dictionary, turned).ev, abs=1e-6)
        assert q["ev"] > quality(dictionary, x).ev + 0.05
        # Another dictionary than the anchor's own from that start.
        assert float(max_cosine(anchors[spec].decoder, dictionary.decoder).mean()) < 0.999
