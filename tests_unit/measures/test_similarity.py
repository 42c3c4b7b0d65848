"""Linear CKA of cohorts: against dense Gram matrices, its error against leaving sequences out."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from polyrot.cohorts.cohort import CohortDefaults, Split
from polyrot.maps.cka import linear_cka, linear_cka_over_sequences
from polyrot.measured import jackknifed
from polyrot.measures.similarity import Similarity, measure_similarity
from polyrot.runtime.seeding import torch_generator
from tests_unit.maps.test_cka import dense_cka
from tests_unit.worlds.planted import SEQUENCE, TOKENS, WORLDS


@cache
def measured(name: str, models: int = 3) -> Similarity:
    return measure_similarity(replace(WORLDS[name], seeds=tuple(range(models))))


class Few(CohortDefaults):
    """Two siblings of few tokens, so that [tokens, tokens] is small."""

    scale, seeds, width, fingerprint = "toy_b", (0, 1, 2), 7, "few"
    sites = ("resid_pre_0", "resid_mid_0")

    def activations(self, split: Split, site: str) -> Tensor:
        drawn = torch_generator(0, "few", split, site)
        x = torch.randn(3, 150, self.width, generator=drawn)
        return x + torch.randn(150, self.width, generator=drawn) * 2 + 5


def test_it_is_what_dense_gram_matrices_give() -> None:
    few = Few()
    found = measure_similarity(few)
    for j, site in enumerate(few.sites):
        x = few.activations("score", site).double().numpy()
        for i in range(2):
            assert found.cka.values[i, j] == pytest.approx(dense_cka(x[i + 1], x[0]), abs=1e-6)


def test_copies_are_one_and_strangers_are_not() -> None:
    for name in ("rotated", "louder", "mean shift", "permuted"):
        np.testing.assert_allclose(measured(name).cka.values, 1, atol=1e-5)
    assert (abs(measured("second moments").cka.values) < 0.05).all()
    for name in ("rotated", "second moments"):
        ceiling = measured(name).cka.ceiling
        assert ceiling is not None
        np.testing.assert_allclose(ceiling, 1, atol=1e-6)


def test_the_error_is_that_of_leaving_each_sequence_out() -> None:
    drawn = torch_generator(0, "sequences")
    n, length, d = 60, 8, 5
    of_sequence = torch.randn(n, 1, d, generator=drawn)  # tokens of one hang together
    a = of_sequence + 0.5 * torch.randn(n, length, d, generator=drawn)
    b = a + torch.randn(n, length, d, generator=drawn) + torch.randn(n, 1, d, generator=drawn)
    scales = torch.tensor([3.0, 2, 1, 1, 0.3])
    a, b = (x.reshape(n * length, d) * scales + 7 for x in (a, b))
    sequence = torch.arange(n * length) // length
    value, error = linear_cka_over_sequences(a, b, sequence, chunk=100)
    assert value == pytest.approx(linear_cka(a, b), abs=1e-12)
    left = np.array([linear_cka(a[sequence != s], b[sequence != s]) for s in range(n)])
    jackknife = (n - 1) / n**0.5 * left.std(ddof=1)
    assert error == pytest.approx(jackknife, rel=0.1)
    alone = linear_cka_over_sequences(a, b, torch.arange(n * length))[1]
    assert alone < 0.7 * error, "tokens of a sequence are not independent"
    assert np.isnan(linear_cka_over_sequences(a, b, torch.zeros_like(sequence))[1])
    assert jackknifed(value, left, "sequences", "correlation").low < value


def test_the_error_covers_what_other_sequences_give() -> None:
    found = measured("rotated, noisy inside")
    assert (found.error.values[:, 1] > 1e-4).all()
    world, site = WORLDS["rotated, noisy inside"], WORLDS["rotated, noisy inside"].sites[1]
    x, sequence = world.activations("score", site), world.sequences("score")
    n = TOKENS["score"] // SEQUENCE
    halves = [linear_cka(x[1][of], x[0][of]) for of in (sequence < n // 2, sequence >= n // 2)]
    # A difference of two halves has twice the error of the whole.
    assert abs(halves[0] - halves[1]) < 4 * 2 * found.error.values[0, 1]
    assert (found.error.values[:, 0] < 1e-4).all(), "an exact copy is one on every sequence"


def test_of_pairs_the_sample_is_the_pairs_and_of_one_pair_the_sequences() -> None:
    sites = WORLDS["rotated, noisy inside"].internal
    many, one = (measured("rotated, noisy inside", models) for models in (3, 2))
    found = many.mean_over_pairs(sites)
    assert found.n == 2
    assert found.intervals[0] is not None
    assert found.intervals[0].of == "pairs"
    found = one.mean_over_pairs(sites)
    assert found.n == TOKENS["score"] // SEQUENCE
    interval = found.intervals[0]
    assert interval is not None
    assert interval.of == "sequences"
    half = 1.96 * one.error.at(sites).values[0, 0]
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.1)
    assert found.ceilings == pytest.approx((1.0, 1.0))


def test_the_control_has_no_ceiling_and_names_the_untrained() -> None:
    sites = WORLDS["rotated"].internal
    found = measured("rotated").beyond_untrained(measured("second moments"), sites)
    assert found.ceiling is None
    np.testing.assert_allclose(found.values, 1, atol=0.05)
    assert abs(float(found.beside[f"untrained_{sites[0]}"])) < 0.05
    again = Similarity.from_tables(measured("rotated").to_tables())
    assert again.by_site() == measured("rotated").by_site()
