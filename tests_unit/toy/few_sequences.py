"""Toy cohorts of few sequences, where a test asks what is computed and not how well it is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from polyrot.cohorts.cohort import SPLITS
from polyrot.toy import cohort as cohorts


@contextmanager
def few_sequences(n: int = 100) -> Iterator[None]:
    """Cohorts made here have `n` sequences in each split, and agree on `n` of each distribution."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohorts, "N_SEQUENCES", dict.fromkeys(SPLITS, n))
        patch.setattr(cohorts, "AGREEMENT_SEQUENCES", n)
        yield
