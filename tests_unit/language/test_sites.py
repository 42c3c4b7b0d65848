"""Residual sites of language models: taken where they say, edits reach everything after them."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from polyrot.language.sites import blocks, capture, hooked, site_names, width_of

TOKENS = torch.arange(24).reshape(2, 12) % 20


@pytest.fixture(scope="module", params=["gpt-neox", "gpt2"])
def model(request):
    torch.manual_seed(0)
    if request.param == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=16, n_layer=3, n_head=2)).eval()
    config = GPTNeoXConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
    )
    return GPTNeoXForCausalLM(config).eval()


def test_sites_are_the_hidden_states_up_to_the_last_norm(model):
    sites = site_names(3)
    found = capture(model, TOKENS, sites)
    with torch.no_grad():
        states = model(input_ids=TOKENS, output_hidden_states=True).hidden_states
    for site, state in zip(sites[:-1], states, strict=False):
        torch.testing.assert_close(found[site], state)
    norm = model.get_submodule(
        "transformer.ln_f" if hasattr(model, "transformer") else "gpt_neox.final_layer_norm"
    )
    torch.testing.assert_close(norm(found[sites[-1]]), states[-1])
    assert width_of(model) == 16
    assert len(blocks(model)) == 3


@pytest.mark.parametrize("site", site_names(3))
def test_an_edit_reaches_the_output_and_only_while_open(model, site):
    with torch.no_grad():
        clean = model(input_ids=TOKENS).logits
        with hooked(model, {site: lambda x: x + 1.0 * torch.arange(16)}):
            edited = model(input_ids=TOKENS).logits
        again = model(input_ids=TOKENS).logits
    assert not torch.allclose(clean, edited, atol=1e-3)
    torch.testing.assert_close(clean, again)


def test_replacing_a_site_by_itself_changes_nothing(model):
    found = capture(model, TOKENS, ["resid_post_1"])["resid_post_1"]
    with torch.no_grad(), hooked(model, {"resid_post_1": lambda x: found}):
        torch.testing.assert_close(model(input_ids=TOKENS).logits, model(input_ids=TOKENS).logits)


def test_unknown_site_is_named(model):
    with pytest.raises(KeyError, match="no such site: resid_mid_0"):
        capture(model, TOKENS, ["resid_mid_0"])


def test_a_model_without_blocks_is_refused(model):
    class Hollow(torch.nn.Module):
        config = model.config

    with pytest.raises(ValueError, match="no list of 3 blocks"):
        blocks(Hollow())
