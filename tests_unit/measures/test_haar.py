"""What the claims of section 5 measure, on cohorts with planted rotations."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from polyrot.haar import ALTERNATIVES, DEFAULT_DRAWS, haar_batteries, haar_battery, holm
from polyrot.haar.orthogonal import FloatArray, sample_haar
from polyrot.maps.procrustes import Rotation
from polyrot.measures import haar as measured
from polyrot.measures.haar import LEVEL, named_directions, null_draws

D, SITES, SIBLINGS = 32, ("pre_0", "post_0"), 4
PAIRS = tuple(f"0-{i}" for i in range(1, 1 + SIBLINGS))


class PlantedCohort:
    """Activations [models, tokens, d] by site, one and the same on every split."""

    def __init__(self, activations: dict[str, torch.Tensor]) -> None:
        self._activations = activations
        self.sites = tuple(activations)
        self.seeds = tuple(range(len(next(iter(activations.values())))))

    def activations(self, split: str, site: str) -> torch.Tensor:
        return self._activations[site]


def unrelated(seed: int, d: int = D) -> Any:
    """Models that share nothing: Gaussian activations, each model with a mean of its own."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for site in SITES:
        means = rng.standard_normal((1 + SIBLINGS, 1, d))
        drawn[site] = torch.from_numpy(means + rng.standard_normal((1 + SIBLINGS, 60, d)))
    return PlantedCohort(drawn)


def fits(rs: FloatArray, shuffled: FloatArray | None = None, rank: int | None = None) -> Any:
    """Rotations [pairs, sites, d, d]; at the first site of `rank`, at the others of full rank."""
    d = rs.shape[-1]

    def by_site(stack: FloatArray) -> dict[str, tuple[Rotation, ...]]:
        zero, ones = torch.zeros(d), torch.ones(d)
        return {
            site: tuple(
                Rotation(torch.from_numpy(r), zero, zero, ones, rank if rank and not j else d)
                for r in stack[:, j]
            )
            for j, site in enumerate(SITES)
        }

    return SimpleNamespace(
        pairs=PAIRS[: len(rs)],
        sites=SITES,
        matched=by_site(rs),
        shuffled=by_site(rs if shuffled is None else shuffled),
    )


def haar(seed: int, d: int = D) -> FloatArray:
    drawn = sample_haar(d, SIBLINGS * len(SITES), np.random.default_rng(seed))
    return drawn.reshape(SIBLINGS, len(SITES), d, d)


def alternative(name: str, seed: int, d: int = D) -> FloatArray:
    rng = np.random.default_rng(seed)
    return np.stack([[ALTERNATIVES[name](d, rng) for _ in SITES] for _ in range(SIBLINGS)])


