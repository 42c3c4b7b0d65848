"""Fits and transfer on cohorts with a planted truth and a planted falsehood."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from polyrot.dictionaries.sae import Dictionary
from polyrot.dictionaries.sparsity import Choice
from polyrot.measured import PairSite
from polyrot.measures import cosine, transfer
from polyrot.measures.fits import fit_all
from polyrot.runtime.seeding import numpy_generator, torch_generator
from polyrot.toy.cohort import CONTENT, N_SEQUENCES, split_tokens

D = 16


def activations(split):
    """Correlated, skewed, uncentred activations [tokens, D], the same law in every split."""
    generator = torch_generator(0, split)
    mix = torch.randn(D, D, generator=torch_generator(0, "mix"))
    raw = torch.distributions.Exponential(1.0)
    drawn = torch.rand(4000, D, generator=generator)
    return raw.icdf(drawn.clamp(1e-4, 1 - 1e-4)) @ mix + 3


class Planted:
    """Siblings that are the anchor in a Haar-rotated, shifted basis, or strangers."""

    scale, seeds, width, fingerprint = "planted", (0, 1, 2), D, "planted"
    sites = ("resid_pre_0", "resid_post_0")
    internal = named_sites = sites[1:]

    def __init__(self, strangers=False):
        self.strangers = strangers
        self.q = ortho_group.rvs(D, size=2, random_state=numpy_generator(0, "planted"))

    def activations(self, split, site):
        x = activations(split)
        if self.strangers:
            others = [activations(f"{split} stranger {i}") for i in range(2)]
        else:
            others = [x @ torch.from_numpy(q).float().T + 7 for q in self.q]
        return torch.stack([x, *others])

    def sequences(self, split):
        return torch.arange(4000) // 20


def perfect_sae():
    """Reconstructs anything near the anchor's range well and fails elsewhere."""
    x = activations("dictionary")
    scale = torch.linalg.svd(x - x.mean(0)).Vh
    both = torch.cat([scale, -scale])  # x = sum relu(v x) v over +v and -v
    b = x.mean(0)
    bias = -0.2 * torch.ones(2 * D)
    return Dictionary(both.T, bias, both, b, b)


def test_a_planted_rotation_repairs_and_the_controls_do_not():
    cohort = Planted()
    fits = fit_all(cohort)
    for i, q in enumerate(cohort.q):
        np.testing.assert_allclose(fits.matched["resid_post_0"][i].r.numpy(), q, atol=1e-4)
    sae = perfect_sae()
    found = transfer.measure_transfer(cohort, fits, dict.fromkeys(cohort.sites, sae))
    np.testing.assert_allclose(found.rotated_ev.values, found.self_ev.values, atol=1e-4)
    assert (found.pointwise_ev.values > 0.9999).all()
    assert (found.naive_ev.values < found.rotated_ev.values).all()
    # Means differ by 7 in every dimension; the shift repairs that part of the gap.
    closed = found.gap_closed_by_shift(cohort.sites)
    assert (closed.values > 0).all()
    assert not closed.unmet


def tables_of(strangers, **how):
    cohort = Planted(strangers)
    saes = dict.fromkeys(cohort.sites, perfect_sae())
    return transfer.measure_transfer(cohort, fit_all(cohort), saes, **how)


@pytest.fixture(scope="module")
def copies_found():
    return tables_of(strangers=False)


@pytest.fixture(scope="module")
def strangers_found():
    return tables_of(strangers=True)


def test_every_table_has_the_same_draws(copies_found):
    for name in transfer.Transfer.__dataclass_fields__:
        table = getattr(copies_found, name)
        assert table.unit == "ev"
        assert table.resamples.shape == (transfer.DRAWS, *table.values.shape)
        assert table.counts == {"tokens": 4000, "sequences": 200}
        for value, interval in zip(table.values.ravel(), table.each().intervals, strict=True):
            assert interval.of == "sequences"
            assert interval.low <= value <= interval.high < 1 + 1e-12
    # Of an exact copy the two are one and the same on every draw, however each is spread.
    gap = copies_found.self_ev - copies_found.rotated_ev
    assert np.abs(gap.resamples).max() < 0.1 * copies_found.self_ev.resamples.std(0).min()


