"""The paper's own scores, a rotation with a scalar, a chain, growth: which tokens, which sums."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from polyrot.cohorts.cohort import NotOffered, ScaleFacts, pair_labels
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.moments import pair_moments
from polyrot.maps.procrustes import fit_rotation, scaled_from_moments
from polyrot.measured import PairSite
from polyrot.measures import published_scores as published
from polyrot.measures.chain import measure_chain
from polyrot.measures.fits import Fits, fit_all
from polyrot.measures.growth import Growth, Step, measure_growth
from polyrot.measures.published_scores import PublishedScores, Scores, published_scores
from polyrot.measures.scaled import measure_scaled
from tests_unit.worlds.splits import Apart

SITE = Apart.sites[1]
SEQUENCE = 10  # tokens


class Batched(Apart):
    """With sequences, of which the paper's batch may be the first few."""

    facts = ScaleFacts(language=False)
    internal = (SITE,)

    def sequences(self, split: str) -> torch.Tensor:
        x = self.activations(split, SITE)  # type: ignore[arg-type]
        return torch.arange(x.shape[1]) // SEQUENCE


@pytest.fixture(scope="module")
def cohort() -> Batched:
    return Batched(seeds=(0, 1, 2))


@pytest.fixture(scope="module")
def fits(cohort: Batched) -> Fits:
    return fit_all(cohort)


def test_the_papers_scores_are_fitted_and_scored_on_the_first_sequences(
    cohort: Batched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "TOY_SEQUENCES", 30)
    sae = cohort.saes()[SITE]
    cohort.read()
    found = published_scores(cohort, {SITE: sae})
    assert cohort.read() == {"score"}
    x = cohort.activations("score", SITE)[:, : 30 * SEQUENCE].double()

    def score(given: torch.Tensor, unbiased: bool) -> float:
        error = (given.float() - sae(given.float())).double().square().mean()
        return float(1 - error / given.var(correction=int(unbiased)))

    for i, a in enumerate(x[1:]):
        turned = (a - a.mean(0)) @ fit_rotation(a, x[0]).r + x[0].mean(0)
        assert found.naive.values[i, 0] == pytest.approx(score(a, True), abs=1e-5)
        assert found.rotated.values[i, 0] == pytest.approx(score(turned, False), abs=1e-5)
        assert found.own.values[i, 0] == pytest.approx(score(x[0], True), abs=1e-5)
    assert found.rotated.ceiling == pytest.approx(score(x[0], False), abs=1e-4)
    assert found.naive.ceiling is None
    assert found.naive.counts == {"tokens": 300, "sequences": 30}
    assert found.naive.beside == {"sites_where_R_is_completed": 0}
    whole = published_scores(replace_facts(cohort, language=True), {SITE: sae})
    assert whole.naive.counts["sequences"] == 100, "all where there are fewer than the paper's"


def replace_facts(cohort: Batched, *, language: bool) -> Batched:
    made = Batched(seeds=cohort.seeds)
    object.__setattr__(made, "facts", ScaleFacts(language=language))
    return made


def scores_of(level: float) -> Scores:
    sites = ("pre", "mid")
    values = np.array([[level, level - 0.1], [level + 0.02, level - 0.1]])
    own, naive, rotated = (
        PairSite(x, ("0-1", "0-2"), sites) for x in (values * 0 + 0.99, -values, values)
    )
    return Scores(own, naive, rotated)


def test_each_claim_is_judged_by_the_reading_that_favours_it() -> None:
    found = PublishedScores({"4000 steps": scores_of(0.9), "6000 steps": scores_of(0.7)})
    rotated, naive = found.rotated(["mid"]), found.naive(["mid"])
    assert rotated.beside["reading"] == naive.beside["reading"] == "4000 steps"
    np.testing.assert_allclose([rotated.values[0], naive.values[0]], [0.8, -0.8])
    assert rotated.beside["mid 6000 steps"] == pytest.approx(0.6)
    assert found.short_of_own(["mid"]).values[0] == pytest.approx(0.19)
    assert (rotated.unread, naive.unread) == ("", "")
    waiting = PublishedScores({"6000 steps": scores_of(0.7)}, unread="other seeds")
    assert waiting.naive(["mid"]).unread == waiting.rotated(["mid"]).unread == "other seeds"
    alone = PublishedScores({"6000 steps": scores_of(0.7)}).rotated(["mid"])
    assert "reading" not in alone.beside


