"""Two checkpoints that are no pair: what is wrong is said before anything is judged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fixtures.language import PAIR, pytest_sessionstart
from polyrot.language import pair
from polyrot.language.loading import DifferentFamilies, Unusable, WeightsMissing
from polyrot.language.text import TextTooShort
from polyrot.maps.checks import BadActivations
from tests_unit.language.pairs import load, save_pair, splits
from tests_unit.language.small_checkpoints import CONTEXT, model, save, write_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_the_same_model_twice(copy: Path) -> None:
    shutil.rmtree(copy / "B")
    shutil.copytree(copy / "A", copy / "B")
    with pytest.raises(Unusable, match=r"A and .*B are one model: their weights are the same"):
        load(copy)


def test_two_families(copy: Path) -> None:
    save(copy / "B", model(2, hidden_size=24))
    with pytest.raises(DifferentFamilies, match="width 16 against 24"):
        load(copy)
    save(copy / "B", model(2), "other")
    with pytest.raises(DifferentFamilies, match="tokenizer"):
        load(copy)


def test_missing_weights(copy: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"no weights of .*nowhere"):
        pair.load(str(copy / "A"), str(copy / "nowhere"), splits(copy))


def test_a_text_too_short(copy: Path) -> None:
    write_text(copy / "text", 200)
    with pytest.raises(TextTooShort, match="of which 128 are needed"):
        load(copy)


def test_nan_in_a_layer(copy: Path) -> None:
    broken = model(2)
    with torch.no_grad():
        broken.gpt_neox.layers[2].mlp.dense_h_to_4h.weight[0, 0] = float("nan")
    save(copy / "B", broken)
    with pytest.raises(BadActivations, match=r"B, resid_post_2: .* NaN"):
        load(copy)


def test_nan_on_some_tokens_alone(folder: Path) -> None:
    loaded = load(folder)
    broken = model(2)
    rare = int(loaded.tokens["score"][-1, -1])
    with torch.no_grad():
        broken.gpt_neox.embed_in.weight[rare] = float("nan")
    cohort = replace(loaded, models=(loaded.models[0], broken)).cohort()
    with pytest.raises(BadActivations, match=r"^B \(.*B\), resid_pre_0: .* at token \d+"):
        cohort.activations("score", "resid_post_0")


def session(scales: tuple[str, ...], **options: object) -> Any:
    """As much of a pytest session as its start looks at."""
    given = {"collectonly": False, "sae": None, "pair": None, "skip_positions": 0}
    given |= {"tokens": 512, "context": CONTEXT}
    suite = SimpleNamespace(scales=scales, own_at=lambda _: None)
    plugin = SimpleNamespace(get_plugin=lambda _: suite)
    option = SimpleNamespace(**{**given, **options})
    return SimpleNamespace(
        config=SimpleNamespace(option=option, pluginmanager=plugin, stash=pytest.Stash())
    )


def test_what_cannot_be_judged_ends_the_run_before_it_begins(folder: Path) -> None:
    a, text = str(folder / "A"), str(folder / "text")
    with pytest.raises(pytest.UsageError, match="are one model: their weights are the same"):
        pytest_sessionstart(session(("pair",), pair=(a, a), text=text))
    with pytest.raises(pytest.UsageError, match=r"is a model's checkpoint"):
        pytest_sessionstart(session(("pair",), pair=(a, a), sae=a, text=text))
    pytest_sessionstart(session(("pair",), pair=(a, a), collectonly=True))
    pytest_sessionstart(session(("paper", "toy_a")))
    good = session(("pair",), pair=(a, str(folder / "B")), text=text)
    pytest_sessionstart(good)
    assert good.config.stash[PAIR][0].names == (a, str(folder / "B"))
