"""Training language models: learns, resumes exactly, differs by seed, stores in eight bits."""

import dataclasses

import pytest
import torch

from polyrot.language import eight_bit, training
from polyrot.language.architecture import neox_config, pythia_70m_config, pythia_70m_parameters
from polyrot.language.training import Schedule
from polyrot.runtime.device import FLOAT32
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact, Store, ship, write_manifest

WIDTH, VOCABULARY, CONTEXT = 32, 24, 16
SCHEDULE = Schedule(steps=40, batch=8, precision=FLOAT32, evaluate_every=20)


def text(n=6000):
    """Tokens in which each but a few follows from the one before."""
    generator = torch_generator(3, "text")
    jump = torch.rand(n, generator=generator) < 0.1
    fresh = torch.randint(VOCABULARY, (n,), generator=generator)
    out = fresh.clone()
    for i in range(1, n):
        if not jump[i]:
            out[i] = (out[i - 1] * 5 + 1) % VOCABULARY
    return out.to(torch.int16)


TEXT = text()
HELD_OUT = TEXT[-20 * CONTEXT :].long().reshape(20, CONTEXT)


def train(seed=0, schedule=SCHEDULE, **more):
    return training.train(
        seed, schedule, TEXT[: -20 * CONTEXT], HELD_OUT, width=WIDTH, vocabulary=VOCABULARY, **more
    )


@pytest.fixture(scope="module")
def trained():
    return train(snapshot_at=[1, 10])


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_it_learns(trained):
    longer = train(schedule=dataclasses.replace(SCHEDULE, steps=150))
    assert trained.history[0]["step"] == 20
    assert longer.loss < 1.5 < trained.early_losses[0]
    assert trained.early_losses[0] == pytest.approx(torch.tensor(VOCABULARY).log().item(), abs=0.1)


def test_seeds_differ_in_start_and_in_data():
    a, b = (train(seed, stop_after=1) for seed in (0, 1))
    start = [run.weights["gpt_neox.embed_in.weight"] for run in (a, b)]
    assert not torch.equal(*start)
    first = [next(training.crops(TEXT, seed, 4, CONTEXT, 0)) for seed in (0, 1)]
    assert not torch.equal(*first)


def test_a_killed_run_resumes_to_the_same_weights(trained, tmp_path):
    store = Store(tmp_path)

    class Killed(Exception):
        pass

    def stop(stage, done, total, note=""):
        if done == 30:
            raise Killed

    def build(checkpoint, progress):
        more = {"checkpoint": checkpoint, "checkpoint_every": 10, "progress": progress}
        return train(snapshot_at=[1, 10], **more).to_artifact()

    with pytest.raises(Killed):
        store.get_or_build("x", {"a": 1}, lambda c: build(c, stop))
    seen = []

    def look(stage, done, total, note=""):
        seen.append(done)

    artifact = store.get_or_build("x", {"a": 1}, lambda c: build(c, look))
    assert seen == [30, 40] or seen == [40]  # nothing before the last checkpoint is done again
    again = training.Trained.from_artifact(artifact)
    assert equal(again.weights, trained.weights)
    assert again.early_losses == trained.early_losses
    assert list(again.snapshots) == [1, 10]
    assert equal(again.snapshots[10], trained.snapshots[10])


def test_what_is_stored_is_what_was_judged(trained):
    again = training.Trained.from_artifact(
        Artifact(trained.to_artifact().tensors, trained.to_artifact().meta)
    )
    assert equal(again.weights, trained.weights)
    model = training.model_of(WIDTH, VOCABULARY, CONTEXT, again.weights)
    assert training.held_out_loss(model, HELD_OUT) == pytest.approx(trained.loss, abs=1e-6)
    assert trained.loss == pytest.approx(trained.loss_before, abs=0.02)
    assert trained.loss != trained.loss_before


def test_the_text_is_kept_and_is_another_where_the_text_is(trained):
    short = dataclasses.replace(SCHEDULE, steps=1)
    assert train(1, short).text == trained.text != ""
    again = training.Trained.from_artifact(trained.to_artifact())
    assert again.text == trained.text
    tokens = TEXT[: -20 * CONTEXT].clone()
    tokens[7] += 1
    changed = training.train(0, short, tokens, HELD_OUT, width=WIDTH, vocabulary=VOCABULARY)
    assert changed.text not in ("", trained.text)


