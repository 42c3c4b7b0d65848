"""What streaming is said to need is what it takes."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from polyrot.streaming.budget import Models, Rates, budget
from polyrot.streaming.passes import MomentPass


@pytest.mark.parametrize("covariances", [True, False])
@pytest.mark.parametrize("siblings", [1, 3])
def test_sums_and_products_are_those_of_a_pass(covariances: bool, siblings: int) -> None:
    d, sites, tokens = 48, ("a", "b"), 640
    batch = [{site: torch.randn(tokens // 2, d) for site in sites} for _ in range(1 + siblings)]
    models = Models(parameters=0, width=d, sites=len(sites), siblings=siblings)
    found = budget(models, tokens, 0, Rates(1, 1), covariances=covariances)
    held = MomentPass(sites, siblings, covariances)
    held.update(batch)
    of_sites = [t for name, t in held.state().items() if not name.endswith(("/tokens", "/eps"))]
    assert sum(t.nbytes for t in of_sites) == found.sums
    one = MomentPass(sites, siblings, covariances, torch.float32)  # products in place go uncounted
    with FlopCounterMode(display=False) as counted:
        for _ in range(2):
            one.update(batch)
    of_vectors = 2 * tokens * d * len(sites) * (1 + siblings)  # less than a d-th of it all
    assert counted.get_total_flops() == found.products + of_vectors


def test_hours_are_work_over_rates_and_ranks() -> None:
    models = Models(parameters=1e9, width=64, sites=2)
    found = budget(models, 1000, 500, Rates(forward=1e12, products=1e9))
    assert found.forward == 2 * 1e9 * 2 * 1500
    expected = (found.forward / 1e12 + found.products / 1e9) / 3600
    assert found.hours == pytest.approx(expected)
    assert budget(models, 1000, 500, Rates(1e12, 1e9), ranks=4).hours == found.hours / 4


@pytest.mark.parametrize(
    ("given", "said"), [({"ranks": 0}, "at least one"), ({"tokens": 63}, "64 dimensions")]
)
def test_what_cannot_be_is_refused(given: dict[str, int], said: str) -> None:
    models = Models(parameters=1, width=64, sites=1)
    with pytest.raises(ValueError, match=said):
        budget(models, given.get("tokens", 64), 1, Rates(1, 1), ranks=given.get("ranks", 1))
