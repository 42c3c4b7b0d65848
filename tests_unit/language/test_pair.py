"""Any two checkpoints: a planted rotation is found, its absence is seen, bad input says why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries import groups
from polyrot.dictionaries.loading import BadDictionary, load_sae, save_sae
from polyrot.dictionaries.training import Schedule
from polyrot.language import activations, pair
from polyrot.language.pair import PairCohort
from polyrot.language.text import sequences_from_text
from polyrot.measures.answers import in_words
from polyrot.measures.fits import fit_all
from polyrot.measures.frontier import Frontier, measure_frontier, notes_on, sibling_group
from polyrot.store import Runtime, Store
from polyrot.toy.cohort import SHARED_FACTS
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop
from tests_unit.language.pairs import SIZES, load, save_pair, splits
from tests_unit.language.small_checkpoints import CONTEXT, model, save, tokenizer, vocabulary
from tests_unit.language.test_pythia import claims
from tests_unit.language.tiny_language import rotation

SITES = ("resid_pre_0", "resid_post_0", "resid_post_1", "resid_post_2")
SCHEDULE = Schedule(steps=150, batch=256, rate=3e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models A and B, A in another basis (R), and a text. Read only."""
    return save_pair(tmp_path_factory.mktemp("pair"))


def cohort_of(folder: Path, other: str) -> PairCohort:
    return pair.load(str(folder / "A"), str(folder / other), splits(folder)).cohort()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    runtime = Runtime(Store(tmp_path_factory.mktemp("store")))
    return Workshop(runtime, replace(PROFILES["tiny"], language_dictionaries=SCHEDULE))


@pytest.fixture(scope="module")
def anchors(folder: Path, workshop: Workshop):
    """Dictionaries of A by site."""
    cohort = cohort_of(folder, "B")
    return {s.site: d for s, d in workshop.named(cohort, groups.anchor).items()}


def frontier(folder: Path, other: str, anchors, workshop: Workshop) -> Frontier:
    cohort = cohort_of(folder, other)
    others = workshop.group(cohort, sibling_group(cohort, SCHEDULE, list(anchors)))
    of_b = {spec.site: d for spec, d in others.items()}
    return measure_frontier(cohort, fit_all(cohort), anchors, of_b)


# ------------------------------------------------------------------------------ what is measured


def test_a_planted_rotation_is_found(folder: Path, anchors, workshop: Workshop) -> None:
    found = frontier(folder, "R", anchors, workshop)
    assert tuple(found.by_site) == SITES
    for row in found.by_site.values():
        assert row["pointwise_ev"] > 0.999
        assert row["rotated_ev"] == pytest.approx(row["self_ev"], abs=1e-3)
        assert row["split_half"] < 0.01
        assert row["split_half_share"] > 0.999
    assert {each.says for each in found.answers()} <= {"yes", "cannot tell"}
    assert "yes" in {each.says for each in found.answers()}
    gain, magnitude = found.gain(), found.magnitude()
    assert gain.labels == magnitude.labels == SITES
    assert (gain.values > 0.1).all()
    for value, interval in zip(gain.values, gain.intervals, strict=True):
        assert interval is not None
        assert interval.of == "sequences"
        assert 0 < interval.low < value < interval.high
    assert not gain.ceilings
    home, beyond = found.at_home(), found.beyond_nulls()
    assert home.labels == beyond.labels == SITES
    assert not home.ceilings
    # An exact copy's ceiling is what this exact copy reaches, but for the draw of the shuffle.
    np.testing.assert_allclose(beyond.values, beyond.ceilings, atol=0.25)
    for site, value in zip(SITES, beyond.values, strict=True):
        row = found.by_site[site]
        nulls = max(row["mean_shift_ev"], row["shuffled_ev"])
        assert value == pytest.approx(row["rotated_ev"] - nulls)
    off = found.magnitude_of_shuffled()
    for site, value in zip(SITES, off.values, strict=True):
        assert value == pytest.approx(abs(1 - found.by_site[site]["magnitude_shuffled"]))
    q = rotation().numpy()
    planted = np.linalg.norm(q.T - np.eye(16)) / 32**0.5
    np.testing.assert_allclose(magnitude.values, planted, atol=1e-3)
    assert {row["det"] for row in found.by_site.values()} == {float(np.sign(np.linalg.det(q)))}


