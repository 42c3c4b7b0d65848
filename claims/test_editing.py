"""Section 9: weight edits, carried to siblings through the rotation.

Formulas: polyrot/measures/editing.py, polyrot/measures/effects.py.
"""

import pytest


@pytest.mark.claim("editing.weight_edits_do_not_transfer")
def test_rotated_rank_one_edits_do_not_transfer(edits, verdict):
    verdict(edits.transfer("rotated"), over="mean over pairs")


@pytest.mark.claim("editing.neuron_map_does_not_help")
def test_edits_do_not_transfer_through_a_map_of_the_neurons_either(edits, verdict):
    verdict(edits.transfer("both_rotated"), over="mean over pairs, the registered edit")
