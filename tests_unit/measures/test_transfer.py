"""Fits and transfer on cohorts with a planted truth and a planted falsehood."""

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from polyrot.dictionaries.sae import Dictionary
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

    scale, seeds, width = "planted", (0, 1, 2), D
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
    assert (found.gap_closed_by_shift(cohort.sites).values > 0).all()


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


def test_rank_and_misled_fraction():
    means = {"a": 0.3, "b": 0.5, "c": 0.4}
    assert [transfer.rank_of(s, means) for s in "abc"] == [1, 3, 2]
    high = PairSite(np.array([[0.9], [0.9], [0.2]]), ("0-1", "0-2", "0-3"), ("x",))
    naive = PairSite(np.array([[-1.0], [0.5], [-1.0]]), ("0-1", "0-2", "0-3"), ("x",))
    assert transfer.misled_fraction(high, naive) == pytest.approx(1 / 3)
    assert transfer.site_means(naive)["x"] == pytest.approx(-0.5)


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
    universal = cosine.universality(cohort, same, second, fits, site)
    # A column can be live in the anchor and dead in the shifted sibling: not all, but nearly.
    assert universal.beside["through_R_resid_post_0"] > 0.9
    assert universal.beside["two_starts_resid_post_0"] == pytest.approx(1)
    # In 16 dimensions 40 columns match a stranger's above 0.5 more often than not.
    assert (universal.values > 0.3).all()
    others = rotated_dictionaries(cohort, strangers=True)
    assert (cosine.universality(cohort, others, second, fits, site).values < 0.15).all()
    assert (cosine.gain_by_rotation(cohort, others, fits, site).values < 0.15).all()


def test_splits_share_no_sequence():
    tokens = split_tokens()
    rows = {split: {tuple(r) for r in x.tolist()} for split, x in tokens.items()}
    assert {split: len(x) for split, x in tokens.items()} == N_SEQUENCES
    assert not rows["fit"] & rows["score"]
    assert not rows["dictionary"] & (rows["fit"] | rows["score"])
    lengths = torch.cat([(x >= 3).sum(1) for x in tokens.values()])
    assert (lengths.min(), lengths.max()) == CONTENT
