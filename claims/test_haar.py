"""Section 5: is R a Haar draw, and would that mean anything?

Formulas: polyrot/measures/haar/rotations.py, polyrot/measures/haar/published.py,
polyrot/measures/haar/determinants.py, polyrot/measures/haar/calibrated.py,
polyrot/measures/haar/free.py, polyrot/measures/haar/privileged.py,
polyrot/measures/haar/controls.py, polyrot/measures/haar/whitened.py,
polyrot/haar/published.py, polyrot/haar/battery.py, polyrot/haar/frames.py.
"""

import pytest

from polyrot import measures

NO_MODEL = "mathematics of drawn matrices: no model could change it"


@pytest.mark.claim("haar.frobenius_language_model")
def test_mean_distance_is_that_of_haar(cohort, keep, verdict):
    verdict(keep(measures.haar.published.mean_ratio))


@pytest.mark.claim("haar.frobenius_toy")
def test_toy_distance_sits_below_that_of_haar(cohort, keep, verdict):
    verdict(
        keep(measures.haar.published.distance_of_each, sites="internal"),
        over="pairs x internal sites",
    )


@pytest.mark.claim("haar.spectrum_as_published")
def test_published_ks_test_gives_p_of_one(cohort, keep, verdict):
    verdict(keep(measures.haar.published.spectrum_as_published))


@pytest.mark.claim("haar.mean_cosine")
def test_pooled_mean_cosine_is_that_of_haar(cohort, keep, verdict):
    verdict(keep(measures.haar.published.pooled_mean_cosine))


@pytest.mark.claim("haar.nearest_permutation")
def test_nearest_permutation_is_as_far_as_from_haar(cohort, keep, verdict):
    verdict(keep(measures.haar.published.nearest_permutation))


@pytest.mark.claim("haar.calibrated_spectrum")
def test_spectrum_is_haar_when_repulsion_is_known(cohort, keep, verdict):
    verdict(keep(measures.haar.calibrated.calibrated_spectrum), over="pairs x identified sites")


@pytest.mark.claim("haar.battery")
def test_rotation_passes_the_battery(cohort, keep, verdict):
    verdict(keep(measures.haar.calibrated.battery), over="pairs x identified sites")


@pytest.mark.claim("haar.battery_on_free_directions")
def test_rotation_of_free_directions_passes_the_battery(free_directions, verdict):
    verdict(
        measures.haar.free.battery_on_free_directions(free_directions),
        over="pairs x identified sites",
    )


@pytest.mark.claim("haar.relative_rotations")
def test_rotations_between_siblings_are_haar(cohort, keep, verdict):
    verdict(keep(measures.haar.calibrated.relative), over="chain x identified sites")


@pytest.mark.claim("haar.identifiable")
def test_halves_of_the_tokens_give_one_rotation(cohort, keep, verdict):
    verdict(
        keep(measures.haar.published.identifiable, sites="internal"),
        over="identified internal sites, mean over pairs",
    )


@pytest.mark.claim("haar.special_orthogonal")
def test_rotation_has_determinant_one(cohort, keep, verdict):
    verdict(keep(measures.haar.determinants.special_fraction))


@pytest.mark.claim("haar.shared_features_show")
def test_whitened_maps_are_not_haar_and_shuffled_ones_are(cohort, keep, verdict):
    verdict(keep(measures.haar.whitened.shared_features))


@pytest.mark.claim("haar.basis_is_not_privileged")
def test_activations_are_no_heavier_along_the_basis(tails, verdict):
    verdict(measures.haar.privileged.basis_over_random(tails), over="internal sites")


@pytest.mark.claim("haar.published_test_rejects")
def test_published_criterion_rejects_what_is_not_haar(keep, verdict):
    found = keep(measures.haar.controls.alternatives_that_fail)
    verdict(found.also(demonstration=NO_MODEL))


@pytest.mark.claim("haar.published_permutation_figure")
def test_published_permutation_distance_is_that_of_haar(keep, verdict):
    found = keep(measures.haar.controls.permutation_figure_gap)
    verdict(found.also(demonstration=NO_MODEL))


@pytest.mark.claim("haar.shuffled_tokens_control")
def test_rotations_of_shuffled_tokens_fail(cohort, keep, sites_not_identified, verdict):
    found = keep(measures.haar.controls.shuffled_failures)
    verdict(found.also(sites_not_identified=sites_not_identified))


@pytest.mark.claim("haar.same_model_control")
def test_a_model_against_itself_is_not_haar(cohort, keep, verdict):
    verdict(keep(measures.haar.controls.same_model_rejections))


@pytest.mark.claim("haar.free_directions_control")
def test_battery_on_free_directions_sees_a_block_rotation(free_directions, verdict):
    verdict(measures.haar.free.planted_rejections(free_directions))


@pytest.mark.claim("haar.shuffled_frobenius_control")
def test_distances_of_shuffled_tokens_lie_outside_the_published_range(cohort, keep, verdict):
    verdict(keep(measures.haar.controls.shuffled_outside_range, sites="internal"))


@pytest.mark.claim("haar.untrained_features_control")
def test_whitened_maps_of_untrained_siblings_are_haar(whitened, untrained_whitened, verdict):
    verdict(measures.haar.whitened.rejected_beyond_untrained(whitened, untrained_whitened))