def test_two_trainings_are_no_rotation_of_each_other(
    folder: Path, anchors, workshop: Workshop
) -> None:
    found = frontier(folder, "B", anchors, workshop)
    for row in found.by_site.values():
        assert row["pointwise_ev"] < 0.9
        assert 0 < row["mean_cosine"] < 0.9
    # An oracle for the sign of the gain: the naive EV is what the anchor's dictionary makes of B.
    gain = dict(zip(SITES, found.gain().values, strict=True))
    for site, row in found.by_site.items():
        assert gain[site] == row["rotated_ev"] - row["naive_ev"]
    beside = found.gain().beside
    for name in (
        "self_ev",
        "naive_ev",
        "mean_shift_ev",
        "shuffled_ev",
        "principal_axes_ev",
        "noise_ev",
        "pointwise_ev",
        "affine_ev",
        "mean_cosine",
        "matched",
    ):
        assert f"{name}_resid_post_1" in beside
    assert {"split_half_resid_pre_0", "det_resid_pre_0", "ks_p_resid_pre_0"} <= set(
        found.magnitude().beside
    )
    lines = found.lines()
    assert lines[0].split() == list(SITES)
    shown = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert shown["naive_ev"] == [f"{row['naive_ev']:.3f}" for row in found.by_site.values()]
    said = len(found.notes) + len(in_words(found.answers()))
    assert len(found.lines(at_once=3)) - said == 2 * (len(lines) - said)
    # Two trainings of nothing but noise: no rotation carries A's dictionary over.
    assert lines[-said].startswith("A's dictionary works on B through R: ")
    assert "yes" not in lines[-said]
    row = found.by_site["resid_post_1"]
    assert (row["rank"], row["l0"] > 0) == (16, True)
    # ||R_1 - R_2||_F / sqrt(2 d) is the square root of what the halves do not share.
    assert row["split_half"] == pytest.approx((1 - row["split_half_share"]) ** 0.5, abs=1e-6)


def test_a_dictionary_at_one_site_is_judged_there(
    folder: Path, anchors, workshop: Workshop
) -> None:
    one = {"resid_post_1": anchors["resid_post_1"]}
    found = frontier(folder, "B", one, workshop)
    assert found.gain().labels == ("resid_post_1",)
    assert found.magnitude().labels == SITES
    naive = next(line.split() for line in found.lines() if line.startswith("naive_ev"))
    assert [cell == "-" for cell in naive[1:]] == [True, True, False, True]


