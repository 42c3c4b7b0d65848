"""Pythia's checkpoints: which are asked for, local ones in their place, and what is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import GPT2Config, GPT2LMHeadModel

from polyrot.cohorts import run
from polyrot.cohorts.cohort import Cohort
from polyrot.language import loading, pythia
from polyrot.language.loading import DifferentFamilies, Unusable, WeightsMissing
from polyrot.language.pythia import (
    PINNED,
    STEPS,
    TooFewCheckpoints,
    hub,
    load,
    load_run,
    local,
    locate,
    tokenizer_of,
)
from polyrot.language.text import sequences_from_text
from polyrot.maps.checks import BadActivations
from polyrot.measures import drift
from polyrot.measures.fits import fit_all
from tests_unit.conftest import registered
from tests_unit.language.small_checkpoints import (
    CONTEXT,
    model,
    save,
    tokenizer,
    vocabulary,
    write_text,
)
from tests_unit.outcomes import assert_outcomes

ROOT = Path(__file__).parents[2]
SIZES = {"dictionary": 4, "fit": 4, "score": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds, the first with five checkpoints of its run. Read only."""
    made = tmp_path_factory.mktemp("pythia")
    for seed in (1, 2, 4):
        save(made / f"seed{seed}", model(seed))
    for step in (1000, 3000, 20_000, 70_000, 143_000):
        save(made / "seed1" / f"step{step}", model(1 if step == 143_000 else step))
    return made


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory):
    path = write_text(tmp_path_factory.mktemp("text") / "text", 1500)
    return sequences_from_text(path, tokenizer(), CONTEXT, SIZES)


def loaded(directory: Path, tokens):
    source = local(directory)
    locate(source)
    return load(source, tokens, tokenizer_of(source))


# --------------------------------------------------------------------------- what is asked for


def test_the_hub_is_asked_for_pinned_commits() -> None:
    source = hub()
    assert list(source.seeds) == list(range(1, 10))
    assert source.seeds[1] == ("EleutherAI/pythia-70m-seed1", PINNED[1])
    assert source.seeds[9] == ("EleutherAI/pythia-70m-seed9", "step143000")
    assert all(len(commit) == 40 for commit in PINNED.values())
    assert source.run[143_000] == source.seeds[1]
    assert source.run[3000] == ("EleutherAI/pythia-70m-seed1", "step3000")
    assert len(source.run) == len(STEPS) >= 5
    other = hub("step1000")
    assert {revision for _, revision in other.seeds.values()} == {"step1000"}


def test_an_early_checkpoint_has_seen_two_hundredths() -> None:
    assert abs(STEPS[run.nearest(STEPS, run.EARLY)] / STEPS[-1] - run.EARLY) < 0.005


def test_nothing_there_and_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing) as caught:
        locate(hub())
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("no weights of EleutherAI/pythia-70m-seed1 at revision a94dc37")
    assert "likewise 13 more" in lines[0]  # nine seeds, four further steps, the tokenizer
    assert "--pythia-dir DIR" in lines[0]
    assert len(lines) == 15
    assert f"  hf download EleutherAI/pythia-70m-seed2 --revision {PINNED[2]}" in lines
    assert "  hf download EleutherAI/pythia-70m-seed1 --revision step3000" in lines
    assert "  hf download EleutherAI/pythia-70m" in lines


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(name: str, *, local_files_only: bool, **_: object) -> None:
        if not local_files_only:
            asked.append(name)  # each such call waits for its connection, and tries again
        raise LocalEntryNotFoundError("Cannot reach the hub")

    monkeypatch.setattr(loading, "snapshot_download", unreachable)
    with pytest.raises(WeightsMissing, match="hub said: Cannot reach the hub; likewise 13 more"):
        locate(hub())
    assert asked == ["EleutherAI/pythia-70m-seed1"]


# ------------------------------------------------------------------------------- local folders


def test_local_seeds_are_a_cohort(folder: Path, tokens) -> None:
    found: Cohort = loaded(folder, tokens).cohort()
    assert (found.scale, found.seeds, found.width) == ("pythia", (1, 2, 4), 16)
    assert found.distinct_fraction() == 1.0
    assert found.contrasts == ("sentiment", "names", "magnitude")
    assert found.activations("fit", "resid_post_2").shape == (3, 4 * CONTEXT, 16)
    assert len(fit_all(found).matched["resid_post_1"]) == 2
    # The fingerprint is of what the files hold, not of where they lie.
    moved = Path(shutil.copytree(folder, folder.parent / "elsewhere"))
    assert loaded(moved, tokens).cohort().fingerprint == found.fingerprint
    save(moved / "seed2", model(7))
    assert loaded(moved, tokens).cohort().fingerprint != found.fingerprint
    shutil.rmtree(moved)


def test_the_run_of_the_first_seed(folder: Path, tokens) -> None:
    found = load_run(local(folder), tokens)
    assert found.seeds == (1000, 3000, 20_000, 70_000, 143_000)
    assert drift.measure_drift(found).monotone().values.size == 1
    anchor = loaded(folder, tokens).cohort()
    last = found.activations("score", "resid_post_0")[-1]
    torch.testing.assert_close(last, anchor.activations("score", "resid_post_0")[0])


