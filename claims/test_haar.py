"""Section 5: is R a Haar draw, and would that mean anything?

Formulas: polyrot/measures/haar/rotations.py, polyrot/measures/haar/published.py,
polyrot/measures/haar/calibrated.py, polyrot/measures/haar/controls.py, polyrot/haar/published.py,
polyrot/haar/battery.py, polyrot/haar/frames.py.
"""

import pytest

from polyrot.measures.haar import calibrated, controls, published


@pytest.mark.claim("haar.frobenius_language_model")
def test_mean_distance_is_that_of_haar(fits, verdict):
    verdict(published.mean_ratio(fits))


@pytest.mark.claim("haar.frobenius_toy")
def test_toy_distance_sits_below_that_of_haar(cohort, fits, verdict):
    inside = fits.at(cohort.internal)
    verdict(published.distance_of_each(cohort, inside), over="pairs x internal sites")


@pytest.mark.claim("haar.spectrum_as_published")
def test_published_ks_test_gives_p_of_one(fits, verdict):
    verdict(published.spectrum_as_published(fits))


@pytest.mark.claim("haar.mean_cosine")
def test_pooled_mean_cosine_is_that_of_haar(fits, store, verdict):
    verdict(published.pooled_mean_cosine(fits, store))


@pytest.mark.claim("haar.nearest_permutation")
def test_nearest_permutation_is_as_far_as_from_haar(fits, store, verdict):
    verdict(published.nearest_permutation(fits, store))


@pytest.mark.claim("haar.calibrated_spectrum")
def test_spectrum_is_haar_when_repulsion_is_known(fits, store, verdict):
    verdict(calibrated.calibrated_spectrum(fits, store), over="pairs x identified sites")


@pytest.mark.claim("haar.battery")
def test_rotation_passes_the_battery(cohort, fits, store, verdict):
    verdict(calibrated.battery(cohort, fits, store), over="pairs x identified sites")


@pytest.mark.claim("haar.relative_rotations")
def test_rotations_between_siblings_are_haar(cohort, fits, store, verdict):
    verdict(calibrated.relative(cohort, fits, store), over="chain x identified sites")


@pytest.mark.claim("haar.identifiable")
def test_halves_of_the_tokens_give_one_rotation(cohort, fits, verdict):
    verdict(
        published.identifiable(fits.at(cohort.internal)),
        over="identified internal sites, mean over pairs",
    )


@pytest.mark.claim("haar.special_orthogonal")
def test_rotation_has_determinant_one(fits, verdict):
    verdict(published.special_fraction(fits))


@pytest.mark.claim("haar.shared_features_show")
def test_whitened_maps_are_not_haar_and_shuffled_ones_are(cohort, store, verdict):
    verdict(controls.shared_features(cohort, store, cohort.internal))


@pytest.mark.claim("haar.published_test_rejects")
def test_published_criterion_rejects_what_is_not_haar(verdict):
    verdict(controls.alternatives_that_fail())


@pytest.mark.claim("haar.published_permutation_figure")
def test_published_permutation_distance_is_that_of_haar(verdict):
    verdict(controls.permutation_figure_gap())


@pytest.mark.claim("haar.shuffled_tokens_control")
def test_rotations_of_shuffled_tokens_fail(fits, verdict):
    verdict(controls.shuffled_failures(fits))


@pytest.mark.claim("haar.same_model_control")
def test_a_model_against_itself_is_not_haar(cohort, fits, store, verdict):
    verdict(controls.same_model_rejections(cohort, fits, store))
