"""Section 11: what the account predicts of any two models of one architecture (--pair A B).

Formulas: polyrot/measures/frontier.py, polyrot/measures/transfer.py, polyrot/maps/matching.py.
"""

import pytest


@pytest.mark.claim("frontier.rotation_beats_naive")
def test_rotation_beats_naive_transfer(frontier, independent_siblings, verdict):
    verdict(frontier.gain(), over="sites")


@pytest.mark.claim("frontier.dictionary_works_at_home_control")
def test_the_dictionary_reconstructs_its_own_model(frontier, independent_siblings, verdict):
    verdict(frontier.at_home(), over="sites")


@pytest.mark.claim("frontier.beats_nulls_control")
def test_rotation_beats_the_mean_and_shuffled_tokens(frontier, independent_siblings, verdict):
    verdict(frontier.beyond_nulls(), over="sites")


@pytest.mark.claim("frontier.magnitude")
def test_rotation_is_as_far_from_the_identity_as_chance(frontier, independent_siblings, verdict):
    verdict(frontier.magnitude(), over="sites")


@pytest.mark.claim("frontier.magnitude_control")
def test_a_rotation_of_shuffled_tokens_is_not_as_far(frontier, independent_siblings, verdict):
    verdict(frontier.magnitude_of_shuffled(), over="sites")
