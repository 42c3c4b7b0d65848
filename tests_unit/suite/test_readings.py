"""What claims of two readings and of seeds on their way are given, and when they are not run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fixtures import bars, departures, interventions, pipeline, published_scores, steering
from fixtures.dictionaries import Shelf
from fixtures.growth import growth_of
from polyrot.cohorts.cohort import NoCheckpoints, ScaleFacts
from polyrot.dictionaries import groups
from polyrot.dictionaries.training import Schedule
from polyrot.judge.verdicts import NotRun
from polyrot.language.checkpoints import checkpoints as language_checkpoints
from polyrot.maps.explained_variance import explained_variance
from polyrot.measures import growth as measures
from polyrot.measures.bars import kept
from polyrot.measures.bars.causal import Causal
from polyrot.measures.published_steering import PublishedSteering
from polyrot.store import Runtime, Store, ship
from polyrot.toy import cohort as cohorts, seeds, transformer
from polyrot.toy.checkpoints import common_steps, siblings_at
from polyrot.toy.trained import Trained
from polyrot.workshop import workshop as workshops
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop
from tests_unit.conftest import REGISTRATION, registered
from tests_unit.worlds.asked import finding

KEEP = (4, 8, 12, 16)
ON_ITS_WAY = replace(
    seeds.TINY,
    at_once=1,
    evaluate_every=4,
    keep=KEEP,
    steps=16,
    batch=8,
    evaluation_sequences=2,
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few sequences, three seeds, and steps almost from the first on."""
    monkeypatch.setattr(cohorts, "N_SEQUENCES", {"dictionary": 64, "fit": 64, "score": 64})
    monkeypatch.setattr(measures, "FIRST_STEP", 8)
    three = replace(seeds.TOYS["toy_b"], seeds=(100, 101, 102))
    monkeypatch.setitem(seeds.TOYS, "toy_b", three)


def assert_departs_as_published(found: dict[str, Any]) -> None:
    """What is judged as published says how the pipeline's seeds depart; nothing else does."""
    assert "toys: planted" in departures.of_test(found, "any.claim_as_published")
    assert "toys: planted" not in departures.of_test(found, "any.claim")


def workshop_of(tmp_path: Path, toy: Any) -> Workshop:
    profile = replace(PROFILES["tiny"], toy=toy, dictionaries=Schedule(steps=2, batch=16))
    return Workshop(Runtime(Store(tmp_path)), profile)


def test_growth_is_measured_on_the_weights_that_every_seed_kept(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "LEAST_STEPS", 3)
    workshop = workshop_of(tmp_path, ON_ITS_WAY)
    cohort = workshop.toy_cohort("toy_b")
    found = growth_of(cohort, workshop)
    assert found.steps == KEEP[1:]
    assert found.accuracies.shape == (3, 3)
    runs = [seeds.trained(workshop.runtime, t) for t in seeds.trainings("toy_b", ON_ITS_WAY)]
    row = next(row for row in runs[1].history if row["step"] == 8)
    lowest = min(by[head][0] for by in row["accuracy"].values() for head in by)
    assert found.accuracies[0, 1] == lowest

    def none(*_: Any) -> None:
        raise AssertionError("it is kept")

    # The table is enough: neither weights on the way nor dictionaries are asked for again.
    monkeypatch.setattr(measures, "measure_growth", none)
    again = growth_of(cohort, workshop)
    np.testing.assert_array_equal(again.pointwise_ev[2].values, found.pointwise_ev[2].values)


