"""Training: schedule, clipping, resumption after a kill, stop rule, the first steps again."""

from dataclasses import replace

import pytest
import torch

from polyrot.runtime.device import FLOAT32
from polyrot.store import Artifact, Runtime, Store, StoreWarning
from polyrot.toy import seeds, task, training, training_state, transformer
from polyrot.toy.evaluation import evaluate, lowest
from polyrot.toy.schedule import ADDED, Schedule, drift_steps
from polyrot.toy.trained import Trained
from tests_unit.toy.short_runs import TINY, Memory, equal, train


def test_rate_warms_up_and_falls_to_its_floor():
    full = seeds.FULL
    assert full.rate(0) == pytest.approx(3e-3 / 500)
    assert full.rate(499) == pytest.approx(3e-3)
    assert full.rate(30_250) == pytest.approx(3e-3 * 0.51, rel=1e-3)
    assert full.rate(59_999) == pytest.approx(3e-3 * 0.02, rel=1e-3)


def test_clipping_is_per_model():
    gradients = [torch.ones(2, 8), torch.ones(2, 2, 4)]
    gradients[0][1] *= 0.01
    gradients[1][1] *= 0.01
    training.clip_per_model(gradients, 1.0)
    norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
    assert norms[0] == pytest.approx(1.0, abs=1e-4)
    assert norms[1] == pytest.approx(0.04, abs=1e-6)


def test_loss_leaves_padding_out():
    labels = {h: torch.zeros(1, 2, 3, dtype=torch.int64) for h in task.HEADS}
    logits = {h: torch.zeros(1, 2, 3, n) for h, n in task.HEAD_CLASSES.items()}
    keep = torch.tensor([[[True, True, False], [True, False, False]]])
    expected = sum(torch.log(torch.tensor(float(n))) for n in task.HEAD_CLASSES.values())
    torch.testing.assert_close(training.losses(logits, labels, keep)[0], expected)
    logits["token"][~keep] = 1e4 * torch.randn(3, 40)
    torch.testing.assert_close(training.losses(logits, labels, keep)[0], expected)


def test_a_batch_of_seeds_equals_each_alone():
    together = train([5, 6], stop_after=5)
    for m, seed in enumerate((5, 6)):
        alone = train([seed], stop_after=5)
        for name, p in alone.params.items():
            gap = (together.params[name][m] - p[0]).norm()
            assert gap < 0.01 * p.norm(), f"{name}: bf16 products round by their batch, no more"


def test_a_few_rows_at_a_time_give_the_gradient_of_the_whole(monkeypatch):
    params = {n: p.requires_grad_() for n, p in transformer.initialise([5, 6]).items()}
    batch = next(training.batches([5, 6], Schedule(batch=36), 0, torch.device("cpu")))
    found = []
    for rows in (1000, 12, 7):  # all 18; six of each model, three times; single rows
        monkeypatch.setattr(training, "CPU_ROWS", rows)
        loss = training.backward(training._loss, params, *batch)
        found.append((loss, {n: p.grad.clone() for n, p in params.items()}))
        for p in params.values():
            p.grad = None
    whole, *parts = found
    for loss, gradients in parts:
        torch.testing.assert_close(loss, whole[0], rtol=1e-3, atol=1e-4)
        for name, g in gradients.items():
            gap = (g - whole[1][name]).norm()
            assert gap < 0.02 * whole[1][name].norm(), f"{name}: bf16 rounds by the batch, no more"


def test_a_killed_training_resumes_to_the_same_end():
    whole = train([5], checkpoint=Memory(), checkpoint_every=10, snapshot_at=(4, 25))
    memory = Memory(kill_at=10)
    with pytest.raises(KeyboardInterrupt):
        train([5], checkpoint=memory, checkpoint_every=10, snapshot_at=(4, 25))
    resumed = train([5], checkpoint=memory, checkpoint_every=10, snapshot_at=(4, 25))
    assert equal(whole.params, resumed.params)
    assert list(resumed.snapshots) == [4, 25]
    assert equal(whole.snapshots[4], resumed.snapshots[4])
    assert whole.history == resumed.history
    assert whole.early_losses == resumed.early_losses


