"""What long work is said to cost: planted pieces are counted, and nothing is said of little."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st

from fixtures.cohorts import SHIPPED
from polyrot.cohorts.cohort import ScaleFacts
from polyrot.dictionaries import collection, groups, training as dictionary_training
from polyrot.language import neox, seeds as language_seeds, training as language_training
from polyrot.store import Artifact, Runtime, Store, ship, write_manifest
from polyrot.toy import seeds, training, training as toy_training
from polyrot.toy.cohort import ToyCohort
from polyrot.workshop import __main__ as command, estimate, plan
from polyrot.workshop.estimate import Piece, duration, notice, seconds_a_step
from polyrot.workshop.parts import PARTS, parts_of
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop
from tests_unit.toy.few_sequences import few_sequences

TINY = replace(PROFILES["tiny"], toy=replace(PROFILES["tiny"].toy, batch=4, evaluation_sequences=1))
"""As long, of smaller batches: what is counted are steps, models and dictionaries."""
PLANNED = {**PROFILES, "tiny": TINY}


@pytest.fixture(autouse=True)
def _planted_trials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every step takes a second, so that all figures are known; and few sequences are run."""
    monkeypatch.setattr(estimate, "seconds_a_step", lambda step, device="cpu": 1.0)
    with few_sequences():
        yield


def workshop(root: Path, profile: str = "tiny", **more: object) -> tuple[Workshop, list[str]]:
    said: list[str] = []
    return Workshop(Runtime(Store(root, **more)), PLANNED[profile], say=said.append), said


def test_whole_cost_of_a_scale_is_said_once_and_counts_what_is_trained(tmp_path: Path) -> None:
    made, said = workshop(tmp_path)
    made.announce_scale("toy_b")
    steps = TINY.dictionaries.steps
    # Anchor and untrained anchor: 5 sites each; grid: 9 at 4 sites; own: 4 x 5; second start: 4;
    # sparse: 5 x 4; more starts: 12.
    assert said[0].startswith(
        f"to build at toy_b: 5 x seed (40 steps), 102 x dictionary at 8x ({steps} steps): about "
    )
    assert str(tmp_path) in said[0]
    assert duration(40 + 102 * steps) in said[0]
    # What was said as a whole is not said again, group by group.
    cohort = ToyCohort("toy_b", (1, 2), training.transformer.initialise((1, 2)), ["none"])
    group = groups.anchor(cohort, TINY.dictionaries)
    made.group(cohort, replace(group, schedule=replace(group.schedule, steps=1)))
    assert len(said) == 1


@pytest.mark.parametrize("scale", list(seeds.TOYS))
def test_plan_has_the_very_groups_that_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: str
) -> None:
    """Each part, trained with a store that only writes down what it is asked for."""

    class Asked(Store):
        def get_or_build(self, kind, recipe, build, name=""):
            if kind == collection.KIND:
                counted[-1].append(recipe["specs"])
                raise LookupError
            return super().get_or_build(kind, recipe, build, name=name)

    made = Workshop(Runtime(Asked(tmp_path)), TINY, announced={scale})
    cohort = made.cohort(scale)
    no_l1 = dict.fromkeys(cohort.internal, 0.0)
    monkeypatch.setattr(Workshop, "chosen_l1", lambda *_: no_l1)
    counted: list[list[object]] = []
    parts = parts_of(cohort.facts)
    for part in parts:
        counted.append([])
        with pytest.raises(LookupError):
            made.train(part, cohort)
    stand_ins = plan.stand_ins(made.runtime, TINY, made.width, scale)
    groups = plan.planned(*stand_ins, TINY, parts)
    for part, (specs,), group in zip(parts, counted, groups, strict=True):
        assert specs == [list(astuple(spec)) for spec in group.specs], part.name


def test_a_scale_has_the_parts_that_its_facts_name() -> None:
    def names(facts: ScaleFacts, asked: list[str] | None = None) -> list[str]:
        return [part.name for part in parts_of(facts, asked)]

    assert names(seeds.TOYS["toy_a"].facts) == list(PARTS)
    without = {"wide", "published", "noise", "turned", "drift", "half-way"}
    assert names(seeds.TOYS["toy_b"].facts) == [name for name in PARTS if name not in without]
    without = {"wide", "half-way"}
    assert names(neox.FACTS) == [name for name in PARTS if name not in without]
    assert names(neox.FACTS, ["sparse", "wide"]) == ["sparsity", "sparse"]


def test_nothing_is_tried_where_nothing_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial(step: object, device: str = "cpu") -> float:
        raise AssertionError("a trial for nothing")

    monkeypatch.setattr(estimate, "seconds_a_step", trial)
    Workshop(Runtime(Store(tmp_path)), TINY).announce_scale("toy_b")


