"""Language models as a cohort: what it offers is the models' own; what does not fit is named."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from polyrot.cohorts.cohort import NotOffered, ScaleFacts, pair_labels
from polyrot.language import cohort as cohort_module
from polyrot.language.cohort import LanguageCohort
from polyrot.language.directions import Tokenised
from polyrot.language.sites import capture
from polyrot.maps.checks import BadActivations
from polyrot.measured import interval_about
from polyrot.measures.overlaps import pinned_subspace
from tests_unit.language.tiny_language import (
    POSITIONS,
    VOCABULARY,
    WIDTH,
    some_phrases,
    some_tokens,
    tiny,
    tiny_cohort,
)


@pytest.fixture(scope="module")
def cohort() -> LanguageCohort:
    """Three unrelated models of four layers."""
    return tiny_cohort([tiny(seed) for seed in range(3)])


# ------------------------------------------------------------------------------ what it offers


def test_sites_and_their_names(cohort: LanguageCohort) -> None:
    posts = tuple(f"resid_post_{i}" for i in range(4))
    assert cohort.sites == ("resid_pre_0", *posts)
    assert cohort.internal == posts
    assert cohort.named_sites == posts[1:3]
    assert cohort.from_second_block == posts[1:]
    assert cohort.steering_site == "resid_post_2"
    assert cohort.components == ("block_0", "block_1", "block_2", "block_3")
    assert cohort.mlps["mlp_3"] == "resid_post_3"
    assert cohort.contrasts == ("sentiment", "names", "magnitude")
    six = tiny_cohort([tiny(0, 6)])
    assert six.steering_site == "resid_post_3"  # the output of block 3, as in the paper
    assert len(six.sites) == 7


def test_activations_are_those_of_the_models_in_the_order_of_sequences(
    cohort: LanguageCohort,
) -> None:
    tokens = cohort.tokens("score")
    for site in cohort.sites:
        found = cohort.activations("score", site)
        assert found.shape == (3, tokens.numel(), WIDTH)
        assert found.dtype == torch.float32
        for m, model in enumerate(cohort.models):
            wanted = capture(model, tokens, [site])[site].flatten(0, 1)
            torch.testing.assert_close(found[m], wanted)
    n, length = tokens.shape
    assert cohort.sequences("score").tolist() == [i for i in range(n) for _ in range(length)]


def test_activations_can_be_kept_in_half_precision_and_forgotten(cohort: LanguageCohort) -> None:
    half = tiny_cohort(cohort.models, keep=torch.float16)
    found = half.activations("fit", "resid_post_1")
    assert found.dtype == torch.float32
    assert half._activations["fit"]["resid_post_1"].dtype == torch.float16
    wanted = cohort.activations("fit", "resid_post_1")
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert not torch.equal(found, wanted)
    half.forget("fit")
    assert "fit" not in half._activations
    assert torch.equal(half.activations("fit", "resid_post_1"), found)


def test_agreement_loss_and_accuracy_are_those_of_the_logits(cohort: LanguageCohort) -> None:
    found = cohort.agreement_with_anchor()
    assert found.labels == pair_labels(cohort) == ("0-1", "0-2")
    tokens = cohort.tokens("score")
    runs = [model(input_ids=tokens, labels=tokens) for model in cohort.models]
    tops = [run.logits[:, :-1].argmax(-1) for run in runs]
    for m, (run, top) in enumerate(zip(runs, tops, strict=True)):
        assert found.beside[f"loss_{m}"] == pytest.approx(float(run.loss), rel=1e-5)
        right = (top == tokens[:, 1:]).double().mean()
        assert found.beside[f"accuracy_{m}"] == pytest.approx(float(right))
        if m:
            same = (top == tops[0]).double().mean()
            assert found.values[m - 1] == pytest.approx(float(same))
    assert found.counts == {"positions": tokens[:, 1:].numel(), "sequences": len(tokens)}
    same = (tops[1] == tops[0]).double().mean(1)
    error = float(same.std()) / len(tokens) ** 0.5
    wanted = interval_about(found.values[0], error, "sequences", "fraction")
    assert found.interval(0) == pytest.approx(wanted)
    assert (found.values < 0.5).all()


def test_a_few_sequences_at_a_time_change_nothing(
    cohort: LanguageCohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cohort.activations("fit", "resid_post_3"), cohort.agreement_with_anchor()
    monkeypatch.setattr(LanguageCohort, "positions_at_once", 5 * POSITIONS + 1)
    monkeypatch.setattr(cohort_module, "LOGITS", 7 * POSITIONS * VOCABULARY)
    parts = tiny_cohort(cohort.models)
    torch.testing.assert_close(parts.activations("fit", "resid_post_3"), whole[0])
    agreement = parts.agreement_with_anchor()
    np.testing.assert_allclose(agreement.values, whole[1].values)
    assert agreement.beside == pytest.approx(whole[1].beside)


def test_one_model_twice_agrees_wholly_and_is_not_distinct(cohort: LanguageCohort) -> None:
    anchor, other, _ = cohort.models
    twice = tiny_cohort([anchor, copy.deepcopy(anchor), other])
    assert twice.agreement_with_anchor().values[0] == 1
    assert twice.distinct_fraction() == pytest.approx(2 / 3)
    among_siblings = tiny_cohort([other, anchor, copy.deepcopy(anchor)])
    assert among_siblings.distinct_fraction() == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="neox: seed 1 is given twice"):
        tiny_cohort([anchor, other, other], seeds=(0, 1, 1))


def test_fingerprint_follows_everything(cohort: LanguageCohort) -> None:
    models, fit = cohort.models, {"fit": some_tokens(48, 1), "score": some_tokens(48, 2)}
    made = [
        tiny_cohort(models, **given)
        for given in (
            {},
            {"made_by": ["something else"]},
            {"seeds": (0, 1, 3)},
            {"trained": False},
            {"tokens": fit},
            {"tokens": {**fit, "score": fit["score"].flip(0)}},
            {"tokens": {**fit, "fit": fit["fit"].reshape(96, -1)}},
            {"phrases": some_phrases(1)},
            {"phrases": None},
            {"keep": torch.float16},
            {"positions_per_sequence": 8},
        )
    ]
    assert len({c.fingerprint for c in made}) == len(made)
    assert made[0].fingerprint == cohort.fingerprint
    assert not made[3].trained


def test_mean_writes_are_means_over_the_fit_split(cohort: LanguageCohort) -> None:
    found = cohort.mean_writes(1)
    assert found.shape == (4, WIDTH)
    run = cohort.clean_run(1, cohort.tokens("fit"))
    torch.testing.assert_close(found, run.writes.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_interventions_take_as_many_positions_as_they_are_worth(cohort: LanguageCohort) -> None:
    score = cohort.tokens("score")
    assert torch.equal(cohort.intervention_tokens(7), score[:19])  # 7 * 32 positions of 12 each
    assert torch.equal(cohort.intervention_tokens(1000), score)
    half = tiny_cohort(cohort.models, positions_per_sequence=POSITIONS // 2)
    assert torch.equal(half.intervention_tokens(7), score[:4])


def test_a_run_in_double_precision_is_the_same_model(cohort: LanguageCohort) -> None:
    tokens = cohort.tokens("score")[:4]
    single, double = (cohort.clean_run(2, tokens, d) for d in (torch.float32, torch.float64))
    assert double.writes.dtype == torch.float64
    torch.testing.assert_close(double.writes.float(), single.writes, rtol=1e-4, atol=1e-4)
    assert cohort.models[2].dtype == torch.float32


def test_eager_attention_is_not_in_the_way_of_double_precision() -> None:
    models = [tiny(0, 4, attn_implementation=how) for how in ("sdpa", "eager")]
    runs = [tiny_cohort([m]).clean_run(0, some_tokens(3, 0), torch.float64) for m in models]
    torch.testing.assert_close(runs[0].writes, runs[1].writes, rtol=1e-12, atol=1e-12)
    assert models[1].config._attn_implementation == "eager"  # the caller's own is left alone


# ------------------------------------------------------------------- directions and their aims


@pytest.mark.parametrize("name", ["sentiment", "names"])
def test_directions_are_differences_between_phrases_run_alone(
    cohort: LanguageCohort, name: str
) -> None:
    contrast = some_phrases()[name]
    for site in (None, "resid_post_3"):
        found = cohort.direction(name, site)
        assert found.shape == (3, WIDTH)
        for m, model in enumerate(cohort.models):
            sides = []
            for phrases in (contrast.positive, contrast.negative):
                means = []
                for ids in phrases:
                    where = site or "resid_post_2"
                    x = capture(model, torch.tensor([ids]), [where])[where][0]
                    means.append(x[-1] if name == "names" else x.mean(0))
                sides.append(torch.stack(means).mean(0))
            torch.testing.assert_close(found[m], sides[0] - sides[1], rtol=1e-4, atol=1e-4)


def test_a_target_is_where_the_next_token_is_of_either_class(cohort: LanguageCohort) -> None:
    tokens = cohort.tokens("score")[:20]
    target, contrast = cohort.target("names", tokens), some_phrases()["names"]
    wanted = {*contrast.positive_tokens, *contrast.negative_tokens}
    for row, labels, where in zip(tokens, target.labels, target.where, strict=True):
        assert torch.equal(labels[:-1], row[1:])
        assert where.tolist() == [*(int(t) in wanted for t in row[1:]), False]
    assert target.where.any()
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0))
    gap = logits[list(contrast.positive_tokens)].mean()
    gap = gap - logits[list(contrast.negative_tokens)].mean()
    torch.testing.assert_close(logits @ target.weights, gap)


def test_readers_give_the_logits_of_the_last_site(cohort: LanguageCohort) -> None:
    readers = cohort.readers()
    assert readers.shape == (WIDTH, VOCABULARY)
    torch.testing.assert_close(readers.sum(0), torch.zeros(VOCABULARY), atol=1e-4, rtol=0)
    torch.testing.assert_close(readers.sum(1), torch.zeros(WIDTH), atol=1e-4, rtol=0)
    tokens, anchor = cohort.tokens("score")[:4], cohort.models[0]
    x = cohort.clean_run(0, tokens).site("resid_post_3")
    norm = anchor.gpt_neox.final_layer_norm
    scale = (x.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    logits = anchor(input_ids=tokens).logits - anchor.lm_head(norm.bias)
    wanted = logits - logits.mean(-1, keepdim=True)
    torch.testing.assert_close(x @ readers / scale, wanted, atol=1e-3, rtol=1e-3)
    assert pinned_subspace(readers).shape[1] < WIDTH  # the all-ones direction is read by none


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: tiny(1, hidden_size=32), "seeds 0 and 1 differ in width, 16 against 32"),
        (lambda: tiny(1, 3), "seeds 0 and 1 differ in depth, 4 against 3"),
        (lambda: tiny(1, vocab_size=60), "seeds 0 and 1 differ in vocabulary, 61 against 60"),
        (
            lambda: GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=8, n_embd=16, n_layer=4, n_head=2, bos_token_id=0, eos_token_id=0
                )
            ),
            "a GPT2LMHeadModel where GPT-NeoX models are expected",
        ),
    ],
)
def test_models_of_another_architecture_are_named(other, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_cohort([tiny(0), other()])


def _with(position: int, token: int) -> Tensor:
    tokens = some_tokens(8, 0)
    tokens[3, position] = token
    return tokens


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (_with(2, VOCABULARY), "score split: token 61, but the models' vocabulary is 0 to 60"),
        (_with(0, -1), "score split: token -1, but"),
        (some_tokens(8, 0, 1), r"two positions or more, got torch.int64 \[8, 1\]"),
        (some_tokens(8, 0)[0], r"expected int64 \[sequences, position\]"),
        (some_tokens(8, 0).int(), "got torch.int32"),
        (some_tokens(8, 0)[:0], r"got torch.int64 \[0, 12\]"),
        (some_tokens(8, 0, 40), "40 tokens in a sequence, but the models know 24 positions"),
    ],
)
def test_tokens_that_do_not_fit_are_named(tokens: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_cohort([tiny(0)], tokens={"score": tokens})


def test_phrases_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="contrast sentiment: token 60, but"):
        tiny_cohort([tiny(0, vocab_size=60)], tokens={}, phrases=_saying(60))
    with pytest.raises(ValueError, match="contrast sentiment: 30 tokens in a sequence"):
        tiny_cohort([tiny(0)], phrases=_saying(*range(30)))


def _saying(*phrase: int) -> dict[str, Tokenised]:
    return {"sentiment": replace(some_phrases()["sentiment"], positive=(phrase,))}


def test_activations_that_are_not_finite_are_named(cohort: LanguageCohort) -> None:
    broken = copy.deepcopy(cohort.models[1])
    broken.gpt_neox.layers[1].mlp.dense_4h_to_h.bias[3] = torch.nan
    sick = tiny_cohort([cohort.models[0], broken])
    with pytest.raises(BadActivations, match=r"neox seed 1, resid_post_1.* dimension 3"):
        sick.activations("fit", "resid_pre_0")
    with pytest.raises(BadActivations, match="direction names, resid_post_1"):
        sick.direction("names")
    large = copy.deepcopy(cohort.models[1])
    large.gpt_neox.embed_in.weight[:, 2] = 1e5
    overflowing = tiny_cohort([large], keep=torch.float16)
    with pytest.raises(BadActivations, match="neox seed 0, resid_pre_0, kept as float16"):
        overflowing.activations("fit", "resid_pre_0")


def test_unknown_names_are_named(cohort: LanguageCohort) -> None:
    with pytest.raises(KeyError, match="no such site: resid_mid_0; have resid_pre_0"):
        cohort.activations("fit", "resid_mid_0")
    with pytest.raises(KeyError, match="no such site: resid_post_9"):
        cohort.direction("names", "resid_post_9")
    for ask in (lambda name: cohort.direction(name), lambda name: cohort.target(name, None)):
        with pytest.raises(KeyError, match="no contrast 'colour'; have sentiment, names"):
            ask("colour")
    mute = tiny_cohort(cohort.models, phrases=None, tokens={"score": some_tokens(8, 0)})
    with pytest.raises(KeyError, match="made without phrases"):
        mute.direction("names")
    with pytest.raises(KeyError, match="no fit split in the cohort of scale neox; have score"):
        mute.activations("fit", "resid_pre_0")
    with pytest.raises(ValueError, match="3 models for 2 seeds"):
        tiny_cohort(cohort.models, seeds=(0, 1))
    with pytest.raises(ValueError, match=r"torch\.float16 or torch\.float32, not torch\.int8"):
        tiny_cohort(cohort.models, keep=torch.int8)


def test_the_papers_own_models_have_their_middle_one_further() -> None:
    ours, papers = tiny_cohort([tiny(0)]), tiny_cohort([tiny(0)], facts=ScaleFacts(from_paper=True))
    assert (ours.middle, papers.middle) == ("resid_post_1", "resid_post_2")


def test_untrained_models_are_those_that_its_maker_knows() -> None:
    start = tiny_cohort([tiny(1)], trained=False)
    assert tiny_cohort([tiny(0)], start=lambda: start).untrained() is start
    with pytest.raises(NotOffered, match="scale neox are not known as they were before their"):
        tiny_cohort([tiny(0)]).untrained()


def test_what_lies_along_all_ones_is_read_by_nobody() -> None:
    cohort = tiny_cohort([tiny(0)])
    (ones,) = cohort.fixed_directions("resid_post_1")
    assert torch.equal(ones, torch.ones(WIDTH))
    tokens = cohort.tokens("score")[:2]
    with torch.no_grad():
        logits = cohort.models[0](input_ids=tokens).logits
        for direction, seen in ((ones, False), (torch.eye(WIDTH)[0], True)):
            moved = copy.deepcopy(cohort.models[0])
            moved.gpt_neox.embed_in.weight += direction
            gap = (moved(input_ids=tokens).logits - logits).abs().max()
            assert (float(gap) > 1e-3) == seen
