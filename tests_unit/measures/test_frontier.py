"""Everything that is measured, on language models: an exact rotated copy, and unrelated models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from polyrot.dictionaries.sae import Dictionary
from polyrot.language.checkpoints import checkpoints
from polyrot.language.cohort import LanguageCohort
from polyrot.measures import component_effects, drift, editing, transfer
from polyrot.measures.attribution import tabulate
from polyrot.measures.fits import Fits, fit_all
from polyrot.measures.reconstructions import reconstruct
from polyrot.measures.steering import measure_steering
from tests_unit.language.tiny_language import WIDTH, rotated, rotation, tiny, tiny_cohort
from tests_unit.report.planted_figures import frontier as planted_frontier


@pytest.fixture(scope="module")
def cohort() -> LanguageCohort:
    """Three unrelated models of four layers."""
    return tiny_cohort([tiny(seed) for seed in range(3)])


@pytest.fixture(scope="module")
def pair() -> LanguageCohort:
    """An anchor and its exact copy, the stream of which is the anchor's times `rotation()`."""
    anchor = tiny(0, plain_norms=True)
    return tiny_cohort([anchor, rotated(anchor, rotation())], sequences=96)


@pytest.fixture(scope="module")
def fits(pair: LanguageCohort) -> Fits:
    return fit_all(pair)


