"""Agreement of decoders over a cohort: planted matches and strangers."""

import numpy as np
import pytest
import torch
from scipy.stats import t

from polyrot.dictionaries.sae import Dictionary
from polyrot.measured import PairSite
from polyrot.measures import cosine
from polyrot.measures.cosine import Agreement
from polyrot.runtime.seeding import torch_generator

D, FEATURES, SITES = 32, 24, ("first", "second")


def dictionary(seed: int) -> Dictionary:
    generator = torch_generator(seed, "agreement")
    columns = torch.randn(D, FEATURES, generator=generator)
    columns = columns / columns.norm(dim=0)
    zero = torch.zeros(FEATURES)
    return Dictionary(columns, zero, columns.T, torch.zeros(D), torch.zeros(D))


def test_an_sae_of_noise_is_compared_site_by_site():
    anchor = {site: dictionary(i) for i, site in enumerate(SITES)}
    noise = {"first": anchor["first"], "second": dictionary(9)}  # one that never moved, a stranger
    saes = {(0, s): d for s, d in anchor.items()} | {(1, s): d for s, d in noise.items()}
    table, cosines = cosine.noise_agreement(saes, SITES)
    assert table.sites == SITES
    assert table.values[0, 0] == 1
    assert table.values[0, 1] < 0.3
    assert cosines.shape == (1, 2, FEATURES)


def agreement(fractions: list[list[float]]) -> Agreement:
    values = np.array(fractions)
    pairs = tuple(f"0-{m + 1}" for m in range(len(values)))
    table = PairSite(values, pairs, SITES[: values.shape[1]])
    return Agreement(table, table, table, torch.zeros(*values.shape, FEATURES))


def test_an_interval_is_of_the_pairs_and_ends_where_a_fraction_can():
    found = agreement([[0.99], [0.97], [0.999], [0.9]])
    fraction, mean = (table.mean_over_pairs() for table in (found.fraction, found.mean))
    row = np.array([0.99, 0.97, 0.999, 0.9])
    centre, half = row.mean(), t.ppf(0.975, 3) * row.std(ddof=1) / 2
    for measured, to, slope in (
        (fraction, lambda x: np.log(x / (1 - x)), 1 / (centre * (1 - centre))),
        (mean, np.arctanh, 1 / (1 - centre**2)),
    ):
        interval = measured.interval(0)
        assert interval.of == "pairs"
        assert to(interval.low) == pytest.approx(to(centre) - half * slope)
        assert to(interval.high) == pytest.approx(to(centre) + half * slope)
        assert interval.high < 1 < centre + half


def test_the_ceiling_is_one_from_one_start_and_else_what_two_starts_share():
    one_start = agreement([[0.9, 0.8]]).below()
    assert one_start.fraction.mean_over_pairs().ceilings == (1.0, 1.0)
    anchors = {site: dictionary(i) for i, site in enumerate(SITES)}
    again = {"first": anchors["first"], "second": dictionary(9)}
    perfect, cosines = cosine.one_other(anchors, again, SITES, "second start")
    assert cosines.shape == (1, 2, FEATURES)
    own = agreement([[0.9, 0.8]]).below(perfect)
    for table, name in ((own.fraction, "fraction"), (own.mean, "mean")):
        ceilings = table.mean_over_pairs().ceilings
        assert ceilings == tuple(perfect[name].values[0])
        assert ceilings[0] == pytest.approx(1)
        assert ceilings[1] < 0.5
    assert own.live_fraction.ceiling is None


def test_the_gain_of_a_perfect_sibling_is_what_a_second_start_shares_beyond_chance():
    anchors = {site: dictionary(i) for i, site in enumerate(SITES)}
    again = {"first": anchors["first"], "second": dictionary(9)}
    gains = cosine.perfect_gain(anchors, again, SITES)
    chance = float(cosine.one_other(anchors, again, SITES, "again")[0]["mean"].values[0, 1])
    assert gains.values[0, 0] == pytest.approx(1 - chance, abs=0.05)
    assert gains.values[0, 1] == pytest.approx(0, abs=0.05)


def universality(**beside: float) -> PairSite:
    """Two sites of two pairs; admissible, two starts sharing 0.7 beyond Haar, but for `beside`."""
    usual = {"two_starts": 0.8, "haar": 0.1, "l1": 0.01, "l0": 6.0, "ev": 0.95}
    each = {f"{name}_{site}": value for name, value in usual.items() for site in SITES}
    values = np.array([[0.6, 0.55], [0.62, 0.57]])
    return PairSite(values, ("0-1", "0-2"), SITES, beside={**each, **beside})


def starts(first: float = 0.7, second: float = 0.7) -> PairSite:
    """What three starts on one model share beyond Haar, by site, mean over their pairs."""
    values = np.array([[first, second]]) + np.array([[-0.1], [0.0], [0.1]])
    return PairSite(values, ("0-1", "0-2", "1-2"), SITES)


def test_universality_has_the_ceiling_of_two_starts_beyond_haar():
    # The siblings' own Haar share has no part in it, large or small.
    found = cosine.up_to_rotation(universality(haar_first=0.5), starts(second=0.3), (4.0, 8.0))
    assert found.ceilings == pytest.approx((0.7, 0.3))
    assert found.beside["between_starts_first"] == pytest.approx(0.7)
    assert found.beside["between_starts_second"] == pytest.approx(0.3)
    assert found.values == pytest.approx([0.61, 0.56])
    assert found.interval(0).of == "pairs"
    assert (found.beside["least_l0"], found.beside["largest_l0"]) == (4.0, 8.0)
    assert found.unmet == ""


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"ev_first": 0.9}, ""),
        ({"ev_first": 0.89}, "EV below 0.9 at 1 of 2 sites (0.89 to 0.89)"),
        ({"ev_first": 0.6, "ev_second": 0.8}, "EV below 0.9 at 2 of 2 sites (0.6 to 0.8)"),
        ({"l0_first": 4.0, "l0_second": 8.0}, ""),
        ({"l0_first": 3.5}, "L0 below 4 at 1 of 2 sites (3.5 to 3.5)"),
        (
            {"l0_second": 9.0, "ev_second": 0.5},
            "EV below 0.9 at 1 of 2 sites (0.5 to 0.5), L0 above 8 at 1 of 2 sites (9 to 9)",
        ),
    ],
)
def test_universality_needs_the_dictionaries_that_are_registered(
    beside: dict[str, float], said: str
):
    found = cosine.up_to_rotation(universality(**beside), starts(), (4.0, 8.0))
    assert found.unmet == (f"the dictionaries are not as registered: {said}" if said else "")
