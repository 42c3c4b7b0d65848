"""Section 9: decoder cosine beside naive and rotated explained variance.

Formulas: polyrot/measures/transfer.py, polyrot/measures/cosine.py.
"""

import pytest

from polyrot.measures.transfer import misled_fraction


@pytest.mark.claim("triplet.cosine_hides_failure")
def test_high_cosine_beside_negative_ev(cohort, published_agreement, transfer, verdict):
    verdict(misled_fraction(published_agreement.mean, transfer.naive_ev.at(cohort.named_sites)))