def test_a_rotation_and_a_scalar_are_fitted_and_scored_apart(cohort: Batched, fits: Fits) -> None:
    sae = cohort.saes()[SITE]
    cohort.read()
    found = measure_scaled(cohort, fits, {SITE: sae})
    assert cohort.read() == {"fit", "score"}
    fit, score = (cohort.activations(split, SITE) for split in ("fit", "score"))
    for i in range(2):
        moments = pair_moments([fit[i + 1]], fit[0])[0]
        by = scaled_from_moments(fit_rotation(fit[i + 1], fit[0]), moments).apply(score[i + 1])
        assert found.rotated_ev.values[i, 0] == pytest.approx(explained_variance(by, sae(by)))
        assert found.pointwise_ev.values[i, 0] == pytest.approx(explained_variance(score[0], by))
        ratio = score[i + 1].var(0, correction=0).sum() / score[0].var(0, correction=0).sum()
        assert found.variances.values[i, 0] == pytest.approx(float(ratio), rel=1e-5)
    assert found.pointwise_ev.ceiling == pytest.approx(1, abs=1e-6)
    assert found.rotated_ev.ceiling == pytest.approx(
        explained_variance(score[0], sae(score[0])), abs=1e-4
    )
    affine = replace(found.pointwise_ev, values=found.pointwise_ev.values + 0.25)
    gained = found.gained_by_affine(affine, [SITE])
    assert gained.values[0] == pytest.approx(0.25)
    assert gained.beside["highest_ratio_of_variances"] == found.variances.values.max()


def test_a_chain_is_of_neighbours_on_the_score_split() -> None:
    four = Four(seeds=(0, 1, 2, 3))
    fits = fit_all(four)
    found = measure_chain(four, fits, [SITE])
    assert found.direct_ev.pairs == ("1-2", "2-3")
    fit, score = (four.activations(split, SITE) for split in ("fit", "score"))
    maps = [fit_rotation(a, fit[0]) for a in fit[1:]]
    for i, (b, c) in enumerate(pairwise(range(3))):
        straight = fit_rotation(fit[b + 1], fit[c + 1])
        direct = explained_variance(score[c + 1], straight.apply(score[b + 1]))
        centred = score[b + 1].double() - fit[b + 1].double().mean(0)
        around = centred @ maps[b].r @ maps[c].r.T + fit[c + 1].double().mean(0)
        assert found.direct_ev.values[i, 0] == pytest.approx(direct, abs=1e-5)
        assert found.composed_ev.values[i, 0] == pytest.approx(
            explained_variance(score[c + 1].double(), around), abs=1e-5
        )
    assert found.composed_ev.ceiling is not None
    np.testing.assert_allclose(found.composed_ev.ceiling, 1, atol=1e-6)
    lost = found.lost_by_way_of_the_anchor([SITE])
    gap = (found.direct_ev.values - found.composed_ev.values).mean()
    assert lost.values[0] == pytest.approx(gap)
    pair = Batched(seeds=(0, 1))
    with pytest.raises(NotOffered, match="needs two"):
        measure_chain(pair, fits, [SITE])


class Four(Batched):
    """With a third sibling, nearer to the second than to the anchor."""

    def activations(self, split: str, site: str) -> torch.Tensor:  # type: ignore[override]
        x = super().activations(split, site)  # type: ignore[arg-type]
        return torch.cat([x, (x[2:] + 0.3 * x[:1]).flip(-1)])


