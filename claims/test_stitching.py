"""Stitching: one model's lower half under another's upper half, through a map (paper, section 8.8).

Formulas: polyrot/measures/stitching.py, polyrot/measures/fits.py, polyrot/maps/procrustes.py.
"""

import pytest


@pytest.mark.claim("stitching.rotation_preserves_function")
def test_the_anchor_goes_on_from_the_rotated_sibling(cohort, stitching, verdict):
    verdict(stitching.preserves(cohort.internal), over="internal sites, mean over pairs")


@pytest.mark.claim("stitching.naive_fails")
def test_without_a_rotation_the_halves_do_not_fit(cohort, stitching, independent_siblings, verdict):
    verdict(
        stitching.naive(cohort.internal[:-1]),
        over="internal sites before the last, mean over pairs",
    )


@pytest.mark.claim("stitching.orthogonal_is_enough")
def test_an_affine_map_stitches_no_better(cohort, stitching, verdict):
    verdict(stitching.gained_by_affine(cohort.internal), over="internal sites, mean over pairs")


@pytest.mark.claim("stitching.covariance_only_control")
def test_second_moments_alone_do_not_stitch(cohort, stitching, verdict):
    verdict(stitching.beyond("principal", cohort.internal), over="internal sites, mean over pairs")


@pytest.mark.claim("stitching.shuffled_tokens_control")
def test_a_rotation_of_shuffled_tokens_does_not_stitch(cohort, stitching, verdict):
    verdict(stitching.beyond("shuffled", cohort.internal), over="internal sites, mean over pairs")