def test_a_ceiling_is_what_exact_copies_give(copies_found, strangers_found):
    for name in transfer.Transfer.__dataclass_fields__:
        ceiling = getattr(strangers_found, name).ceiling
        if name != "self_ev" and name not in transfer.OF_LIKENESS:
            assert ceiling is None, name
            continue
        # Whatever the siblings are; and where they are exact copies, what they give.
        np.testing.assert_array_equal(ceiling, getattr(copies_found, name).ceiling)
        if name not in ("shuffled_ev", "principal_ev"):
            values = getattr(copies_found, name).values
            np.testing.assert_allclose(np.broadcast_to(ceiling, values.shape), values, atol=1e-4)
            assert (getattr(strangers_found, name).values <= ceiling + 1e-6).all(), name
    lost = copies_found.rotated_ev.ceiling - copies_found.shuffled_ev.ceiling
    assert (lost > 1e-4).all()
    gain = strangers_found.rotated_ev - strangers_found.naive_ev
    assert gain.ceiling is None


def test_without_draws_and_copies_the_values_are_the_same(copies_found):
    plain = tables_of(strangers=False, draws=0, copies=0)
    for name in transfer.Transfer.__dataclass_fields__:
        table = getattr(plain, name)
        np.testing.assert_array_equal(table.values, getattr(copies_found, name).values)
        assert table.resamples is None
        assert table.ceiling is None


def test_where_nothing_parts_the_models_no_share_of_a_gap_is_closed(copies_found):
    at = copies_found.self_ev.sites
    for naive in (copies_found.self_ev, copies_found.self_ev - abs(plus_and_minus(at))):
        none = replace(copies_found, naive_ev=naive).gap_closed_by_shift(at)
        assert none.unmet.startswith(
            "no gap self - naive of which a share could be closed, at resid_p"
        )
        assert np.isfinite(none.values).all()
    large = replace(copies_found, naive_ev=copies_found.self_ev - table_of([[1.0] * 2, [1.01] * 2]))
    assert not large.gap_closed_by_shift(at).unmet


def table_of(values, sites=("resid_pre_0", "resid_post_0")):
    pairs = ("0-1", "0-2", "0-3")[: len(values)]
    return PairSite(np.array(values), pairs, sites[: len(values[0])])


def plus_and_minus(sites):
    """A gap that is there in one pair alone."""
    return table_of([[0.3] * len(sites), [0.0] * len(sites)])


def test_strangers_are_not_aligned_point_by_point():
    cohort = Planted(strangers=True)
    found = transfer.measure_transfer(
        cohort, fit_all(cohort), {s: perfect_sae() for s in cohort.sites}
    )
    assert (found.pointwise_ev.values < 0.1).all()
    assert (found.affine_ev.values < 0.1).all()


def test_halves_agree_for_siblings_and_not_for_strangers():
    def gap(strangers):
        fits = fit_all(Planted(strangers))
        first, second = fits.halves["resid_post_0"]
        return max(float((a.r - b.r).norm()) for a, b in zip(first, second, strict=True))

    assert gap(strangers=False) < 1e-3
    assert gap(strangers=True) > 1


def test_matched_gaussian_has_mean_and_covariance_even_of_low_rank():
    generator = torch_generator(0, "low rank")
    x = torch.randn(5000, 3, generator=generator) @ torch.randn(3, 8, generator=generator) + 2
    drawn = transfer.gaussian_law(x).draw(200_000, generator).float()
    torch.testing.assert_close(drawn.mean(0), x.mean(0), atol=0.03, rtol=0.02)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(x.T), atol=0.1, rtol=0.05)
    assert torch.linalg.matrix_rank(drawn - drawn.mean(0), rtol=1e-4) == 3


