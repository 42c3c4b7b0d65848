"""Stitching: against losses by hand, of exact copies, by batch, and of a single pair."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from polyrot.cohorts.copies import RotatedCopy
from polyrot.measures import kept, stitching as module
from polyrot.measures.fits import Fits, fit_all
from polyrot.measures.stitching import ARMS, OF_LIKENESS, SCORES, Stitching, measure_stitching
from polyrot.store import Store
from polyrot.toy import task
from tests_unit.maps.rotated_pair import strong_params
from tests_unit.worlds.networks import NETWORKS, SITES, Network, TinyRun, Weights
from tests_unit.worlds.toys import Toys

STRANGERS = replace(NETWORKS["unrelated networks"], seeds=(0, 1, 2))
INTERNAL = SITES[1:]
TOKENS = 150


@cache
def fits() -> Fits:
    return fit_all(STRANGERS)


@cache
def measured() -> Stitching:
    return measure_stitching(STRANGERS, fits(), tokens=TOKENS, copies=2)


def rows(found: Stitching) -> Tensor:
    return STRANGERS.tokens("score")[: found.recovered["rotated"].counts["sequences"]]


def by_hand(run: TinyRun, site: str, stream: Tensor) -> tuple[float, float, float]:
    """Loss, KL and agreement of the anchor's upper half on a stream."""
    logits = run.logits(stream, SITES.index(site))[run.kept].double()
    own = run.logits(run.stream[0], 0)[run.kept].double()
    loss = F.cross_entropy(logits, run.labels[run.kept])
    log_p, log_q = own.log_softmax(-1), logits.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    return float(loss), float(kl), float((logits.argmax(-1) == own.argmax(-1)).double().mean())


# ------------------------------------------------------------------------------ what is measured


@pytest.mark.parametrize("site", [INTERNAL[0], INTERNAL[-1]])
def test_it_is_what_the_registration_says_worked_out_by_hand(site: str) -> None:
    found = measured()
    run = STRANGERS.clean_run(0, rows(found))
    own, _, _ = by_hand(run, SITES[0], run.stream[0])
    mean = STRANGERS.activations("fit", site)[0].mean(0)
    ablated, _, _ = by_hand(run, site, mean.expand_as(run.stream[0]))
    assert found.loss == pytest.approx(own, rel=1e-5)
    assert found.gap[site] == pytest.approx(ablated - own, rel=1e-5)
    j = INTERNAL.index(site)
    for i in range(2):
        stream = STRANGERS.clean_run(i + 1, rows(found)).site(site)
        at = STRANGERS.activations("fit", site)[i + 1].mean(0)
        through = {
            "rotated": fits().matched[site][i].apply(stream),
            "affine": (stream - at) @ fits().affine[site][i].w.float() + mean,
            "shift": stream - at + mean,
            "identity": stream,
        }
        for arm, x in through.items():
            loss, kl, same = by_hand(run, site, x)
            wanted = (ablated - loss) / (ablated - own)
            assert found.recovered[arm].values[i, j] == pytest.approx(wanted, abs=1e-4)
            assert found.kl[arm].values[i, j] == pytest.approx(kl, abs=1e-4)
            assert found.agreement[arm].values[i, j] == pytest.approx(same)


def test_every_arm_is_a_map_of_its_own() -> None:
    seen = {arm: found.values.round(6).tobytes() for arm, found in measured().recovered.items()}
    assert set(seen) == set(ARMS)
    assert len(set(seen.values())) == len(ARMS)


def test_an_exact_rotated_copy_is_the_anchor() -> None:
    copy = RotatedCopy(STRANGERS)  # type: ignore[arg-type]
    found = measure_stitching(copy, fit_all(copy), tokens=TOKENS, copies=1)
    for arm in ("rotated", "scaled", "affine"):
        np.testing.assert_allclose(found.recovered[arm].values, 1, atol=1e-4)
        np.testing.assert_allclose(found.kl[arm].values, 0, atol=1e-4)
        np.testing.assert_allclose(found.agreement[arm].values, 1)
    for arm in ("shift", "principal", "shuffled", "haar", "identity"):
        assert (found.recovered[arm].values < 0.6).all()


def test_ceilings_are_of_statements_of_likeness() -> None:
    found = measured()
    for arm in ARMS:
        assert (found.recovered[arm].ceiling is not None) == (arm in OF_LIKENESS)
    np.testing.assert_allclose(found.preserves(INTERNAL).ceilings, 1, atol=1e-4)
    np.testing.assert_allclose(found.gained_by_affine(INTERNAL).ceilings, 0, atol=1e-4)
    assert min(found.beyond("shuffled", INTERNAL).ceilings) > 0.4
    assert found.naive(INTERNAL).ceilings == ()
    without = measure_stitching(STRANGERS, fits(), tokens=TOKENS, copies=0)
    assert without.preserves(INTERNAL).ceilings == ()
    np.testing.assert_array_equal(
        without.recovered["rotated"].values, found.recovered["rotated"].values
    )


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POSITIONS", 30)  # two sequences
    again = measure_stitching(STRANGERS, fits(), tokens=10_000, copies=0)
    monkeypatch.setattr(module, "POSITIONS", 10_000)
    at_once = measure_stitching(STRANGERS, fits(), tokens=10_000, copies=0)
    assert at_once.recovered["rotated"].counts["sequences"] == 64
    for name in SCORES:
        for arm in ARMS:
            one, other = (getattr(s, name)[arm].values for s in (again, at_once))
            np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)


