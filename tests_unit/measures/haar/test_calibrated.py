"""Tests of R that know Haar measure, on cohorts with planted rotations."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from polyrot.haar import DEFAULT_DRAWS, haar_batteries, haar_battery, holm
from polyrot.haar.orthogonal import FloatArray, sample_haar
from polyrot.measures import kept
from polyrot.measures.haar import calibrated as measured
from polyrot.measures.haar.calibrated import PValues, named_directions, null_draws
from polyrot.measures.haar.rotations import LEVEL, labels
from polyrot.store import Store
from tests_unit.measures.haar.planted import (
    PAIRS,
    SIBLINGS,
    SITES,
    D,
    PlantedCohort,
    alternative,
    carrying,
    fits,
    haar,
    shared_subspace,
    unrelated,
)

# ---- draws of the null tables


@pytest.mark.parametrize("matrices", [1, 20, 28, 29, 56, 300])
def test_so_many_draws_can_reject_every_matrix_after_holm(matrices) -> None:
    draws = null_draws(matrices)
    floor = haar_battery(np.eye(4), draws=100).p_floor * 101 / (draws + 1)
    assert holm(np.full(matrices, floor)).max() <= LEVEL / 1.39
    assert (draws == DEFAULT_DRAWS) == (matrices <= 28)


def test_its_figures_are_kept_for_a_version_of_its_own(tmp_path, monkeypatch) -> None:
    for version, tables in ((1, 1), (1, 1), (2, 2)):
        monkeypatch.setattr(measured, "RECIPE_VERSION", version)
        kept.kept_measured(Store(tmp_path), measured.battery, lambda: 0.5, "planted")
        assert len(list((tmp_path / "measured").glob("*.safetensors"))) == tables


def test_default_draws_cannot_reject_fifty_six_matrices_and_those_chosen_can() -> None:
    # seen by the spectrum alone, so that no exact law helps
    v = sample_haar(12, 1, np.random.default_rng(1))[0]
    r = v @ np.roll(np.eye(12), 1, axis=0) @ v.T
    vectors = {"a": np.eye(12)[0], "b": np.ones(12), "c": np.eye(12)[1]}
    for draws, rejected in ((DEFAULT_DRAWS, False), (null_draws(56), True)):
        found = haar_battery(r, vectors=vectors, draws=draws)
        assert found.p_value == pytest.approx(found.p_floor)
        assert (56 * found.p_value < LEVEL) == rejected


# ---- named directions


def test_directions_are_the_anchors() -> None:
    x = torch.randn(3, 50, 5, generator=torch.Generator().manual_seed(0))
    x[0, :, 3] *= 9
    x[0, :, 4] += 100
    x[1, :, 1] *= 99
    found = named_directions(PlantedCohort({"s": x}), "s")
    assert set(found) == {"all-ones", "mean", "largest variance"}
    assert found["largest variance"].tolist() == [0, 0, 0, 1, 0], "variance, not size"
    assert found["mean"][4] / np.linalg.norm(found["mean"]) == pytest.approx(1, abs=0.01)


def test_copies_turned_by_haar_pass_though_they_share_mean_and_variances() -> None:
    """Their means are carried onto the anchor's exactly; that is no property of R's law."""
    rs, drawn = haar(25), {}
    for j, site in enumerate(SITES):
        anchor = unrelated(26).activations("fit", site)[0] * torch.linspace(0.2, 3, D) + 1
        copies = [anchor @ torch.from_numpy(rs[i, j]).T for i in range(SIBLINGS)]
        drawn[site] = torch.stack([anchor, *copies])
    cohort = PlantedCohort(drawn)
    assert measured.battery(cohort, fits(rs, haar(27)), None).values.min() >= LEVEL
    assert measured.relative(cohort, fits(rs), None).values.min() >= LEVEL


def test_further_directions_keep_the_level_and_cost_the_other_statistics_nothing() -> None:
    rs = sample_haar(16, 400, np.random.default_rng(2))
    named = {name: np.eye(16)[i] for i, name in enumerate("abc")}
    three = haar_batteries(rs, vectors=[named] * len(rs), draws=4_000)
    assert np.mean([b.p_value <= 0.05 for b in three]) < 0.05 + 4 * (0.05 / 400) ** 0.5
    without = haar_batteries(rs, vectors=[{}] * len(rs), draws=4_000)
    assert [b.p_along() for b in three] == [b.p_value for b in without]
    one = haar_batteries(rs, vectors=[{"b": named["b"]}] * len(rs), draws=4_000)
    assert [b.p_along("ONE[b]") for b in three] == [b.p_value for b in one]
    undecided = [
        (a.p_value, b.p_value)
        for a, b in zip(three, one, strict=True)
        if not b.smallest.name.startswith("ONE")
        and 3 * min(s.p_value for s in a.statistics if s.name.startswith("ONE"))
        > b.smallest.p_value
    ]
    assert len(undecided) > 100
    assert all(a == b for a, b in undecided)
    assert {b.p_floor for b in three} == {b.p_floor for b in one}
    with pytest.raises(KeyError, match="no statistic"):
        three[0].p_along("ONE[z]")
    with pytest.raises(ValueError, match="directions for 1 matrices, but there are 400"):
        haar_batteries(rs, vectors=[named], draws=4_000)


# ---- the battery and the spectrum over a cohort


def test_haar_rotations_pass() -> None:
    planted = fits(haar(3), haar(4))
    found = measured.battery(unrelated(5), planted, None)
    assert found.labels == labels(planted)
    assert found.labels[:2] == ("0-1 pre_0", "0-1 post_0")
    assert found.values.min() >= LEVEL
    beside = found.beside
    assert beside["rejected"] == beside["rejected_without_one"] == 0
    assert beside["rejected_with_all_ones_alone"] == beside["shuffled_rejected_share"] == 0
    assert measured.calibrated_spectrum(planted, None).values.min() >= LEVEL
    assert measured.relative(unrelated(5), planted, None).values.min() >= LEVEL


@pytest.mark.parametrize(
    "rs", [alternative("permutation", 6), shared_subspace(7)], ids=["permutation", "subspace"]
)
def test_what_is_not_haar_is_rejected_everywhere(rs) -> None:
    found = measured.battery(unrelated(8), fits(haar(9), rs), None)
    assert found.values.min() >= LEVEL
    assert found.beside["shuffled_rejected_share"] == 1
    found = measured.battery(unrelated(8), fits(rs, haar(9)), None)
    assert found.values.max() < LEVEL
    assert found.beside["rejected"] == found.beside["rejected_without_one"] == len(found.values)
    assert found.beside["shuffled_rejected_share"] == 0


def test_the_spectrum_is_judged_at_both_tails() -> None:
    even = fits(alternative("cyclic shift", 10))
    found = measured.calibrated_spectrum(even, None)
    assert found.values.max() < LEVEL
    assert found.beside["published_smallest_p"] > 0.5, "the published test accepts them"
    assert measured.calibrated_spectrum(fits(shared_subspace(11)), None).values.max() < LEVEL


def test_what_is_judged_is_what_is_determined() -> None:
    rs = haar(12)
    rs[:, 0] = shared_subspace(13)[:, 0]
    planted = fits(rs, haar(14), low=SITES[:1])
    cohort = unrelated(15)
    for found in (
        measured.battery(cohort, planted, None),
        measured.calibrated_spectrum(planted, None),
        measured.relative(cohort, planted, None),
    ):
        assert all(label.endswith(SITES[1]) for label in found.labels)
        assert len(found.values) == len(found.ceilings) <= SIBLINGS
        assert found.values.min() >= LEVEL
        assert found.beside["rejected"] == 0
        assert found.beside["rejected_at_all_sites"] == len(found.values)
        assert found.beside["smallest_at_all_sites"] < LEVEL
        assert found.beside["sites_not_identified"] == 1
        assert not found.unmet
    both = fits(rs, haar(14))
    assert measured.battery(cohort, both, None).beside["rejected"] == SIBLINGS


def test_with_no_site_identified_nothing_is_judged() -> None:
    planted = fits(haar(12), haar(14), low=SITES)
    for found in (
        measured.battery(unrelated(15), planted, None),
        measured.calibrated_spectrum(planted, None),
        measured.relative(unrelated(15), planted, None),
    ):
        assert found.unmet.startswith("no site at which R is determined")
        assert found.beside["sites_not_identified"] == len(SITES)


def test_the_noise_of_a_fit_is_not_judged() -> None:
    planted = fits(haar(12), haar(14), noise=SITES[1:])
    for found in (
        measured.battery(unrelated(15), planted, None),
        measured.calibrated_spectrum(planted, None),
        measured.relative(unrelated(15), planted, None),
    ):
        assert "shuffled tokens at post_0" in found.unmet
    without = fits(haar(12), haar(14), low=SITES[1:], noise=SITES[1:])
    assert not measured.battery(unrelated(15), without, None).unmet, "it is left out anyway"


def test_ceilings_are_the_median_of_what_copies_get() -> None:
    planted, cohort = fits(alternative("permutation", 6), haar(9)), unrelated(8)
    found = measured.battery(cohort, planted, None)
    assert found.values.max() < LEVEL <= min(found.ceilings)
    along = [named_directions(cohort, site) for _ in PAIRS for site in SITES]
    by_hand = []
    for copies in planted.copies:
        rs = [copies.matched[site][i].r for i in range(SIBLINGS) for site in SITES]
        results = haar_batteries(np.stack(rs), vectors=along, draws=DEFAULT_DRAWS)
        by_hand.append(holm([r.p_value for r in results]))
    assert found.ceilings == pytest.approx(np.median(by_hand, axis=0))


def test_an_adjusted_p_value_has_the_error_of_the_one_that_decides_it() -> None:
    p, errors = np.array([0.004, 0.003, 0.5, 0.0041]), np.array([4e-4, 3e-4, 5e-3, 1e-9])
    tested = PValues(p, errors, tuple("abcd"), ("x",) * 4)
    found = tested.intervals()
    assert holm(p).tolist() == pytest.approx([0.012, 0.012, 0.5, 0.012])
    for i, (factor, of) in {0: (3, 0), 1: (4, 1), 3: (3, 0), 2: (1, 2)}.items():
        interval = found[i]
        assert interval is not None
        assert interval.of == "Monte Carlo"
        relative = 1.96 * errors[of] / p[of] / (1 - factor * p[of])
        assert interval.high / holm(p)[i] == pytest.approx(np.exp(relative), rel=0.03)
        assert interval.low < holm(p)[i] < interval.high
    exact = PValues(p, np.zeros(4), tuple("abcd"), ("x",) * 4)
    assert exact.intervals() == (None,) * 4


def test_intervals_cover_the_p_value_of_more_draws() -> None:
    rs = sample_haar(12, 200, np.random.default_rng(3))
    few = haar_batteries(rs, vectors=[{}] * len(rs), draws=1_000)
    many = haar_batteries(rs, vectors=[{}] * len(rs), draws=40_000)
    inside = []
    for one, truth in zip(few, many, strict=True):
        alone = PValues(np.array([one.p_value]), np.array([one.p_error]), ("",), ("",))
        (interval,) = alone.intervals()
        assert interval is not None
        inside.append(interval.low <= truth.p_value <= interval.high)
    assert np.mean(inside) > 0.9


@pytest.mark.parametrize("name", ["mean", "largest variance", "all-ones"])
def test_a_carried_direction_is_seen_by_one_and_said_to_be(name) -> None:
    cohort, rng = unrelated(16), np.random.default_rng(17)
    rs = haar(18)
    for j, site in enumerate(SITES):
        v = named_directions(cohort, site)[name]
        v = v / np.linalg.norm(v)
        for i in range(SIBLINGS):
            rs[i, j] = carrying(v, v, rng)
    found = measured.battery(cohort, fits(rs, haar(19)), None)
    assert found.values.max() < 1e-10, "exact, so no number of draws limits it"
    beside = found.beside
    if name != "largest variance":  # an axis onto an axis is one large entry as well
        assert beside["rejected_without_one"] == 0
        assert beside["smallest_without_one"] >= LEVEL
    assert (beside["rejected_with_all_ones_alone"] == len(found.values)) == (name != "mean")
    # each link of the chain keeps it as well
    assert measured.relative(cohort, fits(rs), None).values.max() < 1e-10


# ---- relative rotations


def hidden(h: FloatArray, seed: int) -> FloatArray:
    """R_b = H_b Q^T, with one Haar Q for all."""
    return h @ sample_haar(D, 1, np.random.default_rng(seed))[0].T


def test_the_chain_cancels_the_anchor_in_order() -> None:
    found = measured.relative(unrelated(20), fits(hidden(haar(21), 22)), None)
    assert found.values.min() >= LEVEL
    assert found.labels == tuple(f"{b} {c} {site}" for site in SITES for b, c in pairwise(PAIRS))
    one_and_the_same = np.broadcast_to(haar(23)[:1], haar(23).shape).copy()
    found = measured.relative(unrelated(20), fits(hidden(one_and_the_same, 24)), None)
    assert found.values.max() < 1e-10, "every link is the identity"
    assert found.beside["rejected_without_one"] == len(found.values)


def test_structure_behind_a_random_anchor_shows_in_the_chain_alone() -> None:
    planted = fits(hidden(alternative("block Haar x2", 25), 26), haar(27))
    assert measured.battery(unrelated(28), planted, None).values.min() >= LEVEL
    assert measured.relative(unrelated(28), planted, None).values.max() < LEVEL