def test_activations_are_the_models_own(folder: Path) -> None:
    cohort: Cohort = cohort_of(folder, "B")
    assert (cohort.scale, cohort.seeds, cohort.width) == ("pair", (0, 1), 16)
    assert cohort.named_sites == ("resid_post_1",)
    assert cohort.distinct_fraction() == 1.0
    x = cohort.activations("score", "resid_post_0")
    assert x.shape == (2, 32 * CONTEXT, 16)
    ids = sequences_from_text(folder / "text", tokenizer(), CONTEXT, SIZES)["score"]
    with torch.no_grad():
        states = model(2)(input_ids=ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(x[1], states[1].flatten(0, 1), atol=1e-5, rtol=1e-5)
    same = cohort_of(folder, "R").agreement_with_anchor()
    assert same.values[0] > 0.98  # the same function in another basis
    assert cohort.agreement_with_anchor().values[0] < 0.5
    with pytest.raises(KeyError, match="no such site: resid_mid_0"):
        cohort.activations("fit", "resid_mid_0")


def test_one_split_is_held_at_a_time(folder: Path) -> None:
    cohort = cohort_of(folder, "B")
    first = cohort.activations("fit", "resid_post_0").clone()
    cohort.activations("score", "resid_post_0")
    assert set(cohort._activations) == {"score"}
    torch.testing.assert_close(cohort.activations("fit", "resid_post_0"), first)


def test_any_architecture(folder: Path, tmp_path: Path) -> None:
    for seed, name in enumerate("AB"):
        torch.manual_seed(seed)
        config = GPT2Config(vocab_size=vocabulary(), n_embd=16, n_layer=2, n_head=2, n_positions=32)
        save(tmp_path / name, GPT2LMHeadModel(config))
    loaded = pair.load(str(tmp_path / "A"), str(tmp_path / "B"), splits(folder))
    cohort = loaded.cohort()
    assert cohort.sites == ("resid_pre_0", "resid_post_0", "resid_post_1")
    fits = fit_all(cohort)
    assert tuple(fits.sites) == cohort.sites
    other = pair.load(str(tmp_path / "B"), str(tmp_path / "A"), splits(folder)).cohort()
    assert other.fingerprint != cohort.fingerprint


def test_sparsity_is_that_of_language_models(folder: Path) -> None:
    cohort = cohort_of(folder, "B")
    for group in (groups.anchor, groups.published, groups.own, groups.noise):
        assert {spec.l1 for spec in group(cohort, SCHEDULE).specs} == {1e-5}
    assert {spec.l1 for spec in sibling_group(cohort, SCHEDULE, SITES).specs} == {1e-5}
    toy = SimpleNamespace(facts=SHARED_FACTS, seeds=(0, 1), sites=SITES, internal=SITES[1:])
    assert {spec.l1 for spec in groups.own(toy, SCHEDULE).specs} == {1e-3}
    assert groups.l1_grid(toy, SITES[1]) == groups.L1_GRID
    # Activations four times as large ask for four times the l1; rounding does not show.
    found = groups.l1_grid(cohort, SITES[1])

    def scaled(by: float) -> Any:
        return SimpleNamespace(
            facts=cohort.facts, activations=lambda *where: by * cohort.activations(*where)
        )

    four = groups.l1_grid(scaled(4.0), SITES[1])
    assert four == tuple(4 * l1 for l1 in found)
    assert groups.l1_grid(scaled(1.0000001), SITES[1]) == found
    x = cohort.activations("fit", SITES[1])[0]
    assert found[0] < float((x.var(0).mean() / 16).sqrt()) < 100 * found[-1]


def test_a_revision_in_the_name(tmp_path: Path) -> None:
    assert pair.parted("owner/name@step3000") == ("owner/name", "step3000")
    assert pair.parted("owner/name") == ("owner/name", None)
    (tmp_path / "a@b").mkdir()
    assert pair.parted(str(tmp_path / "a@b")) == (str(tmp_path / "a@b"), None)


# ------------------------------------------------------------------------------ what is refused


def test_a_dictionary_of_another_model(folder: Path, anchors, tmp_path: Path) -> None:
    save_sae(tmp_path / "own", anchors["resid_post_1"], "resid_post_1")
    load(folder, load_sae(tmp_path / "own"))
    with pytest.raises(BadDictionary, match=r"is for resid_post_5, but .*A has resid_pre_0 to res"):
        load(folder, replace(load_sae(tmp_path / "own"), site="resid_post_5"))
    saelens = Path(__file__).parents[1] / "data" / "saelens" / "standard"
    with pytest.raises(BadDictionary, match=r"reads width 8, but .*A is 16 wide"):
        load(folder, load_sae(saelens))


def test_what_a_dictionary_says_of_itself_is_noted(
    folder: Path, anchors, workshop: Workshop, tmp_path: Path
) -> None:
    save_sae(tmp_path / "own", anchors["resid_post_1"], "resid_post_1", "owner/A")
    sae = load_sae(tmp_path / "own")
    assert notes_on(sae, str(folder / "A")) == notes_on(sae, "someone/a@main") == ()
    other = replace(sae, otherwise=("white noise; here it is text",))
    notes = notes_on(other, "owner/B")
    assert notes == (
        "note: the dictionary names owner/A as its model, not owner/B",
        "note: the dictionary was trained on white noise; here it is text",
    )
    # B's dictionary given as A's: what would be read as a counterexample is a mistake.
    cohort = cohort_of(folder, "B")
    group = sibling_group(cohort, SCHEDULE, SITES)
    of_b = {spec.site: d for spec, d in workshop.group(cohort, group).items()}
    found = measure_frontier(cohort, fit_all(cohort), of_b, of_b, notes)
    assert found.notes[:2] == notes
    assert found.notes[2].endswith("reconstructs B better than A: is it B's?")
    end = len(in_words(found.answers()))
    assert found.lines()[-len(found.notes) - end : -end] == list(found.notes)
    assert found.gain().beside["notes"] == "; ".join(found.notes)
    right = frontier(folder, "R", anchors, workshop)
    assert right.notes == ()
    assert "notes" not in right.gain().beside


def test_out_of_memory_says_what_to_lower(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(activations, "capture", full)
    with pytest.raises(torch.OutOfMemoryError, match=r"of 512 tokens at 4 sites .*lower --tokens"):
        cohort_of(folder, "B").activations("fit", "resid_pre_0")


# ------------------------------------------------------------------------------ pytest claims


@pytest.mark.slow  # a run of the claims, dictionaries and all
def test_claims_of_a_pair(folder: Path, anchors, tmp_path: Path) -> None:
    save_sae(tmp_path / "sae", anchors["resid_post_1"], "resid_post_1")
    names = [str(folder / "A"), str(folder / "R")]
    options = [f"--text={folder / 'text'}", "--tokens=512", f"--context={CONTEXT}"]
    options += ["--schedule=tiny", f"--artifacts={tmp_path / 'store'}", f"--report={tmp_path}"]
    ran = claims("--pair", *names, f"--sae={tmp_path / 'sae'}", *options)
    record = json.loads((tmp_path / "verdicts.json").read_text())
    found = {entry["claim"]: entry for entry in record["verdicts"]}
    assert found["frontier.rotation_beats_naive"]["verdict"] == "held", ran.stdout
    assert found["frontier.rotation_beats_naive"]["label"] == "resid_post_1"
    assert found["frontier.magnitude"]["n"] == 4
    assert "the pair, site by site" in ran.stdout
    # R is A in another basis, which CKA does not see.
    assert found["similarity.linear_cka"]["verdict"] == "held", ran.stdout
    shown = next(line.split() for line in ran.stdout.splitlines() if line.startswith("cka"))
    assert shown[1:] == ["1.000"] * 4
    assert "note: the dictionary" not in ran.stdout
    # Of the first position and the text it is said how they are.
    ratios = next(x.split() for x in ran.stdout.splitlines() if x.startswith("first/median A"))
    assert all(0.3 < float(ratio) < 3 for ratio in ratios[2:])
    assert "text: sequences are cut from a running text, and no special token is put" in ran.stdout
    assert "attention sink" not in ran.stdout
    recorded = record["run"]["options"]
    assert recorded["--pair"] == " ".join(names)
    assert (recorded["--schedule"], recorded["--tokens"]) == ("tiny", "512")
    assert f"options: --schedule tiny, --pair {names[0]} {names[1]}, " in ran.stdout
    assert f"options --schedule tiny, --pair {names[0]}" in (tmp_path / "verdicts.md").read_text()
    assert f"<code>--pair {names[0]} {names[1]}</code>" in (tmp_path / "index.html").read_text()
