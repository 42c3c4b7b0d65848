"""Dictionaries: the trainer, the value type, the groups."""

from dataclasses import replace

import pytest
import torch

from polyrot.cohorts.cohort import CohortDefaults, ScaleFacts
from polyrot.dictionaries import collection, groups, sae, sparsity, training
from polyrot.dictionaries.sae import Dictionary, quality
from polyrot.dictionaries.training import Schedule
from polyrot.maps.checks import BadActivations
from polyrot.maps.matching import max_cosine
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Runtime, Store, StoreWarning
from polyrot.toy.cohort import SHARED_FACTS
from polyrot.toy.seeds import TINY as TOY
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop

TINY = Schedule(steps=25, batch=64)


def planted(features=20, d=12, tokens=6000, active=2, seed=0):
    """Sparse non-negative combinations of known unit directions: x [1, tokens, d], dirs [d, f]."""
    generator = torch_generator(seed, "planted")
    directions = torch.randn(d, features, generator=generator)
    directions /= directions.norm(dim=0)
    on = torch.rand(tokens, features, generator=generator).argsort(1) < active
    values = on * (0.5 + torch.rand(tokens, features, generator=generator))
    return (values @ directions.T)[None], directions


def test_a_planted_dictionary_is_recovered():
    x, directions = planted()
    schedule = Schedule(steps=1500, batch=256, rate=5e-3)
    found, _ = training.train(x, [0], [1], [3e-2], 40, schedule)
    q = quality(found[0], x[0])
    assert q.ev > 0.9
    assert q.l0 < 12
    cosines = max_cosine(directions, found[0].decoder, live_b=q.live)
    assert (cosines > 0.9).double().mean() > 0.9
    noise = torch.randn(12, 20, generator=torch_generator(1, "other"))
    assert (max_cosine(noise, found[0].decoder, live_b=q.live) > 0.9).double().mean() < 0.1


def test_batched_equals_one_after_another():
    x = torch.randn(2, 500, 8, generator=torch_generator(0, "x"))
    together, losses = training.train(x, [0, 1], [3, 4], [1e-3, 1e-2], 16, TINY)
    for i, (start, l1) in enumerate(((3, 1e-3), (4, 1e-2))):
        alone, alone_losses = training.train(x, [i], [start], [l1], 16, TINY)
        for name in ("w_enc", "w_dec", "b_enc", "b_in"):
            torch.testing.assert_close(
                getattr(together[i], name), getattr(alone[0], name), atol=2e-3, rtol=2e-2
            )
        assert [row[i] for row in losses] == pytest.approx([r[0] for r in alone_losses], rel=1e-2)


def test_decoder_rows_keep_unit_norm():
    x = torch.randn(1, 500, 8, generator=torch_generator(0, "x"))
    found, _ = training.train(x, [0], [3], [1e-3], 16, TINY)
    torch.testing.assert_close(found[0].w_dec.norm(dim=1), torch.ones(16))


def test_gradient_projection_leaves_nothing_along_a_row():
    generator = torch_generator(0, "gradient")
    w = torch.nn.functional.normalize(torch.randn(2, 5, 7, generator=generator), dim=-1)
    gradient = torch.randn(2, 5, 7, generator=generator)
    projected = training.project_gradient(w, gradient)
    torch.testing.assert_close((projected * w).sum(-1), torch.zeros(2, 5), atol=1e-6, rtol=0)
    torch.testing.assert_close(training.project_gradient(w, projected), projected)


def test_renormalising_keeps_the_function():
    weights = training.initialise([1, 2], 6, 6, 12)
    weights["w_dec"] *= torch.rand(2, 12, 1, generator=torch_generator(0, "scale")) + 0.5
    weights["b_enc"] += 0.3
    x = torch.randn(2, 40, 6, generator=torch_generator(0, "x"))
    zero = torch.zeros(2)
    before = training.loss(weights, x, x, zero)
    training.renormalise(weights)
    torch.testing.assert_close(training.loss(weights, x, x, zero), before)
    torch.testing.assert_close(weights["w_dec"].norm(dim=-1), torch.ones(2, 12))


def test_loss_is_mse_over_entries_plus_l1_of_row_sums():
    weights = training.initialise([1], 4, 4, 6)
    x = torch.randn(1, 10, 4, generator=torch_generator(0, "x"))
    f = torch.relu(x[0] @ weights["w_enc"][0])
    expected = (f @ weights["w_dec"][0] - x[0]).square().mean() + 0.1 * f.sum(1).mean()
    torch.testing.assert_close(training.loss(weights, x, x, torch.tensor([0.1]))[0], expected)


def test_equal_starts_are_equal_and_others_differ():
    drawn = training.initialise([7, 7, 8], 5, 5, 9)
    for name in ("w_enc", "w_dec"):
        assert torch.equal(drawn[name][0], drawn[name][1])
        assert not torch.equal(drawn[name][0], drawn[name][2])


