"""What is resumed: a checkpoint of the same text and kind of device, and of no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from polyrot.dictionaries import collection
from polyrot.dictionaries.groups import Group, Spec
from polyrot.dictionaries.sae import Dictionary, Quality
from polyrot.dictionaries.training import Schedule
from polyrot.language import training
from polyrot.store import Artifact, Checkpoint, Runtime, Store, StoreWarning
from polyrot.store.resuming import resume
from tests_unit.dictionaries.test_dictionaries import OneSiteCohort
from tests_unit.language.test_training import CONTEXT, HELD_OUT, SCHEDULE, TEXT, VOCABULARY, WIDTH

RECIPE = {"a": 1}


class Killed(Exception):
    pass


def test_what_must_be_the_same_and_is_not_is_named(tmp_path: Path) -> None:
    def build(checkpoint: Checkpoint) -> Artifact:
        assert resume(None, device="cpu") is None
        assert resume(checkpoint, device="cpu") is None, "nothing is saved yet"
        checkpoint.save(Artifact({}, {"device": "cpu", "step": 3}))
        found = resume(checkpoint, device="cpu")
        assert found is not None
        assert found.meta["step"] == 3
        with pytest.warns(StoreWarning, match="its device is cpu, that of this run cuda; the"):
            assert resume(checkpoint, device="cuda") is None
        with pytest.warns(StoreWarning, match="its text is None, that of this run abc"):
            assert resume(checkpoint, device="cpu", text="abc") is None
        return Artifact({}, {})

    Store(tmp_path).get_or_build("x", RECIPE, build)


def train(checkpoint: Checkpoint, text: torch.Tensor, **more: Any) -> Artifact:
    return training.train(
        0,
        SCHEDULE,
        text,
        HELD_OUT,
        width=WIDTH,
        vocabulary=VOCABULARY,
        checkpoint=checkpoint,
        checkpoint_every=10,
        **more,
    ).to_artifact()


@pytest.mark.parametrize("changed", ["text", "device"])
def test_a_language_model_goes_on_with_the_same_text_and_device_alone(
    changed: str, tmp_path: Path
) -> None:
    store, text = Store(tmp_path), TEXT[: -20 * CONTEXT]

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if done == 30:
            raise Killed

    with pytest.raises(Killed):
        store.get_or_build("x", RECIPE, lambda c: train(c, text, progress=stop))
    seen: list[int] = []

    def look(stage: str, done: int, total: int, note: str = "") -> None:
        seen.append(done)

    def anew(checkpoint: Checkpoint) -> Artifact:
        if changed == "text":
            return train(checkpoint, text.flip(0), progress=look)
        saved = checkpoint.load()
        assert saved is not None
        checkpoint.save(Artifact(saved.tensors, {**saved.meta, "device": "cuda"}))
        return train(checkpoint, text, progress=look)

    with pytest.warns(StoreWarning, match=f"is not used: its {changed} is "):
        store.get_or_build("x", RECIPE, anew)
    assert seen == [10, 20, 30, 40]


# ------------------------------------------------------------------------------ dictionaries


def constant(start: int) -> Dictionary:
    w = torch.full((6, 48), float(start))
    return Dictionary(w, w[0], w.T.contiguous(), w[:, 0], w[:, 0])


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A cohort whose activations say that they are on a device that need not be there."""
    data = torch.zeros(1, 1, 1), [0]
    monkeypatch.setattr(collection, "training_data", lambda *_: data)
    found = Quality(1.0, 1.0, 0.0, torch.ones(1))
    monkeypatch.setattr(collection, "quality", lambda *_: found)
    monkeypatch.setattr(Dictionary, "to", lambda dictionary, device: dictionary)

    class There(list):
        def __init__(self, device: str) -> None:
            super().__init__([None] * 2)
            self.device = SimpleNamespace(type=device)

    def make(device: str) -> Any:
        cohort: Any = OneSiteCohort()
        cohort.activations = lambda split, site: There(device)
        return cohort

    return make


def dying_after(slices: int, asked: list[list[int]]) -> Callable[..., Any]:
    def train(x: object, source: object, starts: Sequence[int], *_: object, **__: object) -> Any:
        if len(asked) == slices:
            raise Killed
        asked.append(list(starts))
        return [constant(s) for s in starts], [[0.0] * len(starts)]

    return train


def many(n: int) -> Group:
    return Group("many", tuple(Spec(0, "resid_pre_0", i) for i in range(n)), Schedule(steps=1))


def test_a_gpu_saves_what_is_done_of_a_group(
    on_device: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cohort, group, at_once = on_device("cuda"), many(100), collection.AT_ONCE["cuda"]
    asked: list[list[int]] = []
    monkeypatch.setattr(collection, "train", dying_after(2, asked))
    with pytest.raises(Killed):
        collection.trained(Runtime(Store(tmp_path)), cohort, group)
    assert [len(slice_) for slice_ in asked] == [at_once, at_once]
    asked.clear()
    monkeypatch.setattr(collection, "train", dying_after(100, asked))
    made = collection.trained(Runtime(Store(tmp_path)), cohort, group)
    assert asked[0][0] == 2 * at_once, "what was done is not done again"
    assert [float(made[spec].b_enc[0]) for spec in group.specs] == list(range(100))


def test_dictionaries_are_not_gone_on_with_on_another_device(
    on_device: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[int]] = []
    monkeypatch.setattr(collection, "train", dying_after(1, asked))
    with pytest.raises(Killed):
        collection.trained(Runtime(Store(tmp_path)), on_device("cpu"), many(3))
    asked.clear()
    monkeypatch.setattr(collection, "train", dying_after(100, asked))
    with pytest.warns(StoreWarning, match="its device is cpu, that of this run cuda"):
        collection.trained(Runtime(Store(tmp_path)), on_device("cuda"), many(3))
    assert asked == [[0, 1, 2]]
