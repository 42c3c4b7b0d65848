"""The seven statistics: moments, invariances, and size against their nulls."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from polyrot.haar import (
    Coset,
    angles,
    block_energy_moments,
    class_statistics,
    diagonal_energy_variance,
    entry_statistics,
    frobenius_distance_moments,
    frobenius_distances,
    frobenius_squared_moments,
    haar_batteries,
    null_table,
    one_p_value,
    s4_mean,
    sample_haar,
)
from polyrot.haar.statistics import CLASS_NAMES, ENTRY_NAMES

TABLE = 4_000
SIGMAS = 4.5  # about 100 comparisons below, each wrong with probability 7e-6
seeds = st.integers(0, 2**32 - 1)


def _tolerance(level: float, tests: int) -> float:
    """Binomial deviation of a size from `level`, with that of the null table's own quantile."""
    return SIGMAS * np.sqrt(level * (1 - level) * (1 / tests + 1 / TABLE))


@pytest.mark.parametrize(("d", "det"), [(d, s) for d in (1, 2, 3, 5, 8, 16, 33) for s in (1, -1)])
def test_every_statistic_has_its_size_under_haar(d, det):
    n = 1_500
    rng = np.random.default_rng(21)
    r = sample_haar(d, n, rng, det)
    coset = Coset(d, det)
    free = np.stack(angles(r, validate=False))
    columns = [
        (null_table(d, det, TABLE, 22, kind="class"), CLASS_NAMES, class_statistics(free, coset)),
        (null_table(d, det, TABLE, 22, kind="entry"), ENTRY_NAMES, entry_statistics(r)),
    ]
    u = np.full(d, d**-0.5)
    p_values = {"ONE": np.array([one_p_value(float(u @ m @ u), d) for m in r])}
    for table, names, values in columns:
        for name, column in zip(names, values.T, strict=True):
            p_values[name] = np.array([table.p_value(name, float(x)).p_value for x in column])
    for name, p in p_values.items():
        for level in (0.01, 0.05, 0.5):
            size = float((p <= level).mean())
            assert size <= level + _tolerance(level, n), (name, level)
            # constants at d = 1, at O-(2), without angles: p = 1, never rejected
            if np.ptp(p) > 0:
                assert size >= level - _tolerance(level, n), (name, level)


@pytest.mark.parametrize("group", ["SO", "O-"])
@pytest.mark.parametrize("d", [1, 2, 3, 7, 24])
def test_the_family_keeps_its_level(d, group):
    n = 600
    rs = sample_haar(d, n, np.random.default_rng(23), group)
    p = np.array([b.p_value for b in haar_batteries(rs, draws=TABLE, seed=24)])
    for level in (0.01, 0.05):
        size = float((p <= level).mean())
        # the smallest p-value of six tabulated statistics has six quantiles' errors at worst
        assert size <= level + SIGMAS * np.sqrt(level * (1 - level) * (1 / n + 6 / TABLE))
        if d == 24:  # where they are nearly independent the union bound costs almost nothing
            assert size >= 0.85 * level - SIGMAS * np.sqrt(level / n)


def test_the_null_is_left_and_right_invariant():
    rng = np.random.default_rng(25)
    d, n = 10, 2_000
    a, b = sample_haar(d, 2, rng)
    r = sample_haar(d, n, rng)
    moved = a @ sample_haar(d, n, rng) @ b
    for here, there in zip(entry_statistics(r).T, entry_statistics(moved).T, strict=True):
        assert stats.ks_2samp(here, there).pvalue > 1e-5