def stitched(cohort: Batched, level: float = 0.9) -> PairSite:
    """A recovered loss of `level` everywhere."""
    pairs, sites = pair_labels(cohort), (SITE, "another")
    return PairSite(np.full((len(pairs), len(sites)), level), pairs, sites)


def test_growth_is_of_equal_steps_and_is_kept_as_it_is(cohort: Batched) -> None:
    saes = cohort.saes()
    along = [
        Step(step, cohort, saes, stitched(cohort, step / 4000), [0.9, 0.95, step / 2000])
        for step in (500, 1000, 2000)
    ]
    found = measure_growth(along, [SITE])
    assert found.steps == (1000, 2000), "from the registration's first step on"
    fit, score = (cohort.activations(split, SITE) for split in ("fit", "score"))
    carried = fit_rotation(fit[1], fit[0]).apply(score[1])
    table = {name: getattr(found, name)[0].values[0, 0] for name in ("pointwise_ev", "rotated_ev")}
    assert table["pointwise_ev"] == pytest.approx(explained_variance(score[0], carried))
    assert table["rotated_ev"] == pytest.approx(explained_variance(carried, saes[SITE](carried)))
    again = Growth.from_tables(*found.to_tables())
    assert again.steps == found.steps
    np.testing.assert_array_equal(again.accuracies, found.accuracies)
    trend = again.trend([SITE])
    assert trend.beside["lowest_accuracy_at_step_1000"] == 0.5
    assert trend.beside["lowest_accuracy_at_step_2000"] == 0.9
    assert trend.beside["recovered_at_step_2000"] == 0.5
    assert found.recovered[0].sites == (SITE,), "of the sites that were asked for"
    assert trend.unmet.startswith("2 steps from 1,000 on")
    assert "reading" not in trend.beside
    assert replace(again, reading="others").trend([SITE]).beside["reading"] == "others"
    # Nothing changes between these steps: no trend.
    assert trend.values[0] == 0


def test_a_trend_is_of_each_pair(cohort: Batched) -> None:
    found = measure_growth([Step(1000, cohort, cohort.saes(), stitched(cohort), [1.0] * 3)], [SITE])
    levels = np.array([[0.1, 0.9], [0.4, 0.3], [0.3, 0.2], [0.8, 0.5]])
    tables = tuple(replace(found.pointwise_ev[0], values=np.array(row)[:, None]) for row in levels)
    four = replace(
        found,
        steps=(1000, 2000, 3000, 4000),
        pointwise_ev=tables,
        rotated_ev=tables,
        variances=tables,
        recovered=tables,
        accuracies=np.ones((4, 3)),
    )
    trend = four.trend([SITE])
    # Ranks 1 3 2 4 against 1 2 3 4, and 4 2 1 3.
    assert trend.replicates is not None
    np.testing.assert_allclose(trend.replicates[0], [0.8, -0.4])
    assert not trend.ceilings
    assert trend.beside["sites_not_identified"] == 0
    # Undetermined at one step is enough; tables kept before it was recorded say nothing.
    once = tables[2].through({SITE: False})
    low = replace(four, pointwise_ev=(*tables[:2], once, tables[3]))
    assert low.trend([SITE]).beside["sites_not_identified"] == 1
    older = replace(four, pointwise_ev=tuple(replace(x, identified=None) for x in tables))
    assert "sites_not_identified" not in older.trend([SITE]).beside


class Thin(Batched):
    """One direction of the second sibling is the first one again."""

    def activations(self, split: str, site: str) -> torch.Tensor:  # type: ignore[override]
        x = super().activations(split, site).clone()  # type: ignore[arg-type]
        x[2, :, 1] = x[2, :, 0]
        return x


def test_growth_records_where_r_is_not_determined() -> None:
    for made, count in ((Batched(), 0), (Thin(), 1)):
        step = Step(1000, made, made.saes(), stitched(made), [1.0] * 3)
        found = Growth.from_tables(*measure_growth([step], [SITE]).to_tables())
        assert found.trend([SITE]).beside["sites_not_identified"] == count
