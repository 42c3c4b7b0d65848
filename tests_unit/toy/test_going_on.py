"""Models that ended early and go on: rate, data and evaluations from there, moments anew."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from polyrot.runtime.device import FLOAT32
from polyrot.store import Runtime, Store
from polyrot.toy import seeds, training, training_state, transformer
from polyrot.toy.schedule import SGD
from polyrot.toy.trained import Trained
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop
from tests_unit.toy.short_runs import TINY, Memory, equal

NONE = Trained((103,), {}, {}, [], [], [31_500])
train = partial(training.train, compiled=False)


def test_without_moments_going_on_is_having_gone_on():
    plain = replace(TINY, optimiser=SGD, momentum=0.0, peak_rate=0.1)
    whole, part = train([5], plain), train([5], plain, stop_after=20)
    on = train([5], replace(plain, begin=20), initial=part.params)
    assert equal(on.params, whole.params)
    assert not equal(part.params, whole.params)
    assert [row["step"] for row in on.history] == [30]
    assert on.stopped_at == [30]
    assert on.accuracies == whole.accuracies


def test_one_that_goes_on_and_is_killed_comes_to_the_same_end():
    start, on = train([5], TINY, stop_after=10).params, replace(TINY, begin=10)
    whole = train([5], on, initial=start)
    memory = Memory(kill_at=20)
    with pytest.raises(KeyboardInterrupt):
        train([5], on, initial=start, checkpoint=memory, checkpoint_every=10)
    resumed = train([5], on, initial=start, checkpoint=memory, checkpoint_every=10)
    assert equal(resumed.params, whole.params)


@pytest.fixture
def ended(monkeypatch):
    """Of seeds trained at once, by scale, that of the last seed ended after ten steps of thirty."""
    schedule = replace(TINY, patience=0)
    onward = replace(TINY, at_once=1, choose="best", evaluate_every=20)

    def evaluate(params, *_, **__):
        n = len(params["embed"])
        reached = [0.5] * (n - 1) + [1.0 if n > 1 else 0.5]
        return {"train": {"token": reached}}, [0.0] * n

    monkeypatch.setattr(training_state, "evaluate", evaluate)
    return replace(schedule, onward=onward)


@pytest.mark.parametrize("scale", ["toy_a", "toy_b"])
def test_only_what_ended_early_goes_on_with_what_was_frozen(tmp_path, ended, scale):
    runtime = Runtime(Store(tmp_path))
    *first, batch = seeds.trainings(scale, ended)
    made, result = seeds.finished(runtime, batch, compiled=False)
    before = seeds.trained(runtime, batch, compiled=False)
    last = batch.seeds[-1]
    assert before.stopped_at[-1] == 10
    assert set(before.stopped_at[:-1]) == {30}
    assert made[0] == batch
    (on,) = made[1:]
    assert (on.seeds, on.schedule.begin, on.name) == ((last,), 10, f"{last}-{last}-from-10")
    assert (on.cycle, on.io_from) == (0, first[0] if first else None)
    for name, p in result.params.items():
        assert torch.equal(p[:-1], before.params[name][:-1])
        frozen = scale == "toy_a" and name in transformer.IO_NAMES
        assert torch.equal(p[-1], before.params[name][-1]) == frozen, name
    again = seeds.trained(runtime, on, compiled=False)
    assert [row["step"] for row in again.history] == [20, 30]
    assert again.stopped_at == [30]
    assert result.stopped_at == [30] * len(batch.seeds)
    assert result.chosen[-1] == again.chosen[0] != before.chosen[-1]
    assert result.precision == [*before.precision, *again.precision]
    # Of seeds that are not wanted none goes on, and none where the schedule does not say so.
    assert seeds.finished(runtime, batch, only=batch.seeds[:1], compiled=False)[0] == (batch,)
    assert seeds.going_on(replace(batch, schedule=TINY), before) == []


def test_a_cohort_with_one_that_went_on_is_another(tmp_path, ended):
    toys = {"usual": replace(ended, onward=None), "onward": ended}
    runtime, profile = Runtime(Store(tmp_path)), PROFILES["tiny"]
    found = {
        name: Workshop(runtime, replace(profile, toy=toy)).toy_cohort("toy_b")
        for name, toy in toys.items()
    }
    assert found["usual"].fingerprint != found["onward"].fingerprint
    assert torch.equal(found["usual"].params["embed"][0], found["onward"].params["embed"][0])
    assert not torch.equal(found["usual"].params["embed"][4], found["onward"].params["embed"][4])
    said = "toys: fresh moments for seeds that ended before step 20 and go on"
    assert any(text.startswith(said) for text in found["onward"].departures)
    assert not any(text.startswith(said) for text in found["usual"].departures)


def test_devices_of_what_went_on_are_said_by_seed(tmp_path, ended):
    runtime = Runtime(Store(tmp_path))
    (batch,) = seeds.trainings("toy_b", ended)
    assert seeds.as_there(runtime, batch) is None
    before = seeds.trained(runtime, batch, compiled=False)
    assert seeds.as_there(runtime, batch).stopped_at == before.stopped_at == [30] * 4 + [10]
    (on,) = seeds.going_on(batch, before)
    after = seeds.trained(runtime, on, compiled=False)
    found = seeds.as_there(runtime, batch)
    assert found.stopped_at == [30] * 5
    assert found.device == before.device == after.device == "cpu"
    elsewhere = replace(before, device="cuda; the last 5 steps of seed 101 cpu")
    twice = elsewhere.replaced(after).replaced(replace(after, seeds=(102,)))
    said = (
        "toys: trained on cuda, the last 5 steps of seed 101 cpu, the last 20 steps of seed 104 "
        "cpu, the last 20 steps of seed 102 cpu; the paper names no device"
    )
    assert seeds.departures(ended, [twice])[-1] == said
    assert elsewhere.replaced(replace(after, device="cuda")).device == elsewhere.device


def test_the_shipped_seeds_are_those_that_go_on():
    for scale in seeds.TOYS:
        shipped = seeds.trainings(scale, seeds.FULL)
        onward = seeds.trainings(scale, seeds.CONTINUED)
        assert [t.fingerprint for t in onward] == [t.fingerprint for t in shipped]
    assert seeds.CONTINUED.onward.early == 40_000
    said = seeds.departures(seeds.CONTINUED, [replace(NONE, precision=[(31_500, FLOAT32)])])
    assert "toys: bf16 autocast, fp32 weights and float32 where" in " ".join(said)
    assert seeds.departures(seeds.FULL, [NONE]) == seeds.FULL.departures()
    assert seeds.CONTINUED.onward.departures("bf16 autocast, fp32 weights") == ()
