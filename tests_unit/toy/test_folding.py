"""Folding the gains away changes nothing."""

import pytest
import torch

from polyrot.runtime.seeding import torch_generator
from polyrot.toy import task, transformer
from polyrot.toy.folding import READERS, TENSORS, fold, largest_logit_change


@pytest.fixture(scope="module")
def params():
    """Two models whose attention is not uniform and whose gains are not 1."""
    generator = torch_generator(1, "gains")
    return {
        name: x * (0.5 + torch.rand(x.shape, generator=generator))
        if name.startswith("norm")
        else 8 * x
        for name, x in transformer.initialise([3, 4]).items()
    }


def test_no_logit_changes(params):
    tokens = task.sequences(12, torch_generator(1, "tokens"))
    plain, folded = transformer.forward(params, tokens), fold(params).run(tokens)
    assert max(float(x.abs().max()) for x in plain.logits.values()) > 1
    assert largest_logit_change(plain, folded, tokens != task.PAD).max() < 1e-4


def test_a_gain_left_out_is_noticed(params):
    tokens = task.sequences(12, torch_generator(1, "tokens"))
    plain = transformer.forward(params, tokens)
    for gain in READERS:
        forgotten = {**params, gain: torch.ones_like(params[gain])}
        change = largest_logit_change(plain, fold(forgotten).run(tokens), tokens != task.PAD)
        assert change.min() > 1e-2, gain


def test_gains_are_one_and_the_original_is_untouched(params):
    before = {name: x.clone() for name, x in params.items()}
    folded = fold(params)
    assert all(bool((folded.params[gain] == 1).all()) for gain in READERS)
    assert all(torch.equal(before[name], params[name]) for name in params)
    folded.position.zero_()
    assert fold(params).position.abs().max() > 0


def test_packed_rows_run_as_padded_ones(params):
    packed = task.packed_batch(8, torch_generator(2, "packed"))
    where = {"positions": packed.positions, "segments": packed.segments}
    plain = transformer.forward(params, packed.tokens, **where)
    folded = fold(params).run(packed.tokens, **where)
    everywhere = torch.ones_like(packed.tokens, dtype=torch.bool)
    assert largest_logit_change(plain, folded, everywhere).max() < 1e-4


def test_edits_and_captures_reach_the_model(params):
    tokens = task.sequences(4, torch_generator(1, "tokens"))
    folded = fold(params)
    run = folded.run(tokens, edits={"mlp_0": torch.zeros_like}, capture=["mlp_0", "resid_pre_0"])
    assert not run.captured["mlp_0"].any()
    assert run.captured["resid_pre_0"].shape == (2, 4, 64, 64)
    with pytest.raises(KeyError, match="mlp_7"):
        folded.run(tokens, capture=["mlp_7"])


def test_selected_models_stay_together(params):
    folded = fold(params)
    turned = folded.select([1, 0, 1])
    assert len(turned) == 3
    for name in TENSORS:
        assert torch.equal(turned[name], folded[name][[1, 0, 1]])
