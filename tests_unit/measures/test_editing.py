"""Rank-one edits: the least disturbing one, the same as a changed weight, carried by a rotation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from polyrot.measures import editing
from polyrot.measures.editing import RankOne, key_moments, key_rotation, rank_one
from polyrot.measures.effects import effects, tokens_at_stake
from polyrot.toy import task, transformer
from polyrot.toy.run import cropped
from tests_unit.maps.rotated_pair import RotatedPair

quick = settings(max_examples=30, deadline=None)


@pytest.fixture(scope="module")
def pair() -> RotatedPair:
    return RotatedPair(parts=("residual", "neurons"))


@quick
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_the_edit_answers_its_key_and_disturbs_least(seed: int, d: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(200, d, generator=generator, dtype=torch.float64)
    h = h @ torch.randn(d, d, generator=generator, dtype=torch.float64)
    key, delta = h[0], torch.randn(3, generator=generator, dtype=torch.float64)
    covariance = h.T @ h / len(h)
    edit = rank_one("mlp", key, covariance, delta)
    torch.testing.assert_close(key @ edit.change(), delta)
    ridge = editing.RIDGE * covariance.diagonal().mean() * torch.eye(d, dtype=torch.float64)
    disturbance = edit.u @ (covariance + ridge) @ edit.u
    other = torch.randn(d, generator=generator, dtype=torch.float64)
    other = other / (other @ key)  # any other edit that answers the key
    assert disturbance <= other @ (covariance + ridge) @ other * (1 + 1e-9)


@quick
@given(st.integers(0, 10_000))
def test_key_rotation_finds_the_planted_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(60, 5, generator=generator, dtype=torch.float64).relu()
    q = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    torch.testing.assert_close(key_rotation((b @ q.T).T @ b), q, atol=1e-8, rtol=0)


@pytest.mark.parametrize("mlp", ["mlp_0", "mlp_1"])
def test_the_edit_is_the_changed_weight(pair: RotatedPair, mlp: str) -> None:
    tokens = cropped(pair.intervention_tokens(24))
    generator = torch.Generator().manual_seed(2)
    edit = RankOne(mlp, *(torch.randn(n, generator=generator) for n in (256, 64)))
    run = pair.clean_run(0, tokens)
    found = run.outputs(pair.mlps[mlp], edit.shift(run))
    one = transformer.select(pair.params, [0])
    name = f"w_out_{mlp[-1]}"
    wanted = transformer.forward({**one, name: one[name] + edit.change()}, tokens).logits
    for head in task.HEADS:
        torch.testing.assert_close(found[head], wanted[head], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("mlp", ["mlp_0", "mlp_1"])
def test_rotated_edits_of_an_exact_copy_transfer_at_one(pair: RotatedPair, mlp: str) -> None:
    rotations = {**pair.rotations()}
    rotations["resid_post_0"] = rotations["resid_mid_1"]
    found = editing.measure_edits(pair, rotations, mlp=mlp, n_sequences=48)
    # Its neurons too are in another order, which the stream's rotation alone does not undo.
    for arm in ("both_rotated", "own"):
        np.testing.assert_allclose(found.transfer(arm).values, 1, atol=0.01)
    np.testing.assert_allclose(found.damage["both_rotated"], found.damage["within"], rtol=0.05)
    for arm in ("naive", "rotated"):
        assert (np.abs(found.transfer(arm).values - 1) > 0.2).all()


def test_the_streams_rotation_is_enough_where_neurons_keep_their_order() -> None:
    copy = RotatedPair()
    found = editing.measure_edits(copy, copy.rotations(), n_sequences=48)
    for arm in ("rotated", "both_rotated", "own"):
        np.testing.assert_allclose(found.transfer(arm).values, 1, atol=0.01)
    assert (np.abs(found.transfer("naive").values - 1) > 0.03).all()


def test_the_edit_within_is_that_of_key_and_direction(pair: RotatedPair) -> None:
    found = editing.measure_edits(pair, pair.rotations(), n_sequences=48)
    keys = key_moments(pair, "mlp_1")
    edit = rank_one(
        "mlp_1",
        keys.mean["depth"][0],
        keys.covariance[0],
        pair.direction("depth", "resid_post_1")[0],
    )
    tokens = tokens_at_stake(pair, "depth", 48)
    alone = effects(pair, 0, tokens, "depth", "resid_post_1", edit.shift)
    assert alone.gain[0] == pytest.approx(found.gain["within"][1, 0], rel=1e-4)


def test_as_many_sequences_as_are_said_are_averaged_over(
    pair: RotatedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    def spied(cohort: RotatedPair, contrast: str, n: int) -> torch.Tensor:
        used.append(tokens_at_stake(cohort, contrast, n))
        return used[-1]

    monkeypatch.setattr(editing, "tokens_at_stake", spied)
    found = editing.measure_edits(pair, pair.rotations(), n_sequences=8)
    lengths = {len(tokens) for tokens in used}
    assert max(lengths) > found.sequences, "or there is nothing to tell apart"
    counts = found.transfer().counts
    assert counts["sequences at least"] == found.sequences <= min(lengths)
    assert "sequences" not in counts


def test_bad_input_is_named(pair: RotatedPair, monkeypatch: pytest.MonkeyPatch) -> None:
    eye = torch.eye(4)
    with pytest.raises(ValueError, match=r"expected \[d_mlp\]"):
        rank_one("mlp_0", torch.ones(3), eye, torch.ones(2))
    with pytest.raises(ValueError, match="a key must not be 0"):
        rank_one("mlp_0", torch.zeros(4), eye, torch.ones(2))
    with pytest.raises(ValueError, match="must be finite"):
        rank_one("mlp_0", torch.ones(4), eye, torch.full((2,), torch.inf))
    with pytest.raises(KeyError, match="no MLP 'mlp_7'"):
        key_moments(pair, "mlp_7")
    with pytest.raises(ValueError, match="use more sequences"):
        key_moments(pair, "mlp_0", n_sequences=1)
    with pytest.raises(ValueError, match="0 rotations for 1 siblings"):
        editing.measure_edits(pair, {"resid_post_1": []}, n_sequences=8)