def test_growth_of_seeds_that_kept_nothing_is_that_of_the_pipelines_where_they_are(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "LEAST_STEPS", 3)
    monkeypatch.setattr(seeds, "PIPELINE", ON_ITS_WAY)
    workshop = workshop_of(tmp_path, seeds.TINY)
    cohort = workshop.toy_cohort("toy_b")
    with pytest.raises(NotRun, match="kept no weights"):
        growth_of(cohort, workshop)
    other = workshop_of(tmp_path, ON_ITS_WAY)
    instead = other.toy_cohort("toy_b")
    found = growth_of(cohort, workshop)
    assert found.reading == "seeds of the pipeline"
    assert found.steps == KEEP[1:]
    assert "toys of the pipeline: batches of 8 sequences" in " ".join(found.departures)
    beside = {"cohort": cohort, "toy_cohort": cohort, "growth": found}
    assert departures.of_test(beside) == found.departures
    assert departures.of_test({"cohort": cohort}) == cohort.departures != found.departures
    own = growth_of(instead, other)
    assert own.reading == ""
    # Claims are registered on seeds of the text: by the pipeline's alone nothing is decided.
    for each in (found, own):
        said = each.trend(cohort.internal).stand_in
        assert said.endswith("not measured: seeds as the text trains them (--schedule text)")
    monkeypatch.setattr(seeds, "PIPELINE", seeds.TINY)
    assert growth_of(instead, other).trend(cohort.internal).stand_in == ""
    np.testing.assert_array_equal(own.pointwise_ev[0].values, found.pointwise_ev[0].values)


def test_weights_on_the_way_that_were_not_shipped_are_named(tmp_path: Path, small: None) -> None:
    workshop = workshop_of(tmp_path, replace(ON_ITS_WAY, keep=(*range(9, 17),)))
    cohort = workshop.toy_cohort("toy_b")
    for path in tmp_path.glob("toy-seeds/*.safetensors"):
        ship(path, tmp_path / "shipped", without="snapshot.")
    store = Store(tmp_path / "empty", tmp_path / "shipped")
    elsewhere = replace(workshop, runtime=Runtime(store))
    with pytest.raises(NotRun, match="came without their weights on the way") as raised:
        growth_of(cohort, elsewhere)
    assert raised.value.command.endswith("--scale toy_b --schedule text --retrain")


def test_checkpoints_that_were_not_shipped_are_not_run(tmp_path: Path, small: None) -> None:
    config = SimpleNamespace(getoption=lambda name: {"schedule": "pipeline"}[name])
    request = SimpleNamespace(config=config)
    made: Any = interventions.checkpoints.__wrapped__  # type: ignore[attr-defined]
    workshop = workshop_of(tmp_path, replace(seeds.TINY, at_once=1, batch=8, steps=16))
    there = made("toy_a", None, workshop, request)
    assert there.seeds == (1, 2, 4, 8, 16)
    for path in tmp_path.glob("toy-seeds/*.safetensors"):
        ship(path, tmp_path / "shipped", without="snapshot.")
    store = Store(tmp_path / "empty", tmp_path / "shipped")
    with pytest.raises(NotRun, match=r"seed 0 of toy_a kept 1 checkpoint, of step 16") as raised:
        made("toy_a", None, replace(workshop, runtime=Runtime(store)), request)
    assert raised.value.command == (
        'pytest claims -k "drift or earlier_checkpoints" --scale toy_a --schedule pipeline '
        "--retrain"
    )
    with pytest.raises(NoCheckpoints, match="two or more"):
        language_checkpoints("neox", [8], [None], {}, [])  # type: ignore[list-item]


def test_seeds_that_kept_nothing_on_their_way_are_not_run(tmp_path: Path, small: None) -> None:
    together = replace(ON_ITS_WAY, at_once=None)
    for schedule in (together, replace(ON_ITS_WAY, keep=KEEP[:2])):
        workshop = workshop_of(tmp_path, schedule)
        cohort = SimpleNamespace(scale="toy_b")
        with pytest.raises(NotRun, match="kept no weights") as raised:
            growth_of(cohort, workshop)  # type: ignore[arg-type]
        assert "--scale toy_b --schedule text" in raised.value.command


def run_of(seed: int, *steps: int) -> Trained:
    """One that kept its weights at these steps; of each they are another draw."""
    kept = {step: transformer.initialise([seed + step]) for step in steps}
    return Trained((seed,), kept[steps[-1]], kept, [], [], [steps[-1]])


