"""The store: built once, never half-written, never silently wrong."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyrot import artifact_file
from polyrot import store as store_module
from polyrot.store import (
    Artifact,
    Checkpoint,
    DamagedArtifact,
    Store,
    StoreFull,
    StoreWarning,
    fingerprint,
    read_manifest,
    ship,
    verify,
    write_manifest,
)

RECIPE = {"seed": 3, "rate": 5e-4, "sites": ["resid_mid_0", "resid_post_0"], "frozen": None}


class Builder:
    """Counts how often it is called."""

    def __init__(self, value: float = 1.0) -> None:
        self.calls = 0
        self.value = value

    def __call__(self, checkpoint: Checkpoint) -> Artifact:
        self.calls += 1
        weight = torch.full((3, 4), self.value)
        return Artifact({"weight": weight, "steps": torch.tensor(7)}, {"accuracy": 0.5})


def never(checkpoint: Checkpoint) -> Artifact:
    raise AssertionError("this should have been found, not built")


def artifacts(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*.safetensors") if not p.name.startswith("."))


def flip_byte(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where] ^= 0x10
    path.write_bytes(data)


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
    process.communicate(timeout=60)
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
    process.communicate(timeout=60)
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


def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    body = """
        def build(_):
            print("built", flush=True)
            time.sleep(1.5)
            return Artifact({"weight": torch.full((2,), float(os.getpid()))})
        print(store.get_or_build("seed", recipe, build).tensors["weight"][0].item())
    """
    processes = [script(tmp_path, body) for _ in range(2)]
    printed = [p.communicate(timeout=60)[0].split() for p in processes]
    assert [p.returncode for p in processes] == [0, 0]
    assert sum("built" in lines for lines in printed) == 1
    assert printed[0][-1] == printed[1][-1]


def test_lock_of_a_killed_process_does_not_bind(tmp_path: Path) -> None:
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
    process.communicate(timeout=60)
    start = time.monotonic()
    Store(tmp_path).get_or_build("seed", RECIPE, Builder())
    assert time.monotonic() - start < 10


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


# ---------------------------------------------------------------- retrain


def test_retrain_ignores_what_is_there_and_reuses_what_it_built(tmp_path: Path) -> None:
    plain = Store(tmp_path)
    plain.get_or_build("seed", RECIPE, Builder(1.0), name="s")
    build = Builder(2.0)
    for _ in range(3):  # the same run, its other workers, the same run after a kill
        again = Store(tmp_path, shipped=tmp_path / "nowhere", retrain=True)
        assert again.get_or_build("seed", RECIPE, build).tensors["weight"][0, 0] == 2.0
    assert build.calls == 1
    assert again.state()[0] == plain.state()[0] == 1
    # Until it is finished, a plain run goes on with what it had.
    assert plain.get_or_build("seed", RECIPE, never).tensors["weight"][0, 0] == 1.0


def test_finished_retrain_becomes_the_cache_and_the_next_begins_anew(tmp_path: Path) -> None:
    store = Store(tmp_path, retrain=True)
    store.get_or_build("seed", RECIPE, Builder(2.0))
    assert store.finish_retrain() == 1
    assert Store(tmp_path).get_or_build("seed", RECIPE, never).tensors["weight"][0, 0] == 2.0
    build = Builder(3.0)
    Store(tmp_path, retrain=True).get_or_build("seed", RECIPE, build)
    assert build.calls == 1
    assert Store(tmp_path).finish_retrain() == 0


# ---------------------------------------------------------------- shipped


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """One shipped artifact of value 1.5, stored in half precision."""
    made = Store(tmp_path / "made")
    made.get_or_build("seed", RECIPE, Builder(1.5), name="toy")
    folder = tmp_path / "shipped"
    ship(artifacts(tmp_path / "made")[0], folder, half=True)
    write_manifest(folder)
    return folder


def test_shipped_is_used_first_in_single_precision(tmp_path: Path, shipped: Path) -> None:
    store = Store(tmp_path / "cache", shipped)
    found = store.get_or_build("seed", RECIPE, never)
    assert found.tensors["weight"].dtype == torch.float32
    assert found.tensors["steps"].dtype == torch.int64
    assert found.tensors["weight"][0, 0] == 1.5
    assert found.meta == {"accuracy": 0.5, "stored_dtype": "float16"}
    assert store.state() == (0, 0)
    # What is shipped for another configuration is just not used.
    build = Builder()
    store.get_or_build("seed", RECIPE | {"seed": 9}, build)
    assert build.calls == 1


@pytest.mark.parametrize("where", [60, -1])
def test_damaged_shipped_file_stops_with_the_remedy(
    tmp_path: Path, shipped: Path, where: int
) -> None:
    (path,) = artifacts(shipped)
    flip_byte(path, where)
    store = Store(tmp_path / "cache", shipped)
    with pytest.raises(DamagedArtifact, match=r"sha256 differs.*git checkout.*--retrain") as caught:
        store.get_or_build("seed", RECIPE, never)
    assert str(path) in str(caught.value)
    assert "sha256 differs" in verify(shipped)[0]
    Store(tmp_path / "cache", shipped, retrain=True).get_or_build("seed", RECIPE, Builder())


def test_shipped_file_without_manifest_still_proves_itself(tmp_path: Path, shipped: Path) -> None:
    (shipped / "manifest.toml").unlink()
    store = Store(tmp_path / "cache", shipped)
    store.get_or_build("seed", RECIPE, never)
    flip_byte(artifacts(shipped)[0], -1)
    with pytest.raises(DamagedArtifact, match="sha256 differs"):
        store.get_or_build("seed", RECIPE, never)


def test_missing_shipped_file_is_named(tmp_path: Path, shipped: Path) -> None:
    (path,) = artifacts(shipped)
    path.unlink()
    with pytest.warns(StoreWarning, match=r"manifest lists it, but it is missing"):
        Store(tmp_path / "cache", shipped).get_or_build("seed", RECIPE, Builder())
    assert verify(shipped) == [f"seed/{path.name}: listed in the manifest, but missing"]


def test_manifest_says_what_is_shipped(shipped: Path) -> None:
    (path,) = artifacts(shipped)
    entry = read_manifest(shipped)[f"seed/{path.name}"]
    assert entry["fingerprint"] == fingerprint("seed", RECIPE)
    assert entry["bytes"] == path.stat().st_size
    assert {"kind", "sha256", "how", "device", "when", "seconds"} <= set(entry)
    assert verify(shipped) == []
    before = (shipped / "manifest.toml").read_bytes()
    write_manifest(shipped)
    assert (shipped / "manifest.toml").read_bytes() == before


def test_damaged_manifest_and_unlisted_file_and_budget(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = artifacts(shipped)
    path.with_name("more.safetensors").write_bytes(path.read_bytes())
    assert verify(shipped) == ["seed/more.safetensors: not listed in the manifest"]
    monkeypatch.setattr(store_module, "SHIPPED_BUDGET", 10)
    assert "at most" in verify(shipped)[-1]
    (shipped / "manifest.toml").write_text("[[")
    assert "not TOML" in verify(shipped)[0]
    with pytest.raises(DamagedArtifact, match="not TOML"):
        read_manifest(shipped)


def test_half_precision_that_would_overflow_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_build("seed", RECIPE, lambda _: Artifact({"big": torch.tensor([1e6])}))
    with pytest.raises(OverflowError, match="big of"):
        ship(artifacts(tmp_path)[0], tmp_path / "shipped", half=True)
    assert not (tmp_path / "shipped").exists()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "cache")
    store.get_or_build("seed", RECIPE, Builder(), name="toy")
    (path,) = artifacts(tmp_path)
    where = ["--shipped", str(tmp_path / "shipped")]
    assert store_module.main(["ship", *where, "--half", str(path)]) == 0
    assert store_module.main(["verify", *where]) == 0
    assert "1 files, all well" in capsys.readouterr().out
    assert store_module.main(["list", *where]) == 0
    assert path.name in capsys.readouterr().out
    flip_byte(tmp_path / "shipped" / "seed" / path.name, -1)
    assert store_module.main(["verify", *where]) == 1
    assert store_module.main(["ship", *where, str(tmp_path / "none")]) == 1
    with pytest.raises(SystemExit) as stopped:
        store_module.main(["--help"])
    assert stopped.value.code == 0
