"""Arms of steering: maps carry what they should, in their own rows; draws are what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from polyrot.maps.procrustes import fit_rotation
from polyrot.measured import Interval
from polyrot.measures import steering_arms as arms
from polyrot.measures.effects import mean_over_pairs, steer, tokens_at_stake
from polyrot.measures.steering_arms import ARMS, DRAWN, Arms, SteeringArms, carriers
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact
from tests_unit.maps.rotated_pair import RotatedPair

N, DRAWS = 24, 4


class Steered(RotatedPair):
    """By two directions."""

    contrasts = ("depth", "closer")


@pytest.fixture(scope="module")
def pair() -> Steered:
    return Steered()


@pytest.fixture(scope="module")
def measured(pair: Steered) -> Arms:
    rotations = pair.rotations()[pair.steering_site]
    return arms.measure_arms(pair, rotations, n_sequences=N, draws=DRAWS)


def test_what_knows_the_tokens_steers_an_exact_copy_and_nothing_else_does(measured: Arms) -> None:
    for arm in ("own", "rotated", "scaled", "affine"):
        np.testing.assert_allclose(measured.share(arm), 1, atol=0.02)
        np.testing.assert_allclose(measured.kl[arm][:, 0], measured.within_kl, rtol=0.03)
    for arm in ("naive", "principal"):
        assert (np.abs(measured.share(arm) - 1) > 0.2).all()
    np.testing.assert_allclose(measured.over_own(), 1, atol=0.01)
    np.testing.assert_allclose(measured.beyond("rotated"), 0)
    np.testing.assert_allclose(measured.beyond("naive"), 1 - measured.share("naive"), atol=0.01)


def test_every_arm_has_the_effect_of_its_own_vectors(pair: Steered, measured: Arms) -> None:
    (maps,) = carriers(pair, pair.rotations()[pair.steering_site], DRAWS)
    i = measured.contrasts.index("depth")
    tokens, v = tokens_at_stake(pair, "depth", N), pair.direction("depth")
    for arm in ARMS:
        vectors = v[1:] if arm == "own" else (v[0].double() @ maps[arm]).float()
        alone = steer(pair, 1, tokens, "depth", vectors)
        assert measured.gain[arm][i, 0] == pytest.approx(alone.gain.mean(), rel=1e-3, abs=1e-4)
        assert measured.kl[arm][i, 0] == pytest.approx(alone.kl.mean(), rel=1e-3)
        if arm in DRAWN:
            assert measured.spread[arm][i, 0] == pytest.approx(alone.gain.std(ddof=1), rel=1e-3)


WIDTH = 12


@dataclass(frozen=True)
class Noisy:
    """A sibling that is the anchor turned, twice as large, and noise besides."""

    scale, steering_site, width, seeds = "noisy", "there", WIDTH, (0, 1)

    def activations(self, split: str, site: str) -> torch.Tensor:
        g = torch_generator(3, "noisy", split, site)
        size = torch.linspace(1, 4, WIDTH)
        b = torch.randn(2000, WIDTH, generator=g) * size + 1
        q = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=g)).Q
        return torch.stack([b, 2 * b @ q + torch.randn(2000, WIDTH, generator=g) * 3])


def test_maps_are_what_their_names_say() -> None:
    cohort: Any = Noisy()
    anchor, a = cohort.activations("fit", "there").double()
    rotation = fit_rotation(a, anchor)
    (maps,) = carriers(cohort, [rotation], DRAWS)
    assert {arm: len(each) for arm, each in maps.items()} == {
        **dict.fromkeys(("rotated", "scaled", "affine", "naive"), 1),
        **dict.fromkeys(DRAWN, DRAWS),
    }
    b, a = anchor - anchor.mean(0), a - a.mean(0)
    turned = maps["rotated"][0]
    torch.testing.assert_close(turned, rotation.r.T)
    scale = (a * (b @ turned)).sum() / b.square().sum()  # least squares, the anchor's rows first
    assert scale > 1.5
    torch.testing.assert_close(maps["scaled"][0], scale * turned)
    torch.testing.assert_close(maps["affine"][0], torch.linalg.lstsq(b, a).solution)
    eye = torch.eye(WIDTH).double()
    torch.testing.assert_close(maps["naive"][0], eye)
    for arm in DRAWN:
        torch.testing.assert_close(maps[arm] @ maps[arm].mT, eye.expand(DRAWS, -1, -1))
        assert float((maps[arm][0] - maps[arm][2]).abs().max()) > 0.1, "each drawn anew"
    # Matched by rank of variance: where the anchor varies most goes to where the sibling does.
    mine, theirs = (torch.linalg.eigh(x.T @ x)[1] for x in (a, b))
    carried = (theirs.T @ maps["principal"][0] @ mine).abs()
    torch.testing.assert_close(carried, eye, atol=1e-6, rtol=0)
    assert torch.equal(maps["principal"][0], -maps["principal"][1]), "signs, and their opposites"


def test_shuffled_tokens_leave_nothing_of_the_map(pair: Steered) -> None:
    (rotation,) = pair.rotations()[pair.steering_site]
    (maps,) = carriers(pair, [rotation], 16)
    overlap = torch.einsum("nij,ij->n", maps["shuffled"], maps["rotated"][0]) / 64
    assert float(overlap.abs().max()) < 0.5
    assert abs(float(overlap.mean())) < 0.15


def planted(gain: Mapping[str, list[float]], within: float = 2.0) -> Arms:
    """One contrast; gain by arm and pair, 0 unless given."""
    pairs = len(next(iter(gain.values())))
    table = {arm: np.array([gain.get(arm, [0.0] * pairs)]) for arm in ARMS}
    labels = tuple(f"0-{i + 1}" for i in range(pairs))
    one: np.ndarray = np.ones(1)
    none = {arm: np.zeros((1, pairs)) for arm in DRAWN}
    seeds = tuple(range(pairs + 1))
    return Arms(("a",), labels, seeds, (256,), DRAWS, within * one, one, table, table, none)


def test_claims_are_read_off_pair_by_pair() -> None:
    own, turned = np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 3.0])
    siblings = planted(
        {"own": [*own], "rotated": [*turned], "naive": [-1.0, 0.0, 1.0], "principal": [0.0] * 3}
    )
    perfect = planted({"own": [2.0], "rotated": [1.9], "naive": [0.5]})
    found = SteeringArms(siblings, perfect)
    reached = found.reaches_own()
    assert reached.values[0] == pytest.approx((turned / own).mean())
    assert reached.ceilings == pytest.approx((0.95,))
    assert reached.intervals == mean_over_pairs((turned / own)[None])
    beyond = found.beyond("naive")
    assert beyond.values[0] == pytest.approx(((turned - [-1, 0, 1]) / 2).mean())
    assert beyond.ceilings == pytest.approx((0.7,))
    assert isinstance(beyond.interval(0), Interval)
    assert beyond.beside["own_a"] == pytest.approx(own.mean() / 2)
    assert found.beyond("principal").values[0] == pytest.approx(turned.mean() / 2)
    assert beyond.n == 3


def test_it_survives_the_store(measured: Arms, pair: Steered) -> None:
    rotations = pair.rotations()[pair.steering_site]
    found = SteeringArms(measured, measured)
    kept = found.to_artifact()
    again = SteeringArms.from_artifact(Artifact(kept.tensors, kept.meta))
    for arm in ARMS:
        np.testing.assert_array_equal(again.siblings.gain[arm], measured.gain[arm])
    assert again.perfect.contrasts == measured.contrasts
    assert again.siblings.draws == DRAWS
    np.testing.assert_array_equal(again.perfect.spread["shuffled"], measured.spread["shuffled"])
    with pytest.raises(ValueError, match="0 rotations for 1 siblings"):
        arms.measure_arms(pair, [])
    assert len(rotations) == 1


def test_exact_copies_are_the_ceiling(pair: Steered) -> None:
    found = arms.measure_perfect_arms(pair, n_sequences=N, draws=4, copies=2)
    assert found.pairs == ("copy 0", "copy 1")
    np.testing.assert_allclose(found.over_own(), 1, atol=0.01)
    np.testing.assert_allclose(found.share("rotated"), 1, atol=0.01)
    for arm in ("naive", *DRAWN):  # each turned, and its maps drawn, in its own way
        assert (np.abs(np.diff(found.share(arm), axis=1)) > 1e-3).all()