def test_what_shipping_writes_beside_it_is_left_alone(trained, tmp_path):
    store, shipped = Store(tmp_path / "cache"), tmp_path / "shipped"
    store.get_or_build("x", {"a": 1}, lambda _: trained.to_artifact())
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    ship(file, shipped, half=True, without="snapshot.")
    write_manifest(shipped)
    read = Store(tmp_path / "fresh", shipped=shipped)
    found = read.get_or_build("x", {"a": 1}, None)
    assert {"left_out", "stored_dtype"} <= found.meta.keys()
    again = training.Trained.from_artifact(found)
    assert again.snapshots == {}
    assert again.weights.keys() == trained.weights.keys()
    assert again.loss == trained.loss
    del found.meta["text"]  # as it was before the text was kept
    assert training.Trained.from_artifact(found).text == ""


def test_a_start_is_the_seeds_alone():
    torch.manual_seed(1)
    a = training.model_of(WIDTH, VOCABULARY, CONTEXT, seed=5).state_dict()
    state = torch.random.get_rng_state()
    b = training.model_of(WIDTH, VOCABULARY, CONTEXT, seed=5).state_dict()
    assert equal(dict(a), dict(b))
    assert torch.equal(state, torch.random.get_rng_state())


def test_eight_bits_move_an_entry_by_no_more_than_a_254th_of_its_row():
    w = torch.randn(5, 7, generator=torch_generator(0, "w"))
    w[2] = 0
    packed = eight_bit.pack({"w": w, "b": w[0]})
    assert packed["w"].dtype == torch.int8
    back = eight_bit.unpack(packed)
    assert torch.equal(back["b"], w[0])
    limit = w.abs().amax(1, keepdim=True) / 254 + 1e-7
    assert bool(((back["w"] - w).abs() <= limit).all())
    assert bool((back["w"][2] == 0).all())
    assert equal(eight_bit.unpack(eight_bit.pack(back)), back)  # rounded once, rounded for good
    with pytest.raises(ValueError, match="w holds values that are not finite"):
        eight_bit.pack({"w": w / 0})


def test_a_diverged_run_stops():
    with pytest.raises((FloatingPointError, ValueError), match=r"lower the peak rate|diverged"):
        train(schedule=dataclasses.replace(SCHEDULE, peak_rate=1e30, clip=1e30))


def test_rates_warm_up_and_fall():
    schedule = Schedule(steps=1000)
    assert schedule.rate(0) == pytest.approx(schedule.peak_rate / 10)
    assert schedule.rate(9) == pytest.approx(schedule.peak_rate)
    assert schedule.rate(999) == pytest.approx(0.1 * schedule.peak_rate, rel=1e-3)


def test_the_cohort_has_pythias_shape():
    ours, theirs = neox_config(512, 1024, 128).to_dict(), pythia_70m_config().to_dict()
    changed = {name for name in theirs if ours[name] != theirs[name]}
    names = {"vocab_size", "max_position_embeddings", "use_cache", "bos_token_id", "eos_token_id"}
    assert changed <= names
    assert neox_config(128, 1024, 128).num_attention_heads == 4
    with pytest.raises(ValueError, match="multiple of its heads of 32, not 100"):
        neox_config(100, 1024, 128)


def test_snapshots_are_enough_for_drift():
    steps = training.snapshot_steps(3000)
    assert len(steps) >= 6
    assert steps[0] == 60
    assert steps[-1] == 3000


def test_fingerprint_does_not_name_the_release_of_transformers(monkeypatch, tmp_path):
    """A release of transformers once made every shipped language model a stranger."""
    from polyrot.language import architecture, seeds

    first = seeds.trainings(seeds.SHIPPED)[0]

    class On:
        fingerprint = "text"

    before = first.fingerprint(On())
    made = architecture.neox_config

    def another_release(*shape):
        config = made(*shape)
        config.transformers_version, config.a_new_field = "99.0", True
        return config

    monkeypatch.setattr(architecture, "neox_config", another_release)
    assert first.fingerprint(On()) == before
    monkeypatch.setattr(architecture, "neox_config", lambda *s: made(256, *s[1:]))
    assert first.fingerprint(On()) != before


def test_pythia_70m_has_as_many_parameters_as_its_card_says():
    vocabulary, width, layers = 50304, 512, 6
    block = 12 * width**2 + 13 * width  # attention and MLP with biases, two norms
    assert pythia_70m_parameters() == 2 * vocabulary * width + layers * block + 2 * width
    assert pythia_70m_parameters() == 70_426_624