def test_language_models_and_their_dictionaries_are_planned(tmp_path: Path) -> None:
    made, said = workshop(tmp_path, shipped=SHIPPED)  # which has the text, and no tiny models
    made.announce_scale("neox", ["anchor", "own", "sparsity"])
    # Five models of 30 steps, one after another; 7 sites of the anchor, 6 internal of 4 siblings,
    # and of the anchor's sparse ones 5 at each.
    assert "5 x language model (30 steps), 61 x dictionary at 8x (30 steps)" in said[0]


def test_nothing_is_said_where_all_is_shipped(tmp_path: Path) -> None:
    made, said = workshop(tmp_path, "shipped", shipped=SHIPPED)
    for scale in ("paper", *plan.SCALES):
        made.announce_scale(scale)
    assert said == []
    again, said = workshop(tmp_path, "shipped", shipped=SHIPPED, retrain=True)
    again.announce_scale("toy_a", [])
    assert said[0].startswith("to build at toy_a: 5 x seed (60,000 steps)")


def test_one_missing_group_is_announced_when_it_is_asked_for(tmp_path: Path) -> None:
    made, said = workshop(tmp_path)
    cohort = ToyCohort("toy_a", (1, 2), training.transformer.initialise((1, 2)), ["none"])
    group = groups.anchor(cohort, TINY.dictionaries)
    small = replace(group, schedule=replace(group.schedule, steps=10))
    made.group(cohort, small)
    assert said[0].startswith(
        "to build at toy_a: 5 x dictionary at 8x (10 steps): about 50 s on cpu"
    )
    made.group(cohort, small)
    assert len(said) == 1, "now it is there"


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    made, _ = workshop(tmp_path)
    each = seeds.trainings("toy_a", TINY.toy)[0]
    piece = estimate.toys(each, "cpu")
    made.toy_cohort("toy_a")
    (file,) = (tmp_path / each.kind).glob(f"[!.]*{each.fingerprint[:16]}*")
    assert piece.bytes <= file.stat().st_size < 1.1 * piece.bytes


def test_too_little_disk_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    fits = notice("toy_a", [Piece("seeds", 5, 10, 40.0, 2**20)], folder, "cpu")
    assert "1.0 MiB" in fits
    assert "WARNING" not in fits
    large = notice("toy_a", [Piece("seeds", 5, 10, 40.0, 2**60)], folder, "cpu")
    assert "WARNING: they will not fit" in large


@given(st.floats(0, 29.9), st.floats(30, 1e6))
def test_only_long_work_is_worth_saying(short: float, long: float) -> None:
    where = Path()
    assert notice("toy_a", [Piece("seeds", 1, 1, short, 0)], where, "cpu") == ""
    assert notice("toy_a", [Piece("seeds", 1, 1, long, 0)], where, "cpu") != ""
    assert notice("toy_a", [], where, "cpu") == ""


def test_durations_read_as_one_says_them() -> None:
    said = [duration(s) for s in (0.1, 40, 725, 6000, 7 * 3600, 111_600)]
    assert said == ["1 s", "40 s", "12 min", "1 h 40 min", "7 h 0 min", "31 h"]


def test_a_trial_is_the_mean_of_all_steps_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lengths = 0.0, [9.0, 0.5, 0.7, 0.6]

    def step() -> None:
        nonlocal now
        now += lengths.pop(0)

    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: now))
    assert seconds_a_step is not estimate.seconds_a_step, "the planted one stands in elsewhere"
    assert seconds_a_step(step) == pytest.approx(0.6)
    assert not lengths, "it ends once TRIAL_SECONDS are over"


def test_a_first_step_that_takes_long_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = 0.0, 0

    def step() -> None:
        nonlocal now, calls
        now, calls = now + 60, calls + 1

    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: now))
    assert seconds_a_step(step) == 60
    assert calls == 1


def test_on_a_cpu_few_sequences_of_a_language_models_batch_are_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed = []

    def trial(_width: int, _vocabulary: int, _context: int, schedule: Any, _device: str) -> object:
        timed.append(schedule.batch)
        return object()

    monkeypatch.setattr(language_training, "trial_step", trial)
    each = language_seeds.trainings(replace(TINY.language, batch=64), 32)
    steps = len(each) * TINY.language.steps
    seconds = estimate.language_models(each, "cpu").seconds
    assert timed[0] < 64
    assert seconds == steps * 64 / timed[0]
    assert estimate.language_models(each, "cuda").seconds == steps
    assert timed[-1] == 64


@pytest.mark.parametrize("kind", ["toy", "dictionary", "language"])
def test_trials_run_the_programs_that_train(kind: str) -> None:
    step = {
        "toy": lambda: toy_training.trial_step(2, TINY.toy, torch.device("cpu")),
        "dictionary": lambda: dictionary_training.trial_step(2, 8, 16, TINY.dictionaries, "cpu"),
        "language": lambda: language_training.trial_step(64, 97, 32, TINY.language, "cpu"),
    }[kind]()
    step()
    step()


