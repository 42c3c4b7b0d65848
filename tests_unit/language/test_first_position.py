"""A first position that is large decides the figures; it is found, said, and can be left out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from fixtures import first_positions as fixtures
from fixtures.options import OPTIONS
from polyrot.dictionaries.sae import Dictionary
from polyrot.language.first_position import FACTOR, FirstPosition, first_position
from polyrot.language.pair import LETTERS, PairCohort
from polyrot.language.run import HEAD, AnyModelRun, LanguageRun
from polyrot.measures.fits import fit_all
from polyrot.measures.stitching import measure_stitching
from polyrot.store import Store
from tests_unit.language.tiny_language import VOCABULARY, some_tokens, tiny, tiny_cohort


def gpt2(seed: int, sink: float) -> Any:
    """Unrelated to others; its first position is written large by its position embedding."""
    torch.manual_seed(seed)
    made = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2))
    with torch.no_grad():
        made.transformer.wte.weight.normal_()
        made.transformer.wpe.weight[0] *= sink
    return made.eval().requires_grad_(False)


def pair_of(sink: float) -> PairCohort:
    tokens = {split: some_tokens(48, i) for i, split in enumerate(("dictionary", "fit", "score"))}
    return PairCohort(("a", "b"), [gpt2(1, sink), gpt2(2, sink)], tokens, ("a", "b"))


@pytest.fixture(scope="module")
def sinking() -> PairCohort:
    return pair_of(2000.0)


def test_a_sink_makes_strangers_alike_and_is_said(sinking: PairCohort) -> None:
    found = first_position(sinking)
    assert set(found.large) == set(sinking.sites)
    for site in sinking.sites:
        norms = sinking.activations("score", site)[0].view(48, -1, 16).norm(dim=-1)[:32]
        assert found.ratios[site][0] == pytest.approx(float(norms[:, 0].mean() / norms.median()))
        assert found.here[site]["pointwise_ev"] > 0.8 > 0.4 > found.there[site]["pointwise_ev"]
    (note,) = found.notes()
    assert "times the median (3 of 3 sites are above 3): an attention sink" in note
    assert "marked [1:] are without the first position, and --skip-positions 1 judges" in note
    rows = found.rows(LETTERS)
    assert rows["pointwise_ev[1:]"] == {s: found.there[s]["pointwise_ev"] for s in sinking.sites}
    assert rows["first/median B"] == {s: found.ratios[s][1] for s in sinking.sites}
    lines = found.lines()
    assert lines[0].split()[-2:] == ["pointwise_ev", "pointwise_ev[1:]"]
    assert len(lines) == 1 + 3 + 1


def test_figures_of_dictionaries_stand_beside_each_other(sinking: PairCohort) -> None:
    drawn = torch.Generator().manual_seed(0)
    w = torch.randn(16, 32, generator=drawn) / 4
    sae = Dictionary(w, torch.zeros(32), w.T.contiguous(), torch.zeros(16), torch.zeros(16))
    found = first_position(sinking, {"resid_post_0": sae})
    assert set(found.there["resid_post_0"]) == {
        "pointwise_ev",
        "self_ev",
        "naive_ev",
        "rotated_ev",
    }
    rows = found.rows(LETTERS)
    assert set(rows["self_ev[1:]"]) == {"resid_post_0"}
    assert set(rows["pointwise_ev"]) == {"resid_pre_0", "resid_post_1"}  # else the pair's table
    assert rows["naive_ev[1:]"]["resid_post_0"] != found.here["resid_post_0"]["naive_ev"]


def test_where_none_is_large_nothing_more_is_measured() -> None:
    found = first_position(pair_of(1.0))
    assert found.large == found.here == found.there == {}
    assert found.notes() == ()
    assert all(1 / FACTOR < ratio < FACTOR for pair in found.ratios.values() for ratio in pair)


def test_skipped_positions_are_left_out_of_what_is_measured(sinking: PairCohort) -> None:
    made = sinking.skipping(1)
    assert made.fingerprint != sinking.fingerprint == made.skipping(0).fingerprint
    assert sinking.skipping(2).fingerprint != made.fingerprint
    assert sinking.skipping(0) is sinking
    length = sinking.tokens("fit").shape[1]
    whole = sinking.activations("fit", "resid_post_0").view(2, 48, length, 16)
    x = made.activations("fit", "resid_post_0")
    assert torch.equal(x, whole[:, :, 1:].flatten(1, 2))
    assert torch.equal(made.sequences("fit"), torch.arange(48).repeat_interleave(length - 1))
    with torch.no_grad():
        top = [m(input_ids=made.tokens("score")).logits.argmax(-1) for m in made.models]
    agreed = made.agreement_with_anchor()
    assert agreed.values[0] == pytest.approx(float((top[0] == top[1])[:, 1:].float().mean()))
    assert agreed.counts["positions"] == 48 * (length - 1)
    found = first_position(made)
    assert found.here == first_position(sinking).there
    assert found.there == first_position(sinking).here
    assert "pointwise_ev[0:]" in found.rows(LETTERS)
    assert "--skip-positions 1 leaves it out of what is judged" in found.notes()[0]
    for skip in (-1, length - 1):
        with pytest.raises(ValueError, match=f"of sequences of {length}: 0 to {length - 2} may be"):
            sinking.skipping(skip)


def test_untrained_models_skip_as_the_trained_do() -> None:
    made = tiny_cohort([tiny(1), tiny(2)], start=lambda: tiny_cohort([tiny(3), tiny(4)]))
    skipped = made.skipping(3)
    assert skipped.untrained().skip == 3
    means = skipped.mean_writes(0)
    x = made.activations("fit", made.internal[0])[0].view(48, -1, made.width)
    torch.testing.assert_close(means[0], x[:, 3:].flatten(0, 1).mean(0))
    assert not torch.allclose(means, made.mean_writes(0))
    whole, part = made.agreement_with_anchor(), skipped.agreement_with_anchor()
    assert part.counts["positions"] == whole.counts["positions"] - 3 * 48
    assert not skipped.target(made.contrasts[0], made.tokens("score")).where[:, :3].any()


@pytest.mark.parametrize("kind", [LanguageRun, AnyModelRun])
def test_runs_leave_skipped_positions_as_they_are(kind: Any) -> None:
    model, tokens = tiny(0, 2).requires_grad_(False), some_tokens(3, 0)
    plain, run = kind(model, tokens), kind(model, tokens, 2)
    assert not run.kept[:, :2].any()
    assert torch.equal(run.kept[:, 2:], plain.kept[:, 2:])
    shift = torch.ones(1, *tokens.shape, 16)
    without = shift.clone()
    without[:, :, :2] = 0
    found = run.outputs("resid_post_0", shift)[HEAD]
    torch.testing.assert_close(found, plain.outputs("resid_post_0", without)[HEAD])
    assert not torch.allclose(found, plain.outputs("resid_post_0", shift)[HEAD])
    if kind is LanguageRun:
        writes = plain.writes[:1] + shift
        loss = float(run.loss([0], writes)[0])
        log_p = found[0].log_softmax(-1)[:, 2:-1]
        wanted = -log_p.gather(-1, tokens[:, 3:, None]).mean()
        assert loss == pytest.approx(float(wanted), abs=1e-5)


def test_stitching_skips_what_its_maps_were_not_fitted_on(sinking: PairCohort) -> None:
    made = sinking.skipping(1)
    found = measure_stitching(made, fit_all(made), copies=1, draws=0)
    length = made.tokens("score").shape[1]
    table = found.recovered["rotated"]
    assert table.counts["tokens"] == table.counts["sequences"] * (length - 2)
    assert np.allclose(found.kl["rotated"].ceiling, 0, atol=1e-4)  # of exact copies


def test_a_run_says_it_of_a_scale(tmp_path: Path) -> None:
    stash = pytest.Stash()
    stash[fixtures.SAID] = {}
    config: Any = SimpleNamespace(stash=stash)
    quiet = tiny_cohort([tiny(1), tiny(2)])
    quiet.notes = ("text: of something",)
    fixtures.say(config, quiet, Store(tmp_path))
    lines = stash[fixtures.SAID]["neox"]
    assert lines[0] == "text: of something"
    assert lines[-1].startswith("no first position is above 3 times the median norm")
    shown: list[str] = []
    reporter = SimpleNamespace(section=shown.append, write_line=shown.append)
    fixtures.pytest_terminal_summary(reporter, config)
    assert shown == ["the text and the first position, neox", *lines]


def test_the_option_refuses_what_leaves_nothing() -> None:
    (option,) = (o for o in OPTIONS if o.name == "--skip-positions")
    given = SimpleNamespace(scale=None, pair=["a", "b"], context=16, cohort=None)
    assert option.check is not None
    option.check(14, given)
    for value, changed, message in (
        (15, {}, r"--context 16 tokens: give 14 or less"),
        (-1, {}, "counted from 0"),
        *(
            (127, {"scale": scale, "pair": None}, r"neox are of 128 tokens: give 126 or less")
            for scale in ("neox", "toy_a, neox", None)
        ),
        (15, {"scale": "toy_a, pythia", "pair": None}, r"--context 16 tokens: give 14 or less"),
    ):
        with pytest.raises(ValueError, match=message):
            option.check(value, SimpleNamespace(**{**vars(given), **changed}))
    for changed in ({"scale": "toy_a"}, {"cohort": "mine:Mine"}):
        option.check(127, SimpleNamespace(**{**vars(given), "pair": None, **changed}))
    for scale in ("neox", "toy_b, neox", None):
        option.check(126, SimpleNamespace(**{**vars(given), "pair": None, "scale": scale}))


def test_a_ratio_at_the_factor_is_not_noted() -> None:
    assert FirstPosition({"a": [3.0, 1.0]}).notes() == ()
    assert (
        "at b the norm of the first position is 3.1 times"
        in FirstPosition({"a": [1.0, 1.0], "b": [1.0, 3.1]}).notes()[0]
    )
