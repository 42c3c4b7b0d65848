"""The battery's decision: power, frames, directions, bad input, store, command line."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import stats

from polyrot.haar import (
    ALTERNATIVES,
    BATTERY_NAMES,
    NotOrthogonalError,
    haar_batteries,
    haar_battery,
    holm,
    null_table,
    nulls,
    power_table,
    sample_haar,
)
from polyrot.haar.__main__ import main
from polyrot.haar.figure import write_power_figure
from polyrot.haar.power import CRITERIA
from polyrot.store import Store

D, DRAWS = 64, 4_000

# power of the battery at d = 64, level 0.01, as planned from simulations made before this code
PLANNED = {
    "Haar": 0.01,
    "permutation": 1,
    "signed permutation": 1,
    "cyclic shift": 1,
    "block Haar x2": 1,
    "block Haar x8": 1,
    "flipped Hadamard": 1,
    "d/8 coordinates fixed": 1,
    "random d/8 subspace fixed": 1,
    "half drift exp(tA)": 1,
    "independent angles": 1,
    "permutation spectrum": 0.76,
    "polar(G + 4/d I)": 0.59,
    "2 random directions fixed": 0.23,
    "PQ, unknown Haar Q": 0.01,
}


@pytest.mark.parametrize("name", PLANNED)
def test_each_alternative_is_rejected_at_the_planned_power(name):
    n, planned = 80, PLANNED[name]
    rng = np.random.default_rng(31)
    rs = np.stack([ALTERNATIVES[name](D, rng) for _ in range(n)])
    power = float(np.mean([b.rejected for b in haar_batteries(rs, draws=DRAWS)]))
    # binomial, plus 0.03 for the table's quantile at 0.01 / 7 and for the rounding of the plan
    assert abs(power - planned) <= 4 * np.sqrt(planned * (1 - planned) / n) + 0.03


@pytest.mark.parametrize(
    ("name", "seen", "unseen"),
    [
        ("permutation", {"S4", "SUB", "MX", "ONE"}, set()),
        ("flipped Hadamard", {"S4", "MX"}, {"SUB", "ONE"}),
        ("cyclic shift", {"S4", "Q", "SR", "SUB", "MX", "ONE"}, {"TR"}),
        ("random d/8 subspace fixed", {"Q", "TR"}, {"S4", "MX"}),
    ],
)
def test_each_statistic_sees_what_it_is_for(name, seen, unseen):
    result = haar_battery(ALTERNATIVES[name](D, np.random.default_rng(32)), draws=DRAWS)
    p = {s.name: s.p_value for s in result.statistics}
    assert tuple(p) == BATTERY_NAMES
    assert all(p[s] < 0.01 for s in seen)
    assert all(p[s] > 0.001 for s in unseen)
    assert result.smallest.p_value == min(p.values())


def test_the_identity_and_the_table_it_prints():
    result = haar_battery(np.eye(D), draws=DRAWS)
    assert result.rejected
    assert result.p_value < 1e-10, "ONE is exact, so no number of draws limits it"
    text = str(result)
    assert all(name in text for name in BATTERY_NAMES)
    assert "REJECTED" in text
    assert "SO(64)" in text
    assert result["TR"].value == D
    assert result["S4"].tail == "two-sided"
    assert result["SUB"].tail == "upper"
    with pytest.raises(KeyError, match="no statistic 'XX'"):
        result["XX"]
    with pytest.raises(FrozenInstanceError):
        result.p_value = 1.0


def test_a_haar_matrix_is_not_rejected_and_its_null_is_its_own_coset():
    for det in (1, -1):
        r = sample_haar(D, 1, np.random.default_rng(33), det)[0]
        result = haar_battery(r, draws=DRAWS)
        assert result.det == det
        assert not result.rejected
        assert "not rejected" in str(result)
        assert result["Q"].null_mean == null_table(D, det, DRAWS).moments("Q")[0]


def test_monte_carlo_p_values_never_fall_below_their_floor():
    # the spectrum alone is rejected, so no exact law helps
    rng = np.random.default_rng(34)
    v = sample_haar(D, 1, rng)[0]
    result = haar_battery(v @ np.roll(np.eye(D), 1, axis=0) @ v.T, draws=DRAWS)
    assert result["SR"].p_value == pytest.approx(2 / (DRAWS + 1))
    assert result.p_value == pytest.approx(result.p_floor)
    assert result.p_error > 0


def test_structure_planted_in_one_frame_is_seen_in_that_frame():
    rng = np.random.default_rng(35)
    u, w = sample_haar(D, 2, rng)
    blocks = ALTERNATIVES["block Haar x2"](D, rng)
    hidden = u @ blocks @ w.T
    assert haar_battery(hidden, draws=DRAWS)["S4"].p_value > 0.001
    result = haar_battery(hidden, frames={"planted": (u, w), "other": u}, draws=DRAWS)
    assert result.rejected
    p = {(s.frame, s.name): s.p_value for s in result.statistics}
    assert p["planted", "S4"] < 0.001
    assert p["other", "S4"] > 0.001
    assert "S4 (planted)" in str(result)
    # a conjugation keeps the spectrum, which is therefore not tested twice
    assert ("planted", "Q") in p
    assert ("other", "Q") not in p


def test_a_named_direction_is_seen_by_its_name():
    rng = np.random.default_rng(36)
    v = rng.standard_normal(D)
    unit = v / np.linalg.norm(v)
    basis = np.linalg.qr(np.column_stack([unit, rng.standard_normal((D, D - 1))]))[0]
    inner = np.eye(D)
    inner[1:, 1:] = sample_haar(D - 1, 1, rng)[0]
    r = basis @ inner @ basis.T
    result = haar_battery(r, vectors={"mean": v, "pair": (v, np.ones(D))}, draws=DRAWS)
    assert result["ONE[mean]"].value == pytest.approx(1.0)
    assert result["ONE[mean]"].p_value < 1e-10
    assert result["ONE[pair]"].p_value > 1e-4
    assert result.rejected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"vectors": {"v": np.ones(3)}}, r"direction 'v'.*\[4\].*\(3,\)"),
        ({"vectors": {"v": np.zeros(4)}}, "non-zero"),
        ({"vectors": {"v": np.array([1.0, 1.0, 1.0, 1.0]) * 1e-15}}, "'v' is nearly zero"),
        ({"vectors": {"v": np.full(4, 1e-6, dtype=np.float32)}}, "'v' is nearly zero"),
        ({"vectors": {"v": (np.ones(4), np.full(4, 1e-12))}}, "'v' is nearly zero"),
        ({"vectors": {"v": np.ones(4, dtype=int)}}, "'v': expected floating"),
        ({"frames": {"f": np.eye(3)}}, r"frame 'f'"),
        ({"frames": {"f": np.ones((4, 4))}}, "not orthogonal"),
        ({"alpha": 1.0}, "alpha"),
        ({"draws": 3}, "19 draws"),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        haar_battery(np.eye(4), **{"draws": 50, **arguments})


def test_a_direction_that_was_projected_away_is_refused_and_a_small_one_is_not():
    rng = np.random.default_rng(36)
    basis = sample_haar(16, 1, rng)[0]
    v = 100 * basis[:, :8] @ rng.standard_normal(8)
    left = v - basis[:, :8] @ (basis[:, :8].T @ v)
    assert 0 < np.linalg.norm(left) < 1e-11, "what rounding leaves"
    with pytest.raises(ValueError, match="nearly zero"):
        haar_battery(basis, vectors={"v": left}, draws=50)
    small, large = (haar_battery(basis, vectors={"v": s * v}, draws=50) for s in (1e-9, 1))
    assert small["ONE[v]"].value == pytest.approx(large["ONE[v]"].value)


def test_a_stack_is_no_matrix_and_a_tensor_is_one():
    with pytest.raises(NotOrthogonalError, match="stack of 2"):
        haar_battery(np.stack([np.eye(4)] * 2))
    r = torch.eye(8, requires_grad=True)
    assert haar_battery(r, draws=50) == haar_battery(np.eye(8), draws=50)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_the_step_down_procedure(p):
    adjusted = holm(p)
    order = np.argsort(p, kind="stable")
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, p[i] * (len(p) - rank)))
        assert adjusted[i] == pytest.approx(running)


def test_holm_keeps_shape_and_refuses_what_is_no_p_value():
    assert holm([[0.01, 0.04], [0.03, 0.005]]).tolist() == [[0.03, 0.06], [0.06, 0.02]]
    for bad in ([1.2], [np.nan]):
        with pytest.raises(ValueError, match="lie in"):
            holm(bad)


def test_null_tables_are_kept_in_the_store(tmp_path, monkeypatch):
    store = Store(tmp_path)
    first = null_table(8, -1, 200, 99, store)
    assert np.array_equal(first.draws, null_table(8, -1, 200, 99).draws)
    assert null_table(8, -1, 200, 99, store) is first
    # a new process has an empty cache; nothing is drawn again
    nulls._cached.cache_clear()
    monkeypatch.setattr(nulls, "_draw", None)
    assert np.array_equal(null_table(8, -1, 200, 99, store).draws, first.draws)
    nulls._cached.cache_clear()


def test_a_long_table_tells_how_far_it_is(tmp_path, monkeypatch):
    heard = []
    store = Store(tmp_path, progress=lambda stage, done, total: heard.append((stage, done, total)))
    null_table(6, 1, 40, store=store, kind="entry")
    assert heard == []  # a short one
    monkeypatch.setattr(nulls, "_WORTH_TELLING", -1.0)
    monkeypatch.setattr(nulls, "_CHUNK_ENTRIES", 20 * 25)
    null_table(5, 1, 40, store=store, kind="entry")
    assert heard == [("null table entry-d5", n, 40) for n in (20, 40)]


def test_power_table_figure_and_text(tmp_path):
    names = ["Haar", "permutation", "cyclic shift", "flipped Hadamard"]
    table = power_table(12, 20, 5, names, null_draws=500)
    assert table.power.shape == (4, len(CRITERIA))
    assert table.get("permutation", "battery") == 1.0
    assert table.get("cyclic shift", "KS .01") == 0.0
    assert np.isnan(table.power[3]).all(), "there is no such matrix at d = 12"
    assert "n/a" in str(table)
    assert np.nanmin(table.errors) > 0, "an observed 0 or 1 of 20 is not certain"
    again = power_table(12, 20, 5, names[1:3], null_draws=500)
    assert np.array_equal(again.power, table.power[1:3]), "each row has its own stream"
    svg, png = write_power_figure(table, tmp_path / "new")
    assert svg.stat().st_size > 1_000
    assert png.read_bytes()[:4] == b"\x89PNG"
    for bad in ({"d": 3}, {"d": 8, "draws": 0}, {"d": 8, "alternatives": ["x"]}):
        with pytest.raises(ValueError, match=r"expected d|unknown alternatives"):
            power_table(**bad)


def test_command_line(tmp_path, capsys):
    few = ["--null-draws", "200"]
    rows = ["--alternative", "cyclic shift", "--alternative", "Haar"]
    assert main(["power", "--d", "8", "--draws", "3", *few, *rows, "--out", str(tmp_path)]) == 0
    assert "cyclic shift" in capsys.readouterr().out
    assert (tmp_path / "haar_power_d8.svg").exists()
    file = tmp_path / "r.npy"
    np.save(file, np.stack([np.eye(8)] * 2))
    assert main(["battery", str(file), *few]) == 1
    assert "Holm-adjusted over 2" in capsys.readouterr().out
    np.save(file, np.ones((8, 8)))
    assert main(["battery", str(file), *few]) == 2
    assert "not orthogonal" in capsys.readouterr().err
    assert main(["battery", str(tmp_path / "none.npy")]) == 2
    with pytest.raises(SystemExit, match="0"):
        main(["power", "--help"])
    assert "power" in capsys.readouterr().out


def test_the_p_value_of_each_statistic_is_uniform_under_haar():
    rs = sample_haar(16, 400, np.random.default_rng(37))
    results = haar_batteries(rs, draws=DRAWS)
    for name in BATTERY_NAMES:
        p = [b[name].p_value for b in results]
        assert stats.kstest(p, "uniform").pvalue > 1e-5
