"""What departs from the paper's protocol says so, and what follows it says nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fixtures import departures as of_tests
from fixtures.dictionaries import Shelf
from polyrot.cohorts import departures
from polyrot.cohorts.cohort import CohortDefaults, ScaleFacts
from polyrot.defaults import LEAST_POSITIONS, PYTHIA_WIDTH
from polyrot.dictionaries import groups, training as dictionary_training
from polyrot.language import neox, seeds as language_seeds, training as language_training
from polyrot.measures.bars.kept import FEW_POSITIONS
from polyrot.runtime.device import BF16, BY_HARDWARE, FLOAT32
from polyrot.store import Runtime, Store
from polyrot.toy import seeds
from polyrot.toy.schedule import Schedule
from polyrot.toy.trained import Trained
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop

SHIPPED = Path(__file__).parents[2] / "fixtures" / "shipped"


def test_a_departure_is_a_sentence_and_what_follows_either_reading_is_none() -> None:
    rule = {"steps": departures.Rule("{} steps", (6000, 4000))}
    for steps in (6000, 4000):
        assert departures.departures("things", rule, {"steps": steps}) == ()
    said = departures.departures("things", rule, {"steps": 1500})
    assert said == ("things: 1,500 steps where the paper takes 6,000 or 4,000",)
    with pytest.raises(KeyError, match="batch"):
        departures.departures("things", rule, {"batch": 1})


def test_the_papers_text_and_its_pipeline_depart_in_nothing() -> None:
    for schedule in (seeds.TEXT, seeds.PIPELINE):
        assert schedule.departures(BF16) == ()
        (said,) = schedule.departures()
        assert said.startswith(f"toys: {BY_HARDWARE} where the paper takes")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("steps", 18_000, "at most 18,000 steps where the paper takes 60,000 or 30,000"),
        ("batch", 128, "batches of 128 sequences where the paper takes 512"),
        ("warmup", 5, "5 warm-up steps where the paper takes 500"),
        ("peak_rate", 2e-3, "a peak rate of 0.002 where the paper takes 0.003"),
        ("final_share", 0.1, "a last rate of 0.1 times the peak where the paper takes 0.02"),
        ("betas", (0.9, 0.99), "AdamW's betas 0.9 and 0.99 where the paper takes 0.9 and 0.95"),
        ("weight_decay", 0.1, "a weight decay of 0.1 where the paper takes 0.0001"),
        ("clip", 2.0, "gradients clipped at 2 where the paper takes 1"),
        ("precision", FLOAT32, f"float32 where the paper takes {BF16}"),
        (
            "patience",
            40,
            "an end 40 steps after the goal is first met where the paper takes 10,000 or 3,000",
        ),
        ("evaluate_every", 20, "a stop rule every 20 steps where the paper takes 500"),
        (
            "evaluation_sequences",
            512,
            "a stop rule on 512 sequences of each distribution where the paper takes 2,048",
        ),
        (
            "choose",
            "last",
            "the last weights of a run where the paper takes the best of those evaluated",
        ),
        (
            "late_violations",
            0.5,
            "a share of 0.5 late violations in the data where the paper takes none",
        ),
        (
            "full_context",
            0.2,
            "a share of 0.2 sequences of full context where the paper takes none",
        ),
        (
            "hidden_closers",
            0.6,
            "a share of 0.6 hidden closers in the data where the paper takes none",
        ),
        (
            "shallow_walks",
            0.1,
            "a share of 0.1 shallow walks in the data where the paper takes none",
        ),
        (
            "cycle",
            Schedule(steps=16_000),
            "cycles of 16,000 further steps for seeds that miss the goal where the paper takes "
            "none",
        ),
    ],
)
def test_every_field_of_a_toys_schedule_that_departs_is_said(
    field: str, value: object, said: str
) -> None:
    paper = replace(seeds.TEXT, precision=BF16)
    assert replace(paper, **{field: value}).departures() == (f"toys: {said}",)


def test_what_a_run_took_and_where_it_moved_is_said() -> None:
    def run(device: str, *precision: str) -> Trained:
        stretches = [[100 * i, each] for i, each in enumerate(precision)]
        return Trained((1,), {}, {}, [], [], [0], device=device, precision=stretches)

    plain = seeds.departures(seeds.TEXT, [run("cuda", BF16), run("cpu", BF16)])
    assert plain == ()
    mixed = seeds.departures(seeds.TEXT, [run("cuda", BF16), run("cuda; the rest cpu", FLOAT32)])
    assert mixed == (
        f"toys: {BF16} and float32 where the paper takes {BF16}",
        "toys: trained on cuda, the rest cpu; the paper names no device",
    )


@pytest.mark.parametrize(
    ("language", "checkpoints", "paper"),
    [
        (False, False, dictionary_training.Schedule()),
        (False, False, dictionary_training.Schedule(steps=4000)),
        (False, True, dictionary_training.Schedule(steps=3000)),
        (True, False, dictionary_training.Schedule(steps=4000)),
        (True, True, dictionary_training.Schedule(steps=4000)),
    ],
)
def test_dictionaries_are_held_against_the_protocol_of_their_kind(
    language: bool, checkpoints: bool, paper: dictionary_training.Schedule
) -> None:
    def said(schedule: dictionary_training.Schedule) -> tuple[str, ...]:
        return schedule.departures(language=language, checkpoints=checkpoints)

    assert said(paper) == ()
    assert len(said(replace(paper, steps=1, batch=2, rate=1.0, precision=BF16))) == 4
    other = 3000 if paper.steps == 6000 else 6000
    assert (said(replace(paper, steps=other)) == ()) == (
        not language and not checkpoints and paper.steps == 4000
    )


class Models(CohortDefaults):
    """Nothing but sites: what groups are made of."""

    scale, seeds, width, fingerprint = "neox", (0, 1), 8, "no models"
    sites = ("resid_pre_0", "resid_post_0", "resid_post_1")

    def __init__(self, facts: ScaleFacts, said: tuple[str, ...] = ()) -> None:
        self.facts, self.departures = facts, said

    def activations(self, split: str, site: str) -> torch.Tensor:
        raise AssertionError("departures follow from recipes alone")


def test_a_groups_sparsity_is_held_against_the_papers_where_it_is_published() -> None:
    language, paper = Models(neox.FACTS), PROFILES["full"].language_dictionaries
    assert groups.departures(language, groups.anchor(language, paper)) == ()
    (said,) = groups.departures(language, groups.drift(language, paper))
    assert said == (
        "language models' dictionaries of checkpoints: an l1 of 1e-05 where the paper takes 0.001"
    )
    chosen = groups.sparse(language, paper, dict.fromkeys(language.internal, 0.05))
    assert groups.departures(language, chosen) == ()


def test_neox_departs_from_pythia() -> None:
    shipped = " ".join(language_seeds.departures(language_seeds.SHIPPED))
    for what in ("width 128", "5 seeds", "3,000 steps", "standard library", "8 bits"):
        assert what in shipped
    wide = " ".join(language_seeds.departures(language_seeds.FULL, PYTHIA_WIDTH))
    assert "width" not in wide
    assert "seeds" not in wide
    assert "12,000 steps" in wide


def of_text(seed: int, text: str) -> language_training.Trained:
    return language_training.Trained(seed, {}, {}, [], [], 0.0, 0.0, 0.0, "cpu", [], text)


def test_seeds_that_were_trained_on_texts_that_differ_are_said() -> None:
    def said(*texts: str) -> tuple[str, ...]:
        results = [of_text(200 + i, text) for i, text in enumerate(texts)]
        return language_seeds.departures(language_seeds.SHIPPED, results=results)

    plain = language_seeds.departures(language_seeds.SHIPPED)
    assert said("a", "a", "a") == said("", "", "") == said("a", "", "a") == plain
    *rest, mixed = said("a", "b", "", "a")
    assert tuple(rest) == plain
    assert "trained on 2 texts that differ" in mixed
    assert "(seeds 200, 203; seeds 201)" in mixed


def test_a_cohort_of_two_pythons_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Workshop(Runtime(Store(tmp_path, shipped=SHIPPED)), PROFILES["shipped"]).neox
    shipped = made.trained(made.evaluation())
    assert not any("texts that differ" in text for text in made.cohort().departures)
    mixed = [replace(each, text=str(each.seed % 2)) for each in shipped]
    monkeypatch.setattr(neox.Neox, "trained", lambda *_: mixed)
    assert "(seeds 200, 202, 204; seeds 201, 203)" in made.cohort().departures[-1]


def test_cohort_shelf_and_workshop_say_what_they_rest_on(tmp_path: Path) -> None:
    made = Workshop(Runtime(Store(tmp_path, shipped=SHIPPED)), PROFILES["shipped"])
    cohort = made.cohort("toy_a")
    of_models = departures.departures_of(cohort)
    assert any("stop rule on 512" in text for text in of_models)
    assert any("1,500 of seed 2 cpu" in text for text in of_models)
    assert not any("dictionaries" in text for text in of_models)
    on_shelf = departures.departures_of(Shelf(made, cohort))
    assert on_shelf[: len(of_models)] == of_models
    assert on_shelf == of_models, "the anchor's dictionaries are the paper's"
    hasty = replace(made, profile=replace(made.profile, dictionaries=PROFILES["tiny"].dictionaries))
    of_dictionaries = PROFILES["tiny"].dictionaries.departures()
    assert departures.departures_of(Shelf(hasty, cohort)) == (*of_models, *of_dictionaries)
    assert of_dictionaries != ()
    everything = departures.departures_of(made)
    assert set(on_shelf) <= set(everything)
    assert set(made.neox.cohort(trained=True).departures) <= set(everything)
    assert len(set(everything)) == len(everything)
    # Models as they started rest on no training; the run's checkpoints do.
    assert departures.departures_of(cohort.untrained()) == ()
    assert set(departures.departures_of(made.checkpoints("toy_a"))) <= set(of_models)
    assert departures.departures_of(made.checkpoints("toy_a")) != ()


@pytest.mark.parametrize("value", [None, 3, dictionary_training.Schedule(), Models(neox.FACTS)])
def test_nothing_is_said_of_what_does_not_know(value: object) -> None:
    assert departures.departures_of(value) == ()


def test_a_claim_lists_what_its_fixtures_rest_on() -> None:
    cohort = Models(neox.FACTS, ("models: differ",))
    workshop = SimpleNamespace(profile=PROFILES["shipped"])
    plain = {"cohort": cohort, "workshop": workshop, "fits": object()}
    assert of_tests.of_test({"scale": "paper"}) == ()
    assert of_tests.of_test(plain) == ("models: differ",)
    usual = PROFILES["shipped"].language_dictionaries.departures(language=True)
    for name in of_tests.ON_DICTIONARIES:
        assert of_tests.of_test({**plain, name: object()}) == ("models: differ", *usual)
    others = PROFILES["shipped"].other_language_dictionaries
    assert others is not None
    for name in of_tests.ON_OTHERS:
        said = ("models: differ", *others.departures(language=True))
        assert of_tests.of_test({**plain, name: object()}) == said
    run = {**plain, "checkpoints": cohort, "reconstructions": object()}
    *rest, last = of_tests.of_test(run)
    assert rest == ["models: differ", *others.departures(language=True)]
    assert "of checkpoints: an l1" in last
    assert of_tests.of_test({"positions": LEAST_POSITIONS}) == (
        "Bar B: 1,000,000 positions where the paper takes 10,000,000",
    )
    assert of_tests.of_test({"positions": 10_000_000}) == ()
    of_pairs = of_tests.of_test({"across": object()})
    assert of_pairs == ("Bar B: 500,000 positions where the paper takes 10,000,000",)
    assert of_tests.of_test({"decoys": object()}) == departures.of_bar_b(FEW_POSITIONS) != ()