def shared_subspace(seed: int) -> FloatArray:
    """One random subspace of d/4, the same for all, stays; its complement is turned by Haar."""
    rng = np.random.default_rng(seed)
    v = sample_haar(D, 1, rng)[0]
    inner = np.stack([np.eye(D)] * SIBLINGS * len(SITES))
    inner[:, D // 4 :, D // 4 :] = sample_haar(D - D // 4, len(inner), rng)
    return (v @ inner @ v.T).reshape(SIBLINGS, len(SITES), D, D)


def carrying(source: FloatArray, target: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A rotation with source^T R = target^T, else Haar."""

    def basis(first: FloatArray) -> FloatArray:
        q = np.linalg.qr(np.column_stack([first, rng.standard_normal((len(first), D - 1))]))[0]
        return q * np.sign(q[:, 0] @ first)

    inner = np.eye(D)
    inner[1:, 1:] = sample_haar(D - 1, 1, rng)[0]
    return basis(source) @ inner @ basis(target).T


# ---- draws of the null tables


@pytest.mark.parametrize("matrices", [1, 20, 28, 29, 56, 300])
def test_so_many_draws_can_reject_every_matrix_after_holm(matrices):
    draws = null_draws(matrices)
    floor = haar_battery(np.eye(4), draws=100).p_floor * 101 / (draws + 1)
    assert holm(np.full(matrices, floor)).max() <= LEVEL / 1.39
    assert (draws == DEFAULT_DRAWS) == (matrices <= 28)


def test_default_draws_cannot_reject_fifty_six_matrices_and_those_chosen_can():
    # seen by the spectrum alone, so that no exact law helps
    v = sample_haar(12, 1, np.random.default_rng(1))[0]
    r = v @ np.roll(np.eye(12), 1, axis=0) @ v.T
    vectors = {"a": np.eye(12)[0], "b": np.ones(12), "c": np.eye(12)[1]}
    for draws, rejected in ((DEFAULT_DRAWS, False), (null_draws(56), True)):
        found = haar_battery(r, vectors=vectors, draws=draws)
        assert found.p_value == pytest.approx(found.p_floor)
        assert (56 * found.p_value < LEVEL) == rejected


# ---- named directions


def test_directions_are_the_anchors():
    x = torch.randn(3, 50, 5, generator=torch.Generator().manual_seed(0))
    x[0, :, 3] *= 9
    x[0, :, 4] += 100
    x[1, :, 1] *= 99
    found = named_directions(PlantedCohort({"s": x}), "s")
    assert set(found) == {"all-ones", "mean", "largest variance"}
    assert found["largest variance"].tolist() == [0, 0, 0, 1, 0], "variance, not size"
    assert found["mean"][4] / np.linalg.norm(found["mean"]) == pytest.approx(1, abs=0.01)


def test_copies_turned_by_haar_pass_though_they_share_mean_and_variances():
    """Their means are carried onto the anchor's exactly; that is no property of R's law."""
    rs, drawn = haar(25), {}
    for j, site in enumerate(SITES):
        anchor = unrelated(26).activations("fit", site)[0] * torch.linspace(0.2, 3, D) + 1
        copies = [anchor @ torch.from_numpy(rs[i, j]).T for i in range(SIBLINGS)]
        drawn[site] = torch.stack([anchor, *copies])
    cohort = PlantedCohort(drawn)
    assert measured.battery(cohort, fits(rs, haar(27)), None).values.min() >= LEVEL
    assert measured.relative(cohort, fits(rs), None).values.min() >= LEVEL


def test_further_directions_keep_the_level_and_cost_the_other_statistics_nothing():
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


def test_haar_rotations_pass():
    planted = fits(haar(3), haar(4))
    found = measured.battery(unrelated(5), planted, None)
    assert found.labels == measured.labels(planted)
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
def test_what_is_not_haar_is_rejected_everywhere(rs):
    found = measured.battery(unrelated(8), fits(haar(9), rs), None)
    assert found.values.min() >= LEVEL
    assert found.beside["shuffled_rejected_share"] == 1
    found = measured.battery(unrelated(8), fits(rs, haar(9)), None)
    assert found.values.max() < LEVEL
    assert found.beside["rejected"] == found.beside["rejected_without_one"] == len(found.values)
    assert found.beside["shuffled_rejected_share"] == 0


def test_the_spectrum_is_judged_at_both_tails():
    even = fits(alternative("cyclic shift", 10))
    found = measured.calibrated_spectrum(even, None)
    assert found.values.max() < LEVEL
    assert found.beside["published_smallest_p"] > 0.5, "the published test accepts them"
    assert measured.calibrated_spectrum(fits(shared_subspace(11)), None).values.max() < LEVEL


def test_values_missed_at_full_rank_are_counted_apart():
    rs = haar(12)
    rs[:, 0] = alternative("permutation", 13)[:, 0]
    rs[0, 1] = np.roll(np.eye(D), 1, axis=0)
    planted = fits(rs, haar(14), rank=D - 1)
    for found in (
        measured.battery(unrelated(15), planted, None),
        measured.calibrated_spectrum(planted, None),
    ):
        assert found.beside["at_full_rank"] == SIBLINGS
        assert found.beside["rejected_at_full_rank"] == 1
        assert found.beside["rejected_share"] == found.beside["rejected"] / len(found.values)
    found = measured.battery(unrelated(15), planted, None)
    assert found.beside["rejected_without_one"] == SIBLINGS + 1
    assert found.beside["rejected_without_one_at_full_rank"] == 1
    relative = measured.relative(unrelated(15), planted, None)
    assert relative.beside["at_full_rank"] == SIBLINGS - 1


@pytest.mark.parametrize("name", ["mean", "largest variance", "all-ones"])
def test_a_carried_direction_is_seen_by_one_and_said_to_be(name):
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


def test_the_chain_cancels_the_anchor_in_order():
    found = measured.relative(unrelated(20), fits(hidden(haar(21), 22)), None)
    assert found.values.min() >= LEVEL
    assert found.labels == tuple(f"{b} {c} {site}" for site in SITES for b, c in pairwise(PAIRS))
    one_and_the_same = np.broadcast_to(haar(23)[:1], haar(23).shape).copy()
    found = measured.relative(unrelated(20), fits(hidden(one_and_the_same, 24)), None)
    assert found.values.max() < 1e-10, "every link is the identity"
    assert found.beside["rejected_without_one"] == len(found.values)


def test_structure_behind_a_random_anchor_shows_in_the_chain_alone():
    planted = fits(hidden(alternative("block Haar x2", 25), 26), haar(27))
    assert measured.battery(unrelated(28), planted, None).values.min() >= LEVEL
    assert measured.relative(unrelated(28), planted, None).values.max() < LEVEL


# ---- the published figures


def test_mean_ratio_is_one_for_haar_and_zero_for_the_identity():
    found = measured.mean_ratio(fits(haar(40)))
    assert found.values[0] == pytest.approx(1, abs=0.02)
    assert found.beside["percentile_10"] < found.values[0] < found.beside["percentile_90"]
    same = np.broadcast_to(np.eye(D), haar(40).shape).copy()
    assert measured.mean_ratio(fits(same)).values.tolist() == [0.0]


@pytest.mark.parametrize("statistic", [measured.pooled_mean_cosine, measured.nearest_permutation])
def test_haar_meets_the_pooled_statistics_and_near_permutations_do_not(statistic):
    assert statistic(fits(haar(41)), None).values[0] >= LEVEL
    near = alternative("permutation", 42)
    near[0, 0] = np.eye(D)  # a trace of d, which permutations rarely have
    assert statistic(fits(near), None).values[0] < LEVEL


def hanging_together(seed: int) -> FloatArray:
    """Each pair's sites share one Haar draw, but for a slight turn of each."""
    rs = haar(seed)
    return np.broadcast_to(rs[:, :1], rs.shape).copy()


def test_sites_that_hang_together_do_not_count_as_independent():
    found = [
        (measured.pooled_mean_cosine(f, None), measured.nearest_permutation(f, None))
        for f in (fits(hanging_together(seed)) for seed in range(50, 74))
    ]
    for which, beside in enumerate(("p_with_sites_dependent", "p_with_pairs_as_draws")):
        naive = np.mean([row[which].values[0] < 0.1 for row in found])
        cautious = np.mean([row[which].beside[beside] < 0.1 for row in found])
        assert cautious <= 0.1 + 2.4 * (0.1 * 0.9 / 24) ** 0.5
        assert naive > cautious
    near = alternative("permutation", 43)
    assert measured.nearest_permutation(fits(near), None).beside["p_with_pairs_as_draws"] < LEVEL
    same = np.broadcast_to(np.eye(D), near.shape).copy()
    planted = measured.pooled_mean_cosine(fits(same), None)
    assert planted.beside["p_with_sites_dependent"] < LEVEL


# ---- the published criteria, and controls


def test_special_fraction_counts_determinants():
    rng = np.random.default_rng(29)
    proper = sample_haar(8, 8, rng, 1).reshape(4, 2, 8, 8)
    assert measured.special_fraction(fits(proper)).values.tolist() == [1.0]
    proper[0, 1] = sample_haar(8, 1, rng, -1)[0]
    found = measured.special_fraction(fits(proper))
    assert found.values.tolist() == [7 / 8]
    assert found.beside["det_0-1 post_0"] == -1
    assert found.beside["det_0-1 pre_0"] == 1


def test_shuffled_failures_are_of_the_published_criteria():
    passing = alternative("cyclic shift", 0, 64)
    failing = np.broadcast_to(np.eye(64), passing.shape).copy()
    found = measured.shuffled_failures(fits(passing, failing))
    assert found.values.tolist() == [1.0]
    assert found.beside["fails_ks"] == found.beside["fails_frobenius"] == 1
    found = measured.shuffled_failures(fits(failing, passing))
    assert found.values.tolist() == [0.0]
    assert 0 < found.beside["haar_fails"] < 0.5


def test_a_model_against_itself_is_rejected_and_a_haar_fit_would_not_be(monkeypatch):
    found = measured.same_model_rejections(unrelated(30, 16), None)
    assert found.values.tolist() == [1.0]
    assert found.beside["largest_p"] < LEVEL
    drawn = iter(sample_haar(16, len(SITES), np.random.default_rng(31)))
    monkeypatch.setattr(
        measured, "fit_rotation", lambda a, b: SimpleNamespace(r=torch.from_numpy(next(drawn)))
    )
    assert measured.same_model_rejections(unrelated(30, 16), None).values.tolist() == [0.0]


def test_the_published_test_passes_its_alternatives_and_fails_a_gross_one(monkeypatch):
    found = measured.alternatives_that_fail(64, 2)
    assert set(found.beside) == set(measured.PUBLISHED_ALTERNATIVES)
    assert found.beside["cyclic shift"] == 0
    assert found.values[0] == pytest.approx(np.mean(list(found.beside.values())))
    monkeypatch.setattr(measured, "PUBLISHED_ALTERNATIVES", ("half drift exp(tA)",))
    assert measured.alternatives_that_fail(64, 2).values.tolist() == [1.0]


def test_permutation_figure_is_compared_with_the_signed_distance():
    near = measured.permutation_figure_gap(9.383, 64)
    assert near.values[0] < 0.05
    assert near.beside["haar_unsigned"] == pytest.approx(9.623, abs=0.05)
    assert measured.permutation_figure_gap(9.0, 64).values[0] == pytest.approx(0.383, abs=0.05)


def features(shared: bool, seed: int, d: int = 12, tokens: int = 2_000) -> Any:
    """Models in bases of their own, with graded Gaussian features: the same, or each its own."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** -np.linspace(0, 1, d)
    drawn = {}
    for site in SITES:
        own = rng.standard_normal((3, tokens, d))
        common = rng.standard_normal((tokens, d)) + 0.05 * own if shared else own
        drawn[site] = torch.from_numpy(common * scale @ sample_haar(d, 3, rng) + 3.0)
    return PlantedCohort(drawn)


def test_shared_features_show_with_matched_tokens_only():
    found = measured.shared_features(features(True, 32), None, SITES, variance=1.0)
    assert found.values.tolist() == [1.0]
    assert found.beside["matched_rejected"] == 1
    assert found.beside["shuffled_rejected"] == 0
    assert found.beside["rank_pre_0"] == 12


def test_unrelated_features_show_with_neither():
    found = measured.shared_features(features(False, 33), None, SITES, variance=1.0)
    assert found.values.tolist() == [0.0]
    assert found.beside["matched_rejected"] == found.beside["shuffled_rejected"] == 0
