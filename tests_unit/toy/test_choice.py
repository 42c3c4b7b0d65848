"""Which weights of a run are its model, in what precision it ran, and what is kept beside."""

from dataclasses import replace

import pytest
import torch

from polyrot.runtime import device as devices
from polyrot.runtime.device import BF16, BY_HARDWARE, FLOAT32
from polyrot.toy import seeds, task, training, training_state, transformer
from polyrot.toy.evaluation import evaluate
from polyrot.toy.schedule import drift_steps
from polyrot.toy.trained import Trained
from tests_unit.toy.short_runs import TINY, Memory, equal, train


def plant_evaluations(monkeypatch, *found):
    """Evaluations come out as given, (lowest accuracy, loss) in turn; the final one is the last."""
    coming = iter(found)

    def fake(params, n, **more):
        accuracy, loss = (0.5, 0.0) if more else next(coming)
        return {"train": {"token": [accuracy]}}, [loss]

    monkeypatch.setattr(training_state, "evaluate", fake)


def test_the_best_of_the_evaluated_is_chosen_and_of_equals_that_of_least_loss(monkeypatch):
    schedule = replace(TINY, choose="best", steps=60, keep=(10, 20, 30, 40, 50, 60))
    plant_evaluations(monkeypatch, (0.5, 9), (0.9, 2), (0.9, 1), (0.8, 0), (0.9, 1), (0.9, 3))
    result = training.train([5], schedule, snapshot_at=schedule.keep, compiled=False)
    assert (result.chosen, result.stopped_at) == ([30], [60])
    assert equal(result.params, result.snapshots[30])
    assert not equal(result.params, result.snapshots[60])
    plant_evaluations(monkeypatch, (0.5, 9), (0.9, 2), (0.9, 1), (0.8, 0), (0.9, 1), (0.9, 3))
    last = training.train([5], replace(schedule, choose="last"), compiled=False)
    assert last.chosen == [60]
    assert equal(last.params, result.snapshots[60])


def test_the_best_may_lie_before_the_crossing_and_never_after_the_stop(monkeypatch):
    schedule = replace(TINY, choose="best", steps=60, patience=20)
    plant_evaluations(monkeypatch, (0.5, 1), (0.99995, 1), (0.9, 1), (0.99, 1))
    result = training.train([5], schedule, compiled=False)
    assert (result.reached(0), result.chosen, result.stopped_at) == (20, [20], [40])


def test_a_killed_training_resumes_to_the_same_choice(monkeypatch):
    schedule = replace(TINY, choose="best")
    found = [(0.9, 2), (0.8, 1), (0.7, 1)]
    plant_evaluations(monkeypatch, *found)
    whole = training.train([5], schedule, compiled=False)
    memory = Memory(kill_at=20)
    plant_evaluations(monkeypatch, *found)
    with pytest.raises(KeyboardInterrupt):
        training.train([5], schedule, checkpoint=memory, checkpoint_every=10, compiled=False)
    resumed = training.train([5], schedule, checkpoint=memory, checkpoint_every=10, compiled=False)
    assert resumed.chosen == whole.chosen == [10]
    assert equal(resumed.params, whole.params)
    again = Trained.from_artifact(resumed.to_artifact())
    assert (again.chosen, again.precision) == ([10], [[0, FLOAT32]])


def test_the_loss_of_an_evaluation_is_the_sum_over_heads_and_distributions():
    params = transformer.initialise([0, 1])
    blank = {n: torch.zeros_like(p) for n, p in params.items()}
    _, loss = evaluate(blank, 32)
    each = sum(torch.log(torch.tensor(float(n))) for n in task.HEAD_CLASSES.values())
    assert loss == pytest.approx([3 * float(each)] * 2, rel=1e-5)


@pytest.mark.parametrize(
    ("has_bf16", "faster", "taken"),
    [(False, BF16, FLOAT32), (True, BF16, BF16), (True, FLOAT32, FLOAT32)],
)
def test_precision_follows_the_hardware_and_is_told(has_bf16, faster, taken, monkeypatch):
    clock = iter([0.0, 2.0, 5.0, 6.0] if faster == BF16 else [0.0, 1.0, 5.0, 7.0])
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: has_bf16)
    monkeypatch.setattr(devices, "perf_counter", lambda: next(clock))
    schedule = replace(TINY, steps=2, precision=BY_HARDWARE)
    result = training.train([5], schedule, compiled=False)
    assert result.precision == [[0, taken]]
    plain = training.train([5], replace(schedule, precision=taken), compiled=False)
    assert equal(result.params, plain.params)  # the trial leaves no trace


def test_a_run_that_is_gone_on_with_on_other_hardware_says_from_where(monkeypatch):
    memory = Memory(kill_at=10)
    with pytest.raises(KeyboardInterrupt):
        train([5], checkpoint=memory, checkpoint_every=10)
    memory.kill_at = None
    resumed = training.train(
        [5], replace(TINY, precision=BF16), checkpoint=memory, checkpoint_every=10, compiled=False
    )
    assert resumed.precision == [[0, FLOAT32], [10, BF16]]


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="no precision 'fp8'"):
        training.train([5], replace(TINY, precision="fp8"), compiled=False)


def test_both_readings_of_the_paper_keep_ten_steps_of_every_seed():
    for schedule in (seeds.TEXT, seeds.PIPELINE):
        assert (schedule.evaluation_sequences, schedule.choose) == (2048, "best")
        for training_ in (*seeds.trainings("toy_a", schedule), *seeds.trainings("toy_b", schedule)):
            kept = [step for step in training_.snapshot_at if step >= 1000]
            assert len(kept) >= 10
            assert set(schedule.keep) <= set(training_.snapshot_at)
            drift = set(drift_steps(schedule.steps)) <= set(training_.snapshot_at)
            assert drift == (training_.seeds == (0,))
    assert (seeds.TEXT.steps, seeds.TEXT.patience) == (60_000, 10_000)
    assert (seeds.PIPELINE.steps, seeds.PIPELINE.patience) == (30_000, 3000)
