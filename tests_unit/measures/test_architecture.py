"""Untrained agreement as a statement of difference, and accuracy on other lengths."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from polyrot.cohorts.cohort import agreement_by_pair
from polyrot.measures import architecture
from polyrot.measures.architecture import (
    depth_beyond,
    kept_extrapolation,
    kept_untrained_agreement,
    measure_extrapolation,
    untrained_agreement,
)
from polyrot.runtime.progress import ConsoleProgress
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Runtime, Store
from polyrot.toy import seeds, task, transformer
from polyrot.workshop import __main__ as command
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop


class Models:
    """Two pairs that agree on so much."""

    scale, fingerprint = "toy_b", "models of a test"

    def agreement_with_anchor(self):
        share, error = np.array([0.2, 0.1]), np.array([0.01, 0.0])
        return agreement_by_pair(share, error, ["0-1", "0-2"], 64, 999, {"mean": 0.15})


def test_that_models_do_not_agree_has_no_ceiling(tmp_path):
    found = untrained_agreement(Models())
    assert found.ceilings == ()
    assert found.values.tolist() == [0.2, 0.1]
    store = Store(tmp_path)
    cold = kept_untrained_agreement(store, Models())
    known = SimpleNamespace(scale=Models.scale, fingerprint=Models.fingerprint)
    for kept in (cold, kept_untrained_agreement(store, known)):
        for name in ("labels", "beside", "seeds", "counts", "intervals", "unit", "ceilings"):
            assert getattr(kept, name) == getattr(found, name), name
        assert kept.values.tolist() == found.values.tolist()


def test_accuracies_are_of_pooled_positions(monkeypatch):
    monkeypatch.setattr(architecture, "CHUNK", 7)
    params = {n: 8 * p for n, p in transformer.initialise([3]).items()}
    found = measure_extrapolation(params, (2, 20), sequences=30)
    for name, values, distribution, lengths in (
        ("own", found.own, "train", (2, 20)),
        ("long", found.long, "long", None),
    ):
        generator = torch_generator(architecture.DATA_SEED, name)
        tokens = task.sequences(30, generator, distribution, lengths)
        keep, labels = tokens != task.PAD, task.label(tokens)
        assert keep.sum(1).max() <= (22 if name == "own" else 62)
        logits = transformer.forward(params, tokens).logits
        each = [
            float((logits[h][0].argmax(-1) == labels.head(h))[keep].double().mean())
            for h in task.HEADS
        ]
        assert values.tolist() == pytest.approx(each)
    assert found.long_error.max() > 0


def test_one_model_is_asked_for():
    with pytest.raises(ValueError, match="one model, not 2"):
        measure_extrapolation(transformer.initialise([1, 2]), (2, 48), 4)


def test_what_is_beyond_reach_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(architecture, "SEQUENCES", 20)
    params = transformer.initialise([3])
    cold = kept_extrapolation(Store(tmp_path), params, (2, 48), "a training", ("toys: short",))
    made = depth_beyond(cold)
    assert made.unmet == (
        f"depth accuracy on the lengths of its training is {float(cold.own[1]):.4f}, below 0.999"
    )
    assert made.values[0] == pytest.approx(float(cold.long[1]))
    assert made.interval(0).of == "sequences"
    monkeypatch.setattr(architecture, "measure_extrapolation", None)
    warm = kept_extrapolation(Store(tmp_path), params, (2, 48), "a training")
    assert torch.equal(warm.long_error, cold.long_error)
    assert (cold.departures, warm.departures) == (("toys: short",), ())


def test_the_workshop_trains_one_toy_on_shorter_contents(tmp_path, monkeypatch):
    tiny = PROFILES["tiny"]
    short = replace(tiny.shorter_content, batch=4, evaluation_sequences=1)
    monkeypatch.setitem(PROFILES, "tiny", replace(tiny, shorter_content=short))
    made = Workshop(Runtime(Store(tmp_path)), PROFILES["tiny"])
    training, result = made.shorter_content()
    assert training.schedule.lengths == (2, 48)
    assert result.seeds == training.seeds == (5,)
    said = []
    monkeypatch.setattr(ConsoleProgress, "say", lambda _, text: said.append(text))
    monkeypatch.setattr(seeds.training, "train", None)
    command.main([command.SHORTER, "--schedule=tiny", f"--artifacts={tmp_path}"])
    assert said[-1].startswith("5-5-lengths-2-48: lowest accuracy ")
