"""Section 6: what steers one seed, in its siblings: as it is, rotated, beside random vectors.

Formulas: polyrot/measures/steering.py, polyrot/measures/effects.py, polyrot/measures/overlaps.py,
polyrot/measures/steering_arms.py, polyrot/measures/published_steering.py.
"""

import pytest


@pytest.mark.claim("steering.depth_transfers")
def test_depth_direction_steers_every_seed_alike(steering, perfect_steering, verdict):
    ceiling = perfect_steering.alike.signed_ratio("depth", dose=2.0)
    verdict(steering.signed_ratio("depth", dose=2.0).below(ceiling.values))


@pytest.mark.claim("steering.sticky_needs_dose")
def test_sticky_invalid_needs_a_larger_dose(steering, verdict):
    verdict(steering.dose_ratio("sticky_invalid"))


@pytest.mark.claim("steering.closer_inverts")
def test_closer_direction_steers_the_opposite_way(steering, verdict):
    verdict(steering.signed_ratio("closer", dose=1.0), over="mean over pairs")


@pytest.mark.claim("steering.all_ratios_above_one")
def test_siblings_are_disturbed_more_than_the_anchor(steering, verdict):
    verdict(steering.kl_ratios(), over="directions x doses, mean over pairs")


@pytest.mark.claim("steering.effect_is_inverted")
def test_targeted_effect_has_the_opposite_sign(steering, verdict):
    verdict(steering.signed_ratios("naive"), over="directions, mean over pairs and doses")


@pytest.mark.claim("steering.random_direction_control")
def test_random_directions_of_equal_norm_disturb_less(steering, perfect_steering, verdict):
    verdict(
        steering.against_random(perfect_steering.alike),
        over="directions, mean over pairs and doses",
    )


@pytest.mark.claim("steering.overlap_predicts_transfer")
def test_transfer_follows_overlap_with_what_is_pinned(overlaps, verdict):
    verdict(overlaps.spearman)


@pytest.mark.claim("steering.rotation_repairs")
def test_rotated_direction_steers_as_in_the_anchor(steering, perfect_steering, verdict):
    ceiling = perfect_steering.turned.signed_ratios("rotated", doses=[1.0])
    verdict(
        steering.signed_ratios("rotated", doses=[1.0]).below(ceiling.values),
        over="directions, mean over pairs, dose 1",
    )


@pytest.mark.claim("steering.reaches_own")
def test_rotated_direction_does_what_the_siblings_own_does(steering_arms, verdict):
    verdict(steering_arms.reaches_own(), over="directions, mean over pairs")


@pytest.mark.claim("steering.covariance_only_control")
def test_second_moments_alone_do_not_steer(steering_arms, verdict):
    verdict(steering_arms.beyond("principal"), over="directions, mean over pairs")


@pytest.mark.claim("steering.shuffled_tokens_control")
def test_a_rotation_of_shuffled_tokens_does_not_steer(steering_arms, verdict):
    verdict(steering_arms.beyond("shuffled"), over="directions, mean over pairs")


@pytest.mark.claim("steering.naive_is_not_enough")
def test_the_untouched_direction_does_less(steering_arms, verdict):
    verdict(steering_arms.beyond("naive"), over="directions, mean over pairs")


@pytest.mark.claim("steering.depth_transfers_as_published")
def test_depth_direction_costs_every_seed_the_same_accuracy(published_steering, verdict):
    verdict(published_steering.depth_ratio())


@pytest.mark.claim("steering.depth_direction_control")
def test_random_directions_cost_siblings_less(published_steering, verdict):
    verdict(published_steering.random_over_depth())


@pytest.mark.claim("steering.sticky_needs_dose_as_published")
def test_sticky_invalid_is_halved_at_a_larger_dose(published_steering, verdict):
    verdict(published_steering.halving_dose_ratio())


@pytest.mark.claim("steering.closer_disturbs_siblings_more")
def test_closer_direction_costs_siblings_what_it_does_not_cost_the_anchor(
    published_steering, verdict
):
    verdict(published_steering.closer_costs_more())