def test_a_checkpoint_of_another_kind_of_device_is_not_gone_on_with():
    memory = Memory(kill_at=10)
    with pytest.raises(KeyboardInterrupt):
        train([5], checkpoint=memory, checkpoint_every=10)
    memory.kill_at = None
    memory.state = Artifact(memory.state.tensors, {**memory.state.meta, "device": "cuda"})
    memory.state.tensors["params.embed"].fill_(9.0)
    with pytest.warns(StoreWarning, match="its device is cuda, that of this run cpu"):
        again = train([5], checkpoint=memory, checkpoint_every=10)
    assert equal(again.params, train([5]).params)


def test_the_first_steps_again_are_the_first_steps():
    whole = train([5])
    again = train([5], stop_after=10)
    assert again.early_losses == whole.early_losses[:10]


def test_frozen_input_and_output_stay():
    first = train([0])
    other = train([1], frozen_io=first.params)
    for name in transformer.IO_NAMES:
        assert torch.equal(other.params[name], first.params[name])
    assert not torch.equal(other.params["w_q_0"], first.params["w_q_0"])


def test_training_learns_the_token_head():
    schedule = replace(TINY, steps=80, batch=16, evaluate_every=80, evaluation_sequences=16)
    result = training.train([2], schedule, compiled=False)
    assert result.accuracies["train"]["token"][0] > 0.9
    assert result.history[-1]["loss"][0] < result.early_losses[0][0] / 2


def test_stop_rule_takes_each_seed_at_its_own_step(monkeypatch):
    reached = {10: [1.0, 0.5], 20: [1.0, 1.0], 30: [1.0, 1.0], 40: [1.0, 1.0]}
    calls = iter(reached.values())

    def fake(params, n, **more):
        values = [1.0, 1.0] if more else next(calls)
        return {"train": {"token": values}}, [0.0, 0.0]

    monkeypatch.setattr(training_state, "evaluate", fake)
    schedule = Schedule(
        steps=100, batch=8, precision=FLOAT32, warmup=5, evaluate_every=10, patience=10
    )
    result = training.train([3, 4], schedule, compiled=False)
    assert result.stopped_at == [20, 30]
    assert [result.reached(m) for m in (0, 1)] == [10, 20]
    assert replace(result, history=result.history[:1]).reached(1) is None


def test_a_run_that_stops_early_keeps_where_it_ends(monkeypatch):
    monkeypatch.setattr(
        training_state, "evaluate", lambda *_, **__: ({"train": {"token": [1.0, 1.0]}}, [0.0])
    )
    schedule = Schedule(
        steps=64, batch=8, precision=FLOAT32, warmup=5, evaluate_every=10, patience=20
    )
    kept = drift_steps(64)
    result = training.train([3], schedule, snapshot_at=kept, compiled=False)
    assert result.stopped_at == [30]
    assert sorted(result.snapshots) == [*(step for step in kept if step < 30), 30]
    for name, p in result.snapshots[30].items():
        torch.testing.assert_close(p, result.params[name])
    assert not training.train([3], schedule, compiled=False).snapshots


def test_accuracy_of_a_perfect_and_of_a_blind_model(monkeypatch):
    def perfect(params, tokens):
        labels = task.label(tokens)
        logits = {
            h: torch.nn.functional.one_hot(labels.head(h), n)[None].float()
            for h, n in task.HEAD_CLASSES.items()
        }
        return transformer.Run(logits, {})

    params = transformer.initialise([0])
    blind, _ = evaluate(params, 64)
    assert lowest(blind, 0) < 0.6
    monkeypatch.setattr(training.transformer, "forward", perfect)
    assert lowest(evaluate(params, 64)[0], 0) == 1.0


def test_a_seed_given_twice_is_not_trained():
    with pytest.raises(ValueError, match="training of toys: seed 5 is given twice"):
        train([5, 6, 5])


