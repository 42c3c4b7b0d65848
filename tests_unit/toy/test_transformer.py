"""The batched transformer against a plain one, and its sites and edits."""

import pytest
import torch

from polyrot.runtime.seeding import torch_generator
from polyrot.toy import task, transformer
from tests_unit.toy.plain_transformer import PlainTransformer


@pytest.fixture(scope="module")
def params():
    """Three models with weights large enough that every part matters."""
    drawn = transformer.initialise([3, 4, 5])
    generator = torch_generator(0, "gains")
    return {
        name: p * (1 + 0.3 * torch.randn(p.shape, generator=generator))
        if name.startswith("norm")
        else 6 * p
        for name, p in drawn.items()
    }


@pytest.fixture(scope="module")
def tokens():
    return task.sequences(7, torch_generator(1, "tokens"))


def test_104448_parameters(params):
    assert transformer.n_parameters(params) == 104_448


def test_equals_a_plain_module(params, tokens):
    run = transformer.forward(params, tokens, capture=transformer.SITES)
    for m in range(3):
        logits, sites = PlainTransformer(params, m)(tokens)
        for head in task.HEADS:
            torch.testing.assert_close(run.logits[head][m], logits[head], atol=1e-4, rtol=1e-4)
        for name, site in zip(transformer.SITES, sites, strict=True):
            torch.testing.assert_close(run.captured[name][m], site, atol=1e-5, rtol=1e-4)


def test_gradients_equal_those_of_a_plain_module(params, tokens):
    leaves = {n: p.double().requires_grad_() for n, p in params.items()}
    transformer.forward(leaves, tokens).logits["depth"][1].square().sum().backward()
    plain = PlainTransformer(leaves, 1)
    plain(tokens)[0]["depth"].square().sum().backward()
    for name, p in plain.weights.items():
        got = leaves[name].grad
        expected = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(got[1], expected, atol=1e-8, rtol=1e-8)
        assert got[0].abs().max() == 0, "models of a batch do not see each other"


def test_batched_equals_single(params, tokens):
    together = transformer.forward(params, tokens).logits
    for m in range(3):
        alone = transformer.forward(transformer.select(params, [m]), tokens).logits
        for head in task.HEADS:
            torch.testing.assert_close(together[head][m], alone[head][0], atol=1e-4, rtol=1e-4)


def test_packed_rows_equal_single_sequences(params):
    packed = task.packed_batch(8, torch_generator(2, "packed"))
    expand = [x.expand(3, -1, -1) for x in (packed.tokens, packed.positions, packed.segments)]
    logits = transformer.forward(params, expand[0], positions=expand[1], segments=expand[2]).logits
    for row in range(4):
        for segment in (0, 1):
            here = packed.segments[row] == segment
            alone = transformer.forward(params, packed.tokens[row, here][None]).logits
            for head in task.HEADS:
                torch.testing.assert_close(
                    logits[head][:, row, here], alone[head][:, 0], atol=1e-4, rtol=1e-4
                )


def test_padding_does_not_reach_earlier_positions(params, tokens):
    short = tokens.clone()
    short[:, 40:] = task.PAD
    full, cut = (transformer.forward(params, t).logits["token"] for t in (tokens, short))
    torch.testing.assert_close(full[:, :, :40], cut[:, :, :40])


def test_components_sum_to_the_stream(params, tokens):
    names = (*transformer.SITES, *transformer.COMPONENTS)
    got = transformer.forward(params, tokens, capture=names).captured
    writes = sum(got[name] for name in transformer.COMPONENTS)
    torch.testing.assert_close(
        got["resid_pre_0"] + writes, got["resid_post_1"], atol=1e-5, rtol=1e-4
    )


def test_an_edit_is_seen_by_everything_after_and_nothing_before(params, tokens):
    clean = transformer.forward(params, tokens, capture=transformer.SITES)
    shift = torch.randn(64, generator=torch_generator(3, "shift"))
    run = transformer.forward(
        params, tokens, edits={"resid_mid_0": lambda x: x + shift}, capture=transformer.SITES
    )
    torch.testing.assert_close(run.captured["resid_pre_0"], clean.captured["resid_pre_0"])
    torch.testing.assert_close(run.captured["resid_mid_0"], clean.captured["resid_mid_0"] + shift)
    for later in transformer.SITES[2:]:
        assert (run.captured[later] - clean.captured[later]).abs().max() > 1e-2


@pytest.mark.parametrize("name", transformer.COMPONENTS)
def test_replacing_a_component_by_itself_changes_nothing(params, tokens, name):
    clean = transformer.forward(params, tokens, capture=[name])
    kept = clean.captured[name]
    again = transformer.forward(params, tokens, edits={name: lambda x: kept})
    for head in task.HEADS:
        torch.testing.assert_close(again.logits[head], clean.logits[head], atol=1e-4, rtol=1e-4)


def test_replacing_a_component_by_zero_removes_its_write(params, tokens):
    got = transformer.forward(params, tokens, capture=["resid_pre_0", "resid_mid_0", "head_0_2"])
    edited = transformer.forward(
        params, tokens, edits={"head_0_2": torch.zeros_like}, capture=["resid_mid_0"]
    )
    torch.testing.assert_close(
        edited.captured["resid_mid_0"],
        got.captured["resid_mid_0"] - got.captured["head_0_2"],
        atol=1e-5,
        rtol=1e-4,
    )


def test_an_edited_pattern_is_what_is_attended_by(params, tokens):
    every = [*transformer.SITES, "pattern_0", "pattern_1"]
    clean = transformer.forward(params, tokens, capture=every)

    def itself(pattern):  # every position looks at itself alone
        return torch.eye(pattern.shape[-1]).expand_as(pattern)

    run = transformer.forward(params, tokens, edits={"pattern_1": itself}, capture=every)
    torch.testing.assert_close(run.captured["pattern_1"][0, 0, 0], torch.eye(tokens.shape[1]))
    for earlier in ("resid_pre_0", "pattern_0", "resid_post_0"):
        assert torch.equal(run.captured[earlier], clean.captured[earlier])
    x = clean.captured["resid_post_0"]
    normed = transformer.rms_norm(x, params["norm_attn_1"])
    write = normed @ params["w_v_1"][:, None] @ params["w_o_1"][:, None]
    torch.testing.assert_close(run.captured["resid_mid_1"], x + write, atol=1e-4, rtol=1e-4)
    per_head = transformer.forward(
        params, tokens, edits={"pattern_1": itself}, capture=["resid_mid_1", "head_1_0"]
    )
    torch.testing.assert_close(
        per_head.captured["resid_mid_1"], run.captured["resid_mid_1"], atol=1e-4, rtol=1e-4
    )
    same = transformer.forward(params, tokens, edits={"pattern_1": lambda pattern: pattern})
    for head in task.HEADS:
        assert torch.equal(same.logits[head], clean.logits[head])


def test_unknown_site_is_named(params, tokens):
    with pytest.raises(KeyError, match="resid_mid_2"):
        transformer.forward(params, tokens, capture=["resid_mid_2"])


def test_seeds_give_their_weights_on_any_batch():
    pair = transformer.initialise([8, 9])
    alone = transformer.initialise([9])
    for name, p in alone.items():
        assert torch.equal(pair[name][1], p[0])
