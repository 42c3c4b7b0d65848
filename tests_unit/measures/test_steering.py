"""Steering: a planted rotation transfers at 1.00, doses are read off curves, overlaps measured."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from polyrot.cohorts.interventions import Target
from polyrot.measured import Interval, jackknifed
from polyrot.measures import effects, overlaps, steering
from polyrot.measures.effects import (
    dose_needed,
    random_directions,
    rotated_direction,
    steer,
    tokens_at_stake,
)
from polyrot.measures.overlaps import overlap, pinned_subspace, signed_transfer
from polyrot.toy import directions, task, transformer
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.directions import Contrast, Features
from tests_unit.maps.rotated_pair import RotatedPair

quick = settings(max_examples=30, deadline=None)


@pytest.fixture(scope="module")
def pair() -> RotatedPair:
    return RotatedPair()


@pytest.fixture(scope="module")
def curves(pair: RotatedPair) -> steering.Steering:
    rotations = pair.rotations()[pair.steering_site]
    return steering.measure_steering(pair, rotations, n_sequences=48, n_random=3)


def test_rotated_steering_of_an_exact_copy_transfers_at_one(curves: steering.Steering) -> None:
    for arm in (curves.rotated, curves.own):
        np.testing.assert_allclose(arm.gain, curves.within.gain, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(arm.kl, curves.within.kl, rtol=2e-3, atol=1e-4)
    ratios = curves.signed_ratios("rotated", doses=[1.0])
    np.testing.assert_allclose(ratios.values, 1, atol=0.005)
    assert (np.abs(curves.signed_ratios("naive").values - 1) > 0.1).all()


def test_what_the_claims_ask_is_read_off_the_curves(curves: steering.Steering) -> None:
    i = curves.contrasts.index("depth")
    one = curves.signed_ratio("depth", 2.0)
    assert one.values[0] == pytest.approx(curves.naive.gain[i, 0, 2] / curves.within.gain[i, 0, 2])
    ratios = curves.kl_ratios()
    assert ratios.labels[:4] == tuple(f"sticky_invalid at {d:g}" for d in effects.DOSES)
    assert ratios.values[4 * i + 3] == pytest.approx(
        curves.naive.kl[i, 0, 3] / curves.within.kl[i, 0, 3]
    )
    against = curves.against_random(curves).values[i]
    assert against == pytest.approx((curves.beside_random[i, 0] / curves.random_kl[i, 0]).mean())
    needed = dose_needed(curves.doses, curves.naive.gain[i, 0], curves.within.gain[i, 0, 1])
    found = curves.dose_ratio("depth")
    assert found.values[0] == pytest.approx(needed.dose)
    assert ("bound" in found.beside) == needed.censored
    bound = Interval(16, np.inf, "pairs")  # one pair has no spread, but a bound is open
    assert found.interval(0) == (bound if needed.censored else None)


def test_a_direction_is_set_against_random_ones_on_the_same_sequences(
    pair: RotatedPair, curves: steering.Steering
) -> None:
    i, few = curves.contrasts.index("depth"), pair.intervention_tokens(48)
    v = pair.direction("depth")[0]
    vectors = torch.stack([dose * v for dose in effects.DOSES])
    alone = effects.steer(pair, 1, few, "depth", vectors).kl
    np.testing.assert_allclose(curves.beside_random[i, 0], alone, rtol=1e-5)
    assert curves.targets[i] > int(pair.target("depth", few).where.sum())


def test_as_many_sequences_as_hold_the_targets(pair: RotatedPair) -> None:
    for wanted in (1, 200, 10**9):
        tokens = tokens_at_stake(pair, "depth", 4, wanted)
        found = int(pair.target("depth", tokens).where.sum())
        half = pair.intervention_tokens(len(tokens) // 2)
        assert found >= wanted or len(tokens) == len(pair.tokens("score"))
        assert len(tokens) == 4 or int(pair.target("depth", half).where.sum()) < wanted


def test_effects_equal_the_transformers(pair: RotatedPair) -> None:
    tokens = pair.intervention_tokens(40)
    v = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    found = steer(pair, 0, tokens, "depth", v)
    one = transformer.select(pair.params, [0])
    clean = transformer.forward(one, tokens).logits
    labels, keep = task.label(tokens), tokens != task.PAD
    where = (labels.depth == 4) & (labels.validity == 0) & keep
    for i, direction in enumerate(v):
        edit = {pair.steering_site: lambda x, direction=direction: x + direction}
        after = transformer.forward(one, tokens, edits=edit).logits
        gap = (after["depth"] - clean["depth"])[0, where]
        assert found.gain[i] == pytest.approx(float((gap[:, 5] - gap[:, 4]).mean()), rel=1e-3)
        hits = [
            (x["depth"][0, where].argmax(-1) == 4).double().mean().item() for x in (after, clean)
        ]
        assert found.accuracy[i] == pytest.approx(hits[0] - hits[1], abs=1e-6)
        p, q = ({h: x[h][0].log_softmax(-1) for h in task.HEADS} for x in (clean, after))
        kl = torch.stack([(p[h].exp() * (p[h] - q[h])).sum(-1) for h in task.HEADS]).mean(0)
        assert found.kl[i] == pytest.approx(float(kl[keep].mean()), rel=1e-3)
        assert found.kl_elsewhere[i] == pytest.approx(float(kl[keep & ~where].mean()), rel=1e-3)


def test_no_direction_has_no_effect(pair: RotatedPair) -> None:
    found = steer(pair, 1, pair.intervention_tokens(40), "closer", torch.zeros(1, 64))
    assert found.gain[0] == found.accuracy[0] == 0
    assert found.kl[0] == pytest.approx(0, abs=1e-7)


def test_a_direction_is_carried_the_way_activations_are(pair: RotatedPair) -> None:
    site = pair.steering_site
    rotation = pair.rotations()[site][0]
    copy = pair.activations("fit", site)[1]
    v = torch.randn(64, generator=torch.Generator().manual_seed(1))
    moved = rotation.apply(copy + rotated_direction(v, rotation)) - rotation.apply(copy)
    torch.testing.assert_close(moved, v.expand_as(moved), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rotation.r.float(), pair.q.T, atol=1e-2, rtol=0)


@quick
@given(st.floats(0.1, 10), st.floats(0.05, 0.95), st.sampled_from([-1.0, 1.0]), st.integers(2, 6))
def test_dose_on_a_straight_curve(slope: float, share: float, sign: float, n: int) -> None:
    doses = [2.0**i for i in range(n)]
    curve = [sign * slope * dose for dose in doses]
    found = dose_needed(doses, curve, share * curve[-1])
    assert not found.censored
    assert found.dose == pytest.approx(share * doses[-1])


def test_dose_never_reached_is_a_bound() -> None:
    assert dose_needed([1, 2], [0.1, 0.3], 1.0) == effects.DoseNeeded(2.0, True)
    assert dose_needed([1, 2], [-5.0, -9.0], 1.0).censored  # the wrong way is not there yet
    first = dose_needed([1, 2, 4], [2.0, 0.0, 2.0], 1.0)  # the first crossing counts
    assert first == effects.DoseNeeded(0.5, False)


@quick
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_overlap_is_a_share_of_the_norm(seed: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64)).Q
    v = torch.randn(8, generator=generator)
    inside, outside = overlap(v, basis[:, :k]), overlap(v, basis[:, k:])
    assert inside + outside == pytest.approx(1)
    assert overlap((basis[:, :k] @ torch.ones(k).double()), basis[:, :k]) == pytest.approx(1)
    readers = basis[:, :k] @ torch.randn(k, 3 * k, generator=generator, dtype=torch.float64)
    found = pinned_subspace(readers, share=1 - 1e-9)
    assert found.shape[1] == k
    assert overlap(v, found) == pytest.approx(inside)


def test_an_unrotated_copy_transfers_everything() -> None:
    same = RotatedPair(parts=("neurons", "heads"))
    vectors = torch.stack([same.direction(name)[0] for name in same.contrasts])
    np.testing.assert_allclose(
        signed_transfer(same, same.intervention_tokens(32), vectors), 1, atol=2e-3
    )


def test_overlaps_of_all_directions(pair: RotatedPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        RotatedPair, "further_contrasts", ("depth_1_0", "closer_0", "after_opener"), raising=False
    )
    found = overlaps.overlaps(pair, n_sequences=32)
    assert len(found.names) == 6
    assert ((found.overlap > 0) & (found.overlap < 1)).all()


@pytest.mark.parametrize(("order", "expected"), [([0, 1, 2, 3], 1.0), ([3, 2, 1, 0], -1.0)])
def test_rank_correlation_is_of_the_mean_over_pairs(order: list[int], expected: float) -> None:
    transfer = np.array([[0.1, 0.1], [0.2, 0.4], [5.0, 0.3], [9.0, 9.0]])  # means rise
    overlap = np.array([0.1, 0.2, 0.3, 0.9])[order]
    found = overlaps.Overlaps(tuple("abcd"), ("0-1", "0-2"), overlap, transfer, 2).spearman
    assert found.values[0] == pytest.approx(expected)
    # Without the first pair it is 0.8, without the second 1: what the jackknife makes of that.
    ends = found.interval(0)
    assert ends is not None
    assert ends.of == "pairs"


def test_equal_transfers_cannot_be_ranked() -> None:
    overlap, rounding = np.array([0.1, 0.2, 0.3, 0.9]), 1e-7 * np.arange(4)[:, None]
    found = overlaps.Overlaps(tuple("abcd"), ("0-1", "0-2"), overlap, np.ones((4, 2)) + rounding, 2)
    assert "nothing to rank" in found.spearman.unmet
    ranked = overlaps.Overlaps(
        tuple("abcd"), ("0-1", "0-2"), overlap, np.ones((4, 2)) + 1e5 * rounding, 2
    )
    assert not ranked.spearman.unmet
    assert ranked.spearman.values[0] == pytest.approx(1)


# ------------------------------------------------------------------------- intervals and ceilings


def planted_curves(naive: np.ndarray, within: np.ndarray) -> steering.Steering:
    """naive: [pairs, doses] gains of one contrast; within: [doses]."""
    pairs = len(naive)

    def curves(gain: np.ndarray) -> steering.Curves:
        return steering.Curves(gain[None], gain[None], gain[None])

    arms = {arm: curves(naive) for arm in ("naive", "rotated", "own")}
    none: np.ndarray = np.ones((1, pairs, len(effects.DOSES)))
    return steering.Steering(
        ("a",),
        effects.DOSES + effects.BEYOND,
        tuple(f"0-{i + 1}" for i in range(pairs)),
        curves(within[None]),
        **arms,
        random_kl=none,
        random_sd=none,
        beside_random=none,
        norms=np.ones(1),
        seeds=tuple(range(pairs + 1)),
        sequences=1,
        targets=(1,),
    )


DOSES = np.array(effects.DOSES + effects.BEYOND)


def test_the_dose_of_the_mean_curve_has_an_interval_of_its_own() -> None:
    slopes = np.array([0.4, 0.5, 0.6, 0.5])
    found = planted_curves(slopes[:, None] * DOSES, DOSES).dose_ratio("a")
    assert found.values[0] == pytest.approx(2)  # 1 / 0.5, not the mean of 1 / slope
    rest = np.array([3 / (slopes.sum() - s) for s in slopes])
    wide, wanted = (
        found.interval(0),
        jackknifed(2.0, rest, "pairs", "positive", 2 * effects.ROUNDING),
    )
    assert wide is not None
    assert (wide.low, wide.high) == pytest.approx((wanted.low, wanted.high))
    assert found.n == 4
    assert 1.2 < wide.low < 2 < wide.high < 3.2
    never = planted_curves(0.001 * slopes[:, None] * DOSES, DOSES).dose_ratio("a")
    assert never.values[0] == 16
    bound = never.interval(0)
    assert bound is not None
    assert (bound.low, bound.high) == (pytest.approx(16, rel=1e-4), np.inf), "a bound is open"
    assert "at least 16" in str(never.beside["bound"])
    # All pairs reach 1 at dose 4; without the one that does by far no dose of these would.
    one = np.array([0.96, 0.01, 0.02, 0.01])
    found = planted_curves(one[:, None] * DOSES, DOSES).dose_ratio("a")
    ends = found.interval(0)
    assert found.values[0] == pytest.approx(4)
    assert "bound" not in found.beside
    assert ends is not None
    assert (ends.low < 4, ends.high) == (True, np.inf)
    alone = planted_curves(0.001 * slopes[:1, None] * DOSES, DOSES).dose_ratio("a")
    assert alone.intervals == (Interval(16, np.inf, "pairs"),)


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    x = np.array([1.0, 1.5, 0.2, 0.9, 1.1])
    without = (x.sum() - x) / 4
    (wanted,) = effects.mean_over_pairs(x[None])
    found = jackknifed(float(x.mean()), without, "pairs")
    assert wanted is not None
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    plain = scipy.stats.t.interval(0.95, 4, x.mean(), scipy.stats.sem(x))
    assert (found.low, found.high) == pytest.approx(plain)


def test_a_ratio_of_1_to_rounding_is_not_below_1() -> None:
    near = 1 - 3e-7
    ratios = planted_curves(np.tile(near * DOSES, (4, 1)), DOSES).kl_ratios()
    assert ratios.values[0] < 1
    for i in range(len(ratios.values)):
        ends = ratios.interval(i)
        assert ends is not None
        assert ends.low < 1 < ends.high
        assert ends.high - ends.low < 1e-3
    less = planted_curves(np.tile(0.99 * DOSES, (4, 1)), DOSES).kl_ratios().interval(0)
    assert less is not None
    assert less.high < 1


def test_an_exact_copy_is_steered_as_the_anchor(pair: RotatedPair) -> None:
    found = steering.measure_perfect(pair, n_sequences=48, n_random=3)
    through_r = found.turned.signed_ratios("rotated", doses=[1.0])
    np.testing.assert_allclose(through_r.values, 1, atol=0.005)
    untouched = found.turned.signed_ratios("naive", doses=[1.0])
    assert (np.abs(untouched.values - 1) > 0.1).all(), "in its own basis it is not the anchor"
    np.testing.assert_allclose(found.alike.signed_ratios("naive").values, 1, atol=1e-3)
    again = steering.Perfect.from_artifact(found.to_artifact())
    np.testing.assert_array_equal(again.alike.random_kl, found.alike.random_kl)
    np.testing.assert_array_equal(again.turned.rotated.gain, found.turned.rotated.gain)


def test_there_are_enough_directions() -> None:
    assert len(ToyCohort.contrasts + ToyCohort.further_contrasts) >= 20


# ------------------------------------------------------------------------- the populations


@pytest.fixture(scope="module")
def features() -> Features:
    return Features.of(task.sequences(3000, torch.Generator().manual_seed(0)))


def test_innermost_family_is_that_of_a_stack(features: Features) -> None:
    for row in range(60):
        stack: list[int] = []
        for t in range(task.CONTEXT):
            if not features.kept[row, t] or features.invalid[row, t]:
                break
            if features.opener[row, t]:
                stack.append(int(features.family[row, t]))
            elif features.closer[row, t]:
                stack.pop()
            assert int(features.top[row, t]) == (stack[-1] if stack else -1)


@pytest.mark.parametrize("name", [*directions.PAPER, *directions.FURTHER])
def test_populations_are_matched_and_disjoint(name: str, features: Features) -> None:
    contrast = (directions.PAPER | directions.FURTHER)[name]
    assert not (contrast.plus(features) & contrast.minus(features)).any()
    weights = contrast.row_weights(features)
    strata = None if contrast.strata is None else contrast.strata(features)[features.kept]
    for stratum in [0] if strata is None else strata.unique():
        here = weights if strata is None else weights[strata == stratum]
        assert abs(float(here.sum())) < 1e-9  # both sides weigh the same in every stratum
    assert float(weights.abs().sum()) == pytest.approx(2)


def test_sides_of_the_papers_directions(features: Features) -> None:
    sticky, depth, closer = (directions.PAPER[n] for n in ("sticky_invalid", "depth", "closer"))
    assert sticky.sign == -1
    for mask in (sticky.plus(features), sticky.minus(features)):
        assert (features.depth[mask] == 4).all()
    assert features.invalid[sticky.plus(features)].all()
    assert (features.depth[depth.plus(features)] == 5).all()
    assert features.closer[closer.plus(features)].all()
    target = directions.target("depth", features.token)
    assert (target.labels[target.where] == 4).all()
    assert (target.weights[[4, 5]] == torch.tensor([-1.0, 1.0])).all()


# ------------------------------------------------------------------------------ bad input


def test_bad_input_is_named(pair: RotatedPair, features: Features) -> None:
    tokens = pair.intervention_tokens(16)
    rotation = pair.rotations()[pair.steering_site][0]
    with pytest.raises(ValueError, match=r"directions must be \[n, 64\]"):
        steer(pair, 0, tokens, "depth", torch.zeros(1, 32))
    with pytest.raises(ValueError, match="a shift is finite"):
        steer(pair, 0, tokens, "depth", torch.full((1, 64), torch.nan))
    with pytest.raises(ValueError, match="no position of the batch is a target of depth"):
        steer(pair, 0, torch.tensor([[1, 3, 4, 2]]), "depth", torch.zeros(1, 64))
    with pytest.raises(KeyError, match="no contrast 'colour'"):
        pair.direction("colour")
    with pytest.raises(KeyError, match="has no target"):
        pair.target("late", tokens)
    with pytest.raises(ValueError, match="a direction of width 3"):
        rotated_direction(torch.zeros(3), rotation)
    with pytest.raises(ValueError, match="0 rotations for 1 siblings"):
        steering.measure_steering(pair, [])
    with pytest.raises(ValueError, match="doses increasing"):
        dose_needed([2, 1], [1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match="no dose equals an effect of 0"):
        dose_needed([1, 2], [1.0, 2.0], 0.0)
    with pytest.raises(ValueError, match="norm 0"):
        overlap(torch.zeros(4), torch.eye(4).double())
    with pytest.raises(ValueError, match="no direction is pinned"):
        pinned_subspace(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="changes nothing"):
        signed_transfer(pair, tokens, torch.zeros(1, 64))
    never = Contrast(lambda f: f.kept & (f.depth > 99), lambda f: f.kept)
    with pytest.raises(ValueError, match="no stratum holds 8 positions"):
        never.row_weights(features)
    with pytest.raises(ValueError, match="sum to 0"):
        Target("depth", torch.ones(9), torch.ones(1, 1).bool(), torch.zeros(1, 1).long())


def test_random_directions_are_units_and_repeatable() -> None:
    drawn = random_directions(40, 16)
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(40))
    assert torch.equal(drawn, random_directions(40, 16))
    assert not torch.equal(drawn, random_directions(40, 16, seed=1))


def test_directions_are_not_taken_on_what_is_scored(pair: RotatedPair) -> None:
    whole = ToyCohort("toy_a", (0,), transformer.select(pair.params, [0]), ["x"])
    scored: set[tuple[int, ...]] = set(map(tuple, whole.tokens("score").tolist()))
    used: Tensor = torch.cat([whole.tokens("fit"), whole.tokens("dictionary")])
    assert not scored & set(map(tuple, used.tolist()))
