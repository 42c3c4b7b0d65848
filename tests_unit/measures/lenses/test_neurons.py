"""Which neurons are in use, against one ablation at a time through the training's own forward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from polyrot.measures.lenses import lenses, neurons
from polyrot.measures.lenses.neurons import Neurons, first_positions, kept_neurons, measure_neurons
from polyrot.store import Runtime, Store
from polyrot.toy import task
from polyrot.toy.folding import Folded
from tests_unit.worlds.lensed import Change, Lensed, every_neuron_fires, never_fires, writes_nothing

NEURON = 17
"""The one that `lensed` silences."""


def silenced(model: Folded, layer: int, neuron: int) -> Folded:
    weights = model[f"w_out_{layer}"].clone()
    weights[0, neuron] = 0
    return model.replace({f"w_out_{layer}": weights})


def plain_change(model: Folded, layer: int, neuron: int, tokens: Tensor) -> float:
    """Largest |change| of a logit over all sequences."""
    whole, without = (m.run(tokens).logits for m in (model, silenced(model, layer, neuron)))
    keep = tokens != task.PAD
    return max(float((whole[h] - without[h])[:, keep].abs().max()) for h in task.HEADS)


@pytest.fixture(scope="module")
def cohort() -> Lensed:
    made = Lensed(every_neuron_fires)
    made._tokens = {split: x[:2] for split, x in made._tokens.items()}
    return made


def test_a_change_is_what_a_whole_run_shows(
    cohort: Lensed, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that no neuron stops before its every sequence was tried.
    monkeypatch.setattr(neurons, "LEAST_CHANGE", float("inf"))
    found = measure_neurons(cohort)
    model, tokens = cohort.folded(0), cohort.tokens("dictionary")
    names = [f"mlp_in_{layer}" for layer in range(2)]
    captured = model.run(tokens, capture=names).captured
    for layer, name in enumerate(names):
        pre = captured[name][0, tokens != task.PAD] @ model[f"w_in_{layer}"][0]
        clear = pre.amax(0).abs() > 1e-4
        assert torch.equal(found.fires[layer][clear], (pre > 0).any(0)[clear])
        for neuron in (0, 255):
            wanted = plain_change(model, layer, neuron, tokens)
            reads, writes = model[f"w_in_{layer}"][0][:, neuron], model[f"w_out_{layer}"][0][neuron]
            size = float(reads.norm() * writes.norm())
            assert float(found.size[layer, neuron]) == pytest.approx(size, rel=1e-5)
            assert float(found.change[layer, neuron]) == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_each_stops_where_it_has_shown_itself(cohort: Lensed) -> None:
    found = measure_neurons(cohort)
    model, tokens = cohort.folded(0), cohort.tokens("dictionary")
    fired = found.fires[1].nonzero()[:, 0]
    assert len(fired) > 50
    assert bool((found.change[1, fired] > neurons.LEAST_CHANGE).all())
    some = int(fired[3])
    assert float(found.change[1, some]) <= plain_change(model, 1, some, tokens) * 1.001 + 1e-4


SILENT = [(never_fires, 1, False), (writes_nothing, 0, True)]


@pytest.mark.parametrize(("change", "layer", "fires"), SILENT)
def test_one_that_is_silent_is_found(change: Change, layer: int, fires: bool) -> None:
    made = Lensed(change)
    made._tokens = {split: x[:30] for split, x in made._tokens.items()}
    found = measure_neurons(made)
    assert not found.alive[layer, NEURON]
    assert bool(found.fires[layer, NEURON]) == fires
    assert found.change[layer, NEURON] == 0
    measured = lenses.neurons_alive(found)
    assert measured.values[0] == float(found.alive.double().mean()) < 1
    assert measured.beside[f"alive_mlp_{layer}"] == float(found.alive[layer].sum())


def test_positions_are_counted_to_the_sequence_that_completes_them() -> None:
    tokens = torch.tensor([[1, 3, 0], [1, 0, 0], [1, 3, 4]])
    assert len(first_positions(tokens, 2)) == 1
    assert len(first_positions(tokens, 3)) == 2
    assert len(first_positions(tokens, 99)) == 3


def test_they_are_kept(cohort: Lensed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(Store(tmp_path))
    ones = torch.ones(2, 256).double()
    planted = Neurons(ones.bool(), ones, ones, torch.tensor([7]))
    monkeypatch.setattr(neurons, "measure_neurons", lambda *_: planted)
    kept_neurons(runtime, cohort)
    monkeypatch.setattr(neurons, "measure_neurons", None)
    again = kept_neurons(runtime, cohort)
    assert torch.equal(again.change, planted.change)
    assert lenses.neurons_alive(again).counts == {"neurons": 512, "positions": 7}