def test_a_transcoder_learns_another_target():
    x = torch.randn(1, 4000, 6, generator=torch_generator(0, "x"))
    target = torch.relu(x @ torch.randn(6, 5, generator=torch_generator(0, "map")))
    schedule = Schedule(steps=400, batch=256, rate=5e-3)
    found, _ = training.train(x, [0], [1], [1e-5], 64, schedule, target=target)
    assert found[0].d_in == 6
    assert quality(found[0], x[0], target[0]).ev > 0.8


def test_quality_counts_dead_and_active():
    d = Dictionary(
        w_enc=torch.eye(3),
        b_enc=torch.tensor([0.0, -100.0, 0.0]),
        w_dec=torch.eye(3),
        b_in=torch.zeros(3),
        b_out=torch.zeros(3),
    )
    x = torch.tensor([[1.0, 1.0, -1.0], [2.0, 1.0, 1.0]])
    q = quality(d, x)
    assert q.l0 == 1.5
    assert q.dead == pytest.approx(1 / 3)
    assert q.live.tolist() == [True, False, True]


def test_reconstruction_does_not_depend_on_the_chunk():
    found = sae.unstack({**training.initialise([1], 4, 4, 6), "b_out": torch.zeros(1, 4)})[0]
    x = torch.randn(50, 4, generator=torch_generator(0, "x"))
    torch.testing.assert_close(found(x, chunk=7), found(x))


class OneSiteCohort(CohortDefaults):
    """The smallest cohort: two models, two sites of random activations."""

    scale, seeds, width, fingerprint, facts = "toy_x", (0, 1), 6, "fp", SHARED_FACTS
    sites = ("resid_pre_0", "resid_post_0")

    def activations(self, split, site):
        return torch.randn(2, 300, 6, generator=torch_generator(0, split, site))