@given(st.integers(2, 12), seeds)
@settings(deadline=None)
def test_entries_statistics_do_not_see_signs_nor_s4_and_mx_permutations(d, seed):
    rng = np.random.default_rng(seed)
    r = sample_haar(d, 1, rng)
    signs = rng.integers(0, 2, size=(2, d)) * 2 - 1
    assert np.allclose(entry_statistics(r), entry_statistics(signs[0][:, None] * r * signs[1]))
    shuffled = r[:, rng.permutation(d)][:, :, rng.permutation(d)]
    keep = [ENTRY_NAMES.index(n) for n in ("S4", "MX")]
    assert np.allclose(entry_statistics(r)[:, keep], entry_statistics(shuffled)[:, keep])
    assert np.allclose(entry_statistics(r), entry_statistics(r.transpose(0, 2, 1)))


def test_entries_statistics_do_see_a_change_of_basis():
    rng = np.random.default_rng(26)
    r, v = sample_haar(12, 2, rng)
    assert np.all(np.abs(entry_statistics(r[None]) - entry_statistics((v @ r @ v.T)[None])) > 1e-3)


@pytest.mark.parametrize("d", [2, 3, 4, 9, 20])
@pytest.mark.parametrize("group", ["SO", "O-"])
def test_moments_in_closed_form(d, group):
    n = 8_000
    r = sample_haar(d, n, np.random.default_rng(27), group)
    energy = r**2

    def close(values, mean, variance=None):
        error = values.std() / np.sqrt(n)
        assert abs(values.mean() - mean) < SIGMAS * error
        if variance is not None:
            squares = (values - values.mean()) ** 2
            assert abs(squares.mean() - variance) < SIGMAS * squares.std() / np.sqrt(n) + 1e-9

    close((energy**2).sum(axis=(1, 2)), s4_mean(d))
    close(np.einsum("nii->n", energy), 1.0, diagonal_energy_variance(d))
    for p, q in {(1, 1), (d // 2, d // 2), (1, d - 1)}:
        mean, variance = block_energy_moments(d, p, q)
        close(energy[:, :p, :q].sum(axis=(1, 2)), float(mean), float(variance))
    if d >= 3:
        close(frobenius_distances(r) ** 2, *frobenius_squared_moments(d))


@pytest.mark.parametrize(("d", "mean", "sd"), [(64, 11.3134, 0.0884), (512, 32.0, 0.03125)])
def test_frobenius_distance_of_haar(d, mean, sd):
    assert frobenius_distance_moments(d) == pytest.approx((mean, sd), abs=6e-5)


def test_the_null_at_64_is_as_planned():
    # figures of the literature and of simulations made before this code; error of 20,000 draws
    table = {det: null_table(64, det, 10_000, kind="class") for det in (1, -1)}
    for t in table.values():
        assert t.moments("Q") == pytest.approx((32.0, 8.0), abs=0.4)
        assert t.moments("TR") == pytest.approx((0.0, 1.0), abs=0.045)
        assert t.moments("SR") == pytest.approx((0.600, 0.052), abs=0.003)
        low, high = np.quantile(t.column("KS"), [0.005, 0.995])
        assert low == pytest.approx(0.0336, abs=0.0012)
        assert high == pytest.approx(0.0723, abs=0.0025)
    entries = null_table(64, 1, 4_000, kind="entry")
    assert entries.moments("S4") == pytest.approx((2.9091, 0.0699), abs=0.005)
    assert entries.moments("MX") == pytest.approx((0.454, 0.032), abs=0.0025)
    assert entries is null_table(64, -1, 4_000, kind="entry"), "both cosets share the entries"


def test_a_table_needs_draws_and_knows_its_columns():
    with pytest.raises(ValueError, match="19 draws"):
        null_table(4, 1, 5)
    table = null_table(4, 1, 100)
    assert table.names == CLASS_NAMES
    with pytest.raises(KeyError, match="no statistic 'S4'"):
        table.p_value("S4", 1.0)
    with pytest.raises(ValueError, match="read-only"):
        table.draws[0, 0] = 1.0
    far = table.p_value("TR", 1e9)
    assert far.p_value == pytest.approx(2 / 101)
    assert far.p_error > 0
    assert null_table(4, 1, 100, 5).draws[0, 0] != table.draws[0, 0]
