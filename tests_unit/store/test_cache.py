"""A cache of a run: what is listed, what prune takes away, and what it leaves."""

import os
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from polyrot.store import Artifact, Checkpoint, Store
from polyrot.store.__main__ import main
from polyrot.store.cache import DAY, kept, superfluous


def make(store: Store, kind: str, version: int) -> Path:
    store.get_or_build(kind, {"v": version}, lambda _: Artifact({"x": torch.ones(9)}), name="made")
    return next((store.directory / kind).glob("made-*"))


def interrupt(store: Store, kind: str) -> Path:
    def build(checkpoint: Checkpoint) -> Artifact:
        checkpoint.save(Artifact({}, {"step": 1}))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_or_build(kind, {"v": "unfinished"}, build)
    return next((store.directory / kind).glob(".checkpoint-*"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    store = Store(tmp_path / "cache")
    make(store, "tables", 1)
    old = make(store, "models", 1)
    os.utime(old, (time.time() - 90 * DAY,) * 2)
    interrupt(store, "models")
    (store.root / "models" / "notes.txt").write_text("somebody's own")
    (store.root / "letters.txt").write_text("somebody's own")
    return store.root


def names(root: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name[:8]}" for path in root.rglob("*") if path.is_file()}


def test_a_finished_artifact_leaves_no_lock(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, "tables", 1)
    make(store, "tables", 1)
    assert names(tmp_path) == {"tables/" + next(tmp_path.rglob("made-*")).name[:8]}
    with pytest.raises(ZeroDivisionError):  # a failed build keeps it: somebody may wait for it
        store.get_or_build("tables", {"v": 2}, lambda _: 1 / 0)
    assert list(tmp_path.rglob(".lock-*"))


def test_listing_counts_what_the_store_made_and_nothing_else(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", str(cache)]) == 0
    lines = capsys.readouterr().out.splitlines()
    text = "\n".join(lines)
    assert "models (checkpoints)" in text
    assert "models (leftovers)" in text  # the lock of what was interrupted
    assert "notes" not in text
    assert int(lines[-1].split()[0]) == 4


def test_prune_says_what_it_would_do_and_does_it_when_told(cache: Path) -> None:
    before = names(cache)
    assert main(["prune", str(cache)]) == 0
    assert names(cache) == before
    assert main(["prune", str(cache), "--yes"]) == 0
    gone = before - names(cache)
    assert len(gone) == 1
    assert gone == {name for name in before if name.startswith("models/.lock-")}


def roles(root: Path, **asked: object) -> list[tuple[str, str]]:
    return sorted({(e.kind, e.role) for e in superfluous(kept(root), **asked)})  # type: ignore[arg-type]


def test_what_is_asked_for_is_superfluous_and_no_more(cache: Path) -> None:
    lock, model = ("models", "leftover"), ("models", "artifact")
    table, unfinished = ("tables", "artifact"), ("models", "checkpoint")
    assert roles(cache) == [lock]
    assert roles(cache, kinds=["tables"]) == [lock, table]
    assert roles(cache, older_than=30) == [model, lock]
    assert roles(cache, older_than=0) == [model, lock, table]
    assert roles(cache, kinds=["tables"], older_than=30) == [lock]
    assert roles(cache, unfinished=True) == [unfinished, lock]
    key = next(each.key for each in kept(cache) if each.kind == "tables")
    assert roles(cache, shipped={key}) == [lock, table]


def test_what_a_process_builds_stays(cache: Path) -> None:
    checkpoint = next(each for each in kept(cache) if each.role == "checkpoint")
    with FileLock(checkpoint.path.parent / f".lock-{checkpoint.key}"):
        assert roles(cache, unfinished=True) == []
    assert ("models", "checkpoint") in roles(cache, unfinished=True)


def test_the_rest_of_the_cache_still_serves(cache: Path) -> None:
    assert main(["prune", str(cache), "--kind", "models", "--unfinished", "--yes"]) == 0
    found = Store(cache).get_or_build("tables", {"v": 1}, lambda _: 1 / 0)
    assert found.tensors["x"].sum() == 9
    assert names(cache) == {"cache/letters.", "models/notes.tx"} | {
        name for name in names(cache) if name.startswith("tables/made-")
    }


def test_a_directory_of_retraining_is_listed(tmp_path: Path) -> None:
    make(Store(tmp_path, retrain=True, folder="retrain-2"), "models", 3)
    assert [(each.kind, each.role) for each in kept(tmp_path)] == [("models", "artifact")]


@pytest.mark.parametrize("command", ["cache", "prune"])
def test_what_is_no_cache_is_said(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path / "none")]) == 1
    assert "there is no such directory" in capsys.readouterr().err


def test_a_kind_that_is_not_there_is_said(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", str(cache), "--kind", "tabels"]) == 1
    assert "no tabels in" in (said := capsys.readouterr().err)
    assert "models, tables" in said
