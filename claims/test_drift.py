"""Section 7: how far one training run turns its own basis.

Formulas: polyrot/measures/drift.py, polyrot/measures/reconstructions.py,
polyrot/maps/procrustes.py, polyrot/maps/null_space.py.
"""

import pytest


@pytest.mark.claim("drift.naive_fails")
def test_early_dictionary_fails_on_the_last_checkpoint(reconstructions, verdict):
    verdict(reconstructions.early("naive"))


@pytest.mark.claim("drift.rotation_recovers")
def test_rotation_recovers_the_early_dictionary(reconstructions, verdict):
    verdict(reconstructions.early("rotated"))


@pytest.mark.claim("drift.half_of_haar")
def test_one_run_turns_half_as_far_as_a_change_of_seed(drifts, verdict):
    verdict(drifts.haar_share())


@pytest.mark.claim("drift.shrinks_toward_output")
def test_drift_shrinks_toward_the_output(drifts, reconstructions, verdict):
    verdict(drifts.toward_output().also(**reconstructions.half_way()))


@pytest.mark.claim("drift.shrinks_where_identifiable")
def test_drift_shrinks_on_directions_that_vary(drifts, verdict):
    verdict(drifts.toward_output(restricted=True))


@pytest.mark.claim("drift.monotone_curve")
def test_drift_grows_with_the_step_gap(drifts, verdict):
    verdict(drifts.monotone())


@pytest.mark.claim("drift.toy_naive_transfers")
def test_dictionary_from_half_way_still_works(half_way, verdict):
    verdict(half_way["naive"].each(), over="sites")


@pytest.mark.claim("drift.toy_rotation_recovers")
def test_rotated_it_is_as_good_as_at_home(half_way, verdict):
    verdict(half_way["rotated"].each(), over="sites")
