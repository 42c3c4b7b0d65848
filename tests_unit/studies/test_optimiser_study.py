"""The study of the optimiser from end to end at tiny size; its predictions; its page."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from polyrot.runtime.device import FLOAT32
from polyrot.store import Runtime, Store
from polyrot.studies import (
    __main__ as command,
    optimiser,
    optimiser_arms as arms,
    optimiser_frames,
    optimiser_page,
    record,
)
from polyrot.studies.figure import Line, intervals
from polyrot.studies.optimiser_predictions import OBJECTION, PAPER, PREDICTIONS, as_data, judged
from polyrot.studies.record import Row
from polyrot.toy.schedule import Schedule
from tests_unit.toy.few_sequences import few_sequences

TINY = Schedule(
    steps=4,
    batch=8,
    warmup=2,
    precision=FLOAT32,
    patience=4,
    evaluate_every=2,
    evaluation_sequences=2,
    at_once=1,
    keep=(2,),
)
ROOT = Path(__file__).parents[2]
COMMITTED = "fb2a8224c0c0d85d049d26074413a8d1894919441c168b99dc60293d443a5cf3"


def test_the_predictions_are_those_that_were_committed():
    """In the commit that named them, before any arm was trained; a record must have them too."""
    text = json.dumps(as_data(), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == COMMITTED
    path = command.record_path("optimiser", ROOT)
    if path.exists():
        assert record.read(path, "optimiser")["predictions"] == as_data()


def test_a_prediction_is_judged_by_its_whole_interval():
    by_id = {p.id: p for p in PREDICTIONS}
    apart, check = by_id["mean_kurtosis/rot/own"], by_id["drift/rot, not less"]
    assert apart.tells_apart
    assert not check.tells_apart
    assert judged(apart, 0.9, 1.1) == f"as {PAPER} predicts"
    assert judged(apart, 1.11, 1.2) == f"as {OBJECTION} predicts"
    assert judged(apart, 1.0, 1.2) == judged(apart, 1.1, 1.2) == "undecided"
    assert judged(check, 0.9, 1.2) == "as both predict"
    assert judged(check, 0.5, 0.7) == "against both"


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(arms, "ADAM", TINY)
    monkeypatch.setattr(arms, "ROT", replace(TINY, optimiser_basis="random"))
    monkeypatch.setattr(arms, "SGD", replace(TINY, optimiser="sgd"))
    monkeypatch.setattr(arms, "TRIAL", replace(TINY, optimiser="sgd", keep=(), evaluate_every=1))
    monkeypatch.setattr(arms, "HALF_WAY", 2)
    monkeypatch.setattr(optimiser_frames, "draws_to_decide", lambda matrices: 1000)
    monkeypatch.setattr(optimiser_frames, "ROTATIONS", 2)
    monkeypatch.setattr(optimiser, "POWERS", (1.5,))
    monkeypatch.setattr(optimiser, "SHARED", (58,))
    with few_sequences(60):
        yield


@pytest.mark.slow
def test_from_training_to_page_by_one_command(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "checkout", lambda: tmp_path)
    given = ["optimiser", "--artifacts", str(tmp_path / "store")]
    assert command.main([*given, "--train"]) == 0
    assert not (tmp_path / "docs").exists()
    trained = sorted((tmp_path / "store").rglob("*.safetensors"))
    assert command.main(given) == 0
    assert set(trained) <= set((tmp_path / "store").rglob("*.safetensors"))
    made = record.read(command.record_path("optimiser", tmp_path), "optimiser")
    page = (tmp_path / "docs" / "studies" / "optimiser.md").read_text()
    assert page == optimiser.page(made)
    assert sorted(p.name for p in (tmp_path / "docs" / "pictures").iterdir()) == [
        "study-optimiser-entries.svg",
        "study-optimiser-kurtosis.svg",
    ]
    rows = optimiser_page.found(made)
    drawn = {(arm, where) for _, arm, where in rows if where in ("axes", "own", "random")}
    assert {("adam", "axes"), ("rot", "own"), ("sgd", "random"), ("copies", "random")} <= drawn
    for prediction in PREDICTIONS:
        assert optimiser_page.outcome(prediction, made)
    assert made["schedules"]["rot"]["optimiser_basis"] == "random"
    assert made["schedules"]["sgd"]["peak_rate"] == float(min(made["trial"], key=made["trial"].get))
    assert command.main(["optimiser", "--page"]) == 0
    assert (tmp_path / "docs" / "studies" / "optimiser.md").read_text() == page


def test_outside_of_a_checkout_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["optimiser", "--page"]) == 2
    assert "not a polyrot checkout" in capsys.readouterr().err


def test_without_a_store_nothing_is_trained(capsys):
    with pytest.raises(SystemExit):
        command.main(["optimiser"])
    assert "--artifacts DIR is needed" in capsys.readouterr().err


def test_the_trial_goes_on_beyond_its_ends(monkeypatch):
    asked = []

    def loss(runtime, rate):
        asked.append(rate)
        return abs(np.log(rate / 8.0))

    monkeypatch.setattr(arms, "loss_at", loss)
    found = arms.rate_trial(None)
    assert asked == [0.03, 0.1, 0.3, 1.0, 3.0, 9.0]
    assert arms.best_rate(found) == 9.0
    assert list(found) == sorted(found)


def test_a_rate_that_diverges_is_tried_once_and_recorded(tiny, tmp_path, monkeypatch):
    trained, tried = arms.seeds.trained, []

    def train(runtime, training):
        rate = training.schedule.peak_rate
        tried.append(rate)
        if rate > 0.5:
            raise FloatingPointError("the loss is not finite")
        return trained(runtime, training)

    monkeypatch.setattr(arms.seeds, "trained", train)
    monkeypatch.setattr(arms, "RATES", (0.01, 0.1, 1.0))
    monkeypatch.setattr(arms, "FURTHER", 0)
    for store in (Store(tmp_path), Store(tmp_path)):  # as one command trains and the next measures
        found = arms.rate_trial(Runtime(store))
        assert found[1.0] == float("inf")
        assert arms.best_rate(found) in (0.01, 0.1)
    assert tried == [0.01, 0.1, 1.0]
    kept = arms.as_recorded(found)
    assert kept["1"] is None
    assert kept["0.1"] == found[0.1]
    record.write(tmp_path / "record.json", world(True) | {"trial": kept})
    text = optimiser.page(record.read(tmp_path / "record.json", "optimiser"))
    assert f"{found[0.1]:.3g} at 0.1, diverged at 1. Trained on" in text


# ------------------------------------------------------------------------------------- the page


def world(privileged, unmet=None):
    """A record in which whatever the objection expects is so, or is not."""
    shown = {"mean_kurtosis": 1.4, "largest_kurtosis": 1.9, "battery": 9.0, "S4": 5.0, "MX": 4.0}
    even = {"mean_kurtosis": 1.0, "largest_kurtosis": 1.0, "battery": 0.0, "S4": 0.0, "MX": 0.1}
    rows = []
    for what in shown:
        for arm, frame in (("adam", "axes"), ("rot", "own"), ("rot", "axes"), ("sgd", "axes")):
            special = privileged and (arm, frame) in (("adam", "axes"), ("rot", "own"))
            value = (shown if special else even)[what]
            margin = 0.0 if what == "battery" else 0.05
            ends = value - margin, value + margin
            rows.append(Row(what, arm, value, *ends, "models", 5, frame))
        rows.append(Row(what, "copies", even[what], even[what], even[what], "models", 5, "random"))
    for arm, ratio in (("rot", 1.0), ("sgd", 1.5 if privileged else 1.1)):
        rows.append(Row("drift", arm, ratio, ratio - 0.1, ratio + 0.1, "seeds", 5, "axes"))
    rows.append(Row("accuracy", "rot", 0.0, -0.01, 0.01, "seeds", 5, "axes"))
    return record.record_of(
        "optimiser",
        device="cpu",
        seconds=60,
        predictions=as_data(),
        rows=rows,
        unmet=unmet or {},
        trial={"0.1": 0.5},
        schedules={arm: TINY.recipe() for arm in arms.ARMS},
        seeds=list(arms.SEEDS),
    )


@pytest.mark.parametrize(
    ("privileged", "side", "word"),
    [
        (True, OBJECTION, "speaks for the objection"),
        (False, PAPER, "speaks for the paper's explanation"),
    ],
)
def test_the_page_says_whom_the_evidence_speaks_for(privileged, side, word):
    page = optimiser_page.page(world(privileged))
    apart = sum(p.tells_apart for p in PREDICTIONS)
    assert f"apart: {apart} as {side} predicts." in page
    assert "agree: 14 as both predict." in page
    assert word in page
    assert "| S4 | rot | own | 1 | the paper's explanation | the objection |" in page


def test_where_r_says_nothing_the_page_does_not_either():
    made = world(True, unmet={"rot/own": "no site at which R is determined"})
    outcomes = {p.id: optimiser_page.outcome(p, made) for p in PREDICTIONS}
    assert outcomes["S4/rot/own"] == outcomes["battery/rot/own"] == "out of reach"
    assert outcomes["mean_kurtosis/rot/own"] == f"as {OBJECTION} predicts"
    assert "no site at which R is determined" in optimiser_page.page(made)


def test_what_is_undecided_is_named_and_so_are_the_extremes_of_single_sites():
    made = world(False)
    assert "undecided" not in optimiser_page.page(made).split("## What was predicted")[0]
    assert "Site by site" not in optimiser_page.page(made)
    for row in made["rows"]:
        if (row["what"], row["arm"], row["where"]) == ("S4", "rot", "own"):
            row["high"] = 1.5
    for arm, where, value in (
        ("adam", "axes, first", 0.9),
        ("rot", "own, first", 1.2),
        ("rot", "axes, first", 1.9),  # where nothing privileges
    ):
        made["rows"].append(
            asdict(Row("mean_kurtosis", arm, value, value, value, "models", 5, where))
        )
    page = optimiser_page.page(made)
    assert "beyond its limit; S4 of rot: undecided." in page
    assert (
        "is 0.9 (0.9 to 0.9) (adam, axes, first) to 1.2 (1.2 to 1.2) (rot, own, first): the "
        "extremes of 2." in page
    )


def test_figures_show_every_arm():
    for svg in optimiser_page.pictures(world(True)).values():
        for label in (*arms.ARMS.values(), "planted: copies"):
            assert label in svg


def test_a_value_beyond_the_scale_is_written_beside_its_dot():
    far, near = Row("S4", "a", 11.82, 11.0, 12.5), Row("S4", "b", 1.5, 1.0, 2.0)
    svg = intervals("S4", [Line("far", far, "planted"), Line("near", near, "even")], 1, (-2, 6))
    assert svg.count("→") == 1
    assert "11.8 →" in svg
    with pytest.raises(ValueError, match="two ends"):
        intervals("S4", [], 1, (0,))


def test_the_page_is_made_from_the_record():
    made = command.written("optimiser", ROOT)
    assert made
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"run `polyrot study {path.stem} --page`"


def test_every_study_has_its_page_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for name in command.STUDIES:
        assert f"docs/studies/{name}.md" in nav
