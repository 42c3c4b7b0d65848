"""Section 6: what steers one seed, in its siblings: as it is, rotated, beside random vectors.

Formulas: polyrot/measures/steering.py, polyrot/measures/effects.py, polyrot/measures/overlaps.py.
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
