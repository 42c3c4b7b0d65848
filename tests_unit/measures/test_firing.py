"""Firing overlap: against plain arrays, and on features whose overlap is planted."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from polyrot.cohorts.cohort import CohortDefaults, ScaleFacts, Split
from polyrot.dictionaries.sae import Dictionary
from polyrot.maps.feature_correlation import FeatureCorrelations
from polyrot.measures.firing import Firing, measure_firing, random_features, sites_of
from polyrot.measures.fits import Fits, fit_all
from polyrot.runtime.seeding import torch_generator
from tests_unit.worlds.planted import WORLDS, World

D, FEATURES = 6, 5


def features(tokens: int = 600) -> tuple[Tensor, Tensor]:
    """Rectified ones here and elsewhere; feature 1 is nearly constant and far from 0, 2 is silent
    elsewhere, 3 is silent here."""
    g = torch_generator(0, "features")
    here = torch.randn(tokens, FEATURES, generator=g).relu()
    elsewhere = (here + torch.randn(tokens, FEATURES, generator=g)).relu()
    here[:, 1] = 100 + 0.01 * here[:, 1]
    elsewhere[:, 1] = 100 + 0.01 * elsewhere[:, 1]
    elsewhere[:, 2], here[:, 3] = 0, 0
    return here, elsewhere


@pytest.mark.parametrize("chunk", [7, 100, 600])
def test_streamed_r_is_that_of_whole_arrays(chunk: int) -> None:
    here, elsewhere = features()
    sums = FeatureCorrelations(2)
    for i in range(0, len(here), chunk):
        sums.update(here[i : i + chunk], [elsewhere[i : i + chunk], here[i : i + chunk]])
    found = sums.r()
    for j in (0, 1, 4):
        pair = here[:, j].double().numpy(), elsewhere[:, j].double().numpy()
        assert float(found[0, j]) == pytest.approx(np.corrcoef(*pair)[0, 1], abs=1e-4)
    assert found[0, 2] == 0
    assert found[0, 3] == 0
    torch.testing.assert_close(found[1], torch.tensor([1.0, 1, 1, 0, 1]).double())
    assert sums.live().tolist() == [True, True, True, False, True]


def test_other_ways_than_announced_are_refused() -> None:
    here, elsewhere = features(10)
    with pytest.raises(ValueError, match="2 ways are expected, not 1"):
        FeatureCorrelations(2).update(here, [elsewhere])
    with pytest.raises(ValueError, match="1 ways of shape"):
        FeatureCorrelations(1).update(here, [elsewhere, elsewhere])
    with pytest.raises(ValueError, match="1 ways of shape"):
        FeatureCorrelations(1).update(here, [elsewhere[:, :2]])


def test_random_directions_fire_at_the_same_rates_on_any_width_of_chunk() -> None:
    g = torch_generator(0, "tokens")
    x = torch.randn(2000, D, generator=g) * torch.arange(1.0, D + 1) + 3
    bias = torch.linspace(-12, 12, 130)
    w = torch.randn(D, 130, generator=g)
    bias[0], bias[-1] = -1e4, 1e4  # never on, always on
    sae = Dictionary(w, bias, w.T, torch.zeros(D), torch.zeros(D))
    drawn = random_features(sae, x, torch_generator(1, "drawn"), chunk=300)
    wanted, found = ((each.encode(x) > 0).sum(0) for each in (sae, drawn))
    assert wanted[0] == 0
    assert wanted[-1] == len(x)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(drawn.w_enc.norm(dim=0), torch.ones(130))
    other = random_features(sae, x, torch_generator(2, "drawn"))
    assert not torch.allclose(other.w_enc, drawn.w_enc)


# --------------------------------------------------------------------------- planted cohorts


def pair_of(name: str) -> World:
    """A world with two siblings."""
    return replace(WORLDS[name], seeds=(0, 1, 2))


@cache
def fitted(name: str) -> Fits:
    return fit_all(pair_of(name))


@cache
def measured(name: str, copies: int = 1) -> Firing:
    cohort = pair_of(name)
    return measure_firing(cohort, fitted(name), cohort.saes(), copies=copies)


def plain(world: World, site: str, i: int, fits: Fits) -> dict[str, Tensor]:
    """r of every feature by way, from whole arrays."""
    x, sae = world.activations("score", site), world.saes()[site]
    here = sae.encode(x[0]).double().numpy()
    found = {}
    for way, moved in {
        "naive": x[i + 1],
        "rotated": fits.matched[site][i].apply(x[i + 1]),
        "uncentred": fits.matched[site][i].apply(x[i + 1]) - fits.matched[site][i].mean_b.float(),
        "shuffled": fits.shuffled[site][i].apply(x[i + 1]),
        "principal": fits.principal[site][i].apply(x[i + 1]),
    }.items():
        there = sae.encode(moved).double().numpy()
        rows = [
            np.corrcoef(a, b)[0, 1] if a.std() and b.std() else 0.0
            for a, b in zip(here.T, there.T, strict=True)
        ]
        found[way] = torch.tensor(rows)
    return found


def test_every_way_is_what_whole_arrays_give() -> None:
    world, fits, found = pair_of("rotated, noisy inside"), fitted("rotated, noisy inside"), None
    found = measured("rotated, noisy inside")
    for j, site in enumerate(world.sites):
        for i in range(2):
            for way, r in plain(world, site, i, fits).items():
                overlap = getattr(found, way)
                assert overlap.mean.values[i, j] == pytest.approx(float(r.mean()), abs=1e-5)
                share = float((r > 0.5).double().mean())
                assert overlap.above_half.values[i, j] == pytest.approx(share)


def test_an_exact_turned_copy_fires_as_the_anchor_through_r_alone() -> None:
    found = measured("rotated")
    assert (found.rotated.mean.values > 0.9999).all()
    assert (found.rotated.above_half.values == 1).all()
    assert (abs(found.naive.mean.values) < 0.3).all()
    assert (found.shuffled.mean.values < 0.3).all()
    assert (found.random.mean.values > 0.9999).all(), "random directions of a copy agree, too"
    assert found.rotated.mean.ceiling is not None
    assert (found.rotated.mean.ceiling > 0.9999).all()
    assert found.naive.mean.ceiling is None
    beyond = found.beyond_shuffled(SITES[1:])
    assert beyond.ceiling is not None
    assert (beyond.ceiling > 0.5).all()
    assert found.beyond_random(SITES[1:]).ceiling is None


SITES = WORLDS["rotated"].sites


def test_unrelated_tokens_overlap_nowhere() -> None:
    found = measured("second moments")
    for way in ("naive", "rotated", "shuffled", "principal", "random"):
        assert (abs(getattr(found, way).mean.values) < 0.1).all()


def test_batches_and_copies_change_nothing_else() -> None:
    cohort = pair_of("rotated")
    found = measure_firing(cohort, fitted("rotated"), cohort.saes(), copies=0, chunk=333)
    for name, table in measured("rotated").to_tables().items():
        other = found.to_tables()[name]
        np.testing.assert_allclose(other.values, table.values, atol=1e-5)
        assert other.ceiling is None


def test_silent_features_count_as_registered() -> None:
    """One feature is silent on the anchor, one on the siblings alone."""
    cohort = pair_of("the anchor itself")

    class Quiet(CohortDefaults):
        scale, seeds, width, fingerprint = "toy_a", (0, 1), cohort.width, "quiet"
        sites = SITES

        def activations(self, split: Split, site: str) -> Tensor:
            x = cohort.activations(split, site)[:2].clone()
            if split == "score":
                known = cohort.law(site).features[:, 1]
                x[1] -= 50 * known  # the second feature never fires there
            return x

    sae = cohort.saes()
    for site, each in sae.items():
        b_enc = each.b_enc.clone()
        b_enc[0] = -1e4
        # Nothing is read off the known directions, so that the shift silences one alone.
        w_enc = cohort.law(site).features[:, : len(b_enc)]
        sae[site] = replace(each, w_enc=w_enc, b_enc=b_enc)
    found = measure_firing(Quiet(), fit_all(Quiet()), sae, copies=0).naive
    m = sae[SITES[0]].n_features
    np.testing.assert_allclose(found.mean.values, (m - 2) / (m - 1), atol=1e-4)
    np.testing.assert_allclose(found.over_all.values, (m - 2) / m, atol=1e-4)


def test_tables_are_kept_and_read() -> None:
    found = measured("rotated")
    again = Firing.from_tables(found.to_tables())
    assert [f.name for f in fields(again)] == [f.name for f in fields(found)]
    np.testing.assert_array_equal(again.random.over_all.values, found.random.over_all.values)


def test_only_the_papers_sites_are_judged_and_the_others_are_told_beside() -> None:
    found, cohort = measured("rotated"), pair_of("rotated")
    assert sites_of(cohort) == SITES
    object.__setattr__(cohort, "facts", ScaleFacts(language=False, firing_sites=SITES[2:]))
    judged = found.recovered(cohort)
    assert judged.labels == SITES[2:]
    assert judged.beside[f"mean_{SITES[1]}"] == pytest.approx(1, abs=1e-4)
    assert f"mean_{SITES[2]}" not in judged.beside
    assert judged.beside["paper_rotated"] == "0.27 to 0.74 (the paper's toy)"
    low, high = (judged.beside[f"{end}_pair_{SITES[2]}"] for end in ("lowest", "highest"))
    values = found.rotated.mean.at(SITES[2:]).values
    assert (low, high) == (values.min(), values.max())
    assert judged.ceilings
    assert not found.raw(cohort).ceilings


def test_another_reading_of_the_dictionaries_is_recorded_and_not_judged() -> None:
    found, other, cohort = measured("rotated"), measured("unrelated"), pair_of("rotated")
    judged = found.beside_reading(4000, other).recovered(cohort)
    plain = found.recovered(cohort)
    np.testing.assert_array_equal(judged.values, plain.values)
    for j, site in enumerate(other.rotated.mean.sites):
        mean = other.rotated.mean.values[:, j].mean()
        assert judged.beside[f"{site}_after_4000_steps"] == pytest.approx(mean)
    assert judged.beside.keys() - plain.beside.keys() == {
        f"{site}_after_4000_steps" for site in other.rotated.mean.sites
    }
