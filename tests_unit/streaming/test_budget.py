"""What streaming is said to need is what it takes."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from polyrot.streaming.budget import Models, Rates, budget, fit_operations
from polyrot.streaming.job import moments_artifact
from polyrot.streaming.passes import Maps, MomentPass

ONE = Rates(1, 1, 1, 1, 1)
RATES = Rates(forward=1e12, products=1e9, fit=1e8, disk=1e7, link=1e6)


@pytest.mark.parametrize("covariances", [True, False])
@pytest.mark.parametrize("siblings", [1, 3])
def test_sums_and_products_are_those_of_a_pass(covariances: bool, siblings: int) -> None:
    d, sites, tokens = 48, ("a", "b"), 640
    batch = [{site: torch.randn(tokens // 2, d) for site in sites} for _ in range(1 + siblings)]
    models = Models(parameters=0, width=d, sites=len(sites), siblings=siblings)
    found = budget(models, tokens, 0, ONE, covariances=covariances)
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


def test_hours_are_work_over_rates() -> None:
    models = Models(parameters=1e9, width=64, sites=2)
    found = budget(models, 1000, 500, RATES)
    assert found.forward == 2 * 1e9 * 2 * 1500
    assert found.passes == pytest.approx((found.forward / 1e12 + found.products / 1e9) / 3600)
    assert found.fitting == pytest.approx(2 * fit_operations(64, True) / 1e8 / 3600)
    assert found.moving == pytest.approx(found.disk / 1e7 / 3600)
    assert found.hours == found.passes + found.fitting + found.moving


def test_twice_the_ranks_halve_what_they_share_and_nothing_else() -> None:
    models = Models(parameters=1e9, width=64, sites=2)
    two, four = (budget(models, 1000, 500, RATES, ranks=n) for n in (2, 4))
    assert four.passes == two.passes / 2
    assert (four.fitting, four.moving) == (two.fitting, two.moving)
    assert (four.memory, four.disk, four.fit) == (two.memory, two.disk, two.fit)
    alone = budget(models, 1000, 500, RATES)
    assert alone.link == 0
    assert two.moving - alone.moving == pytest.approx(two.link / 1e6 / 3600)


@pytest.mark.parametrize("covariances", [True, False])
def test_what_lies_beside_the_sums_at_the_end_is_as_large(covariances: bool) -> None:
    d, siblings, tokens = 48, 2, 256
    one = MomentPass(["a"], siblings, covariances)
    one.update([{"a": torch.randn(tokens, d)} for _ in range(1 + siblings)])
    sums = {t.untyped_storage().data_ptr() for t in one.state().values()}
    moments = one.moments()
    beside = [t for t in moments_artifact(moments).tensors.values() if t.ndim == 2]
    assert sums.isdisjoint(t.untyped_storage().data_ptr() for t in beside)
    found = budget(Models(0, d, 1, siblings), tokens, 0, ONE, covariances=covariances)
    vectors = 3 * (1 + siblings) * d * 8
    assert sum(t.nbytes for t in beside) == found.sums - vectors
    # And of the maps: what pass 2 holds, in single precision.
    maps = Maps.fit(moments["a"], "here")
    of_maps = [m for each in maps for m in (each.rotation.r, each.affine and each.affine.w)]
    assert sum(m.float().nbytes for m in of_maps if m is not None) == found.maps


def test_memory_is_the_largest_of_the_three_moments_of_a_run() -> None:
    for tokens, largest in ((64, "ends"), (10**6, "passes")):
        found = budget(Models(1e3, 64, 4), 1000, 0, ONE, batch_tokens=tokens)
        beside = {"ends": 2 * found.sums, "passes": found.sums + found.batch}[largest]
        assert found.memory == found.weights + beside
        assert found.weights == 4e3


@pytest.mark.parametrize("affine", [True, False])
def test_the_products_of_a_fit_are_counted_and_no_fewer(affine: bool) -> None:
    d = 48
    one = MomentPass(["a"], covariances=affine)
    one.update([{"a": torch.randn(256, d)} for _ in range(2)])
    with FlopCounterMode(display=False) as counted:
        Maps.fit(one.moments()["a"], "here")
    products = 2 + (4 if affine else 0)  # decompositions go uncounted there
    assert counted.get_total_flops() == products * d**3
    decompositions = 21 + 2 / 3 + (9 if affine else 0)
    assert fit_operations(d, affine) == pytest.approx((products + decompositions) * d**3)


@pytest.mark.parametrize(
    ("given", "said"), [({"ranks": 0}, "at least one"), ({"tokens": 63}, "64 dimensions")]
)
def test_what_cannot_be_is_refused(given: dict[str, int], said: str) -> None:
    models = Models(parameters=1, width=64, sites=1)
    with pytest.raises(ValueError, match=said):
        budget(models, given.get("tokens", 64), 1, ONE, ranks=given.get("ranks", 1))