def test_a_loss_that_is_not_finite_is_an_error(monkeypatch):
    monkeypatch.setattr(
        training, "_loss", lambda params, *_, **__: params["w_q_0"].sum((1, 2)) * float("nan")
    )
    with pytest.raises(FloatingPointError, match="lower the peak rate"):
        train([5])


def test_artifact_round_trip(tmp_path):
    result = train([0], snapshot_at=(10, 30))
    store = Store(tmp_path)
    artifact = store.get_or_build("toy-seeds", {"x": 1}, lambda _: result.to_artifact())
    again = Trained.from_artifact(artifact)
    assert again.seeds == (0,)
    assert equal(again.params, result.params)
    assert list(again.snapshots) == [10, 30]
    assert again.accuracies == result.accuracies


def test_cohort_a_depends_on_its_first_seed():
    first, others = seeds.trainings("toy_a", seeds.TINY)
    assert others.io_from is first
    changed = seeds.trainings("toy_a", seeds.SHORT)[1]
    assert changed.fingerprint != others.fingerprint
    with pytest.raises(KeyError, match="no toy cohort 'toy_c'"):
        seeds.trainings("toy_c", seeds.TINY)


def test_drift_steps_are_geometric_with_half_way_and_end():
    steps = drift_steps(60_000)
    assert len(steps) == 9
    assert steps[-2:] == [30_000, 60_000]


def test_data_does_not_depend_on_where_a_run_was_resumed():
    device = torch.device("cpu")
    stream = training.batches([1], Schedule(batch=2048), 0, device)
    first = [next(stream)[0] for _ in range(6)]
    later = next(training.batches([1], Schedule(batch=2048), 5, device))[0]
    assert torch.equal(first[5], later)
    assert not torch.equal(first[4], later)


def test_seeds_are_trained_so_many_at_once():
    alone = [t.seeds for t in seeds.trainings("toy_a", seeds.LONG)]
    assert alone == [(0,), (1,), (2,), (3,), (4,)]
    assert [t.seeds for t in seeds.trainings("toy_b", seeds.FULL)] == [(100, 101, 102, 103, 104)]
    pairs = seeds.trainings("toy_b", Schedule(at_once=2))
    assert [t.seeds for t in pairs] == [(100, 101), (102, 103), (104,)]


def test_a_recipe_names_later_fields_only_where_they_are_used():
    assert not set(ADDED) & set(seeds.FULL.recipe())
    named = set(ADDED) & set(seeds.LONG.recipe())
    assert named == {"late_violations", "late_violations_until", "full_context", "at_once"}
    assert "hidden_closers" in seeds.LONG.cycle.recipe()
    assert replace(seeds.LONG, cycle=None).recipe() == seeds.LONG.recipe()
    assert Schedule(late_violations=0.5).recipe()["late_violations"] == 0.5


def test_a_training_on_shorter_contents_is_another_and_says_so():
    shorter = seeds.shorter_content()
    usual = replace(shorter, schedule=replace(shorter.schedule, lengths=(2, 62)))
    assert "lengths" not in usual.schedule.recipe()
    assert shorter.schedule.recipe()["lengths"] == [2, 48]
    assert shorter.fingerprint != usual.fingerprint
    assert (usual.name, shorter.name) == ("5-5", "5-5-lengths-2-48")
    assert all(shorter.seeds[0] not in toy.seeds for toy in seeds.TOYS.values())
    drawn = next(training.batches([5], shorter.schedule, 0, torch.device("cpu")))
    assert drawn[0].shape[-1] == 54
    said = shorter.schedule.departures()
    assert "toy on contents of 2 to 48: batches of 128 sequences where the paper takes 512" in said


