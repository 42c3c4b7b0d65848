"""Runs of language models: a variant computed from a site on is the model's own, edited there."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from polyrot.language import run as run_module
from polyrot.language.run import HEAD, LanguageRun
from polyrot.language.sites import capture, hooked, site_names
from polyrot.measures.editing import RankOne
from tests_unit.language.tiny_language import VOCABULARY, WIDTH, some_tokens, tiny

LAYERS = 3
SITES = site_names(LAYERS)
TOKENS = some_tokens(5, 0)
ROUNDING = {torch.float32: 2e-5, torch.float64: 1e-12}


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    return tiny(0, LAYERS, attn_implementation=request.param)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("site", SITES)
def test_outputs_are_those_of_a_hooked_run(model, site, dtype):
    model = copy.deepcopy(model).to(dtype)
    run = LanguageRun(model, TOKENS)
    shift = drawn(2, len(TOKENS), TOKENS.shape[1], WIDTH).to(dtype)
    found = run.outputs(site, shift)[HEAD]
    assert found.shape == (2, *TOKENS.shape, VOCABULARY)
    for variant, added in zip(found, shift, strict=True):
        with torch.no_grad(), hooked(model, {site: lambda x, added=added: x + added}):
            wanted = model(input_ids=TOKENS).logits
        torch.testing.assert_close(variant, wanted, atol=ROUNDING[dtype], rtol=ROUNDING[dtype])
    with torch.no_grad():
        assert not torch.allclose(found[0], model(input_ids=TOKENS).logits, atol=1e-2)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_losses_are_those_of_a_hooked_run_in_the_order_asked_for(model, dtype):
    model = copy.deepcopy(model).to(dtype)
    run = LanguageRun(model, TOKENS)
    components = [2, 0, 1, 0]
    writes = run.writes[components] + drawn(4, 1, 1, WIDTH).to(dtype)
    found = run.loss(components, writes)
    for component, write, loss in zip(components, writes, found, strict=True):
        edit = {f"resid_post_{component}": lambda x, write=write: write}
        with torch.no_grad(), hooked(model, edit):
            wanted = entropy(model(input_ids=TOKENS).logits, TOKENS)
        torch.testing.assert_close(loss, wanted, atol=ROUNDING[dtype], rtol=ROUNDING[dtype])


def test_the_clean_loss_is_the_models_own(model):
    run = LanguageRun(model, TOKENS)
    wanted = model(input_ids=TOKENS, labels=TOKENS).loss
    for component in range(LAYERS):
        torch.testing.assert_close(run.loss([component], run.writes[[component]])[0], wanted)


def test_sites_and_writes_are_the_captured_stream(model):
    run = LanguageRun(model, TOKENS)
    found = capture(model, TOKENS, SITES)
    for site in SITES:
        torch.testing.assert_close(run.site(site), found[site])
    torch.testing.assert_close(run.writes, torch.stack([found[site] for site in SITES[1:]]))


@pytest.mark.parametrize("component", range(LAYERS))
def test_the_gradient_is_that_of_finite_differences(component):
    run = LanguageRun(tiny(0, LAYERS).double(), TOKENS)
    writes = run.writes[[component]].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(run.loss([component], writes).sum(), writes)
    way = drawn(*writes.shape, seed=component)
    step = 1e-6
    with torch.no_grad():
        ends = [run.loss([component], writes + sign * step * way)[0] for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close((gradient * way).sum(), slope, rtol=1e-6, atol=1e-9)
    assert not gradient[:, :, -1].any()  # what stands at the last position has no next token


def test_a_few_variants_at_a_time_change_nothing(monkeypatch):
    run = LanguageRun(tiny(0, LAYERS), TOKENS)
    components = [1, 0, 1, 1, 2, 0]
    writes = (run.writes[components] + drawn(6, 1, 1, WIDTH).float()).requires_grad_()
    shift = drawn(5, 1, 1, WIDTH).float()
    found = []
    for logits in (run_module.LOGITS, 2 * TOKENS.numel() * VOCABULARY):
        monkeypatch.setattr(run_module, "LOGITS", logits)
        loss = run.loss(components, writes)
        (gradient,) = torch.autograd.grad(loss.sum(), writes)
        with torch.no_grad():
            found.append((loss, gradient, run.outputs("resid_post_0", shift)[HEAD]))
    assert run._at_once() == 2
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(whole, parts)


def test_an_edited_weight_is_a_vector_added_after_its_block(model):
    run = LanguageRun(model, TOKENS)
    for layer in range(LAYERS):
        edit = RankOne(f"mlp_{layer}", drawn(2 * WIDTH).float(), drawn(WIDTH, seed=1).float())
        found = run.outputs(f"resid_post_{layer}", edit.shift(run))[HEAD][0]
        edited = copy.deepcopy(model)
        edited.gpt_neox.layers[layer].mlp.dense_4h_to_h.weight += edit.change().T
        torch.testing.assert_close(found, edited(input_ids=TOKENS).logits, atol=2e-4, rtol=2e-4)
    for hooks in (m._forward_pre_hooks for m in model.modules()):
        assert not hooks


def test_a_variant_does_not_see_the_future(model):
    run = LanguageRun(model, TOKENS)
    shift = torch.zeros(1, 1, TOKENS.shape[1], WIDTH)
    shift[:, :, 7:] = 3.0 * torch.arange(WIDTH)
    found = run.outputs("resid_pre_0", shift)[HEAD][0]
    with torch.no_grad():
        clean = model(input_ids=TOKENS).logits
    torch.testing.assert_close(found[:, :7], clean[:, :7])
    assert not torch.allclose(found[:, 7:], clean[:, 7:], atol=1e-2)


def test_all_but_the_last_position_are_kept():
    run = LanguageRun(tiny(0, LAYERS), TOKENS)
    assert run.kept[:, :-1].all()
    assert not run.kept[:, -1].any()


def test_bad_input_is_named():
    run = LanguageRun(tiny(0, LAYERS), TOKENS)
    with pytest.raises(KeyError, match="no such site: resid_mid_0; have resid_pre_0"):
        run.outputs("resid_mid_0", torch.zeros(1, 1, 1, WIDTH))
    with pytest.raises(ValueError, match="2 components for writes"):
        run.loss([0, 1], run.writes[:1])
    with pytest.raises(KeyError, match="no MLP 'mlp_7'; have mlp_0, mlp_1, mlp_2"):
        run.keys("mlp_7")
    for bad in (TOKENS[0], TOKENS[:, :1], TOKENS[:0]):
        with pytest.raises(ValueError, match="two positions or more"):
            LanguageRun(tiny(0, LAYERS), bad)
