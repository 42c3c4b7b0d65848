"""Linear CKA of siblings, which does not see rotations (paper, section 8.8 and related work).

Formulas: polyrot/measures/similarity.py, polyrot/maps/cka.py.
"""

import pytest


@pytest.mark.claim("similarity.linear_cka")
def test_siblings_are_alike_up_to_a_rotation(cohort, similarity, verdict):
    verdict(similarity.mean_over_pairs(cohort.internal), over="internal sites, mean over pairs")


@pytest.mark.claim("similarity.untrained_control")
def test_untrained_siblings_are_less_alike(cohort, similarity, untrained_similarity, verdict):
    verdict(
        similarity.beyond_untrained(untrained_similarity, cohort.internal).mean_over_pairs(),
        over="internal sites, mean over pairs",
    )