def test_steps_in_common_are_those_of_every_run() -> None:
    runs = [run_of(1000, 10, 20), run_of(2000, 20, 25)]
    assert common_steps(runs) == (20,)
    assert common_steps([replace(runs[0], seeds=(5, 6))]) == (), "of several it keeps the first"
    assert common_steps([]) == ()
    found = siblings_at("toy_b", 20, runs, ["one", "other"])
    assert found.seeds == (1000, 2000)
    for m, run in enumerate(runs):
        assert torch.equal(found.params["embed"][m], run.snapshots[20]["embed"][0])
    others = [run_of(1000, 10, 20), run_of(2000, 10, 25)]
    prints = {siblings_at("toy_b", 10, others, ["one", by]).fingerprint for by in ("other", "more")}
    assert len({*prints, found.fingerprint}) == 3


def test_seeds_of_the_pipeline_are_a_reading_where_all_of_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(workshop_of(tmp_path, seeds.TINY), SimpleNamespace(scale="toy_b"))  # type: ignore[arg-type]
    there: set[str] = set()
    monkeypatch.setattr(Store, "has", lambda _, kind, recipe: kind in there)
    made = SimpleNamespace(scale="toy_b", fingerprint="f", facts=SimpleNamespace(language=False))
    made.departures = ("toys: planted",)
    monkeypatch.setattr(workshops.Workshop, "toy_cohort", lambda *_: made)
    monkeypatch.setattr(published_scores, "_is_there", lambda *_: "dictionaries" in there)
    monkeypatch.setattr(Shelf, "readings", (1, 2))

    monkeypatch.setattr(published_scores, "scores_at", lambda *_: None)

    def names(own: Any = None) -> list[str]:
        return [name for name, _ in published_scores.published_shelves(shelf, own)]

    def unread(own: Any = None) -> str:
        return published_scores.in_every_reading(shelf, own).unread

    assert names() == [""]
    assert unread() == "seeds as the pipeline trains them (--schedule pipeline)"
    assert unread(made) == ""
    there.add("toy-seeds")
    assert names() == [""], "dictionaries are not trained for a second reading"
    there.add("dictionaries")
    assert names() == ["", "seeds of the pipeline, "]
    monkeypatch.setattr(Shelf, "departures", ("toys: planted",))
    scores = published_scores.in_every_reading(shelf, None)
    assert_departs_as_published({"scores_as_published": scores})
    assert unread() == ""
    assert names(made) == [""], "models of --cohort have one reading"
    profile = replace(shelf.workshop.profile, toy=seeds.PIPELINE)
    shelf = Shelf(replace(shelf.workshop, profile=profile), shelf.cohort)
    assert names() == [""]
    assert unread() == "seeds as the text trains them (--schedule text)"


def test_steering_of_the_pipelines_seeds_is_a_reading_where_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(schedule: str = "text", scale: str = "toy_a", own: Any = None) -> PublishedSteering:
        made = workshop_of(tmp_path, seeds.PIPELINE if schedule == "pipeline" else seeds.TINY)
        cohort: Any = SimpleNamespace(scale=scale)
        return steering.in_every_reading(cohort, made, own)

    there: set[str] = set()
    monkeypatch.setattr(Store, "has", lambda _, kind, recipe: kind in there)
    pipelines = SimpleNamespace(scale="toy_a", departures=("toys: planted",))
    monkeypatch.setattr(workshops.Workshop, "toy_cohort", lambda *_: pipelines)
    of_cohort: dict[bool, Any] = {x: PublishedSteering(str(x), "") for x in (False, True)}  # type: ignore[arg-type]
    monkeypatch.setattr(steering, "_published", lambda of, _: of_cohort[of is pipelines])
    assert found().unread == "seeds as the pipeline trains them (--schedule pipeline)"
    assert found("pipeline").unread == "seeds as the text trains them (--schedule text)"
    assert found(scale="neox").unread == found(own=pipelines).unread == ""
    there.add("toy-seeds")
    both = found()
    assert (both.pipeline, both.unread) == (of_cohort[True], "")
    assert_departs_as_published({"published_steering": both})
    assert found(own=pipelines).pipeline is None, "models of --cohort have one reading"
    assert found("pipeline").unread == "seeds as the text trains them (--schedule text)"


