"""Where a map cannot be fitted, the message says at which site, for which pair and tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from polyrot.maps.agreement import surplus
from polyrot.maps.checks import BadActivations
from polyrot.maps.moments import pair_moments
from polyrot.maps.procrustes import Rotation, fit_rotation
from polyrot.measures import fits as rotations
from polyrot.measures.fits import COHORTS_OF_COPIES, Fits, fit_all
from polyrot.runtime.seeding import torch_generator
from polyrot.streaming.passes import Maps

D = 8


class Given:
    """Three models, the last of which may be spoiled at the second site."""

    scale, seeds, sites = "toy_x", (3, 7, 9), ("resid_pre_0", "resid_post_0")

    def __init__(self, tokens: int = 200, constant: slice | None = None) -> None:
        self.tokens, self.constant = tokens, constant

    def activations(self, split: str, site: str) -> Tensor:
        x = torch.randn(3, self.tokens, D, generator=torch_generator(0, site))
        if self.constant is not None and site == self.sites[1]:
            x[2, self.constant, 1] = 4.0
        return x


def test_a_constant_dimension_names_scale_site_pair_and_seed() -> None:
    cohort: Any = Given(constant=slice(None))
    message = "^toy_x, resid_post_0, pair 3-9, seed 9: dimension 1 is constant"
    with pytest.raises(BadActivations, match=message):
        fit_all(cohort)


@pytest.mark.parametrize(("half", "part"), [("first", slice(100)), ("second", slice(100, None))])
def test_a_dimension_that_is_constant_on_half_of_the_tokens(half: str, part: slice) -> None:
    cohort: Any = Given(constant=part)
    message = f"^toy_x, resid_post_0, {half} half of the tokens, pair 3-9, seed 9: dimension 1"
    with pytest.raises(BadActivations, match=message):
        fit_all(cohort)


def test_too_few_tokens_for_the_halves_asks_for_as_many_as_would_do() -> None:
    for tokens in (5, 12, 2 * D - 1):
        cohort: Any = Given(tokens)
        message = (
            f"^toy_x, resid_pre_0, first half of the tokens: {tokens // 2} tokens for 8 dimensions"
            " .*; use at least 16 tokens, 8 for each of 2 parts"
        )
        with pytest.raises(BadActivations, match=message):
            fit_all(cohort)
    enough: Any = Given(2 * D)
    assert fit_all(enough).pairs == ("3-7", "3-9")


def test_values_that_are_not_finite_name_scale_and_site() -> None:
    class Spoiled(Given):
        def activations(self, split: str, site: str) -> Tensor:
            x = super().activations(split, site)
            x[1, 5, 2] = torch.nan
            return x

    cohort: Any = Spoiled()
    with pytest.raises(BadActivations, match=r"^toy_x, resid_pre_0, sibling 0: .*token 5, dim"):
        fit_all(cohort)


def test_streamed_fits_name_where_and_the_sibling() -> None:
    x = Given(constant=slice(None)).activations("fit", "resid_post_0")
    moments = pair_moments([x[1], x[2]], x[0])
    message = "^fit at resid_post_0, sibling 1, sibling: dimension 1 is constant"
    with pytest.raises(BadActivations, match=message):
        Maps.fit(moments, "fit at resid_post_0")
    few = pair_moments([x[1, :5]], x[0, :5])
    with pytest.raises(BadActivations, match=r"^fit at here, sibling 0: 5 tokens for 8 dim"):
        Maps.fit(few, "fit at here")


# ---- what is not determined


class LowRank:
    """Four siblings that are exact copies of the anchor, made of the same codes; of rank 3 at the
    first site, at the second of full rank but for the third sibling, at the third of full rank."""

    scale, seeds = "toy_x", (0, 1, 2, 3, 4)
    sites = ("low", "mixed", "full")

    def activations(self, split: str, site: str) -> Tensor:
        generator = torch_generator(0, split, site)
        codes = torch.randn(400, D, generator=generator, dtype=torch.float64)
        if site == "low":
            codes = codes[:, :3]
        law = torch_generator(1, site)
        into = torch.randn(codes.shape[1], D, generator=law, dtype=torch.float64)
        turns = [
            torch.linalg.qr(torch.randn(D, D, generator=law, dtype=torch.float64))[0]
            for _ in range(5)
        ]
        x = torch.stack([codes @ (into @ turn) for turn in turns])
        if site == "mixed":
            x[3] = codes[:, :5] @ (into[:5] @ turns[3])
        return x


@pytest.fixture(scope="module")
def low() -> Fits:
    cohort: Any = LowRank()
    return fit_all(cohort)


def test_identified_is_full_rank_of_both_models(low: Fits) -> None:
    assert low.identified == {
        "low": (False,) * 4,
        "mixed": (True, True, False, True),
        "full": (True,) * 4,
    }
    assert low.identified_sites == ("full",)
    assert low.at(["low", "mixed"]).identified_sites == ()


def test_full_rank_says_the_same_without_a_fit(low: Fits) -> None:
    cohort: Any = LowRank()
    found = rotations.full_rank(cohort)
    assert found.pairs == ("0", "1", "2", "3", "4")
    assert found.values.T.tolist() == [[0] * 5, [1, 1, 1, 0, 1], [1] * 5]
    assert rotations.determined(found) == {
        site: all(pairs) for site, pairs in low.identified.items()
    }
    # Of two models alone the third sibling is no matter, and decides where it is one of the two.
    assert rotations.determined(found, (1, 4)) == {"low": False, "mixed": True, "full": True}
    assert rotations.determined(found, (1, 3)) == {"low": False, "mixed": False, "full": True}


def every_rotation(found: Fits, site: str) -> list[Rotation]:
    return [
        *found.matched[site],
        *found.halves[site][0],
        *found.halves[site][1],
        *found.shuffled[site],
    ]


def test_no_two_fits_complete_a_rotation_alike(low: Fits, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[tuple[object, ...]] = []

    def spy(seed: int, *purpose: str | int, **how: Any) -> torch.Generator:
        if purpose[0] == "null space":
            seeds.append(purpose)
        return torch_generator(seed, *purpose, **how)

    monkeypatch.setattr(rotations, "torch_generator", spy)
    cohort: Any = LowRank()
    found = fit_all(cohort)
    assert len(found.copies) == COHORTS_OF_COPIES
    assert len(seeds) == len(set(seeds)) == 3 * 4 * (4 + COHORTS_OF_COPIES * 3)
    # of rank 3 two fits of one rotation agree on three directions of eight, by chance on the rest
    shares = [
        float((a.r * b.r).sum()) / D
        for a, b in zip(found.matched["low"], found.halves["low"][0], strict=True)
    ]
    assert max(shares) < 0.8
    again = fit_all(cohort)
    for site in found.sites:
        for one, other in zip(
            every_rotation(found, site), every_rotation(again, site), strict=True
        ):
            torch.testing.assert_close(one.r, other.r, atol=0, rtol=0)
    assert (
        float((fit_all(cohort, seed=1).matched["low"][0].r - found.matched["low"][0].r).norm()) > 1
    )


def test_on_the_range_of_the_activations_nothing_changes(low: Fits) -> None:
    cohort: Any = LowRank()
    for site in low.sites:
        x = cohort.activations("fit", site)
        for i, fit in enumerate(low.matched[site]):
            plain = fit_rotation(x[i + 1], x[0])
            at = x[i + 1][:, :] if fit.rank == D or site == "low" else x[i + 1][:1] * 0 + fit.mean_a
            torch.testing.assert_close(fit.apply(at), plain.apply(at), atol=1e-8, rtol=0)
            if fit.rank == D:
                torch.testing.assert_close(fit.r, plain.r, atol=1e-12, rtol=0)


# ---- perfect siblings


def test_copies_are_fitted_as_turned_tokens_would_be(low: Fits) -> None:
    cohort: Any = LowRank()
    for site in low.sites:
        x = cohort.activations("fit", site)[0]
        found = [rotation for copies in low.copies for rotation in copies.matched[site]]
        assert len(found) == COHORTS_OF_COPIES * 4
        for rotation in found:
            turned = x @ rotation.r.T  # so that turned @ r is the anchor
            fit = fit_rotation(turned, x)
            torch.testing.assert_close(rotation.apply(turned), fit.apply(turned), atol=1e-8, rtol=0)
            torch.testing.assert_close(rotation.apply(turned), x, atol=1e-8, rtol=0)
            assert rotation.rank == fit.rank
            if site != "low":
                assert rotation.det == 1, "turned within SO(d)"
                torch.testing.assert_close(rotation.r, fit.r, atol=1e-8, rtol=0)


def test_copies_are_turned_apart_and_their_halves_agree_where_they_can(low: Fits) -> None:
    one = low.copies[0]
    assert one.pairs == low.pairs
    assert one.identified_sites == ("mixed", "full"), "the anchor alone decides"
    turns = [r.r for copies in low.copies for r in copies.matched["full"]]
    gaps = [float((a - b).norm()) for i, a in enumerate(turns) for b in turns[:i]]
    assert min(gaps) > 1
    assert float((one.matched["full"][0].r - one.matched["mixed"][0].r).norm()) > 1
    for a, b in zip(*one.halves["full"], strict=True):
        torch.testing.assert_close(a.r, b.r, atol=1e-8, rtol=0)
    assert all(float((a.r - b.r).norm()) > 1 for a, b in zip(*one.halves["low"], strict=True))
    assert low.at(["full"]).copies[0].sites == ("full",)


# ---- is there a map at all?


def test_halves_agree_where_tokens_are_related(low: Fits) -> None:
    for site in low.sites:
        assert surplus(low.agreement[site]) > 3
        rank = low.matched[site][0].rank
        assert [each.trace for each in low.agreement[site][:2]] == pytest.approx([rank, rank])
        assert surplus(low.copies[0].agreement[site]) > 3
    cohort: Any = Given(600)
    strangers = fit_all(cohort)
    assert all(abs(surplus(strangers.agreement[site])) < 3 for site in strangers.sites)
    for site in strangers.sites:
        pair = zip(*strangers.halves[site], strict=True)  # of full rank: the whole trace
        traces = [float((a.r * b.r).sum()) for a, b in pair]
        assert [each.trace for each in strangers.agreement[site]] == pytest.approx(traces)
