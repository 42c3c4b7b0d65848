"""`compare`: planted truths score 1, planted falsehoods their null, and fit never sees score."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from polyrot import Comparison, compare
from polyrot.dictionaries.sae import Dictionary
from polyrot.haar import sample_haar
from polyrot.maps.checks import BadActivations
from polyrot.measures.comparison import MapScores

TOKENS, D = 4000, 12


def anchor(seed: int = 0, tokens: int = TOKENS, d: int = D) -> np.ndarray:
    """Graded spectrum, far from the origin, not Gaussian."""
    rng = np.random.default_rng(seed)
    return rng.laplace(size=(tokens, d)) * np.linspace(0.5, 3, d) + rng.standard_normal(d)


def turn(seed: int, d: int = D) -> np.ndarray:
    return sample_haar(d, 1, np.random.default_rng(seed))[0]


def perfect(d: int = D) -> Dictionary:
    """A dictionary that reconstructs whatever it is given: f = ReLU(+-x)."""
    eye, zero = torch.eye(d), torch.zeros(d)
    both = torch.cat([eye, -eye], 1)
    return Dictionary(both, torch.zeros(2 * d), both.T.clone(), zero, zero)


def narrow(b: np.ndarray, k: int = 4) -> Dictionary:
    """A dictionary that knows the anchor's mean and its k last dimensions alone."""
    mean = torch.from_numpy(b.mean(0)).float()
    axes = torch.eye(D)[:, -k:]
    both = torch.cat([axes, -axes], 1)
    return Dictionary(both, torch.zeros(2 * k), both.T.clone(), mean, mean)


def test_an_exact_rotated_copy() -> None:
    b, q = anchor(), turn(1)
    found = compare(3 + b @ q.T, b)
    s = found.pointwise
    for value in (s.rotated, s.scaled, s.affine, found.split_half_share, found.linear_cka):
        assert value == pytest.approx(1, abs=1e-6)
    assert s.naive < s.shifted < 0.5
    assert s.covariance_only < 0.9, "signs of axes are not known without pairing"
    assert abs(s.shuffled) < 1.5
    assert s.shuffled < 0.1
    np.testing.assert_allclose(found.rotation.r, q, atol=1e-9)
    assert (found.rank, found.d, found.tokens) == (D, D, TOKENS)
    assert found.fit_tokens + found.score_tokens == TOKENS


def test_scale_shift_and_affine_are_told_apart() -> None:
    b = anchor()
    shifted = compare(b + 7, b).pointwise
    assert shifted.naive < -1
    assert shifted.shifted == pytest.approx(1, abs=1e-3)
    scaled = compare(0.25 * b @ turn(2).T, b).pointwise
    assert scaled.scaled == pytest.approx(1, abs=1e-6)
    assert scaled.rotated == pytest.approx(1 - 0.75**2, abs=0.01)
    mixed = compare(b @ np.diag(np.linspace(0.3, 3, D)) @ turn(3), b).pointwise
    assert mixed.affine == pytest.approx(1, abs=1e-6)
    assert mixed.scaled < 0.95


def test_unrelated_activations_score_their_null() -> None:
    found = compare(anchor(1), anchor(2))
    s = found.pointwise
    assert s.rotated == pytest.approx(s.shuffled, abs=0.15)
    assert s.affine == pytest.approx(0, abs=0.03)
    assert s.scaled == pytest.approx(0, abs=0.03)
    assert found.linear_cka == pytest.approx(0, abs=0.01)
    assert abs(found.split_half_share) < 0.5


def test_second_moments_alone_are_no_relation() -> None:
    """A copy with its tokens shuffled: every covariance is the same, and nothing else."""
    b = anchor()
    found = compare(np.random.default_rng(3).permutation(b) @ turn(4).T, b, narrow(b))
    assert found.pointwise.rotated < 0
    assert found.linear_cka == pytest.approx(0, abs=0.01)
    # The dictionary is satisfied with the right covariance; only pairing tells.
    assert found.through_sae is not None
    assert found.self_ev is not None
    assert found.through_sae.covariance_only == pytest.approx(found.self_ev, abs=0.02)