def test_effects_of_the_pipelines_seeds_are_a_reading_where_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = workshop_of(tmp_path, seeds.TINY)
    found = bars.causal_beside(made, "toy_a")
    assert (found.found, found.unread) == (
        None,
        "seeds as the pipeline trains them (--schedule pipeline)",
    )
    own: Any = SimpleNamespace(scale="toy_a", departures=("toys: planted",))
    assert bars.causal_beside(made, "toy_a", own) == bars.CausalOfPipeline()
    of_pipeline = workshop_of(tmp_path, seeds.PIPELINE)
    assert bars.causal_beside(of_pipeline, "toy_a").unread.startswith("seeds as the text")

    monkeypatch.setattr(Store, "has", lambda *_: True)
    of_text = SimpleNamespace(scale="toy_a", departures=())
    monkeypatch.setattr(
        workshops.Workshop,
        "toy_cohort",
        lambda shop, _: own if shop.profile.toy == seeds.PIPELINE else of_text,
    )
    monkeypatch.setattr(kept, "alignments", lambda _, of: ("aligned", of))
    monkeypatch.setattr(kept, "effects", lambda _, of, aligned: (of, aligned))
    found = bars.causal_beside(made, "toy_a")
    assert (found.found, found.unread) == ((own, ("aligned", own)), "")
    assert_departs_as_published({"causal_of_pipeline": found})
    assert bars.causal_beside(of_pipeline, "toy_a").found is None, "they are the run's own"


def causal_of(r: float) -> Causal:
    """Of an anchor and four siblings whose effects correlate with its prediction at nearly r."""
    x = torch.linspace(-1, 1, 10, dtype=torch.float64)
    across = torch.linspace(1, -1, 10, dtype=torch.float64).square()
    across = (across - across.mean()) / (across - across.mean()).norm()
    each = [r + 0.01 * j for j in (-2, -1, 1, 2)]
    siblings = [a * x / x.norm() + max(0.0, 1 - a * a) ** 0.5 * across for a in each]
    effects = torch.stack([x / x.norm(), *siblings])
    order = torch.arange(10).expand(5, 10)
    return Causal(effects, effects, effects, effects, effects, effects[0], order)


@pytest.mark.parametrize(
    ("text", "of_pipeline", "unread", "expected"),
    [
        (0.1, None, "", "refuted"),
        (0.1, None, "seeds of the pipeline", "undecided"),
        (0.1, 0.6, "", "held"),
        (0.6, 0.1, "", "held"),
        (0.1, 0.1, "", "refuted"),
    ],
)
def test_a_failure_as_published_may_be_that_of_the_pipelines_seeds(
    text: float, of_pipeline: float | None, unread: str, expected: str
) -> None:
    cohort = SimpleNamespace(seeds=(0, 1, 2, 3, 4), anchor=0)
    other = None if of_pipeline is None else causal_of(of_pipeline)
    evidence = SimpleNamespace(
        causal=causal_of(text),
        causal_of_pipeline=bars.CausalOfPipeline(other, unread=unread),
        toy_cohort=cohort,
        gradients_at_clean_end=(),
    )
    found = finding("bars.causal_across_fails_as_published", evidence)
    assert found.outcome.value == expected, found.why
    strict = finding("bars.causal_across", evidence)
    assert strict.outcome.value == "refuted", "the strict claim is judged on the seeds of the run"
    assert ("seeds_of_the_pipeline_lowest" in strict.beside) == (other is not None)