def test_permuted_dimensions_keep_marginals_and_lose_correlation():
    x = activations("fit")
    mixed = transfer.permuted_dimensions(x, torch_generator(0, "permute"))
    torch.testing.assert_close(mixed.sort(0).values, x.sort(0).values)
    off = torch.corrcoef(mixed.T) - torch.eye(D)
    assert off.abs().max() < 0.1
    assert (torch.corrcoef(x.T) - torch.eye(D)).abs().max() > 0.3


def test_a_rank_is_a_range_where_sites_are_not_apart():
    table = table_of([[0.30, 0.50, 0.39], [0.32, 0.54, 0.41], [0.31, 0.52, 0.40]], "abc")
    for site, rank in zip("abc", (1, 3, 2), strict=True):
        found = transfer.rank_of(site, table)
        assert found.values[0] == rank
        assert found.interval(0) == (rank, rank, "pairs")
    close = table_of([[0.30, 0.50, 0.29], [0.32, 0.54, 0.35], [0.31, 0.52, 0.31]], "abc")
    assert transfer.rank_of("a", close).values[0] == 1
    assert transfer.rank_of("a", close).interval(0) == (1, 2, "pairs")
    assert transfer.rank_of("b", close).interval(0) == (3, 3, "pairs")
    assert transfer.rank_of("a", table_of([[0.3, 0.5]], "ab")).interval(0) is None


def test_rank_and_spread_say_at_how_many_sites_r_is_not_determined():
    table = table_of([[0.30, 0.50, 0.39], [0.32, 0.54, 0.41]], "abc")
    known = table.through({"a": False, "b": True, "c": False})
    for found in (transfer.rank_of("a", known), transfer.spread_over_sites(known)):
        assert found.beside["sites_not_identified"] == 2
    for found in (transfer.rank_of("a", table), transfer.spread_over_sites(table)):
        assert "sites_not_identified" not in found.beside


def test_naive_less_own_has_the_anchor_itself_for_its_ceiling(copies_found):
    sites = copies_found.naive_ev.sites
    found = copies_found.naive_off_own(sites)
    gap = copies_found.naive_ev.values - copies_found.self_ev.values
    np.testing.assert_array_equal(found.values, abs(gap))
    np.testing.assert_array_equal(found.ceiling, 0.0)
    assert (found.values > 1e-4).all(), "the dictionary tells copies from the anchor"
    same = replace(copies_found, naive_ev=copies_found.self_ev).naive_off_own(sites)
    np.testing.assert_array_equal(same.values, 0.0)
    assert not copies_found.naive_ev.at(sites).each().ceilings, "as a difference it has none"


def test_a_spread_has_the_pairs_differences_for_its_sample():
    table = table_of([[0.9, 0.7, 0.8], [0.8, 0.7, 0.9], [0.95, 0.7, 0.8]], "abc")
    found = transfer.spread_over_sites(replace(table, ceiling=np.array([0.99, 0.9, 0.97])))
    assert found.labels == ("a - b",)
    assert found.values[0] == pytest.approx((0.2 + 0.1 + 0.25) / 3)
    np.testing.assert_allclose(found.replicates, [[0.2, 0.1, 0.25]])
    assert found.interval(0).low > 0
    assert found.ceilings == pytest.approx((0.09,))
    assert not transfer.spread_over_sites(table).ceilings


def test_the_lowest_site_is_a_mean_over_pairs():
    found = transfer.lowest_site(table_of([[0.9, -1.0], [0.8, -3.0]]))
    assert found.labels == ("resid_post_0",)
    assert found.values[0] == -2
    assert found.interval(0).of == "pairs"


def test_what_is_the_anchors_alone_has_no_pairs_for_its_sample(copies_found):
    found = transfer.of_anchor(copies_found.noise_ev)
    np.testing.assert_array_equal(found.values, copies_found.noise_ev.values[1])
    assert found.interval(0).low < found.values[0] < found.interval(0).high
    assert found.interval(0).of == "sequences"
    assert found.n == 200


