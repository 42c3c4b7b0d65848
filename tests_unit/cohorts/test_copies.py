"""An exact copy of the anchor computes its function, in a basis of its own."""

from __future__ import annotations

import pytest
import torch

from polyrot.cohorts.copies import COPY, RotatedCopy
from polyrot.maps.procrustes import fit_rotation
from tests_unit.worlds.networks import NETWORKS, SITES, WIDTH

NETWORK = NETWORKS["unrelated networks"]
"""Of which the copy must see the anchor alone."""


@pytest.fixture(scope="module")
def copy() -> RotatedCopy:
    return RotatedCopy(NETWORK)  # type: ignore[arg-type]


def test_activations_are_the_anchors_turned(copy: RotatedCopy) -> None:
    assert copy.seeds == (0, COPY)
    for site in SITES[:2]:
        anchor, turned = copy.activations("fit", site)
        torch.testing.assert_close(anchor, NETWORK.activations("fit", site)[0])
        torch.testing.assert_close(turned, anchor @ copy.q.float(), atol=1e-5, rtol=0)
        r = fit_rotation(turned, anchor).r
        torch.testing.assert_close(r, copy.q.T, atol=1e-4, rtol=0)
    assert (copy.q - torch.eye(WIDTH)).abs().max() > 0.3


def test_an_intervention_on_the_copy_is_one_on_the_anchor_turned(copy: RotatedCopy) -> None:
    tokens, site = copy.intervention_tokens(6), copy.steering_site
    anchor, turned = (copy.clean_run(m, tokens) for m in (0, 1))
    v = torch.randn(1, 1, 1, WIDTH, generator=torch.Generator().manual_seed(0))
    wanted = anchor.outputs(site, v)["out"]
    found = turned.outputs(site, v @ copy.q.float())["out"]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    elsewhere = turned.outputs(site, v)["out"]
    assert (elsewhere - wanted).abs().max() > 0.05
    none = torch.zeros_like(v)
    torch.testing.assert_close(turned.outputs(site, none)["out"], anchor.outputs(site, none)["out"])
    torch.testing.assert_close(turned.keys("mlp_0"), anchor.keys("mlp_0"))


def test_components_of_the_copy_cost_what_the_anchors_do(copy: RotatedCopy) -> None:
    tokens = copy.intervention_tokens(6)
    anchor, turned = (copy.clean_run(m, tokens) for m in (0, 1))
    means = [copy.mean_writes(m) for m in (0, 1)]
    losses = [
        run.loss([1], mean[1].expand_as(run.writes[:1]))
        for run, mean in zip((anchor, turned), means, strict=True)
    ]
    torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)
    clean = anchor.loss([1], anchor.writes[1:2])
    assert (losses[0] - clean).abs().max() > 1e-3
    torch.testing.assert_close(turned.writes, anchor.writes @ copy.q.float(), atol=1e-5, rtol=0)
    v, own = copy.direction("depth")
    torch.testing.assert_close(own, v @ copy.q.float(), atol=1e-5, rtol=0)
    assert torch.equal(v, NETWORK.direction("depth")[0])


def test_a_copy_in_the_anchors_own_basis_is_the_anchor() -> None:
    same = RotatedCopy(NETWORK, torch.eye(WIDTH))  # type: ignore[arg-type]
    assert torch.equal(*same.activations("fit", SITES[1]))


def test_a_turn_is_orthogonal() -> None:
    no_number = torch.eye(WIDTH)
    no_number[0, 0] = torch.nan
    for q, message in (
        (torch.eye(3), rf"a matrix \[{WIDTH}, {WIDTH}\], not \[3, 3\]"),
        (2 * torch.eye(WIDTH), "the turn of a copy: the matrix is not orthogonal"),
        (no_number, "is as large as nan"),
    ):
        with pytest.raises(ValueError, match=message):
            RotatedCopy(NETWORK, q)  # type: ignore[arg-type]


def test_copies_that_are_turned_otherwise_are_others(copy: RotatedCopy) -> None:
    same = RotatedCopy(NETWORK)  # type: ignore[arg-type]
    alike, half = (RotatedCopy(NETWORK, s * torch.eye(WIDTH)) for s in (1, -1))  # type: ignore[arg-type]
    assert same.fingerprint == copy.fingerprint
    assert len({copy.fingerprint, alike.fingerprint, half.fingerprint}) == 3
