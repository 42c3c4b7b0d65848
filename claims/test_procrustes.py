"""Section 4: one orthogonal rotation repairs what naive transfer broke, and what else would.

Formulas: polyrot/measures/transfer.py, polyrot/measures/published_scores.py,
polyrot/measures/scaled.py, polyrot/measures/chain.py, polyrot/measures/growth.py,
polyrot/measures/fits.py, polyrot/maps/procrustes.py, polyrot/maps/explained_variance.py.
"""

import pytest

from polyrot import measures
from polyrot.measured import with_pipeline


@pytest.mark.claim("procrustes.recovers")
def test_one_rotation_restores_reconstruction(cohort, transfer, transfer_of_pipeline, verdict):
    def recovered(found):
        grand = found.rotated_ev_grand.at(cohort.internal).values.min()
        return found.rotated_ev.at(cohort.internal).also(ev_grand=grand).each()

    verdict(
        with_pipeline(recovered, transfer, transfer_of_pipeline),
        over="pairs x internal sites",
    )


@pytest.mark.claim("procrustes.recovers_language_model")
def test_one_rotation_restores_reconstruction_in_a_language_model(transfer, verdict):
    grand = transfer.rotated_ev_grand.mean_over_pairs().values.min()
    verdict(transfer.rotated_ev.mean_over_pairs().also(ev_grand=grand), over="sites")


@pytest.mark.claim("procrustes.recovers_as_published")
def test_one_rotation_restores_as_published(cohort, scores_as_published, verdict):
    verdict(
        scores_as_published.rotated(cohort.internal),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.recovers_language_model_as_published")
def test_one_rotation_restores_a_language_model_as_published(cohort, scores_as_published, verdict):
    verdict(scores_as_published.rotated(cohort.sites), over="sites, mean over pairs")


@pytest.mark.claim("procrustes.near_ceiling_as_published")
def test_rotated_score_is_near_the_anchors_own_as_published(cohort, scores_as_published, verdict):
    verdict(
        scores_as_published.short_of_own(cohort.internal),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.near_ceiling")
def test_rotated_score_is_near_the_anchors_own(cohort, transfer, transfer_of_pipeline, verdict):
    def short_of_own(found):
        grand = found.rotated_ev_grand.at(cohort.internal).values.min()
        short = (found.self_ev - found.rotated_ev).at(cohort.internal)
        return short.also(rotated_ev_grand=grand).each()

    verdict(
        with_pipeline(short_of_own, transfer, transfer_of_pipeline),
        over="pairs x internal sites",
    )


@pytest.mark.claim("procrustes.uniform_across_sites")
def test_recovery_is_uniform(cohort, transfer, verdict):
    rotated, grand = (
        table.at(cohort.internal) for table in (transfer.rotated_ev, transfer.rotated_ev_grand)
    )
    verdict(
        measures.transfer.spread_over_sites(rotated).also(
            ev_grand=measures.transfer.lowest_site(grand).values[0],
            spread_by_ev_grand=measures.transfer.spread_over_sites(grand).values[0],
        )
    )


@pytest.mark.claim("procrustes.weakest_before_first_block")
def test_weakest_site_is_before_the_first_block(cohort, transfer, verdict):
    site, grand = cohort.sites[0], transfer.rotated_ev_grand
    verdict(
        measures.transfer.rank_of(site, transfer.rotated_ev).also(
            ev_grand=measures.transfer.site_means(grand)[site],
            rank_by_ev_grand=measures.transfer.rank_of(site, grand).values[0],
        )
    )


@pytest.mark.claim("procrustes.orthogonal_is_enough")
def test_affine_map_gains_little(cohort, transfer, verdict):
    verdict(
        (transfer.affine_ev - transfer.pointwise_ev).at(cohort.internal).mean_over_pairs(),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.similarity_is_enough")
def test_similarity_is_enough(cohort, transfer, scaled, verdict):
    verdict(
        scaled.gained_by_affine(transfer.affine_ev, cohort.internal),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.recovers_with_scale")
def test_one_rotation_recovers_with_scale(cohort, scaled, verdict):
    verdict(
        scaled.recovered(cohort.internal).mean_over_pairs(),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.composes")
def test_rotation_composes_by_way_of_the_anchor(cohort, chain, verdict):
    verdict(
        chain.lost_by_way_of_the_anchor(cohort.internal),
        over="internal sites, mean over a chain of siblings",
    )


@pytest.mark.claim("procrustes.grows_with_training")
def test_likeness_grows_with_training(cohort, growth, verdict):
    verdict(
        growth.trend(cohort.internal),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.pointwise_alignment")
def test_rotation_carries_each_token_onto_itself(cohort, transfer, transfer_of_pipeline, verdict):
    def pointwise(found):
        return found.pointwise_ev.at(cohort.internal).mean_over_pairs()

    verdict(
        with_pipeline(pointwise, transfer, transfer_of_pipeline),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.shuffled_tokens_control")
def test_shuffled_tokens_do_not_recover(cohort, transfer, transfer_of_pipeline, verdict):
    def beyond_shuffled(found):
        return (found.rotated_ev - found.shuffled_ev).at(cohort.internal).mean_over_pairs()

    verdict(
        with_pipeline(beyond_shuffled, transfer, transfer_of_pipeline),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.covariance_only_control")
def test_matching_principal_axes_does_not_recover(cohort, transfer, transfer_of_pipeline, verdict):
    def beyond_principal(found):
        return (found.rotated_ev - found.principal_ev).at(cohort.internal).mean_over_pairs()

    verdict(
        with_pipeline(beyond_principal, transfer, transfer_of_pipeline),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("procrustes.untrained_control")
def test_untrained_siblings_recover_less(
    cohort, transfer, transfer_of_pipeline, untrained_transfer, verdict
):
    def beyond_untrained(found):
        return found.recovery_beyond(untrained_transfer, cohort.internal).mean_over_pairs()

    verdict(
        with_pipeline(beyond_untrained, transfer, transfer_of_pipeline),
        over="internal sites, mean over pairs",
    )