def test_transfer_of_the_pipelines_seeds_is_beside_where_it_is_there(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "PIPELINE", ON_ITS_WAY)
    workshop = workshop_of(tmp_path, seeds.TINY)
    shelf = Shelf(workshop, workshop.toy_cohort("toy_b"))
    assert pipeline.transfer_beside(shelf, None) is None, "there are no seeds of the pipeline"
    other = workshop_of(tmp_path, ON_ITS_WAY)
    instead = Shelf(other, other.toy_cohort("toy_b"))
    assert pipeline.transfer_beside(shelf, None) is None, "nor are dictionaries trained for it"
    saes = instead.anchors()
    found = pipeline.transfer_beside(shelf, None)
    assert found is not None
    score = instead.cohort.activations("score", "resid_mid_1")
    naive = explained_variance(score[2], saes["resid_mid_1"](score[2]))
    j = found.naive_ev.sites.index("resid_mid_1")
    assert found.naive_ev.values[1, j] == pytest.approx(naive, rel=1e-6)
    (tmp_path / "dictionaries").rename(tmp_path / "elsewhere")
    again = pipeline.transfer_beside(shelf, None)
    assert again is not None, "the tables are enough"
    np.testing.assert_array_equal(again.rotated_ev.values, found.rotated_ev.values)
    assert pipeline.transfer_beside(shelf, instead.cohort) is None, "of --cohort there is none"
    assert pipeline.transfer_beside(instead, None) is None, "they are the run's own"


@pytest.mark.parametrize("scale", ["toy_b", "neox"])
def test_dictionaries_are_held_against_the_anchors_of_their_own_schedule(
    tmp_path: Path, scale: str
) -> None:
    workshop = Workshop(Runtime(Store(tmp_path)), PROFILES["shipped"])
    facts = SimpleNamespace(
        from_paper=False, language=scale == "neox", published_l1=1e-3, every_site=True
    )
    cohort = SimpleNamespace(scale=scale, facts=facts, trained=True, seeds=(1, 2))
    for sites in ("sites", "internal", "named_sites"):
        setattr(cohort, sites, ("resid_pre_0",))
    shelf = Shelf(workshop, cohort)  # type: ignore[arg-type]
    own, anchor = shelf.group(groups.own), shelf.group(groups.anchor)
    assert own.schedule != anchor.schedule, "or there is nothing to keep apart"
    beside = shelf.beside(groups.own)
    assert (beside.schedule, beside.specs) == (own.schedule, anchor.specs)
    assert shelf.beside(groups.turned) == anchor, "what is by the paper's is against the paper's"


def test_toys_whose_dictionaries_depart_are_not_scored_as_published(
    tmp_path: Path, small: None
) -> None:
    made = workshop_of(tmp_path, ON_ITS_WAY)
    cohort = made.toy_cohort("toy_b")
    with pytest.raises(NotRun, match=r"4,000 and 6,000 steps.*--schedule full"):
        published_scores.check_protocol(Shelf(made, cohort))
    followed = replace(made, profile=replace(made.profile, dictionaries=Schedule()))
    published_scores.check_protocol(Shelf(followed, cohort))
    cohort.facts = ScaleFacts()
    published_scores.check_protocol(Shelf(made, cohort))


def test_a_run_tells_which_claims_are_judged_as_published(suite: Any) -> None:
    published = registered("f.two_as_published", "core", ["toy_a"])
    (suite.claims / "preregistration.toml").write_text(f"{REGISTRATION}\n{published}")
    suite.write(
        """
        @pytest.fixture(autouse=True)
        def published_steering():
            return type("Planted", (), {"departures": ("toys: planted",)})()
        """,
        f__two_as_published="verdict(0.7)",
    )
    suite.run("--report=out")
    found = {v["claim"]: v["departures"] for v in suite.report()["verdicts"]}
    assert found["f.two_as_published"] == ["toys: planted"]
    assert found["f.two"] == []
