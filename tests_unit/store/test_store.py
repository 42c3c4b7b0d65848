"""The store: built once, never half-written, never silently wrong."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

from polyrot.store import (
    Artifact,
    Checkpoint,
    Store,
    StoreFull,
    StoreWarning,
    file as artifact_file,
    fingerprint,
    store as store_module,
)
from tests_unit.store.store_helpers import RECIPE, Builder, artifacts, flip_byte, never

# ---------------------------------------------------------------- fingerprints


def test_fingerprint_ignores_order_and_spelling_of_numbers() -> None:
    assert fingerprint("sae", {"a": 1, "b": 0.5}) == fingerprint("sae", {"b": 5e-1, "a": 1.0})
    assert fingerprint("sae", {"a": (1, 2)}) == fingerprint("sae", {"a": [1, 2]})
    assert fingerprint("sae", {"a": -0.0}) == fingerprint("sae", {"a": 0})
    assert fingerprint("sae", {}) != fingerprint("seed", {})
    assert fingerprint("sae", {"a": True}) != fingerprint("sae", {"a": 1})
    assert fingerprint("sae", {"a": "1"}) != fingerprint("sae", {"a": 1})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(recipe=st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_any_json_recipe_and_meta_come_back(
    recipe: dict, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    built = store.get_or_build("any", recipe, lambda _: Artifact({}, {"m": recipe}))
    found = store.get_or_build("any", recipe, never)
    assert built.meta == found.meta == {"m": recipe}


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (torch.tensor(1), "torch.Tensor"),
        (Path("x"), "Path"),
        ({1: 2}, "strings"),
    ],
)
def test_recipe_that_is_not_json_is_refused_by_key(value: object, word: str) -> None:
    with pytest.raises(ValueError, match=r"recipe\.outer\.inner") as caught:
        fingerprint("sae", {"outer": {"inner": value}})
    assert word in str(caught.value)


# ---------------------------------------------------------------- built once


def test_built_once_and_found_again(tmp_path: Path) -> None:
    build = Builder()
    store = Store(tmp_path)
    first = store.get_or_build("seed", RECIPE, build, name="toy a/seed 3")
    again = Store(tmp_path).get_or_build("seed", RECIPE, build, name="called otherwise")
    assert build.calls == 1
    assert torch.equal(first.tensors["weight"], again.tensors["weight"])
    assert again.tensors["steps"].shape == ()
    assert again.meta == first.meta == {"accuracy": 0.5}
    (path,) = artifacts(tmp_path)
    assert path.name == f"toy_a_seed_3-{fingerprint('seed', RECIPE)[:16]}.safetensors"
    assert store.state() == (1, path.stat().st_size)


def test_changed_recipe_is_another_artifact(tmp_path: Path) -> None:
    build, store = Builder(), Store(tmp_path)
    store.get_or_build("seed", RECIPE, build)
    store.get_or_build("seed", RECIPE | {"rate": 6e-4}, build)
    store.get_or_build("sae", RECIPE, build)
    assert build.calls == 3
    assert store.state()[0] == 3


def test_what_is_handed_out_is_fresh(tmp_path: Path) -> None:
    shared = torch.zeros(4)
    tensors = {"a": shared[:2], "b": shared, "c": torch.eye(3)[:, 1], "none": torch.zeros(0, 3)}
    store = Store(tmp_path)
    built = store.get_or_build("seed", RECIPE, lambda _: Artifact(tensors))
    built.tensors["a"].fill_(9)
    assert shared.sum() == 0
    assert built.tensors["b"].sum() == 0
    one, two = (store.get_or_build("seed", RECIPE, never) for _ in range(2))
    one.tensors["a"].fill_(5)
    assert two.tensors["a"].sum() == 0
    assert two.tensors["none"].shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.bool])
def test_dtypes_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    store = Store(tmp_path)
    for build in (lambda _: Artifact({"t": torch.ones(2, 2, dtype=dtype)}), never):
        assert store.get_or_build("seed", RECIPE, build).tensors["t"].dtype == dtype


def test_builder_that_fails_or_returns_nonsense_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(TypeError, match="no Artifact"):
        store.get_or_build("seed", RECIPE, lambda _: {"weight": torch.zeros(1)})  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match=r"meta\.ev is nan"):
        store.get_or_build("seed", RECIPE, lambda _: Artifact({}, {"ev": float("nan")}))
    assert store.state() == (0, 0)
    store.get_or_build("seed", RECIPE, Builder())


@pytest.mark.parametrize("kind", ["", "../up", "Seed", "retrain", ".hidden"])
def test_kind_that_is_no_directory_name_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match="no kind of artifact"):
        Store(tmp_path).get_or_build(kind, RECIPE, never)


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("where", [3, 60, 300, -1])
def test_flipped_byte_is_named_and_rebuilt(tmp_path: Path, where: int) -> None:
    store = Store(tmp_path)
    store.get_or_build("seed", RECIPE, Builder(), name="one")
    (path,) = artifacts(tmp_path)
    flip_byte(path, where)
    build = Builder()
    with pytest.warns(StoreWarning, match=path.name):
        store.get_or_build("seed", RECIPE, build, name="renamed")
    assert build.calls == 1
    assert store.state()[0] == 1
    store.get_or_build("seed", RECIPE, never)


@pytest.mark.parametrize(
    "content", [b"", b"not safetensors at all", bytes(100)], ids=["empty", "text", "zeros"]
)
def test_truncated_or_foreign_file_is_named_and_rebuilt(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    store.get_or_build("seed", RECIPE, Builder())
    (path,) = artifacts(tmp_path)
    path.write_bytes(content)
    with pytest.warns(StoreWarning, match=path.name):
        store.get_or_build("seed", RECIPE, Builder())


def test_artifact_under_anothers_name_is_not_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_build("seed", RECIPE, Builder(1.0))
    (path,) = artifacts(tmp_path)
    other = RECIPE | {"seed": 4}
    path.rename(path.with_name(f"{fingerprint('seed', other)[:16]}.safetensors"))
    with pytest.warns(StoreWarning, match="another recipe"):
        found = store.get_or_build("seed", other, Builder(2.0))
    assert found.tensors["weight"][0, 0] == 2.0


def test_plain_safetensors_file_is_foreign(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "seed" / f"x-{fingerprint('seed', RECIPE)[:16]}.safetensors"
    path.parent.mkdir()
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.warns(StoreWarning, match="no artifact of this suite"):
        Store(tmp_path).get_or_build("seed", RECIPE, Builder())
    assert not path.exists()


# ---------------------------------------------------------------- kills, checkpoints, two at once


def script(root: Path, body: str) -> subprocess.Popen[str]:
    preamble = f"""
        import os, signal, sys, time, torch
        from polyrot.store import Artifact, Store
        store = Store({str(root)!r})
        recipe = {RECIPE!r}
    """
    code = textwrap.dedent(preamble) + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_kill_in_the_middle_of_a_write_leaves_no_artifact(tmp_path: Path) -> None:
    process = script(
        tmp_path,
        """
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        store.get_or_build("seed", recipe, lambda _: Artifact({"weight": torch.zeros(9)}))
        """,
    )
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.rglob(".tmp-*"))
    assert artifacts(tmp_path) == []
    build = Builder()
    Store(tmp_path).get_or_build("seed", RECIPE, build)
    assert build.calls == 1
    assert not list(tmp_path.rglob(".tmp-*"))


def test_killed_build_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    process = script(
        tmp_path,
        """
        def build(checkpoint):
            checkpoint.save(Artifact({"weight": torch.full((2,), 5.0)}, {"step": 40}))
            os.kill(os.getpid(), signal.SIGKILL)
        store.get_or_build("seed", recipe, build)
        """,
    )
    process.communicate(timeout=300)
    states = []

    def resume(checkpoint: Checkpoint) -> Artifact:
        states.append(checkpoint.load())
        return states[-1] or Artifact({})

    store = Store(tmp_path)
    # Another recipe's build must not see it, whatever it is called.
    store.get_or_build("seed", RECIPE | {"seed": 4}, resume)
    assert states.pop() is None
    store.get_or_build("seed", RECIPE, resume)
    assert states[0].meta == {"step": 40}
    assert states[0].tensors["weight"].tolist() == [5.0, 5.0]
    assert not list(tmp_path.rglob(".checkpoint*"))


def test_damaged_or_foreign_checkpoint_starts_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(checkpoint: Checkpoint) -> Artifact:
        checkpoint.save(Artifact({"weight": torch.ones(5)}, {"step": 1}))
        raise KeyboardInterrupt

    def build(checkpoint: Checkpoint) -> Artifact:
        assert checkpoint.load() is None
        return Artifact({})

    for recipe, spoil in ((RECIPE, -1), (RECIPE | {"seed": 4}, None)):
        with pytest.raises(KeyboardInterrupt):
            store.get_or_build("seed", recipe, fail)
        (path,) = tmp_path.rglob(".checkpoint*")
        target = recipe
        if spoil is None:  # the file of one recipe where another's would lie
            target = RECIPE | {"seed": 5}
            fp = fingerprint("seed", target)[:16]
            path.rename(path.with_name(f".checkpoint-{fp}.safetensors"))
        else:
            flip_byte(path, spoil)
        with pytest.warns(StoreWarning, match="starts from its beginning"):
            store.get_or_build("seed", target, build)


def test_checkpoint_is_no_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(checkpoint: Checkpoint) -> Artifact:
        checkpoint.save(Artifact({"weight": torch.ones(5)}))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_or_build("seed", RECIPE, fail)
    (path,) = tmp_path.rglob(".checkpoint*")
    path.rename(path.with_name(path.name.replace(".checkpoint-", "x-")))
    with pytest.warns(StoreWarning, match="checkpoint"):
        store.get_or_build("seed", RECIPE, Builder())


@pytest.mark.slow  # two processes of torch
def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    body = """
        def build(_):
            print("built", flush=True)
            time.sleep(1.5)
            return Artifact({"weight": torch.full((2,), float(os.getpid()))})
        print(store.get_or_build("seed", recipe, build).tensors["weight"][0].item())
    """
    processes = [script(tmp_path, body) for _ in range(2)]
    printed = [p.communicate(timeout=300)[0].split() for p in processes]
    assert [p.returncode for p in processes] == [0, 0]
    assert sum("built" in lines for lines in printed) == 1
    assert printed[0][-1] == printed[1][-1]


def test_lock_of_a_killed_process_does_not_bind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = script(
        tmp_path,
        """
        def build(_):
            print("building", flush=True)
            time.sleep(60)
        store.get_or_build("seed", recipe, build)
        """,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "building"
    process.kill()
    process.communicate(timeout=300)

    def waits(*_: object) -> None:
        raise AssertionError("waits for a process that is dead")

    monkeypatch.setattr(store_module._log, "warning", waits)
    Store(tmp_path).get_or_build("seed", RECIPE, Builder())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_says_so_and_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store = Store(tmp_path)
    store.get_or_build("seed", RECIPE, Builder())
    before = artifacts(tmp_path)

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(artifact_file.os, "fsync", full)
    with pytest.raises(StoreFull, match=r"needs \d+\.\d MiB.*--artifacts") as caught:
        store.get_or_build("seed", RECIPE | {"seed": 4}, Builder())
    assert str(tmp_path / "seed") in str(caught.value)
    assert artifacts(tmp_path) == before
    assert not list(tmp_path.rglob(".tmp-*"))
