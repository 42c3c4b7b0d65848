"""Where a map cannot be fitted, the message says at which site, for which pair and tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from polyrot.maps.checks import BadActivations
from polyrot.maps.moments import pair_moments
from polyrot.measures.fits import fit_all
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