def test_what_the_store_has(tmp_path: Path) -> None:
    store = Store(tmp_path)
    recipe = {"seed": 1}
    assert not store.has("things", recipe)
    store.get_or_build("things", recipe, lambda _: Artifact({}, {"n": 1}))
    assert store.has("things", recipe)
    assert not store.has("things", {"seed": 2})
    assert not Store(tmp_path, retrain=True).has("things", recipe)
    assert Store(tmp_path / "other", shipped=tmp_path).has("things", recipe)


@pytest.mark.slow  # language models are made and tried
def test_the_command_says_what_it_would_take_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["neox", "--neox-width", "32", "--schedule", "tiny", "--artifacts", str(tmp_path)]
    assert command.main([*asked, "--estimate"]) == 0
    said = capsys.readouterr().err
    assert "to build at neox: 5 x language model (30 steps), " in said
    assert not list(tmp_path.rglob("*-seeds/*.safetensors"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["toy_a", "--neox-width", "512"], "--neox-width is of scale neox, not of toy_a"),
        (["neox", "--neox-width", "100"], "--neox-width 100: a width is a multiple of its heads"),
        (["shorter-content", "--estimate"], "--estimate is of a cohort"),
        (["toy_b", "--seeds", "4"], "toy_b has no seed 4: its seeds are 100, 101, 102, 103, 104"),
        (["toy_b", "--seeds", "x"], "argument --seeds: invalid"),
        (["neox", "--seeds", "1"], "--seeds is of toy_a and toy_b, not of neox"),
        (["toy_a", "--seeds", "1", "--estimate"], "so without --seeds"),
    ],
)
def test_what_the_command_refuses(
    asked: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main([*asked, "--artifacts", str(tmp_path)])
    assert said in capsys.readouterr().err


def test_seeds_asked_for_train_alone_and_no_dictionaries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one = replace(TINY.toy, steps=2, at_once=1)
    monkeypatch.setitem(PROFILES, "tiny", replace(PROFILES["tiny"], toy=one_by_one))
    asked = ["toy_b", "--schedule", "tiny", "--artifacts", str(tmp_path)]
    assert command.main([*asked, "--seeds", "101,103"]) == 0
    said = capsys.readouterr().err
    assert [f"seed {seed}: lowest" in said for seed in (100, 101, 102, 103)] == [0, 1, 0, 1]
    assert {path.parent.name for path in tmp_path.rglob("*.safetensors")} == {"toy-seeds"}
    runtime = Runtime(Store(tmp_path), "cpu")
    there = [runtime.store.has(t.kind, t.recipe) for t in seeds.trainings("toy_b", one_by_one)]
    assert there == [False, True, False, True, False]


def test_only_the_toys_that_are_asked_for_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    onward = replace(TINY.toy, steps=8, evaluate_every=4, at_once=1)
    ended = replace(TINY.toy, steps=2, onward=onward)
    monkeypatch.setitem(PROFILES, "tiny", replace(PROFILES["tiny"], toy=ended))
    asked = ["toy_b", "--schedule", "tiny", "--artifacts", str(tmp_path)]
    (start,) = seeds.trainings("toy_b", ended)
    seeds.trained(Runtime(Store(tmp_path)), start)
    assert command.main([*asked, "--estimate"]) == 0
    assert "5 x seed (6 steps), " in capsys.readouterr().err, "all of them ended early"
    assert command.main([*asked, "--seeds", "103"]) == 0
    assert "seed 103: lowest" in capsys.readouterr().err
    names = {path.name.rpartition("-")[0] for path in tmp_path.rglob("*.safetensors")}
    assert names == {"100-104", "103-103-from-2"}


def test_what_is_shipped_is_trained_anew_only_where_that_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, store = tmp_path / "shipped", tmp_path / "store"
    tiny = replace(TINY.toy, steps=2)
    monkeypatch.setitem(PROFILES, "tiny", replace(PROFILES["tiny"], toy=tiny))
    monkeypatch.setattr(command, "shipped_with_code", lambda: shipped)
    (training,) = seeds.trainings("toy_b", tiny)
    seeds.trained(Runtime(Store(tmp_path / "made")), training)
    (made,) = (tmp_path / "made").rglob("*.safetensors")
    ship(made, shipped)
    write_manifest(shipped)
    asked = ["toy_b", "--schedule", "tiny", "--seeds", "100", "--artifacts", str(store)]
    assert command.main(asked) == 0
    assert "seed 100: lowest" in capsys.readouterr().err
    assert not list(store.rglob("*.safetensors"))
    assert command.main([*asked, "--retrain"]) == 0
    assert [p.relative_to(store).parts[0] for p in store.rglob("*.safetensors")] == ["retrain"]
    again = Runtime(Store(store, shipped, retrain=True))
    assert again.store.has(training.kind, training.recipe), "pytest claims --retrain finds it"