def test_the_toys_loss_is_the_mean_over_its_heads() -> None:
    toys = Toys("stitched", strong_params(5))
    found = measure_stitching(toys, fit_all(toys), tokens=400, copies=0)
    n = found.recovered["rotated"].counts["sequences"]
    run = toys.clean_run(0, toys.tokens("score")[:n])
    own = run.outputs("resid_pre_0", torch.zeros(1, 1, 1, toys.width))
    losses = [
        F.cross_entropy(own[head][0][run.kept], run.answers()[head][run.kept])
        for head in task.HEADS
    ]
    assert found.loss == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
    assert found.recovered["rotated"].sites == toys.internal
    copy = RotatedCopy(toys)
    same = measure_stitching(copy, fit_all(copy), tokens=400, copies=0)
    np.testing.assert_allclose(same.kl["rotated"].values, 0, atol=1e-3)
    np.testing.assert_allclose(same.agreement["rotated"].values, 1, atol=0.01)
    assert "the mean activation costs less" in same.preserves(toys.internal).unmet  # untrained


# ---------------------------------------------------------------------------- what is made of it


def test_intervals_are_of_pairs_and_of_one_pair_of_its_sequences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "POSITIONS", 60)  # few at once, so that `tokens` says how many
    intervals = measured().preserves(INTERNAL).intervals
    assert {found.of for found in intervals if found is not None} == {"pairs"}
    one = replace(STRANGERS, seeds=(0, 1))
    found = measure_stitching(one, fit_all(one), tokens=600, copies=0)
    single = found.gained_by_affine(INTERNAL)
    assert single.labels == INTERNAL
    assert {i.of for i in single.intervals if i is not None} == {"sequences"}
    assert single.n == single.counts["sequences"] >= 55
    assert all(i is not None and i.high - i.low > 1e-3 for i in single.intervals)
    # Of half as many sequences it is wider by about the root of two.
    half = measure_stitching(one, fit_all(one), tokens=300, copies=0)
    wide = [i.high - i.low for i in half.gained_by_affine(INTERNAL).intervals if i is not None]
    ratio = np.mean(wide) / np.mean([i.high - i.low for i in single.intervals if i is not None])
    assert 1.1 < ratio < 1.9


def test_out_of_reach_where_the_mean_costs_too_little() -> None:
    def mute(w: Weights, i: int) -> Weights:
        return dict(w)

    class Mute(Network):
        """Nothing of the stream reaches the logits."""

        @property
        def models(self) -> list[Weights]:  # type: ignore[override]
            return [{**w, "unembed": w["unembed"] * 1e-3} for w in STRANGERS.models]

    cohort = Mute("mute", mute)
    found = measure_stitching(cohort, fits(), tokens=TOKENS, copies=0)
    for value in (found.preserves(INTERNAL), found.naive(INTERNAL[:1])):
        assert value.unmet.startswith("the mean activation costs less than 0.05 nats (resid_post_0")
    # What a map gains or loses is told in units of the least that the mean must cost.
    assert all(abs(found.recovered[arm].values).max() < 0.2 for arm in ARMS)
    assert measured().preserves(INTERNAL).unmet == ""


def test_what_is_recorded_beside() -> None:
    found = measured()
    beside = found.preserves(INTERNAL).beside
    assert {f"{n}_{arm}_{s}" for n in SCORES for arm in ARMS for s in INTERNAL} <= set(beside)
    assert beside["gap_resid_post_0"] == found.gap["resid_post_0"]
    assert beside["anchor_loss"] == found.loss
    assert found.by_site()["stitched_shift"]["resid_post_1"] == pytest.approx(
        found.recovered["shift"].values[:, 1].mean()
    )


def test_a_kept_table_is_as_good_as_a_measured_one(tmp_path: Path) -> None:
    one = replace(STRANGERS, seeds=(0, 1))
    first = measure_stitching(one, fit_all(one), tokens=TOKENS, copies=1)
    for measure in (first.to_tables, None):
        again = Stitching.from_tables(
            *kept.kept(Store(tmp_path), "stitching", "x", module.recipe(one), measure)  # type: ignore[arg-type]
        )
        assert (again.gap, again.loss) == (first.gap, first.loss)
        for name in ("preserves", "naive", "gained_by_affine"):
            found, wanted = (getattr(s, name)(INTERNAL) for s in (again, first))
            np.testing.assert_array_equal(found.values, wanted.values)
            assert found.ceilings == wanted.ceilings
            np.testing.assert_allclose(
                [i[:2] for i in found.intervals], [i[:2] for i in wanted.intervals], rtol=1e-4
            )