def test_a_seed_without_weights_stands_for_its_last_step(copy: Path, tokens) -> None:
    (copy / "seed1" / "model.safetensors").unlink()
    source = local(copy)
    assert source.seeds[1] == (copy / "seed1" / "step143000", None)
    assert loaded(copy, tokens).cohort().seeds == (1, 2, 4)


def test_one_tokenizer_for_all_may_lie_above(copy: Path, tokens) -> None:
    for path in (*copy.rglob("tokenizer*"), *copy.rglob("special_tokens_map.json")):
        path.unlink()
    with pytest.raises(WeightsMissing, match="no tokenizer in"):
        locate(local(copy))
    tokenizer().save_pretrained(copy)
    assert loaded(copy, tokens).seeds == (1, 2, 4)


def test_too_few_checkpoints_for_drift(copy: Path, tokens) -> None:
    shutil.rmtree(copy / "seed1" / "step1000")
    with pytest.raises(
        TooFewCheckpoints, match=r"drift needs 5 checkpoints of one run, .*seed1 holds 4"
    ):
        load_run(local(copy), tokens)


def test_too_few_checkpoints_are_a_claim_that_is_not_run(
    suite: Any, copy: Path, tmp_path: Path
) -> None:
    """The library raises its own error; the fixture makes a reason and a command of it."""
    shutil.rmtree(copy / "seed1" / "step1000")
    text = write_text(tmp_path / "text", 1500)
    (suite.claims / "preregistration.toml").write_text(
        "[meta]\nregistered = 2026-11-22\nalpha = 0.01\n" + registered("f.two", "core", ["pythia"])
    )
    drifts = 'request.getfixturevalue("checkpoints"); verdict(0.7)'
    suite.write(f__one="", g__null="", f__two=drifts)
    plugins = [f"-pfixtures.{name}" for name in ("cohorts", "language", "interventions")]
    where = [f"--pythia-dir={copy}", f"--text={text}", "--tokens=64", f"--context={CONTEXT}"]
    result = suite.run(*plugins, "--scale=pythia", "--device=cpu", *where, "--report=out")
    assert_outcomes(result, skipped=1)
    (found,) = suite.report()["verdicts"]
    assert found["verdict"] == "not run"
    assert "drift needs 5 checkpoints of one run" in found["why"]
    assert found["command"].startswith("pytest claims --scale pythia --pythia-dir DIR")


# ------------------------------------------------------------------------------ what is refused


def test_fewer_than_two_seeds(tmp_path: Path) -> None:
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seedling").mkdir()
    for directory, n in ((tmp_path, 1), (tmp_path / "nowhere", 0)):
        with pytest.raises(WeightsMissing, match=f"holds {n} seeds, of which two are needed"):
            local(directory)


def test_one_model_under_two_seeds(copy: Path, tokens) -> None:
    save(copy / "seed4", model(2))
    with pytest.raises(Unusable, match="seed 2 and seed 4 are one model"):
        loaded(copy, tokens)


def test_another_width_architecture_and_tokenizer(copy: Path, tokens) -> None:
    save(copy / "seed4", model(4, hidden_size=24))
    with pytest.raises(DifferentFamilies, match=r"seed 1 and seed 4 .*: width 16 against 24"):
        loaded(copy, tokens)
    config = GPT2Config(vocab_size=vocabulary(), n_embd=16, n_layer=3, n_head=2)
    save(copy / "seed4", GPT2LMHeadModel(config))
    with pytest.raises(Unusable, match="is a GPT2LMHeadModel, not GPT-NeoX"):
        loaded(copy, tokens)


def test_values_that_are_not_finite(copy: Path, tokens) -> None:
    broken = model(2)
    with torch.no_grad():
        broken.gpt_neox.layers[1].attention.dense.bias[0] = float("inf")
    save(copy / "seed2", broken)
    with pytest.raises(BadActivations, match=r"seed 2, resid_post_1: .* NaN or infinite"):
        loaded(copy, tokens)


def test_a_tokenizer_that_cannot_tell_the_contrasts(
    copy: Path, tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pythia, "PYTHIA", [_aimless()])
    with pytest.raises(Unusable, match="does not suit the paper's contrasts: contrast sentiment"):
        loaded(copy, tokens)


def _aimless():
    from dataclasses import replace

    from polyrot.language.directions import PYTHIA

    return replace(PYTHIA[0], negative_tokens=PYTHIA[0].positive_tokens)


# ------------------------------------------------------------------------- asked for by name


def claims(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "claims", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow  # a run of the claims in a process of its own
def test_asked_for_without_weights_ends_with_one_message(tmp_path: Path) -> None:
    ran = claims("--scale=pythia", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    lines = ran.stderr.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("ERROR"))
    assert "no weights of EleutherAI/pythia-70m-seed1 at revision" in lines[start]
    assert "--pythia-dir DIR" in lines[start]
    assert "  hf download EleutherAI/pythia-70m-seed9 --revision step143000" in lines
    assert "Traceback" not in ran.stderr
    assert "collected" not in ran.stdout
