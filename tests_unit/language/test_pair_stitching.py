"""Stitching of two checkpoints: an exact rotated copy is the anchor, a fine-tune is no pair."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from fixtures import stitching as fixtures
from polyrot.judge.verdicts import NotRun
from polyrot.language import pair
from polyrot.language.pair import PairCohort
from polyrot.language.run import HEAD, AnyModelRun, LanguageRun
from polyrot.language.sites import capture, site_names
from polyrot.language.text import sequences_from_text
from polyrot.measures.fits import fit_all
from polyrot.measures.frontier import Frontier
from polyrot.measures.stitching import Stitching, measure_stitching
from tests_unit.language.chained import chained, write_chain
from tests_unit.language.small_checkpoints import CONTEXT, save
from tests_unit.language.test_pythia import claims
from tests_unit.language.tiny_language import VOCABULARY, rotated, rotation, some_tokens, tiny

SIZES = {"dictionary": 64, "fit": 64, "score": 48}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A, A in another basis (R), A changed by 0.9 % in norm (F), one that takes words for each
    other (B), and a text. Read only."""
    made = tmp_path_factory.mktemp("pair")
    a, fine = chained(), chained()
    drawn = torch.Generator().manual_seed(0)
    for p in fine.parameters():
        noise = torch.randn(p.shape, generator=drawn)
        p.add_(0.009 * noise * p.norm() / noise.norm().clamp(min=1e-9))
    for name, model in {
        "A": a,
        "R": rotated(a, rotation()),
        "F": fine,
        "B": chained(1, codes=5),
    }.items():
        save(made / name, model)
    write_chain(made / "text", 5000)
    return made


def cohort_of(folder: Path, other: str) -> PairCohort:
    def splits(words: Any) -> Any:
        return sequences_from_text(folder / "text", words, CONTEXT, SIZES)

    return pair.load(str(folder / "A"), str(folder / other), splits).cohort()


def stitched(cohort: PairCohort) -> Stitching:
    return measure_stitching(cohort, fit_all(cohort), copies=1)


# ------------------------------------------------------------------------------ what is measured


def test_an_exact_rotated_copy_is_the_anchor(folder: Path) -> None:
    cohort = cohort_of(folder, "R")
    found = stitched(cohort)
    preserved = found.preserves(cohort.internal)
    assert preserved.unmet == ""
    assert found.loss < 2 < min(found.gap.values())
    np.testing.assert_allclose(preserved.values, 1, atol=1e-3)
    np.testing.assert_allclose(preserved.ceilings, 1, atol=1e-3)
    assert {i.of for i in preserved.intervals if i is not None} == {"sequences"}
    naive = found.naive(cohort.internal[:-1])
    assert (naive.values < 0.5).all()
    for i, value in zip(naive.intervals, naive.values, strict=True):
        assert i is not None
        assert i.low < value < i.high < 0.5
    assert (found.beyond("shuffled", cohort.internal).values > 0.25).all()
    assert abs(found.gained_by_affine(cohort.internal).values).max() < 0.01


def test_what_the_other_does_not_know_no_rotation_brings_back(folder: Path) -> None:
    cohort = cohort_of(folder, "B")
    found = stitched(cohort).preserves(cohort.internal)
    assert (found.values < 0.9).all()
    np.testing.assert_allclose(found.ceilings, 1, atol=1e-3)


# -------------------------------------------------------------------------- runs of any model


def neox() -> Any:
    return tiny(0, 3)


def gpt2() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=3, n_head=2))


def llama() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes, **heads))


