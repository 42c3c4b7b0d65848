"""Section 9: decoder cosine beside naive and rotated explained variance.

Formulas: polyrot/measures/transfer.py, polyrot/measures/shared_start.py.
"""

import pytest

from polyrot import measures


@pytest.mark.claim("triplet.cosine_hides_failure")
def test_high_cosine_beside_negative_ev(cohort, along_training, naive_readings, verdict):
    verdict(measures.shared_start.misled(along_training, naive_readings, cohort))
