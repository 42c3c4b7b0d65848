"""Agreement of decoders over a cohort: planted matches and strangers."""

from types import SimpleNamespace

import pytest
import torch

from polyrot.dictionaries.sae import Dictionary
from polyrot.measures import cosine
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
    named = SimpleNamespace(named_sites=("second",))
    found = cosine.match_with_noise(table, named)
    assert found.labels == ("second",)
    assert found.values[0] == pytest.approx(table.values[0, 1])
    assert found.beside["first"] == 1
