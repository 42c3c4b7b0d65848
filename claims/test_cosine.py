"""Section 1: do the decoder columns of two seeds' SAEs match, and why?

Formulas: polyrot/measures/cosine.py, polyrot/maps/matching.py.
"""

import pytest

from polyrot.dictionaries import collection
from polyrot.measures.cosine import match_with_noise, up_to_rotation


@pytest.mark.claim("cosine.matched_fraction")
def test_columns_match_above_half(published_agreement, verdict):
    live = published_agreement.live_fraction.values.mean()
    verdict(
        published_agreement.fraction.also(live_columns_alone=live).mean_over_pairs(),
        over="sites the paper names, mean over pairs",
    )


@pytest.mark.claim("cosine.mean_max")
def test_mean_best_cosine_is_near_nine_tenths(published_agreement, verdict):
    verdict(
        published_agreement.mean.mean_over_pairs(),
        over="sites the paper names, mean over pairs",
    )


@pytest.mark.claim("cosine.independent_initialisation")
def test_match_survives_starts_of_their_own(cohort, own_agreement, verdict):
    mean, live = (t.values.mean() for t in (own_agreement.mean, own_agreement.live_fraction))
    found = own_agreement.fraction.also(mean_best_cosine=mean, live_columns_alone=live)
    verdict(
        found.mean_over_pairs(),
        over="sites the paper names, mean over pairs",
    )


@pytest.mark.claim("cosine.noise_control")
def test_noise_from_the_same_start_does_not_match(cohort, noise_agreement, verdict):
    verdict(match_with_noise(noise_agreement[0], cohort))


@pytest.mark.claim("cosine.rotation_raises_match")
def test_decoders_match_through_the_rotation(cohort, rotation_gain, verdict):
    verdict(
        rotation_gain.mean_over_pairs(),
        over="internal sites, mean over pairs, SAEs with their own initialisation",
    )


@pytest.mark.claim("cosine.universal_up_to_rotation")
def test_sparse_features_are_universal_up_to_rotation(cohort, universality, verdict):
    verdict(
        up_to_rotation(universality, collection.l0_range(cohort)),
        over="internal sites, mean over pairs",
    )
