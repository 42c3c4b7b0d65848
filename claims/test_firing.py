"""Whether the anchor's features fire on the same tokens of a sibling, untouched and through R
(paper, section 8.5).

Formulas: polyrot/measures/firing.py, polyrot/maps/feature_correlation.py,
polyrot/maps/procrustes.py.
"""

import pytest

PAPERS_SITES = "resid_mid_0, resid_post_0, resid_post_1 (the paper's sites; resid_mid_1 beside)"


@pytest.mark.claim("firing.raw_overlap_is_low")
def test_untouched_features_fire_on_other_tokens(cohort, firing, verdict):
    verdict(firing.raw(cohort), over=f"{PAPERS_SITES}, mean over pairs")


@pytest.mark.claim("firing.rotation_recovers")
def test_through_the_rotation_they_fire_on_the_same(cohort, firing, verdict):
    verdict(firing.recovered(cohort), over=f"{PAPERS_SITES}, mean over pairs")


@pytest.mark.claim("firing.raw_overlap_is_nil_in_a_language_model")
def test_untouched_features_of_a_language_model_are_unrelated(cohort, firing, verdict):
    verdict(firing.raw(cohort), over="sites, mean over pairs")


@pytest.mark.claim("firing.rotation_recovers_in_a_language_model")
def test_through_the_rotation_those_of_a_language_model_correlate(cohort, firing, verdict):
    verdict(firing.recovered(cohort), over="sites, mean over pairs")


@pytest.mark.claim("firing.shuffled_tokens_control")
def test_a_rotation_of_shuffled_tokens_does_not_give_it(cohort, firing, verdict):
    verdict(
        firing.beyond_shuffled(cohort.internal).mean_over_pairs(),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("firing.untrained_control")
def test_untrained_siblings_do_not_have_it(cohort, firing, untrained_firing, verdict):
    verdict(
        firing.beyond_untrained(untrained_firing, cohort.internal).mean_over_pairs(),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("firing.random_directions_control")
def test_random_directions_overlap_less(cohort, firing, verdict):
    verdict(
        firing.beyond_random(cohort.internal).mean_over_pairs(),
        over="internal sites, mean over pairs",
    )
