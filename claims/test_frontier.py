"""Section 11: what the account predicts of any two models of one architecture (--pair A B).

Formulas: polyrot/measures/frontier.py, polyrot/measures/transfer.py, polyrot/maps/matching.py.
"""

import pytest


@pytest.mark.claim("frontier.rotation_beats_naive")
def test_rotation_beats_naive_transfer(frontier, independent_siblings, verdict):
    verdict(frontier.gain(), over="sites")


@pytest.mark.claim("frontier.magnitude")
def test_rotation_is_as_far_from_the_identity_as_chance(frontier, independent_siblings, verdict):
    verdict(frontier.magnitude(), over="sites")
