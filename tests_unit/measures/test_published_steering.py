"""Steering by conditional accuracy: planted drops, the pipeline's masks, what is out of reach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from polyrot.cohorts.cohort import NotOffered
from polyrot.judge.verdicts import Finding, judge
from polyrot.measured import jackknifed
from polyrot.measures import published_steering as published
from polyrot.measures.effects import ROUNDING, mean_over_pairs
from polyrot.measures.published_steering import (
    CLOSER,
    DEPTH,
    STICKY,
    ByAccuracy,
    PublishedSteering,
)
from polyrot.toy import directions, task, transformer
from polyrot.toy.directions import Features
from tests_unit.maps.rotated_pair import RotatedPair
from tests_unit.worlds.asked import HELD, OUT, REFUTED, UNDECIDED, registration

DOSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
NAMES = (STICKY, DEPTH, CLOSER)


def planted(
    drops: dict[str, list[list[float]]], clean: float = 1.0, random: float = 0.1
) -> ByAccuracy:
    """drops: contrast -> [models][doses], the anchor first; 0 unless given."""
    models = len(next(iter(drops.values())))
    none = [[0.0] * len(DOSES)] * models
    drop = np.array([drops.get(name, none) for name in NAMES])
    return ByAccuracy(
        NAMES,
        DOSES,
        tuple(f"0-{m}" for m in range(1, models)),
        tuple(range(models)),
        8,
        (10, 20, 30),
        np.full((3, models), clean),
        drop,
        np.ones_like(drop),
        np.full((models, 4), random),
    )


def line(slope: float) -> list[float]:
    """A drop that grows with the dose until nothing is left."""
    return [min(slope * dose, 1.0) for dose in DOSES]


ALIKE = planted({DEPTH: [line(0.4), line(0.4)]})


def both(text: ByAccuracy, pipeline: ByAccuracy | None, unread: str = "") -> PublishedSteering:
    other = None if pipeline is None else PublishedSteering(pipeline, ALIKE)
    return PublishedSteering(text, ALIKE, other, unread=unread)


def test_what_is_not_as_published_has_the_pipelines_seeds_beside() -> None:
    text = planted({DEPTH: [line(0.4), line(0.3), line(0.35)]})
    other = planted({DEPTH: [line(0.4), line(0.1), line(0.1)]})
    for name in ("random_over_depth", "closer_costs_more"):
        judged, alone = (getattr(both(text, x), name)() for x in (other, None))
        (there,) = getattr(both(other, None), name)().values
        assert judged.values == alone.values
        assert judged.readings == ()
        assert judged.beside["seeds_of_the_pipeline"] == there
        assert "seeds_of_the_pipeline" not in alone.beside
        assert alone.unread == getattr(both(text, None, "seeds"), name)().unread == ""


FAR = {DEPTH: [line(0.4), line(0.1), line(0.1)], STICKY: [line(0.4), line(0.4), line(0.4)]}
NEAR = {DEPTH: [line(0.4), line(0.38), line(0.38)], STICKY: [line(0.4), line(0.1), line(0.1)]}
NOTHING = {CLOSER: [line(0.1)] * 3}
OF = {
    "steering.depth_transfers_as_published": PublishedSteering.depth_ratio,
    "steering.sticky_needs_dose_as_published": PublishedSteering.halving_dose_ratio,
}


@pytest.mark.parametrize("claim", OF)
def test_as_published_seeds_of_text_and_pipeline_are_readings(claim: str) -> None:
    def found(text: object, pipeline: object, unread: str = "") -> Finding:
        text, pipeline = (x if x is None else planted(x) for x in (text, pipeline))  # type: ignore[arg-type]
        measured = OF[claim](both(text, pipeline, unread))  # type: ignore[arg-type]
        return judge(registration().claim(claim), "toy_a", measured)

    for text, pipeline, name in [(FAR, NEAR, "pipeline"), (NEAR, FAR, "text")]:
        one = found(text, pipeline)
        assert (one.outcome.value, one.beside["reading"]) == (HELD, f"seeds of the {name}")
        assert {"seeds of the text", "seeds of the pipeline"} <= one.beside.keys()
    assert found(FAR, FAR).outcome.value == REFUTED, "by either"
    assert found(FAR, None).outcome.value == REFUTED, "there is no other"
    missing = found(FAR, None, "seeds of another schedule")
    assert missing.outcome.value == UNDECIDED, "nothing is refuted while a reading is not measured"
    assert "seeds of another schedule" in missing.why
    assert found(NEAR, None, "seeds of another schedule").outcome.value == HELD
    assert found(NEAR, NOTHING).outcome.value == HELD
    said = found(FAR, NOTHING)
    assert said.outcome.value == OUT, "where one says nothing the other alone refutes nothing"
    assert "no" in str(said.beside["seeds of the pipeline"])


def test_depth_ratio_is_of_drops_at_dose_2_and_below_saturation() -> None:
    found = planted({DEPTH: [line(0.4), line(0.3), line(0.35)]})
    alike = planted({DEPTH: [line(0.4), line(0.4)]})
    one = found.depth_ratio(alike)
    by_pair = np.array([0.6, 0.7]) / 0.8
    assert one.values[0] == pytest.approx(by_pair.mean())
    assert one.intervals == mean_over_pairs(by_pair[None])
    assert one.ceilings == pytest.approx((1.0,))
    assert one.beside["unsaturated_dose"] == 2.0  # the anchor drops by 0.8 there, by 1 at 4
    full = planted({DEPTH: [line(0.9), line(0.3), line(0.3)]}).depth_ratio(alike)
    assert full.values[0] == pytest.approx(0.6)
    assert full.beside["unsaturated_dose"] == 1.0
    assert full.beside["ratio_at_unsaturated_dose"] == pytest.approx(0.3 / 0.9)
    never = planted({DEPTH: [[1.0] * 6, [1.0] * 6, [1.0] * 6]}).depth_ratio(alike)
    assert "none" in str(never.beside["unsaturated_dose"])
    assert (
        "costs the anchor no accuracy" in planted({STICKY: [line(1)] * 3}).depth_ratio(alike).unmet
    )


def test_the_dose_that_halves_is_read_between_doses() -> None:
    # The anchor loses half of its 1.0 at dose 1.25, siblings' mean curve (slopes 0.1, 0.15) at 4.
    found = planted({STICKY: [line(0.4), line(0.1), line(0.15)]})
    one = found.halving_dose_ratio()
    assert one.beside["within_dose"] == pytest.approx(1.25)
    assert one.beside["cross_dose"] == pytest.approx(4.0)
    assert one.values[0] == pytest.approx(3.2)
    # Without the first sibling it is the second's own, 2 + 2 * (0.5 - 0.3) / (0.6 - 0.3), and
    # without the second the first's, 4 + 4 * (0.5 - 0.4) / (0.8 - 0.4).
    wanted = jackknifed(3.2, np.array([10 / 3, 5.0]) / 1.25, "pairs", "positive", ROUNDING * 3.2)
    ends = one.interval(0)
    assert ends is not None
    assert (ends.low, ends.high) == pytest.approx((wanted.low, wanted.high))


def test_half_is_of_each_ones_unsteered_accuracy() -> None:
    found = planted({STICKY: [line(0.1), line(0.1), line(0.1)]})
    clean = found.clean.copy()
    clean[0, 0] = 0.8
    one = replace(found, clean=clean).halving_dose_ratio()
    assert one.values[0] == pytest.approx(5 / 4)


def test_a_dose_never_reached_is_a_bound_or_out_of_reach() -> None:
    never = planted({STICKY: [line(0.25), line(0.01), line(0.02)]}).halving_dose_ratio()
    assert never.values[0] == pytest.approx(8)
    ends = never.interval(0)
    assert ends is not None
    assert (ends.low, ends.high) == (pytest.approx(8, rel=1e-3), np.inf)
    assert "at least 8" in str(never.beside["bound"])
    assert never.beside["pairs_that_never_reach_it"] == 2
    inert = planted({STICKY: [line(0.01), line(1), line(1)]}).halving_dose_ratio()
    assert "no dose halves" in inert.unmet
    wrong = planted({STICKY: [line(1)] * 3}, clean=0.0).halving_dose_ratio()
    assert "no half" in wrong.unmet


def test_a_bound_within_the_bar_is_undecided_and_one_beyond_it_refutes() -> None:
    def found(anchor: float, *siblings: float) -> str:
        measured = planted({STICKY: [line(anchor), *map(line, siblings)]}).halving_dose_ratio()
        claim = registration().claim("steering.sticky_needs_dose_as_published")
        return judge(claim, "toy_a", measured).outcome.value

    assert found(0.125, 0.02, 0.02) == UNDECIDED, "at least 4 times the dose, of 2 to 8"
    assert found(0.125, 0.02) == UNDECIDED, "of one pair, too"
    assert found(0.5, 0.02, 0.02) == REFUTED, "at least 16 times"
    assert found(0.125, 0.04, 0.04) == HELD, "reached, at about thrice the dose"
    # The mean curve gets there by one pair: without it no dose does.
    one = planted({STICKY: [line(0.4), line(0.5), line(0.01)]}).halving_dose_ratio()
    ends = one.interval(0)
    assert ends is not None
    assert (ends.low < one.values[0] < 2, ends.high) == (True, np.inf)


def test_closers_cost_is_a_difference_at_half_the_dose() -> None:
    one = planted({CLOSER: [line(0.02), line(0.2), line(0.6)]}).closer_costs_more()
    assert one.values[0] == pytest.approx((0.1 + 0.3) / 2 - 0.01)
    (found,), (wanted,) = one.intervals, mean_over_pairs(np.array([[0.09, 0.29]]))
    assert found is not None
    assert wanted is not None
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.of == "pairs"
    assert one.ceilings == ()


def test_random_directions_are_set_against_the_depth_direction() -> None:
    alike = planted({DEPTH: [line(0.4), line(0.4)]}, random=0.2)
    one = planted({DEPTH: [line(0.4), line(0.3), line(0.2)]}).random_over_depth(alike)
    assert one.values[0] == pytest.approx(0.1 / 0.5)
    assert one.ceilings == pytest.approx((0.2 / 0.8,))
    without = np.array([0.1 / 0.4, 0.1 / 0.6])
    wanted = jackknifed(0.2, without, "pairs", "real", ROUNDING * 0.2)
    assert one.intervals[0] is not None
    assert (one.intervals[0].low, one.intervals[0].high) == pytest.approx((wanted.low, wanted.high))
    assert (
        "costs siblings no accuracy"
        in planted({STICKY: [line(1)] * 3}).random_over_depth(alike).unmet
    )


# -------------------------------------------------------------------- on a toy whose copy is exact


@pytest.fixture(scope="module")
def pair() -> RotatedPair:
    return RotatedPair()


def test_populations_are_plain_masks_on_what_is_scored(pair: RotatedPair) -> None:
    tokens = pair.tokens("score")
    labels, kept = task.label(tokens), tokens != task.PAD
    depth, invalid = labels.depth[kept], labels.validity[kept] == 1
    bracket = tokens[kept] >= task.OPENERS[0]
    closer, opener = bracket & (tokens[kept] % 2 == 0), bracket & (tokens[kept] % 2 == 1)
    x = pair.activations("score", pair.steering_site)[0]
    wanted = {
        DEPTH: x[depth == 5].mean(0) - x[depth == 4].mean(0),
        STICKY: x[(depth == 4) & ~invalid].mean(0) - x[(depth == 4) & invalid].mean(0),
        CLOSER: x[closer].mean(0) - x[opener].mean(0),
    }
    assert invalid[(depth == 5) | (depth == 4)].any(), "invalid positions are among them"
    for name, direction in wanted.items():
        torch.testing.assert_close(pair.direction(name)[0], direction, atol=1e-4, rtol=1e-4)
    features = Features.of(tokens)
    where = {name: directions.target(name, tokens).where for name in wanted}
    cut = where[DEPTH].shape[1]
    assert torch.equal(where[DEPTH], (features.kept & (features.depth == 4))[:, :cut])
    at = features.kept & features.invalid & (features.depth == 4)
    assert torch.equal(where[STICKY], at[:, :cut])
    assert torch.equal(where[CLOSER], (features.kept & features.closer)[:, :cut])
    heads = {name: directions.target(name, tokens).head for name in wanted}
    assert heads == {DEPTH: "depth", STICKY: "validity", CLOSER: "token"}


def test_drops_are_of_the_accuracy_where_the_mask_says(pair: RotatedPair) -> None:
    found = published.measure_by_accuracy(pair, n_sequences=40, n_random=3, doses=(2.0,))
    tokens = pair.intervention_tokens(40)
    labels, kept = task.label(tokens), tokens != task.PAD
    one, v = transformer.select(pair.params, [0]), pair.direction(DEPTH)[0]
    where = kept & (labels.depth == 4)

    def accuracy(shift: torch.Tensor) -> float:
        after = transformer.forward(one, tokens, edits={pair.steering_site: lambda x: x + shift})
        return float((after.logits["depth"][0, where].argmax(-1) == 4).double().mean())

    i, clean = found.contrasts.index(DEPTH), accuracy(torch.zeros(64))
    assert found.clean[i, 0] == pytest.approx(clean, abs=1e-6)
    assert found.drop[i, 0, 0] == pytest.approx(clean - accuracy(2 * v), abs=1e-6)
    assert found.targets[i] == int(where.sum())
    assert found.random.shape == (2, 3)


def test_a_copy_in_its_own_basis_is_the_anchor_and_all_survive_the_store(pair: RotatedPair) -> None:
    found = published.measure_published(pair, n_sequences=32, n_random=2)
    np.testing.assert_allclose(found.alike.drop[:, 1], found.alike.drop[:, 0], atol=1e-9)
    np.testing.assert_allclose(found.alike.drop[:, 0], found.siblings.drop[:, 0], atol=1e-9)
    again = published.PublishedSteering.from_artifact(found.to_artifact())
    np.testing.assert_array_equal(again.siblings.kl, found.siblings.kl)
    np.testing.assert_array_equal(again.alike.random, found.alike.random)
    assert again.siblings.contrasts == found.siblings.contrasts
    assert again.siblings.targets == found.siblings.targets


def test_where_the_paper_scored_nothing_it_says_so(
    pair: RotatedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RotatedPair, "published_contrasts", (), raising=False)
    with pytest.raises(NotOffered, match="scores no models like those of toy_a"):
        published.measure_by_accuracy(pair)
