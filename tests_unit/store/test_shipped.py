"""The store: what is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from polyrot.store import (
    Artifact,
    DamagedArtifact,
    Store,
    StoreWarning,
    __main__ as command,
    fingerprint,
    read_manifest,
    ship,
    shipped as shipped_module,
    shipped_with_code,
    verify,
    write_manifest,
)
from tests_unit.store.store_helpers import RECIPE, Builder, artifacts, flip_byte, never


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
    monkeypatch.setattr(shipped_module, "SHIPPED_BUDGET", 10)
    assert "at most" in verify(shipped)[-1]
    (shipped / "manifest.toml").write_text("[[")
    assert "no TOML" in verify(shipped)[0]
    with pytest.raises(DamagedArtifact, match="no TOML"):
        read_manifest(shipped)


def test_more_than_the_budget_is_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, shipped = Store(tmp_path / "cache"), tmp_path / "shipped"
    for seed in (1, 2):
        store.get_or_build("seed", RECIPE | {"seed": seed}, Builder())
    first, second = sorted(artifacts(tmp_path / "cache"))
    where = ["ship", "--shipped", str(shipped)]
    assert command.main([*where, str(first)]) == 0
    held = sum(path.stat().st_size for path in shipped.rglob("*") if path.is_file())
    monkeypatch.setattr(shipped_module, "SHIPPED_BUDGET", held + second.stat().st_size - 1)
    assert command.main([*where, str(second)]) == 1
    said = capsys.readouterr().err
    assert "MiB are left" in said
    assert "take away there what is superseded" in said
    assert verify(shipped) == []  # and nothing half-written
    assert command.main([*where, str(first)]) == 0  # in its own place
    monkeypatch.setattr(shipped_module, "SHIPPED_BUDGET", held + second.stat().st_size)
    assert command.main([*where, str(second)]) == 0
    assert "at most" in verify(shipped)[-1]  # the manifest has an entry more


def test_what_was_copied_before_one_is_refused_is_listed(tmp_path: Path) -> None:
    store, shipped = Store(tmp_path / "cache"), tmp_path / "shipped"
    store.get_or_build("seed", RECIPE, Builder())
    (path,) = artifacts(tmp_path / "cache")
    where = ["ship", "--shipped", str(shipped)]
    assert command.main([*where, str(tmp_path / "none")]) == 1
    assert not shipped.exists()
    assert command.main([*where, str(path), str(tmp_path / "none")]) == 1
    assert verify(shipped) == []


def test_half_precision_that_would_overflow_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_build("seed", RECIPE, lambda _: Artifact({"big": torch.tensor([1e6])}))
    with pytest.raises(OverflowError, match="big of"):
        ship(artifacts(tmp_path)[0], tmp_path / "shipped", half=True)
    assert not (tmp_path / "shipped").exists()


def test_what_is_left_out_is_said_and_the_rest_is_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, shipped = Store(tmp_path / "cache"), tmp_path / "shipped"
    both = {"params.w": torch.ones(3), "snapshot.10.w": torch.zeros(3)}
    store.get_or_build("seed", RECIPE, lambda _: Artifact(both), name="toy")
    (path,) = artifacts(tmp_path)
    where = ["--shipped", str(shipped), str(path)]
    assert command.main(["ship", "--without", "other.", *where]) == 1
    assert "begins with 'other.'" in capsys.readouterr().err
    assert command.main(["ship", "--without", "snapshot.", *where]) == 0
    found = Store(tmp_path / "empty", shipped).get_or_build("seed", RECIPE, never)
    assert found.meta["left_out"] == "snapshot."
    assert list(found.tensors) == ["params.w"]
    assert torch.equal(found.tensors["params.w"], both["params.w"])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "cache")
    store.get_or_build("seed", RECIPE, Builder(), name="toy")
    (path,) = artifacts(tmp_path)
    where = ["--shipped", str(tmp_path / "shipped")]
    assert command.main(["ship", *where, "--half", str(path)]) == 0
    assert command.main(["verify", *where]) == 0
    assert "1 files, all well" in capsys.readouterr().out
    assert command.main(["list", *where]) == 0
    assert path.name in capsys.readouterr().out
    flip_byte(tmp_path / "shipped" / "seed" / path.name, -1)
    assert command.main(["verify", *where]) == 1
    assert command.main(["ship", *where, str(tmp_path / "none")]) == 1
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    assert stopped.value.code == 0


def test_shipped_files_are_those_of_the_code_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).resolve().parents[2]
    assert shipped_with_code() == root / "fixtures" / "shipped"
    monkeypatch.setattr(shipped_module, "__file__", str(tmp_path / "a" / "b" / "shipped.py"))
    assert shipped_with_code() is None


def test_nothing_to_verify_is_no_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.main(["verify", "--shipped", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith(f"nothing is shipped in {tmp_path}")
    assert command.main(["list", "--shipped", str(tmp_path)]) == 1
    monkeypatch.chdir(tmp_path)
    for name in ("verify", "list"):
        assert command.main([name]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len([line for line in said if "not a polyrot checkout" in line]) == 1


def test_paths_are_of_the_checkout_that_one_stands_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "cache")
    store.get_or_build("seed", RECIPE, Builder(), name="toy")
    (path,) = artifacts(tmp_path)
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "preregistration.toml").touch()
    monkeypatch.chdir(tmp_path / "claims")
    assert command.main(["ship", str(path)]) == 0
    assert (tmp_path / "fixtures" / "shipped" / "seed" / path.name).is_file()
    assert command.main(["verify"]) == 0
    assert "1 files, all well" in capsys.readouterr().out