def dies_at_the_second(monkeypatch):
    """The stages of the trainings asked for from here on, of which the second is interrupted."""
    trained, calls = training.train, []

    def train(*arguments, **more):
        calls.append(more["stage"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trained(*arguments, **more)

    monkeypatch.setattr(collection, "train", train)
    return calls


def test_groups_go_through_the_store_and_resume(tmp_path, monkeypatch):
    cohort, store = OneSiteCohort(), Store(tmp_path)
    group = groups.own(cohort, TINY)
    assert [(s.model, s.site) for s in group.specs] == [(1, s) for s in cohort.sites]
    calls = dies_at_the_second(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        collection.trained(Runtime(store), cohort, group)
    first = collection.trained(Runtime(store), cohort, group)
    assert len(calls) == 3, "the finished one is not trained again"
    again = collection.trained(Runtime(store), cohort, group)
    assert len(calls) == 3
    for spec in group.specs:
        assert torch.equal(first[spec].w_enc, again[spec].w_enc)


def test_states_of_one_training_are_the_shorter_trainings(tmp_path, monkeypatch):
    cohort, steps = OneSiteCohort(), (3, 7, 10)
    group = groups.own(cohort, replace(TINY, steps=10))
    alone = {
        s: collection.trained(Runtime(Store(tmp_path / f"{s}")), cohort, group.after(s))
        for s in steps
    }
    calls = dies_at_the_second(monkeypatch)
    runtime = Runtime(Store(tmp_path / "together"))
    with pytest.raises(KeyboardInterrupt):
        collection.along(runtime, cohort, group, steps)
    together = collection.along(runtime, cohort, group, steps)
    assert len(calls) == 3, "one training of two dictionaries, resumed after the first"
    for step in steps:
        for spec in group.specs:
            assert torch.equal(together[step][spec].w_enc, alone[step][spec].w_enc), step
    assert not torch.equal(together[3][group.specs[0]].w_enc, together[7][group.specs[0]].w_enc)
    # What is missing is trained to the last missing step and no further.
    trained = training.train
    monkeypatch.setattr(collection, "train", lambda *a, **m: calls.append(a[5]) or trained(*a, **m))
    again = Runtime(Store(tmp_path / "7"))
    collection.along(again, cohort, group, (3, 7))
    assert [each.steps for each in calls[3:]] == [3, 3]


def test_progress_that_kept_other_states_is_not_resumed(tmp_path, monkeypatch):
    cohort, group = OneSiteCohort(), groups.own(OneSiteCohort(), replace(TINY, steps=10))
    calls = dies_at_the_second(monkeypatch)
    runtime = Runtime(Store(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        collection.trained(runtime, cohort, group)
    with pytest.warns(StoreWarning, match="states"):
        found = collection.along(runtime, cohort, group, (3, 10))
    assert len(calls) == 4
    assert set(found) == {3, 10}


def test_readings_are_the_papers_where_the_protocol_is():
    toy, language = OneSiteCohort(), OneSiteCohort()
    language.facts = ScaleFacts()
    assert groups.readings(toy, Schedule()) == (4000, 6000)
    assert groups.readings(toy, Schedule(batch=1024)) == (6000,)
    assert groups.readings(language, Schedule(steps=4000)) == (4000,)


def test_shared_and_own_starts(tmp_path):
    cohort = OneSiteCohort()
    assert {s.start for s in groups.published(cohort, TINY).specs} == {0}
    assert {s.start for s in groups.own(cohort, TINY).specs} == {1}
    assert {s.start for s in groups.anchor(cohort, TINY).specs} == {0}


def test_isotropic_noise_keeps_the_scale_and_nothing_else():
    generator = torch_generator(0, "noise")
    x = 3 * torch.randn(1, 40_000, 4, generator=generator) * torch.tensor([4.0, 1, 1, 1]) + 5
    noise = collection.isotropic_noise(x, generator)[0]
    scale = x[0].var(0).mean().sqrt()
    torch.testing.assert_close(noise.std(0), scale.expand(4), rtol=0.03, atol=0)
    assert noise.mean().abs() < 0.1
    off = torch.corrcoef(noise.T) - torch.eye(4)
    assert off.abs().max() < 0.03


def test_sparsity_is_the_best_ev_within_range(monkeypatch):
    def fake(dictionary, x):
        return sae.Quality(dictionary.ev, dictionary.l0, 0.0, torch.ones(1))

    monkeypatch.setattr(sparsity, "quality", fake)

    def choose(*pairs, ev=0.9):
        grid = {
            groups.Spec(0, "s", 0, l1): type("D", (), {"l0": l0, "ev": e}) for l1, l0, e in pairs
        }
        return sparsity.choose_l1(grid, None, "s", l0=(4, 16), ev=ev)

    chosen = choose((1e-3, 40, 0.99), (1e-2, 15, 0.95), (2e-2, 8, 0.93))
    assert (chosen.l1, chosen.admissible) == (1e-2, True)
    poor = choose((1e-3, 40, 0.99), (1e-2, 12, 0.7))
    assert (poor.l1, poor.admissible) == (1e-2, False)
    none = choose((1e-3, 40, 0.99), (1e-2, 20, 0.95))
    assert (none.l1, none.admissible) == (1e-2, False)


def test_reads_activations_of_any_leading_shape():
    def drawn(*shape):
        return torch.randn(shape, generator=torch_generator(0, "leading", *shape))

    sae = Dictionary(drawn(4, 8), drawn(8), drawn(8, 6), drawn(4), drawn(6))
    x = drawn(3, 5, 4)
    features = torch.relu((x - sae.b_in) @ sae.w_enc + sae.b_enc)
    torch.testing.assert_close(sae.encode(x), features)
    torch.testing.assert_close(sae(x, chunk=2), features @ sae.w_dec + sae.b_out)


def test_bad_input():
    x = torch.randn(1, 20, 4, generator=torch_generator(0, "x"))
    x[0, 3, 2] = float("nan")
    with pytest.raises(BadActivations, match="NaN"):
        training.train(x, [0], [0], [1e-3], 8, TINY)
    found, _ = training.train(torch.ones(1, 20, 4), [0], [0], [1e-3], 8, TINY)
    with pytest.raises(ValueError, match="width 4, the activations have 6"):
        found[0].encode(torch.ones(3, 6))
    with pytest.raises(ValueError, match="b_enc is"):
        Dictionary(torch.ones(4, 8), torch.ones(7), torch.ones(8, 4), torch.ones(4), torch.ones(4))


def test_chosen_sparsity_is_kept_without_its_grid(tmp_path):
    cohort, store = OneSiteCohort(), Store(tmp_path)
    workshop = Workshop(Runtime(store), replace(PROFILES["tiny"], toy=TOY, dictionaries=TINY))
    first = workshop.chosen(cohort)
    assert list(first) == list(cohort.internal)
    choice, dictionary = first["resid_post_0"]
    assert choice.l1 in groups.L1_GRID
    (grid,) = (tmp_path / "dictionaries").glob("*sparse-grid*")
    grid.unlink()
    again = workshop.chosen(cohort)
    assert again["resid_post_0"][0] == choice
    assert torch.equal(again["resid_post_0"][1].w_enc, dictionary.w_enc)
    assert not list((tmp_path / "dictionaries").glob("*sparse-grid*"))


def test_a_choice_is_kept_for_the_ev_that_was_asked(tmp_path, monkeypatch):
    workshop = Workshop(
        Runtime(Store(tmp_path)), replace(PROFILES["tiny"], toy=TOY, dictionaries=TINY)
    )
    kept = []
    for ev in (0.9, 0.9, 0.8):
        monkeypatch.setattr("polyrot.workshop.workshop.LEAST_EV", ev)
        workshop.chosen(OneSiteCohort())
        kept.append(len(list((tmp_path / "sparsity").glob("*.safetensors"))))
    assert kept == [1, 1, 2]


def test_a_loss_that_is_not_finite_names_what_can_be_changed():
    x = 1e30 * torch.randn(1, 500, 8, generator=torch_generator(0, "huge"))
    for scale, remedy in {
        "pair": "--skip-positions 1, .* --device cpu, or bring .* --sae DIR",
        "pythia": "--skip-positions 1, or train in single precision with --device cpu$",
        "toy_a": "train by another --schedule",
    }.items():
        message = rf"loss is (nan|inf) at step \d+, of activations as large as .*e\+30: .*{remedy}"
        with pytest.raises(FloatingPointError, match=message):
            training.train(x, [0], [1], [1e-3], 16, TINY, remedy=training.remedy(scale))