def test_a_seed_that_misses_the_goal_trains_on_in_cycles(tmp_path, monkeypatch):
    cycle = Schedule(steps=4, batch=8, precision=FLOAT32, warmup=2, evaluate_every=4)
    schedule = replace(cycle, steps=6, at_once=1, cycle=cycle)
    first, second = seeds.trainings("toy_a", schedule)[:2]
    plain = seeds.trainings("toy_a", replace(schedule, cycle=None))
    assert [t.fingerprint for t in plain[:2]] == [first.fingerprint, second.fingerprint]
    monkeypatch.setattr(
        training_state, "evaluate", lambda *_, **__: ({"train": {"token": [0.5]}}, [0.0])
    )
    monkeypatch.setattr(seeds, "MOST_CYCLES", 2)
    store = Store(tmp_path)
    (last,), result = seeds.finished(Runtime(store), first, compiled=False)
    assert (last.cycle, last.name, last.continued_from.cycle) == (2, "0-0-cycle-2", 1)
    assert seeds.below_goal(result) == (0,)
    assert sorted(result.snapshots) == sorted(drift_steps(6))  # of the run before its cycles
    start = seeds.trained(Runtime(store), first, compiled=False).params
    for name, p in result.params.items():
        assert torch.equal(p, start[name]) == (name in transformer.IO_NAMES), name
    # Its siblings have the input and output of the run, and so has it.
    sibling = seeds.trained(Runtime(store), second, compiled=False)
    for name in transformer.IO_NAMES:
        assert torch.equal(sibling.params[name], result.params[name])
    # At the goal after one cycle there is no second.
    one = seeds.trained(Runtime(store), last.continued_from, compiled=False)
    good = one.params["w_in_0"]
    monkeypatch.setattr(
        seeds, "below_goal", lambda r: () if torch.equal(r.params["w_in_0"], good) else r.seeds
    )
    assert seeds.finished(Runtime(store), first, compiled=False)[0] == (last.continued_from,)
    device = torch.device("cpu")
    drawn = [next(training.batches([0], cycle, 0, device, s))[0] for s in ("a", "b", "a")]
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_of_seeds_trained_at_once_only_those_below_the_goal_train_on(tmp_path, monkeypatch):
    cycle = Schedule(steps=4, batch=8, precision=FLOAT32, warmup=2, evaluate_every=4)
    first = seeds.trainings("toy_b", replace(cycle, steps=6, cycle=cycle))[0]
    found = iter([[1.0, 0.5, 1.0, 0.4, 1.0], [1.0, 0.6], [1.0]])
    final = {"train": {"token": [0.5] * 5}}

    def evaluate(params, *_, purpose="", **__):
        taken = {"train": {"token": next(found)}} if purpose == "final evaluation" else final
        return taken, [0.0] * 5

    monkeypatch.setattr(training_state, "evaluate", evaluate)
    store = Store(tmp_path)
    (last,), result = seeds.finished(Runtime(store), first, compiled=False)
    assert (last.seeds, last.cycle, last.continued_from.seeds) == ((103,), 2, (101, 103))
    assert result.accuracies == {"train": {"token": [1.0] * 5}}
    parts = [seeds.trained(Runtime(store), t) for t in (first, last.continued_from, last)]
    for name, p in result.params.items():
        one, two, three = (part.params[name] for part in parts)
        assert torch.equal(p, torch.stack([one[0], two[0], one[2], three[0], one[4]])), name


def test_late_violations_end_with_their_share_of_the_steps():
    schedule = Schedule(steps=20, batch=1024, late_violations=1.0, late_violations_until=0.5)
    stream = training.batches([1], schedule, 0, torch.device("cpu"))
    late = []
    for _ in range(24):
        tokens, positions, _, labels = next(stream)
        wrong = labels["validity"].diff(dim=-1).clamp(min=0)
        late.append(float((wrong * (positions[..., 1:] >= 9)).sum() / tokens.numel()))
    begun = [8 * (step // 8) / 20 for step in range(24)]  # chunks of 8 steps are drawn at once
    assert min(x for x, b in zip(late, begun, strict=True) if b < 0.5) > 0.005
    assert max(x for x, b in zip(late, begun, strict=True) if b >= 0.5) < 0.002
