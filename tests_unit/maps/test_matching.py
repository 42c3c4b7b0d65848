"""Decoder matching: planted matches found, chance known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from polyrot.maps.matching import best_match, matched_fraction, max_cosine, one_to_one
from polyrot.runtime.seeding import torch_generator

seeds = st.integers(0, 2**31 - 1)
quick = settings(max_examples=25, deadline=None)


def decoder(d: int, features: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(d, features, generator=generator, dtype=torch.float64)


@quick
@given(seed=seeds, d=st.integers(1, 8), f=st.integers(1, 20), chunk=st.integers(1, 25))
def test_planted_permutation_and_scale_are_matched(seed: int, d: int, f: int, chunk: int) -> None:
    a = decoder(d, f, seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(f, generator=generator)
    b = a[:, order] * torch.rand(f, generator=generator, dtype=torch.float64).add(0.1)
    assert torch.allclose(
        max_cosine(a, b, chunk=chunk, features="columns"), torch.ones(f, dtype=torch.float64)
    )


@quick
@given(seed=seeds, f=st.integers(1, 15), g=st.integers(1, 15), chunk=st.integers(1, 16))
def test_against_the_definition(seed: int, f: int, g: int, chunk: int) -> None:
    a, b = decoder(5, f, seed), decoder(5, g, seed + 1)
    each = [
        max(float(torch.cosine_similarity(a[:, i], b[:, j], dim=0)) for j in range(g))
        for i in range(f)
    ]
    assert max_cosine(a, b, chunk=chunk, features="columns").tolist() == pytest.approx(each)


def test_sign_counts() -> None:
    a = torch.eye(4)
    assert max_cosine(a, -a, features="columns").tolist() == [0.0] * 4
    assert max_cosine(a[:, :1], -a[:, :1], features="columns").tolist() == [-1.0]


def test_matches_through_a_rotation_only() -> None:
    a = decoder(64, 100, 0)
    r = torch.linalg.qr(decoder(64, 64, 1))[0]
    b = r.T @ a  # rows x of a's space go to x @ r, columns to r.T @ column
    assert matched_fraction(max_cosine(r.T @ a, b)) == 1.0
    assert matched_fraction(max_cosine(a, b)) < 0.1


def test_dead_features_are_left_out() -> None:
    a, b = torch.eye(4), torch.eye(4)
    b[:, 2] = 0
    live_a = torch.tensor([True, True, True, False])
    live_b = torch.tensor([True, False, False, True])
    assert max_cosine(a, b, live_a, live_b, features="columns").tolist() == [1.0, 0.0, 0.0]


def test_matched_fraction_is_strictly_above() -> None:
    assert matched_fraction(torch.tensor([0.5, 0.6, 0.4, 1.0])) == 0.5
    assert matched_fraction(torch.tensor([0.5, 0.6]), threshold=0.4) == 1.0


def test_bad_input_is_named() -> None:
    a = torch.eye(4)
    with pytest.raises(ValueError, match="one width"):
        max_cosine(a, torch.eye(3))
    with pytest.raises(ValueError, match="one width"):
        max_cosine(a[0], a)
    with pytest.raises(ValueError, match=r"first decoder: the live mask must be bool \[4\]"):
        max_cosine(a, a, live_a=torch.ones(3, dtype=torch.bool), features="columns")
    with pytest.raises(ValueError, match="must be bool"):
        max_cosine(a, a, live_b=torch.ones(4), features="columns")
    with pytest.raises(ValueError, match="second decoder: no live features"):
        max_cosine(a, a, live_b=torch.zeros(4, dtype=torch.bool), features="columns")
    for value in (0.0, math.nan, math.inf):
        bad = a.clone()
        bad[:, 1] = value
        with pytest.raises(ValueError, match=r"second decoder: columns \[1\]"):
            max_cosine(a, bad, features="columns")
    with pytest.raises(ValueError, match="no features"):
        matched_fraction(torch.zeros(0))


def test_rows_are_columns_turned_and_masks_may_be_numpy() -> None:
    a, b = decoder(6, 10, 0), decoder(6, 12, 1)
    wanted = max_cosine(a, b)
    torch.testing.assert_close(max_cosine(a.T, b.T, features="rows"), wanted)
    live = [True] * 5 + [False] * 5
    found = max_cosine(a.numpy(), b.numpy(), np.array(live), [True] * 12)
    np.testing.assert_allclose(found, wanted[:5].numpy())


def test_decoders_the_wrong_way_round_are_refused() -> None:
    """Turned, they would be compared along the wrong axis, and score like chance or better."""
    a, b = decoder(6, 10, 0), decoder(6, 12, 1)
    with pytest.raises(ValueError, match=r"first decoder: \[10, 6\] may be .* features=\"rows\""):
        max_cosine(a.T, a.T)
    with pytest.raises(ValueError, match=r"first decoder: \[6, 6\] may be"):
        max_cosine(a[:, :6], b)
    with pytest.raises(ValueError, match=r"second decoder: \[6, 6\] may be"):
        max_cosine(a, b[:, :6])
    with pytest.raises(ValueError, match='with features="rows" they have one width'):
        max_cosine(a.T, b.T)
    with pytest.raises(ValueError, match='with features="columns" they have one width'):
        max_cosine(a, b, features="rows")
    with pytest.raises(ValueError, match="one of them is the wrong way round"):
        max_cosine(a, b.T)
    with pytest.raises(ValueError, match='features must be "columns" or "rows"'):
        max_cosine(a, b, features="both")  # type: ignore[call-overload]


def test_one_to_one_shares_no_partner_and_is_the_best_of_all_matchings() -> None:
    drawn = torch_generator(3, "one to one")
    a, b = (torch.randn(3, 5, generator=drawn) for _ in range(2))
    cosines = (a / a.norm(dim=0)).T @ (b / b.norm(dim=0))
    best = max(
        sum(float(cosines[i, j]) for i, j in enumerate(order))
        for order in itertools.permutations(range(5))
    )
    found = one_to_one(a, b)
    assert float(found.sum()) == pytest.approx(best)
    # Two columns that are near one partner: the best match takes it twice, this takes it once.
    twice = torch.tensor([[1.0, 0.99], [0.0, 0.14]])
    assert (max_cosine(twice, torch.eye(2), features="columns") > 0.9).all()
    assert one_to_one(twice, torch.eye(2)).min() < 0.2


def test_best_match_is_where_the_largest_cosine_is() -> None:
    drawn = torch_generator(4, "best match")
    a = torch.randn(6, 9, generator=drawn)
    order = torch.randperm(9, generator=drawn)
    assert best_match(a, 2 * a[:, order]).tolist() == order.argsort().tolist()