@pytest.mark.parametrize("made", [neox, gpt2, llama])
def test_another_stream_at_a_site_is_gone_on_from(made: Any) -> None:
    model, tokens = made().eval().requires_grad_(False), some_tokens(4, 0)
    run, other = AnyModelRun(model, tokens), AnyModelRun(model, some_tokens(4, 1))
    own = model(input_ids=tokens).logits
    for site in site_names(3):
        x, y = run.site(site), other.site(site)
        torch.testing.assert_close(x, capture(model, tokens, [site])[site])
        # Another sequence's whole stream: what follows is that sequence's, whatever came before.
        mixed = run.outputs(site, torch.stack([y - x, torch.zeros_like(x)]))[HEAD]
        wanted = model(input_ids=some_tokens(4, 1)).logits
        torch.testing.assert_close(mixed[0], wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mixed[1], own, atol=1e-5, rtol=1e-5)
    assert not run.kept[:, -1].any()
    assert run.kept[:, :-1].all()
    assert torch.equal(run.answers()[HEAD][:, :-1], tokens[:, 1:])


def test_a_gpt_neox_is_run_on_the_same_either_way() -> None:
    model, tokens = neox(), some_tokens(4, 0)
    runs = AnyModelRun(model, tokens), LanguageRun(model, tokens)
    shift = torch.randn(2, *tokens.shape, 16, generator=torch.Generator().manual_seed(0))
    for site in site_names(3):
        one, other = (run.outputs(site, shift)[HEAD] for run in runs)
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert torch.equal(runs[0].kept, runs[1].kept)
    assert torch.equal(runs[0].answers()[HEAD], runs[1].answers()[HEAD])


# --------------------------------------------------------------------------- what is no pair


def asked(cohort: PairCohort, frontier: Any = None, scale: str = "pair") -> None:
    request = SimpleNamespace(getfixturevalue=lambda _: frontier)
    fixtures.independent_siblings.__wrapped__(scale, cohort, request)  # type: ignore[attr-defined]


def serving(*gaps: float) -> Any:
    """A frontier with naive EV so far below self EV, site by site."""
    rows = {f"s{i}": {"self_ev": 0.9, "naive_ev": 0.9 - gap} for i, gap in enumerate(gaps)}
    return Frontier({**rows, "bare": {"magnitude": 1.0}}, {}, None)  # type: ignore[arg-type]


def test_a_fine_tune_is_no_pair_of_independent_siblings(folder: Path) -> None:
    with pytest.raises(NotRun, match=r"no pair of independent siblings: the weights .* less than"):
        asked(cohort_of(folder, "F"))
    apart = cohort_of(folder, "R")
    with pytest.raises(NotRun, match=r"siblings: naive EV is within 0\.05 of self EV at every"):
        asked(apart, serving(0.04, 0.01))
    asked(apart, serving(0.04, 0.3))
    asked(apart, scale="toy_a")  # nothing is asked of what is trained from independent starts


@pytest.mark.slow  # two runs of the claims
def test_claims_of_a_rotated_copy_and_of_a_fine_tune(folder: Path, tmp_path: Path) -> None:
    def judged(other: str, *more: str) -> tuple[dict[str, Any], str]:
        options = [f"--text={folder / 'text'}", "--tokens=1024", f"--context={CONTEXT}"]
        options += ["--schedule=tiny", f"--artifacts={tmp_path}", f"--report={tmp_path / other}"]
        ran = claims("--pair", str(folder / "A"), str(folder / other), *options, *more)
        record = json.loads((tmp_path / other / "verdicts.json").read_text())
        return {entry["claim"]: entry for entry in record["verdicts"]}, ran.stdout

    found, shown = judged("R")
    for claim in ("rotation_preserves_function", "naive_fails", "shuffled_tokens_control"):
        assert found[f"stitching.{claim}"]["outcome"] == "held", shown
    assert found["stitching.rotation_preserves_function"]["measured"] == pytest.approx(1, abs=1e-3)
    table = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.split()}
    assert set(table["stitched_rotated"][1:]) == {"1.000"}
    assert set(table["cka"]) <= {"1.000", "-"}
    assert (tmp_path / "R" / "figures" / "stitching_pair.svg").is_file()
    found, shown = judged("F", "-k", "frontier or halves")  # no dictionary is trained for it
    for claim in ("stitching.naive_fails", "frontier.rotation_beats_naive", "frontier.magnitude"):
        assert found[claim]["outcome"] == "not run", shown
        assert "no pair of independent siblings" in found[claim]["why"]
