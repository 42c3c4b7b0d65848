"""Each place that reads a split reads its own: the cohort's splits differ in law, map and noise."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from polyrot.cohorts.cohort import SPLITS
from polyrot.cohorts.interventions import InterventionCohort
from polyrot.dictionaries import collection, groups, sparsity
from polyrot.dictionaries.sae import Dictionary
from polyrot.dictionaries.sparsity import Choice
from polyrot.dictionaries.training import Schedule
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.procrustes import fit_rotation, principal_basis
from polyrot.measures import cosine, drift, fits as rotations, transfer as transfers
from polyrot.measures.component_effects import integrated_gradients
from polyrot.measures.editing import key_moments
from polyrot.measures.effects import DOSES
from polyrot.measures.fits import Fits
from polyrot.measures.haar.calibrated import named_directions
from polyrot.measures.reconstructions import reconstruct
from polyrot.measures.transfer import Transfer
from polyrot.runtime.seeding import derive
from polyrot.toy import task
from tests_unit.maps.rotated_pair import strong_params
from tests_unit.toy.few_sequences import few_sequences
from tests_unit.worlds.evidence import Interventions, of
from tests_unit.worlds.losses import LOSSES
from tests_unit.worlds.networks import NETWORKS, SITES, TinyRun
from tests_unit.worlds.splits import MAJOR, TOKENS, Apart, D, law_of, map_of
from tests_unit.worlds.toys import Toys

SITE = Apart.sites[1]


@pytest.fixture(scope="module")
def apart() -> Apart:
    return Apart()


@pytest.fixture(scope="module")
def fits(apart: Apart) -> Fits:
    apart.read()
    found = rotations.fit_all(apart)
    assert apart.read() == {"fit"}
    return found


@pytest.fixture(scope="module")
def transfer(apart: Apart, fits: Fits) -> Transfer:
    apart.read()
    found = transfers.measure_transfer(apart, fits, apart.saes())
    assert apart.read() == {"fit", "score"}  # the law of the noise is the fit split's
    return found


def test_maps_are_those_of_the_fit_split(apart: Apart, fits: Fits) -> None:
    anchor, *siblings = apart.activations("fit", SITE)
    for i, sibling in enumerate(siblings):
        planted = map_of("fit", SITE, i + 1).T
        assert (fits.matched[SITE][i].r - planted).norm() < 0.3
        for half in fits.halves[SITE]:
            assert (half[i].r - planted).norm() < 0.5
        torch.testing.assert_close(fits.affine[SITE][i].apply(sibling), anchor, atol=0.5, rtol=0)
        for found in (fits.shift[SITE][i], fits.shuffled[SITE][i], fits.principal[SITE][i]):
            torch.testing.assert_close(found.mean_a.float(), sibling.mean(0), atol=1e-4, rtol=0)
            torch.testing.assert_close(found.mean_b.float(), anchor.mean(0), atol=1e-4, rtol=0)


def test_halves_are_two_halves(apart: Apart, fits: Fits) -> None:
    anchor, sibling, _ = apart.activations("fit", SITE)
    half = len(anchor) // 2
    wanted = (
        fit_rotation(sibling[:half], anchor[:half]),
        fit_rotation(sibling[half:], anchor[half:]),
    )
    for found, each in zip(fits.halves[SITE], wanted, strict=True):
        torch.testing.assert_close(found[0].r, each.r, atol=1e-9, rtol=0)
        assert (found[0].r - fits.matched[SITE][0].r).norm() > 1e-6


def test_a_shuffle_relates_nothing(fits: Fits) -> None:
    shuffled, matched = fits.shuffled[SITE], fits.matched[SITE]
    for each, other in zip(shuffled, matched, strict=True):
        # Of matched tokens every direction covaries; of shuffled ones none beyond noise.
        assert each.singular_values.sum() < 0.3 * other.singular_values.sum()
    assert (shuffled[0].r - shuffled[1].r).norm() > 1  # shuffled anew for each pair


def test_scores_are_those_of_the_score_split(apart: Apart, fits: Fits, transfer: Transfer) -> None:
    sae, j = apart.saes()[SITE], 1
    anchor, *siblings = apart.activations("score", SITE)
    assert transfer.self_ev.values[0, j] == pytest.approx(
        explained_variance(anchor, sae(anchor)), abs=1e-6
    )
    assert transfer.self_ev.counts["tokens"] == TOKENS["score"]
    for i, sibling in enumerate(siblings):
        for name, x in (
            ("naive_ev", sibling),
            ("rotated_ev", fits.matched[SITE][i].apply(sibling)),
            ("shifted_ev", fits.shift[SITE][i].apply(sibling)),
            ("shuffled_ev", fits.shuffled[SITE][i].apply(sibling)),
            ("principal_ev", fits.principal[SITE][i].apply(sibling)),
        ):
            wanted = explained_variance(x, sae(x))
            assert getattr(transfer, name).values[i, j] == pytest.approx(wanted, abs=1e-6), name
        for name, each in (("pointwise_ev", fits.matched), ("affine_ev", fits.affine)):
            wanted = explained_variance(anchor, each[SITE][i].apply(sibling))
            assert getattr(transfer, name).values[i, j] == pytest.approx(wanted, abs=1e-6), name


def test_ceilings_are_of_copies_fitted_and_scored_apart(apart: Apart, transfer: Transfer) -> None:
    seed, n = rotations.NULL_DRAWS_SEED, transfers.COPIES
    copies = transfers.ExactCopies(apart, apart.sites, n, derive(seed, "exact copies"))
    exact = rotations.fit_all(copies, derive(seed, "fits of exact copies"))
    sae, score = apart.saes()[SITE], copies.activations("score", SITE)
    for split in SPLITS:
        anchor = apart.activations(split, SITE)[0]
        same, *turned = copies.activations(split, SITE)
        assert torch.equal(same, anchor)
        for x in turned:
            torch.testing.assert_close(x @ x.T, anchor @ anchor.T, atol=1e-3, rtol=1e-4)
            assert (x - anchor).norm() > 0.5 * anchor.norm()
    for name, maps in (("shuffled_ev", exact.shuffled), ("principal_ev", exact.principal)):
        mapped = [maps[SITE][i].apply(score[i + 1]) for i in range(n)]
        wanted = np.mean([explained_variance(x, sae(x)) for x in mapped])
        assert getattr(transfer, name).ceiling[1] == pytest.approx(wanted, abs=1e-6), name
        assert abs(wanted - transfer.rotated_ev.ceiling[1]) > 1e-3  # type: ignore[index]
    found = transfer.pointwise_ev.ceiling
    assert found is not None
    np.testing.assert_allclose(found, 1, atol=1e-6)


def test_a_map_that_differs_between_splits_does_not_carry_over(transfer: Transfer) -> None:
    assert (transfer.pointwise_ev.values < 0.2).all()
    assert (transfer.affine_ev.values < 0.2).all()


def test_noise_has_the_anchors_law_of_the_fit_split(apart: Apart, fits: Fits) -> None:
    class Spy:
        """A dictionary that keeps what it is shown."""

        def __init__(self) -> None:
            self.seen: list[Tensor] = []

        def __call__(self, x: Tensor) -> Tensor:
            self.seen.append(x)
            return x

    spies = {site: Spy() for site in apart.sites}
    transfers.measure_transfer(apart, fits, cast(dict[str, Dictionary], spies))
    anchor, noise, permuted = spies[SITE].seen[:3]
    assert torch.equal(anchor, apart.activations("score", SITE)[0])
    assert torch.equal(permuted.sort(0).values, anchor.sort(0).values)
    assert not torch.equal(permuted, anchor)
    # Neither the score split's law nor that of a sibling.
    laws = [apart.activations(split, SITE)[m] for split in SPLITS for m in range(3)]
    off = [float((noise.mean(0) - x.mean(0)).norm()) for x in laws]
    spread = [float((torch.cov(noise.T) - torch.cov(x.T)).norm()) for x in laws]
    own = 3 * SPLITS.index("fit")
    for each in (off, spread):
        nearest, second = np.sort(each)[:2]
        assert each[own] == nearest < second / 3


def test_the_share_that_a_shift_closes_is_of_the_whole_gap(transfer: Transfer) -> None:
    own, naive, shifted = (
        t.values for t in (transfer.self_ev, transfer.naive_ev, transfer.shifted_ev)
    )
    found = transfer.gap_closed_by_shift(transfer.self_ev.sites).values
    np.testing.assert_allclose(found, ((shifted - naive) / (own - naive)).mean(0))


def test_dictionaries_are_trained_on_their_split(apart: Apart) -> None:
    group = groups.own(apart, Schedule(steps=1))
    apart.read()
    x, source = collection.training_data(apart, group, group.specs)
    assert apart.read() == {"dictionary"}
    for spec, at in zip(group.specs, source, strict=True):
        assert torch.equal(x[at], apart.activations("dictionary", spec.site)[spec.model])


def reader(direction: Tensor, origin: Tensor) -> Dictionary:
    """One feature, which fires where a token lies beyond `origin` along `direction` [d]."""
    one = direction[None] / direction.norm()
    return Dictionary(one.T, torch.zeros(1), one, origin, origin)


def test_a_feature_lives_by_what_its_own_model_does_on_the_score_split(apart: Apart) -> None:
    x = {split: apart.activations(split, SITE) for split in SPLITS}
    along = torch.eye(D)[0]

    def beyond(part: Tensor) -> Tensor:
        """A point beyond which no token of `part` lies."""
        return along * (part[:, 0].max() + 1e-3)

    parts = {"score, own": x["score"][1], "fit, own": x["fit"][1], "score, anchor": x["score"][0]}
    for name, part in parts.items():
        sae = reader(along, beyond(part))
        apart.read()
        live = cosine.live_features(apart, {(1, SITE): sae})[1, SITE]
        assert apart.read() == {"score"}
        assert bool(live[0]) == bool((x["score"][1][:, 0] > sae.b_in[0]).any()), name
        assert bool(live[0]) == (part[:, 0].max() < x["score"][1][:, 0].max() - 1e-3), name


def test_columns_are_matched_among_those_alive_in_their_own_dictionary(
    apart: Apart, fits: Fits
) -> None:
    shared, other, third = torch.eye(D)[:3]
    r = fits.matched[SITE][0].r.float()

    def pair(alive: Tensor, dead: Tensor, first: bool) -> Dictionary:
        """Two columns; the first is alive on every token and the second on none, or the reverse."""
        columns = torch.stack([alive, dead] if first else [dead, alive])
        bias = torch.tensor([1e3, -1e3] if first else [-1e3, 1e3])
        return Dictionary(0 * columns.T, bias, columns, torch.zeros(D), torch.zeros(D))

    saes = {
        (0, SITE): pair(shared, other, first=False),
        (1, SITE): pair(r @ shared, r @ third, first=True),
        (2, SITE): pair(r @ third, r @ shared, first=True),
    }
    again = {SITE: pair(shared, third, first=True)}
    choices = {SITE: Choice(l1=1e-3, l0=1.0, ev=0.95, admissible=True)}
    found = cosine.universality(apart, saes, again, fits, choices).beside
    assert found[f"two_starts_{SITE}"] == 1
    # Sibling 1 has the shared column alive; sibling 2, whose map is another, has it dead.
    by_sibling = cosine.universality(apart, saes, again, fits, choices).values[:, 0]
    assert by_sibling[0] > 0.5 > by_sibling[1]
    raw = {**saes, (1, SITE): pair(shared, third, True), (2, SITE): pair(third, shared, True)}
    live = cosine.agreement(apart, raw, [SITE]).live_fraction.values[:, 0]
    np.testing.assert_array_equal(live, [1, 0])


def test_sparsity_is_chosen_by_the_data_it_is_given() -> None:
    x = law_of("fit", SITE).draw(500, "sparsity")
    features = law_of("fit", SITE)
    grid = {}
    for l1, known in ((0.1, D), (0.2, MAJOR), (0.4, 1)):
        w = features.features[:, :known]
        off = torch.full((known,), -1e-3)  # a feature that is not active is not rounding either
        grid[groups.Spec(0, SITE, 0, l1)] = Dictionary(
            w, off, w.T, features.origin, features.origin
        )
    chosen = sparsity.choose_l1(grid, x, SITE, l0=(1.0, 3.0))
    # A quarter of the features is active: an L0 of 4, of 2 and of a quarter.
    assert chosen.l1 == 0.2
    assert chosen.admissible
    assert sparsity.choose_l1(grid, x, SITE, l0=(3.5, 9.0)).l1 == 0.1
    # Of several that are sparse enough, the one that explains most.
    assert sparsity.choose_l1(grid, x, SITE, l0=(1.0, 9.0)).l1 == 0.1
    poor = sparsity.choose_l1(grid, x, SITE, l0=(0.01, 0.9))
    assert poor.l1 == 0.4
    assert not poor.admissible


def test_directions_and_whitened_maps_are_of_the_fit_split(apart: Apart) -> None:
    apart.read()
    found = named_directions(apart, SITE)
    assert apart.read() == {"fit"}
    x = apart.activations("fit", SITE)[0]
    mean, loudest = (np.asarray(found[name]) for name in ("mean", "largest variance"))
    np.testing.assert_allclose(mean, x.double().mean(0).numpy(), atol=1e-6)
    assert loudest.argmax() == int(x.var(0).argmax())


def test_a_run_is_fitted_and_scored_apart(apart: Apart) -> None:
    run, sae = Apart(seeds=(1, 50, 100)), reader(torch.ones(D), torch.zeros(D))
    drifted = drift.measure_drift(run)
    assert run.read() == {"fit"}
    wanted = fit_rotation(*run.activations("fit", SITE)[[0, 2]]).r
    distance = float((wanted - torch.eye(D)).norm())
    assert drifted.distance[0, 2, 1] == pytest.approx(distance, abs=1e-6)
    covariance = torch.cov(run.activations("fit", SITE)[0].T.double(), correction=0)
    assert drifted.dimensions[0, 1] == principal_basis(covariance, drift.SHARE).shape[1]
    run.read()
    found = reconstruct(run, {(0, SITE): sae})
    assert run.read() == {"fit", "score"}
    fit, score = run.activations("fit", SITE), run.activations("score", SITE)
    turned = fit_rotation(fit[2], fit[0]).apply(score[2])
    assert found.own[0, 1] == pytest.approx(explained_variance(score[0], sae(score[0])))
    assert found.naive[0, 2, 1] == pytest.approx(explained_variance(score[2], sae(score[2])))
    assert found.rotated[0, 2, 1] == pytest.approx(explained_variance(turned, sae(turned)))


def test_keys_are_of_the_fit_split() -> None:
    network = NETWORKS["rotated network"]
    tokens = network.tokens("fit")
    keys = key_moments(network, "mlp_2")
    for m, own in enumerate(network.models):
        run = TinyRun(own, tokens[:320], network.labels(tokens[:320]), torch.float32)
        h = run.keys("mlp_2")[run.kept].double()
        torch.testing.assert_close(keys.covariance[m], h.T @ h / len(h), atol=1e-4, rtol=1e-4)
    assert network.mlps["mlp_2"] == SITES[3]


def test_gradients_are_taken_at_the_middles_of_the_path() -> None:
    tokens = torch.zeros(4, 3, dtype=torch.long)
    for name, order in (("loss at its minimum", 2), ("cubic loss", 3)):
        loss = LOSSES[name]
        found = integrated_gradients(
            cast(InterventionCohort, loss), 0, tokens, 8, dtype=torch.float64
        )
        slope, curve = torch.tensor(loss.slope).double(), torch.tensor(loss.curve).double()
        torch.testing.assert_close(found.measured, slope + curve, atol=1e-9, rtol=0)
        # Midpoints are exact where the gradient is a straight line, for t^3 off by 1 / (4 n^2).
        off = 0 if order == 2 else curve / (4 * 8**2)
        torch.testing.assert_close(found.effects, slope + curve - off, atol=1e-9, rtol=0)


def test_effects_are_over_the_anchors() -> None:
    world = of("unrelated networks")  # of copies a sibling's own effect is the anchor's as well
    assert isinstance(world, Interventions)
    steering, edits = world.steering, world.edits
    doses = [steering.doses.index(dose) for dose in DOSES]
    within, own = steering.within.gain[:, :, doses], steering.own.gain[:, :, doses]
    assert np.abs(own / within - 1).min() > 0.01
    for arm in ("naive", "rotated"):
        ratio = (getattr(steering, arm).gain[:, :, doses] / within).mean(1)
        found = steering.signed_ratios(arm).values
        np.testing.assert_allclose(found, ratio.mean(1))
        for contrast, row in zip(steering.contrasts, ratio, strict=True):
            each = [steering.signed_ratio(contrast, dose, arm).values[0] for dose in DOSES]
            np.testing.assert_allclose(each, row)
    kl = (steering.naive.kl / steering.within.kl)[:, :, doses].mean(1)
    np.testing.assert_allclose(steering.kl_ratios().values, kl.ravel())
    gain = edits.gain["rotated"] / edits.gain["within"]
    np.testing.assert_allclose(edits.transfer("rotated").values, gain.mean(1))


def test_models_agree_as_far_as_their_worst_head() -> None:
    other = {**strong_params(), "unembed_depth": strong_params(5)["unembed_depth"]}
    with few_sequences():
        found = Toys("another depth", other).agreement_with_anchor()
    by_head = [float(found.beside[f"mean_{head}"]) for head in task.HEADS]
    assert found.values[0] == pytest.approx(min(by_head))
    assert min(by_head) < 0.9 < max(by_head)
