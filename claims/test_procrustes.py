"""Section 4: one orthogonal rotation repairs what naive transfer broke, and what else would.

Formulas: polyrot/measures/transfer.py, polyrot/measures/fits.py, polyrot/maps/procrustes.py,
polyrot/maps/explained_variance.py.
"""

import pytest

from polyrot.measures.transfer import rank_of, spread_over_sites


@pytest.mark.claim("procrustes.recovers")
def test_one_rotation_restores_reconstruction(cohort, transfer, verdict):
    verdict(
        transfer.rotated_ev.at(cohort.internal)
        .also(ev_grand=transfer.rotated_ev_grand.at(cohort.internal).values.min())
        .each(),
        over="pairs x internal sites",
    )


@pytest.mark.claim("procrustes.recovers_language_model")
def test_one_rotation_restores_reconstruction_in_a_language_model(transfer, verdict):
    verdict(transfer.rotated_ev.mean_over_pairs(), over="sites")


@pytest.mark.claim("procrustes.near_ceiling")
def test_rotated_score_is_near_the_anchors_own(cohort, transfer, verdict):
    verdict(
        (transfer.self_ev - transfer.rotated_ev).at(cohort.internal).each(),
        over="pairs x internal sites",
    )


@pytest.mark.claim("procrustes.uniform_across_sites")
def test_recovery_is_uniform(cohort, transfer, verdict):
    verdict(spread_over_sites(transfer.rotated_ev.at(cohort.internal)))


@pytest.mark.claim("procrustes.weakest_before_first_block")
def test_weakest_site_is_before_the_first_block(cohort, transfer, verdict):
    verdict(rank_of(cohort.sites[0], transfer.rotated_ev))


@pytest.mark.claim("procrustes.orthogonal_is_enough")
def test_affine_map_gains_little(cohort, transfer, verdict):
    verdict(
        (transfer.affine_ev - transfer.pointwise_ev).at(cohort.internal).mean_over_pairs(),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.pointwise_alignment")
def test_rotation_carries_each_token_onto_itself(cohort, transfer, verdict):
    verdict(
        transfer.pointwise_ev.at(cohort.internal).mean_over_pairs(),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.shuffled_tokens_control")
def test_shuffled_tokens_do_not_recover(cohort, transfer, verdict):
    verdict(
        (transfer.rotated_ev - transfer.shuffled_ev).at(cohort.internal).mean_over_pairs(),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.covariance_only_control")
def test_matching_principal_axes_does_not_recover(cohort, transfer, verdict):
    verdict(
        (transfer.rotated_ev - transfer.principal_ev).at(cohort.internal).mean_over_pairs(),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.untrained_control")
def test_untrained_siblings_recover_less(cohort, transfer, untrained_transfer, verdict):
    verdict(
        transfer.recovery_beyond(untrained_transfer, cohort.internal).mean_over_pairs(),
        over="internal sites, mean over pairs",
    )
