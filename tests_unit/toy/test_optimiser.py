"""The optimiser of a training, and the basis in which it steps."""

from dataclasses import replace

import pytest
import torch

from polyrot.store import Artifact
from polyrot.toy import folding, seeds, training, transformer
from polyrot.toy.folding import WRITERS
from polyrot.toy.optimiser import bases, optimiser_of
from polyrot.toy.schedule import Schedule
from polyrot.toy.symmetry import turned
from tests_unit.toy.short_runs import TINY, Memory, equal

SGD = replace(TINY, optimiser="sgd", peak_rate=0.1)
ROT = replace(TINY, optimiser_basis="random")


READERS = {name for readers in folding.READERS.values() for name in readers}


def train(schedule, **more):
    return training.train([5, 6], schedule, compiled=False, **more).params


def gap(a, b):
    """The largest difference of two models' weights, relative to the weights' size."""
    return max(float((a[name] - b[name]).norm() / b[name].norm()) for name in b)


def turned_all(params, turns):
    return {name: turned(name, p, turns) for name, p in params.items()}


def test_sgd_is_momentum_by_hand():
    schedule = replace(SGD, weight_decay=0.0, clip=1e9, steps=3, warmup=1)
    params = {n: p.requires_grad_() for n, p in transformer.initialise([5]).items()}
    velocity = {n: torch.zeros_like(p) for n, p in params.items()}
    stream = training.batches([5], schedule, 0, torch.device("cpu"))
    for step in range(3):
        training.backward(lambda *given: training._loss(*given, bf16=False), params, *next(stream))
        with torch.no_grad():
            for name, p in params.items():
                velocity[name] = 0.9 * velocity[name] + p.grad
                p -= schedule.rate(step) * velocity[name]
                p.grad = None
    found = training.train([5], schedule, compiled=False).params
    assert gap(found, {n: p.detach() for n, p in params.items()}) < 1e-5
    adam = training.train([5], replace(schedule, optimiser="adamw"), compiled=False).params
    assert gap(adam, found) > 1e-3


def test_in_the_standard_basis_turned_by_nothing_adam_is_adam(monkeypatch):
    whole = train(TINY)
    eye = torch.eye(transformer.D_MODEL).expand(2, -1, -1)
    monkeypatch.setattr(training, "bases", lambda *_: eye)
    assert equal(train(ROT), whole)


def test_adam_in_a_basis_is_adam_on_turned_weights(monkeypatch):
    """Planted: weights written in the basis from the start, turned back for every forward pass."""
    schedule = replace(TINY, steps=8)
    turns = bases([5, 6], ROT)
    in_basis = train(replace(schedule, optimiser_basis="random"))
    standard = train(schedule)
    plain = training._loss

    def loss(params, *batch, **more):
        return plain(turned_all(params, turns.mT), *batch, **more)

    initial = turned_all(transformer.initialise([5, 6]), turns)
    monkeypatch.setattr(training, "_loss", loss)
    written = turned_all(train(schedule, initial=initial), turns.mT)
    # Adam's first steps are signs of gradients: where one is nearly nothing, rounding decides it.
    assert gap(in_basis, written) < 0.02
    assert gap(in_basis, standard) > 0.2


def test_sgd_is_the_same_in_every_basis():
    found = train(replace(SGD, optimiser_basis="random"))
    assert gap(found, train(SGD)) < 1e-4


def test_a_turned_model_computes_the_same_in_a_turned_stream():
    params = transformer.initialise([5, 6])
    turns = bases([5, 6], ROT)
    new = turned_all(params, turns)
    x = torch.randn(2, 7, transformer.D_MODEL)
    for name, p in params.items():
        if name in READERS:
            torch.testing.assert_close(x @ turns @ new[name], x @ p, rtol=1e-4, atol=1e-5)
        elif name in WRITERS:
            torch.testing.assert_close(new[name] @ turns.mT, p, rtol=1e-4, atol=1e-5)
        else:
            assert name.startswith("norm")
            assert torch.equal(new[name], p)


def test_every_seed_has_a_basis_of_its_own():
    both = bases([5, 6], ROT)
    assert bases([5, 6], TINY) is None
    torch.testing.assert_close(both @ both.mT, torch.eye(64).expand(2, -1, -1), atol=1e-5, rtol=0)
    assert torch.equal(bases([6], ROT)[0], both[1])
    assert float((both[0] - both[1]).abs().max()) > 0.1


@pytest.mark.slow  # trained twice
@pytest.mark.parametrize("schedule", [SGD, ROT], ids=["sgd", "random basis"])
def test_a_kill_and_resume_gives_the_same(schedule):
    whole = train(schedule)
    memory = Memory(kill_at=10)
    with pytest.raises(KeyboardInterrupt):
        train(schedule, checkpoint=memory, checkpoint_every=10)
    memory.kill_at, saved = None, memory.state
    assert equal(train(schedule, checkpoint=memory, checkpoint_every=10), whole)
    # A run that forgets what its optimiser knew does not end where the whole one does.
    lost = "momentum" if schedule is SGD else "first"
    memory.state = Artifact(
        {n: t * 0 if n.startswith(f"{lost}.") else t for n, t in saved.tensors.items()},
        saved.meta,
    )
    assert saved.meta["step"] == 10
    assert not equal(train(schedule, checkpoint=memory, checkpoint_every=10), whole)


def test_an_optimiser_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="no optimiser 'lion': one of adamw, sgd"):
        optimiser_of([torch.zeros(1)], Schedule(optimiser="lion"), 0.1)


def test_a_basis_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="no basis 'rotated' of an optimiser: standard or random"):
        bases([5], Schedule(optimiser_basis="rotated"))


def test_a_schedule_names_its_optimiser_where_it_is_another():
    known = seeds.FULL.recipe()
    assert not {"optimiser", "momentum", "optimiser_basis"} & set(known)
    assert SGD.recipe()["optimiser"] == "sgd"
    assert ROT.recipe()["optimiser_basis"] == "random"
    sentences = " ".join(replace(SGD, optimiser_basis="random").departures())
    assert "sgd as optimiser where the paper takes AdamW" in sentences
    assert "an optimiser in a random basis where the paper takes the standard one" in sentences
    assert "optimiser" not in " ".join(seeds.FULL.departures())