def test_a_map_that_differs_between_the_splits_is_seen() -> None:
    """Each group has a rotation of its own: what was fitted on some says nothing of the others."""
    b, d = anchor(d=4), 4
    groups = np.repeat(np.arange(8), TOKENS // 8)
    a = np.concatenate([b[groups == g] @ turn(10 + g, d).T for g in range(8)])
    apart, mixed = compare(a, b, groups=groups), compare(a, b)
    assert apart.pointwise.rotated < mixed.pointwise.rotated < 0.9
    assert apart.groups == 8
    # Two groups that are always on one side each would score 1 if the fit saw the score rows.
    in_fit = [compare(a, b, groups=groups, seed=s).pointwise.affine for s in range(5)]
    seen = [compare(a[groups == g], b[groups == g]).pointwise.affine for g in range(8)]
    assert max(in_fit) < 0.6 < 0.999 < min(seen)


def test_groups_stay_together_and_halves_are_disjoint() -> None:
    from polyrot.measures.comparison import _split

    rng = np.random.default_rng(5)
    groups = rng.permutation(np.repeat([f"s{i}" for i in range(40)], rng.integers(5, 60, 40)))
    first, second, score = _split(len(groups), groups, 3, 4, torch.device("cpu"))
    parts = [set(groups[rows.numpy()]) for rows in (first, second, score)]
    assert sorted(torch.cat([first, second, score]).tolist()) == list(range(len(groups)))
    assert sum(map(len, parts)) == len(set.union(*parts)) == 40
    assert len(score) == pytest.approx(len(groups) / 2, rel=0.15)
    assert len(first) == pytest.approx(len(second), rel=0.3)
    other = _split(len(groups), groups, 4, 4, torch.device("cpu"))[2]
    assert score.tolist() != other.tolist()


def test_through_a_dictionary() -> None:
    b, q = anchor(), turn(6)
    a = b @ q.T + 2
    sae = narrow(b)
    turned = Dictionary(
        torch.from_numpy(q).float() @ sae.w_enc,
        sae.b_enc,
        sae.w_dec @ torch.from_numpy(q).float().T,
        torch.zeros(D),
        torch.zeros(D),
    )
    found = compare(a, b, sae, sae_of_a=turned)
    assert found.through_sae is not None
    assert found.self_ev is not None
    assert found.rotated_ev == pytest.approx(found.self_ev, abs=1e-3)
    assert found.naive_ev < found.self_ev - 0.3
    assert found.through_sae.shuffled < found.self_ev - 0.2
    assert found.decoder_cosine is not None
    assert found.decoder_cosine < 0.9
    same = compare(a, b, sae, sae_of_a=sae)
    assert same.decoder_cosine == pytest.approx(1, abs=1e-6)
    # A dictionary that reconstructs everything tells nothing apart; the pointwise column does.
    all_of_it = compare(a, b, perfect())
    assert all_of_it.naive_ev == pytest.approx(1, abs=1e-6)
    assert all_of_it.pointwise.naive < 0.5
    through_function = compare(a, b, lambda x: sae(x.float()))
    assert through_function.through_sae is not None
    assert through_function.rotated_ev == pytest.approx(found.rotated_ev, abs=1e-6)


def test_rank_and_share_tell_where_r_is_not_determined() -> None:
    rng = np.random.default_rng(7)
    core = rng.standard_normal((TOKENS, 3))
    b = core @ rng.standard_normal((3, D))
    found = compare(core @ rng.standard_normal((3, D)), b)
    assert found.rank == 3
    assert found.split_half_share < 0.9


def test_reflections_may_be_excluded() -> None:
    b = anchor(d=3)
    flip = np.diag([1.0, 1.0, -1.0])
    assert compare(b @ flip, b).pointwise.rotated == pytest.approx(1)
    proper = compare(b @ flip, b, allow_reflection=False)
    assert proper.rotation.det == 1
    assert proper.pointwise.rotated < 0.99


def test_it_prints_a_table_and_is_plain_as_a_dictionary() -> None:
    b = anchor()
    found = compare(b @ turn(8).T, b, narrow(b), sae_of_a=narrow(b), seed=5)
    text = str(found)
    for word in ("predicts b", "through the SAE", "naive", "null", "ceiling", "12 of 12", "seed 5"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 100
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["pointwise"]["rotated"] == found.pointwise.rotated
    assert plain["rotated_ev"] == found.rotated_ev == plain["through_sae"]["rotated"]
    assert plain["rank"] == D
    assert set(plain["pointwise"]) == set(MapScores.__dataclass_fields__)
    without = compare(b @ turn(8).T, b)
    assert "SAE" not in str(without)
    assert without.rotated_ev == without.pointwise.rotated
    assert isinstance(without, Comparison)


def test_the_same_seed_gives_the_same_figures_and_torch_as_numpy() -> None:
    a, b = anchor(1), anchor(2)
    first, again = compare(a, b, seed=3), compare(a, b, seed=3)
    assert first.to_dict() == again.to_dict()
    assert first.to_dict() != compare(a, b, seed=4).to_dict()
    tensors = compare(torch.from_numpy(a), torch.from_numpy(b).float(), seed=3)
    assert tensors.pointwise.affine == pytest.approx(first.pointwise.affine, abs=1e-5)


def test_bad_input_is_named() -> None:
    b = anchor()
    with pytest.raises(BadActivations, match="4000 tokens against 3999"):
        compare(b, b[:-1])
    with pytest.raises(BadActivations, match=r"11 tokens for 12 dimensions.*at least 48 tokens"):
        compare(b[:47], b[:47])
    assert compare(b[:48], b[:48]).pointwise.rotated == pytest.approx(1)
    with pytest.raises(BadActivations, match=r"groups of shape \[3\] where \[4000\]"):
        compare(b, b, groups=[1, 2, 3])
    with pytest.raises(BadActivations, match="3 groups; at least 4"):
        compare(b, b, groups=np.arange(TOKENS) % 3)
    with pytest.raises(BadActivations, match="the largest of 3991 tokens"):
        compare(b, b, groups=np.maximum(np.arange(TOKENS) - 3990, 0))
    flat = b.copy()
    flat[:, 5] = 2.0
    with pytest.raises(BadActivations, match="fit rows, a: dimension 5 is constant"):
        compare(flat, b)
    with pytest.raises(BadActivations, match="fit rows, b: dimension 5 is constant"):
        compare(b, flat)
    flat[9, 4] = np.inf
    with pytest.raises(BadActivations, match="token 9, dimension 4"):
        compare(b, flat)
    with pytest.raises(ValueError, match="reads width 3"):
        compare(b, b, perfect(3))
    with pytest.raises(ValueError, match="sae is not given"):
        compare(b, b, sae_of_a=perfect())
    with pytest.raises(ValueError, match="sae is a function"):
        compare(b, b, lambda x: x, sae_of_a=perfect())
    with pytest.raises(ValueError, match="gave a ndarray"):
        compare(b, b, lambda x: x.numpy())  # type: ignore[arg-type, return-value]
