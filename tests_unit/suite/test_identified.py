"""Beside whatever is measured through R stands at how many of its sites R is not determined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.identified import identified, through_rotation
from polyrot.cohorts.cohort import CohortDefaults
from polyrot.measured import PairSite
from polyrot.measures import fits
from polyrot.store import Store
from tests_unit.measures.test_fits import D, LowRank

PAIRS = ("0-1", "0-2", "0-3", "0-4")
NAMES = ("rotated_ev", "naive_ev", "shuffled_ev", "affine_ev", "variances", "recovered rotated")


class Low(LowRank, CohortDefaults):
    """Full rank of every model at the third site alone."""

    width, fingerprint = D, "low rank"


def tables() -> dict[str, PairSite]:
    values = np.arange(12.0).reshape(4, 3)
    return {name: PairSite(values, PAIRS, Low.sites) for name in NAMES}


def test_tables_measured_through_r_say_it_of_the_sites_that_are_judged(tmp_path: Path) -> None:
    found = through_rotation(tables(), Low(), Store(tmp_path))
    rotated = found["rotated_ev"]
    for sites, count in ((Low.sites, 2), (("mixed", "full"), 1), (("full",), 0)):
        for measured in (
            rotated.at(sites).each(),
            rotated.at(sites).mean_over_pairs(),
            rotated.at(sites).mean(),
            (found["naive_ev"] - rotated).at(sites).mean_over_pairs(),
            abs(rotated.at(sites)).also(other=1.0).mean(),
            found["recovered rotated"].at(sites).mean(),
        ):
            assert measured.beside["sites_not_identified"] == count


@pytest.mark.parametrize("name", ["naive_ev", "affine_ev", "variances"])
def test_tables_that_need_no_r_do_not(name: str, tmp_path: Path) -> None:
    found = through_rotation(tables(), Low(), Store(tmp_path))[name]
    assert "sites_not_identified" not in found.mean_over_pairs().beside


def test_it_is_worked_out_once_for_a_cohort(tmp_path: Path, monkeypatch: Any) -> None:
    assert identified(Low(), Store(tmp_path)) == {"low": False, "mixed": False, "full": True}
    monkeypatch.setattr(fits, "full_rank", lambda _: pytest.fail("not read"))
    assert identified(Low(), Store(tmp_path), (0, 1))["mixed"]


def test_a_site_counts_where_it_is_not_identified_in_either_of_two_tables() -> None:
    one, other = list(tables().values())[:2]
    known = one.through({"low": False, "mixed": True, "full": True})
    also = other.through({"low": True, "mixed": False, "full": True})
    assert (known - also).identified == (False, False, True)
    assert (known - other).identified == (other - known).identified == (False, True, True)
    assert (one - other).identified is None


def test_sites_without_a_word_on_them_are_refused() -> None:
    with pytest.raises(KeyError, match="full"):
        tables()["rotated_ev"].through({"low": True, "mixed": True})
    with pytest.raises(ValueError, match="2 sites identified or not, of 3"):
        PairSite(np.zeros((1, 3)), ("0-1",), Low.sites, identified=(True, True))
