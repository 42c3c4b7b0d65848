"""The device asked for, in every command; memory that runs out says which setting to lower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from polyrot.dictionaries import collection, groups
from polyrot.dictionaries.training import Schedule
from polyrot.language import activations, neox, pythia, seeds, training
from polyrot.measures.lenses import __main__ as lenses
from polyrot.runtime.device import NoDevice, memory_for, resolve_device
from polyrot.store import Runtime, Store
from polyrot.workshop import __main__ as workshop
from tests_unit.dictionaries.test_dictionaries import OneSiteCohort
from tests_unit.language.tiny_language import tiny, tiny_cohort

COMMANDS: dict[str, tuple[Callable[[list[str]], object], list[str]]] = {
    "prepare": (workshop.main, ["toy_a", "--artifacts=nowhere"]),
    "lenses": (lenses.main, ["--artifacts=nowhere"]),
    "language seeds": (seeds.main, ["--artifacts=nowhere"]),
}


def full(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


# ------------------------------------------------------------------------------ which device


@pytest.mark.parametrize("there", [False, True])
def test_auto_is_cuda_where_there_is_one(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert resolve_device("auto") == ("cuda" if there else "cpu")
    assert resolve_device("cpu") == "cpu"
    if there:
        assert resolve_device("cuda") == "cuda"
    else:
        with pytest.raises(NoDevice, match="sees no CUDA device; use --device cpu"):
            resolve_device("cuda")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "sees no CUDA device; use --device cpu"),
        ("banana", "banana: no such device; name auto, cpu or cuda"),
    ],
)
def test_commands_refuse_a_device_that_is_not_there(
    command: str,
    device: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main, arguments = COMMANDS[command]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, f"--device={device}"])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_seed_that_is_none_of_the_cohorts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for given, named in (("999", "999"), ("200,x", "x")):
        with pytest.raises(SystemExit) as ended:
            seeds.main([f"--artifacts={tmp_path}", "--seeds", given])
        assert ended.value.code == 2
        message = capsys.readouterr().err
        assert f"--seeds: no seed '{named}'; the cohort has 200, 201, 202, 203, 204" in message


# ------------------------------------------------------------------------------ out of memory


def test_only_the_innermost_says_what_to_lower() -> None:
    with (
        pytest.raises(torch.OutOfMemoryError, match=r"^inner does not fit on cuda: lower inner$"),
        memory_for("outer", "cuda", "lower outer"),
        memory_for("inner", "cuda", "lower inner"),
    ):
        full()
    with pytest.raises(ValueError, match="other"), memory_for("it", "cuda", "lower it"):
        raise ValueError("other")


@pytest.mark.parametrize("option", [neox.LOWER_WIDTH, pythia.LOWER_TOKENS])
def test_a_language_cohort(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort: Any = tiny_cohort([tiny(0)], lower=option)
    monkeypatch.setattr(activations, "capture", full)
    message = rf"of 576 tokens at 5 sites of 1 models does not fit on cpu: lower {option}"
    with pytest.raises(torch.OutOfMemoryError, match=message):
        cohort.activations("fit", "resid_pre_0")


def test_training_a_language_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on: Any = SimpleNamespace(
        fingerprint="text", tokens={"fit": torch.zeros(2, 16, dtype=torch.int64)}
    )
    tokens = torch.zeros(500, dtype=torch.int16)
    monkeypatch.setattr(seeds.corpus, "training_tokens", lambda *_: tokens)
    monkeypatch.setattr(training, "_loss", full)
    first = seeds.trainings(seeds.TINY)[0]
    message = "at width 128 on 4 sequences a step does not fit on cpu: lower --neox-width"
    with pytest.raises(torch.OutOfMemoryError, match=message):
        seeds.trained(Runtime(Store(tmp_path)), first, on)


def test_training_dictionaries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cohort: Any = OneSiteCohort()
    monkeypatch.setattr(collection, "train", full)
    message = "training 1 dictionaries at once does not fit on cpu: lower AT_ONCE .*--tokens"
    with pytest.raises(torch.OutOfMemoryError, match=message):
        collection.trained(
            Runtime(Store(tmp_path)), cohort, groups.own(cohort, Schedule(steps=2, batch=8))
        )
