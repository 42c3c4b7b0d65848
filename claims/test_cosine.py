"""Section 1: do the decoder columns of two seeds' SAEs match, and why?

Formulas: polyrot/measures/cosine.py, polyrot/measures/shared_start.py, polyrot/maps/matching.py.
"""

import pytest

from polyrot import dictionaries, measures


@pytest.mark.claim("cosine.matched_fraction")
def test_columns_match_above_half(cohort, along_training, verdict):
    verdict(
        measures.shared_start.matched(along_training, cohort),
        over="sites the paper names, mean over pairs",
    )


@pytest.mark.claim("cosine.mean_max")
def test_mean_best_cosine_is_near_nine_tenths(cohort, along_training, verdict):
    verdict(
        measures.shared_start.matched(along_training, cohort, "mean"),
        over="sites the paper names, mean over pairs",
    )


@pytest.mark.claim("cosine.one_to_one")
def test_columns_match_one_to_one(cohort, along_training, verdict):
    verdict(
        measures.shared_start.matched(along_training, cohort, "one_to_one"),
        over="sites the paper names, mean over pairs",
    )


@pytest.mark.claim("cosine.same_index")
def test_best_matches_do_not_keep_their_index(cohort, along_training, verdict):
    verdict(
        measures.shared_start.kept_index(along_training, cohort),
        over="sites the paper names, mean over pairs",
    )


@pytest.mark.claim("cosine.survives_training")
def test_the_match_survives_training(cohort, along_training, verdict):
    verdict(
        measures.shared_start.change_over_training(along_training, cohort),
        over="sites the paper names, mean over pairs",
    )


@pytest.mark.claim("cosine.final_layer_drops")
def test_the_match_drops_at_the_last_block(cohort, along_training, verdict):
    verdict(measures.shared_start.last_site_less_lowest(along_training, cohort))


@pytest.mark.claim("cosine.independent_initialisation")
def test_match_survives_starts_of_their_own(cohort, own_agreement, verdict):
    mean, live = (t.values.mean() for t in (own_agreement.mean, own_agreement.live_fraction))
    found = own_agreement.fraction.also(mean_best_cosine=mean, live_columns_alone=live)
    verdict(
        found.mean_over_pairs(),
        over="sites the paper names, mean over pairs",
    )


@pytest.mark.claim("cosine.noise_control")
def test_noise_from_the_same_start_does_not_match(cohort, along_training, naive_readings, verdict):
    verdict(measures.shared_start.matched_by_noise(along_training, naive_readings, cohort))


@pytest.mark.claim("cosine.rotation_raises_match")
def test_decoders_match_through_the_rotation(cohort, rotation_gain, verdict):
    verdict(
        rotation_gain.mean_over_pairs(),
        over="internal sites, mean over pairs, SAEs with their own initialisation",
    )


@pytest.mark.claim("cosine.universal_up_to_rotation")
def test_sparse_features_are_universal_up_to_rotation(
    cohort, universality, between_starts, verdict
):
    verdict(
        measures.cosine.up_to_rotation(
            universality, between_starts, dictionaries.sparsity.l0_range(cohort)
        ),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("cosine.universal_relative_to_ceiling")
def test_features_are_as_universal_as_starts_allow(cohort, universality, between_starts, verdict):
    verdict(
        measures.cosine.relative_to_ceiling(
            universality, between_starts, dictionaries.sparsity.l0_range(cohort)
        ),
        over="internal sites, mean over pairs",
    )
