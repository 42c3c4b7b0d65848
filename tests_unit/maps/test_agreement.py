"""Whether halves of the tokens agree on a rotation better than unrelated tokens would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polyrot.maps.agreement import Agreement, agreement, surplus
from polyrot.maps.moments import Moments, pair_moments
from polyrot.maps.null_space import haar_block
from polyrot.maps.procrustes import fit_from_moments
from polyrot.runtime.seeding import torch_generator

D, TOKENS = 12, 240


def halves(seed: int, signal: float, grade: float) -> Agreement:
    """Of two models in bases of their own, whose features have sizes graded over `grade` decades;
    a share `signal` of the sibling's amplitude is the anchor's."""
    generator = torch_generator(seed, "halves")

    def codes() -> Tensor:
        return torch.randn(TOKENS, D, generator=generator, dtype=torch.float64)

    size = 10.0 ** -torch.linspace(0, grade, D, dtype=torch.float64)
    common, own = codes(), codes()
    b = (common * size) @ haar_block(D, generator)
    mixed = signal * common + (1 - signal**2) ** 0.5 * own
    a = (mixed * size) @ haar_block(D, generator)
    parts: list[Moments] = [
        pair_moments([a[rows]], b[rows])[0]
        for rows in (slice(TOKENS // 2), slice(TOKENS // 2, None))
    ]
    one, other = fit_from_moments(parts)
    axes = [torch.linalg.eigh(torch.cov(x.T))[1] for x in (a, b)]
    return agreement(one.r, other.r, *axes)


@pytest.mark.parametrize("grade", [0.0, 2.0])
def test_of_unrelated_tokens_it_is_standard_normal_whatever_the_spectrum(grade: float) -> None:
    each = [halves(seed, 0.0, grade) for seed in range(300)]
    found = torch.tensor([surplus([one]) for one in each])
    assert abs(float(found.mean())) < 4 / 300**0.5
    assert float(found.std()) == pytest.approx(1, abs=0.15)
    assert float((found > 2.326).double().mean()) < 0.035
    # the trace has the spread that is said of it, which is larger where the spectrum is graded
    traces = torch.tensor([one.trace for one in each])
    said = sum(one.variance for one in each) / 300
    assert float(traces.var()) == pytest.approx(said, rel=0.25)
    assert (said > 1.2) == (grade > 0)


@pytest.mark.parametrize("grade", [0.0, 2.0])
def test_of_related_tokens_it_is_large(grade: float) -> None:
    # at least the root of the width: an exact map has the trace d and the variance of d squares
    assert surplus([halves(0, 1.0, grade)]) >= D**0.5 - 1e-6
    assert surplus([halves(seed, 0.5, grade) for seed in range(4)]) > 2.326


def test_several_pairs_are_taken_together() -> None:
    assert surplus([Agreement(3.0, 4.0), Agreement(5.0, 12.0)]) == pytest.approx(8 / 4)


def test_turning_a_model_changes_nothing() -> None:
    generator = torch_generator(0, "turned")
    one, other, q, p, axes_a, axes_b = (haar_block(D, generator) for _ in range(6))
    plain = agreement(one, other, axes_a, axes_b)
    turned = agreement(q @ one @ p.T, q @ other @ p.T, q @ axes_a, p @ axes_b)
    assert turned == pytest.approx(plain)
    assert plain.trace == pytest.approx(float((one * other).sum()))