def test_a_share_of_misled_pairs_is_a_range_where_a_naive_ev_is_open():
    high = table_of([[0.9, 0.9], [0.9, 0.9], [0.2, 0.2]])
    naive = table_of([[-1.0, -1.0], [-0.01, 0.01], [-1.0, 0.5]])
    assert transfer.misled_fraction(high, naive).values[0] == pytest.approx(3 / 6)
    assert transfer.misled_fraction(high, naive).interval(0) is None
    noise = np.random.default_rng(0).standard_normal((200, 3, 2))
    drawn = replace(naive, unit="ev", resamples=naive.values + 0.05 * noise)
    assert transfer.misled_fraction(high, drawn).interval(0) == (2 / 6, 4 / 6, "sequences")
    apart = replace(naive, unit="ev", resamples=naive.values + 1e-4 * noise)
    assert transfer.misled_fraction(high, apart).interval(0) == (3 / 6, 3 / 6, "sequences")
    with pytest.raises(ValueError, match="different pairs or sites"):
        transfer.misled_fraction(high.at(["resid_pre_0"]), naive)


def test_recovery_beyond_the_untrained_is_bounded_by_nothing(copies_found, strangers_found):
    found = copies_found.recovery_beyond(strangers_found, Planted.internal)
    wanted = copies_found.rotated_ev.values - strangers_found.rotated_ev.values
    np.testing.assert_array_equal(found.values, wanted[:, 1:])
    assert found.ceiling is None


def random_dictionary(decoder):
    f = decoder.shape[1]
    return Dictionary(decoder, torch.zeros(f), decoder.T, torch.zeros(D), torch.zeros(D))


def rotated_dictionaries(cohort, strangers=False):
    saes = {}
    for site in cohort.sites:
        base = torch.randn(D, 40, generator=torch_generator(0, "decoder", site))
        saes[0, site] = random_dictionary(base / base.norm(dim=0))
        for m, q in enumerate(cohort.q, start=1):
            other = torch.randn(D, 40, generator=torch_generator(m, "decoder", site))
            column = other / other.norm(dim=0) if strangers else saes[0, site].decoder
            saes[m, site] = random_dictionary(torch.from_numpy(q).float() @ column)
    return saes


def test_rotated_copies_match_through_r_only_and_strangers_never():
    cohort = Planted()
    fits = fit_all(cohort)
    site = cohort.internal
    same = rotated_dictionaries(cohort)
    raw = cosine.agreement(cohort, same, site)
    gain = cosine.gain_by_rotation(cohort, same, fits, site)
    np.testing.assert_allclose(gain.values + raw.mean.values, 1, atol=1e-3)
    second = {s: same[0, s] for s in site}
    choices = dict.fromkeys(site, Choice(l1=0.01, l0=6.0, ev=0.95, admissible=True))
    universal = cosine.universality(cohort, same, second, fits, choices)
    # A column can be live in the anchor and dead in the shifted sibling: not all, but nearly.
    assert universal.beside["through_R_resid_post_0"] > 0.9
    assert universal.beside["two_starts_resid_post_0"] == pytest.approx(1)
    # In 16 dimensions 40 columns match a stranger's above 0.5 more often than not.
    assert (universal.values > 0.3).all()
    others = rotated_dictionaries(cohort, strangers=True)
    assert (cosine.universality(cohort, others, second, fits, choices).values < 0.15).all()
    assert (cosine.gain_by_rotation(cohort, others, fits, site).values < 0.15).all()


def test_splits_share_no_sequence():
    tokens = split_tokens()
    rows = {split: {tuple(r) for r in x.tolist()} for split, x in tokens.items()}
    assert {split: len(x) for split, x in tokens.items()} == N_SEQUENCES
    assert not rows["fit"] & rows["score"]
    assert not rows["dictionary"] & (rows["fit"] | rows["score"])
    lengths = torch.cat([(x >= 3).sum(1) for x in tokens.values()])
    assert (lengths.min(), lengths.max()) == CONTENT