def axes_dictionary(x: Tensor, k: int = WIDTH // 2) -> Dictionary:
    """Both senses of the k principal axes of x [tokens, d]: it reconstructs what lies in them."""
    mean = x.mean(0)
    axes = torch.linalg.svd(x - mean, full_matrices=False).Vh[:k]
    both = torch.cat([axes, -axes])
    return Dictionary(both.T.contiguous(), torch.zeros(2 * k), both, mean, mean)


def anchors_dictionaries(cohort: LanguageCohort) -> dict[str, Dictionary]:
    return {site: axes_dictionary(cohort.activations("fit", site)[0]) for site in cohort.sites}


# ------------------------------------------------------------------------- a planted rotation


def test_the_copy_is_exact_and_in_another_basis(pair: LanguageCohort) -> None:
    agreement = pair.agreement_with_anchor()
    assert agreement.values[0] == 1
    assert agreement.beside["loss_1"] == pytest.approx(agreement.beside["loss_0"], rel=1e-5)
    assert pair.distinct_fraction() == 1
    a, b = pair.activations("score", "resid_post_1")
    assert float((a - b).norm() / a.norm()) > 0.5
    torch.testing.assert_close(a @ rotation().float(), b, rtol=1e-3, atol=1e-3)


def test_the_planted_rotation_is_found_and_restores_a_dictionary(
    pair: LanguageCohort, fits: Fits
) -> None:
    found = transfer.measure_transfer(pair, fits, anchors_dictionaries(pair))
    for site in pair.sites:
        r = fits.matched[site][0].r
        torch.testing.assert_close(r, rotation().T, atol=2e-3, rtol=0)
    np.testing.assert_allclose(found.rotated_ev.values, found.self_ev.values, atol=1e-4)
    np.testing.assert_allclose(found.pointwise_ev.values, 1, atol=1e-4)
    assert (found.self_ev.values > 0.6).all()
    for worse in (found.naive_ev, found.shuffled_ev):
        assert (worse.values < found.self_ev.values - 0.05).all()


def test_rotated_steering_transfers_at_one_and_naive_does_not(
    pair: LanguageCohort, fits: Fits
) -> None:
    found = measure_steering(pair, fits.matched[pair.steering_site], n_sequences=24, n_random=2)
    for arm in (found.rotated, found.own):
        np.testing.assert_allclose(arm.gain, found.within.gain, rtol=5e-3, atol=5e-3)
        np.testing.assert_allclose(arm.kl, found.within.kl, rtol=5e-3, atol=1e-4)
    np.testing.assert_allclose(found.signed_ratios("rotated", [1.0]).values, 1, atol=0.01)
    assert (np.abs(found.signed_ratios("naive").values - 1) > 0.1).all()


@pytest.mark.parametrize("mlp", ["mlp_1", "mlp_3"])
def test_rotated_edits_transfer_at_one_and_naive_ones_do_not(
    pair: LanguageCohort, fits: Fits, mlp: str
) -> None:
    found = editing.measure_edits(pair, fits.matched, mlp=mlp, n_sequences=24)
    np.testing.assert_allclose(found.transfer("rotated").values, 1, atol=0.01)
    np.testing.assert_allclose(found.transfer("own").values, 1, atol=0.01)
    assert (np.abs(found.transfer("naive").values - 1) > 0.1).all()
    assert all((damage > 0).all() for damage in found.damage.values())


def test_the_copy_has_the_anchors_effects(pair: LanguageCohort) -> None:
    tokens = pair.intervention_tokens(4)
    effects, predicted = (
        [measure(pair, m, tokens).mean for m in (0, 1)]
        for measure in (
            component_effects.mean_ablation_by_block,
            component_effects.patching_by_block,
        )
    )
    torch.testing.assert_close(effects[0], effects[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(predicted[0], predicted[1], rtol=1e-3, atol=1e-4)
    gradients = component_effects.integrated_gradients(pair, 1, tokens, 64)
    assert float(gradients.completeness_error.max()) < 0.05 * float(gradients.measured.abs().max())
    assert not torch.allclose(predicted[0], effects[0], rtol=0.1)


# ------------------------------------------------------------------ everything runs on unrelated


def test_unrelated_models_share_no_basis(cohort: LanguageCohort) -> None:
    fits = fit_all(cohort)
    found = transfer.measure_transfer(cohort, fits, anchors_dictionaries(cohort))
    assert (found.pointwise_ev.at(cohort.internal).values < 0.7).all()
    steering = measure_steering(
        cohort, fits.matched[cohort.steering_site], n_sequences=16, n_random=2
    )
    assert steering.within.gain.shape == (3, 1, 6)
    assert (np.abs(steering.signed_ratios("rotated", [1.0]).values - 1) > 0.02).all()
    edits = editing.measure_edits(cohort, fits.matched, n_sequences=8)
    assert edits.mlp == "mlp_3"
    assert (np.abs(edits.transfer("rotated").values - 1) > 0.02).all()


def test_attributions_are_tabulated(cohort: LanguageCohort) -> None:
    small = tiny_cohort(cohort.models, positions_per_sequence=1)
    table = tabulate(small, models=[0, 2])
    assert table.seeds == (0, 2)
    assert table.measured.shape == (2, 4)
    # 32 steps of a short path in a smooth model all but complete it; one step does not.
    assert (table.agreement().values > 0.99).all()
    assert ((table.orders > 1.5) & (table.orders < 2.5)).all()


def test_checkpoints_are_a_cohort_of_the_steps_in_their_order(cohort: LanguageCohort) -> None:
    tokens = {split: cohort.tokens(split) for split in ("fit", "score")}
    first = tiny(0, plain_norms=True)
    models = [rotated(first, rotation()), first, tiny(5)]
    made = checkpoints("neox", [20, 1, 10], models, tokens, ["by hand"])
    assert made.seeds == (1, 10, 20)
    assert made.contrasts == ()
    found = drift.measure_drift(made)
    assert found.middle == "resid_post_1"
    planted = float((rotation().T - torch.eye(WIDTH).double()).norm())
    np.testing.assert_allclose(found.distance[0, 2], planted, atol=0.02)
    early = axes_dictionary(made.activations("fit", "resid_post_1")[0])
    turned = reconstruct(made, {(0, "resid_post_1"): early})
    j = made.sites.index("resid_post_1")
    own = turned.own[0, j]
    assert turned.rotated[0, 2, j] == pytest.approx(own, abs=1e-4)
    assert turned.naive[0, 2, j] < own - 0.05
    assert turned.rotated[0, 1, j] < own - 0.05  # of the unrelated model
    with pytest.raises(ValueError, match=r"two or more checkpoints, not \[1\]"):
        checkpoints("neox", [1], models[:1], tokens, ["x"])
    with pytest.raises(ValueError, match=r"different checkpoints, not \[1, 1\]"):
        checkpoints("neox", [1, 1], models[:2], tokens, ["x"])
    with pytest.raises(ValueError, match="3 checkpoints for 2 steps"):
        checkpoints("neox", [1, 2], models, tokens, ["x"])


def test_a_figure_that_one_site_alone_has_is_a_line_of_the_table() -> None:
    found = planted_frontier()
    first, second = found.by_site
    rows = {first: {**found.by_site[first], "l0": 3.0}, second: {"steered": 0.25}}
    lines = replace(found, by_site=rows).lines()
    heading = next(i for i, line in enumerate(lines) if line.split() == [first, second])
    table = [line.split() for line in lines[heading + 1 : heading + 5]]
    assert [row[0] for row in table] == ["self_ev", "naive_ev", "l0", "steered"]
    assert table[2:] == [["l0", "3.000", "-"], ["steered", "-", "0.250"]]
