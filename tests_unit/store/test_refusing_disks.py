"""Whatever a disk refuses is one clear error, before anything is built; what can be read serves."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import pytest

from polyrot.runtime.files import Unwritable, check_folder, write_atomically
from polyrot.store import Artifact, Checkpoint, Store, StoreFull, only_readable
from polyrot.store.__main__ import main
from polyrot.store.shipped import verify
from tests_unit.disks import closed, mounted, read_only
from tests_unit.store.store_helpers import RECIPE, Builder, artifacts, never
from tests_unit.store.test_shipped import shipped  # noqa: F401  # a fixture

OTHER = RECIPE | {"seed": 4}


def blocked(tmp_path: Path, what: str) -> Path:
    """A store in which something is in the way."""
    root = tmp_path / "cache"
    Store(root).get_or_build("seed", RECIPE, Builder(), name="s")
    (path,) = artifacts(root)
    key = path.stem[-16:]
    if what == "the cache is a file":
        root = tmp_path / "file"
        root.write_text("")
    elif what == "a parent is a file":
        (tmp_path / "file").write_text("")
        root = tmp_path / "file" / "cache"
    elif what == "a link to nothing":
        root = tmp_path / "link"
        root.symlink_to(tmp_path / "nothing")
    elif what == "the kind is a file":
        root = tmp_path / "other"
        root.mkdir()
        (root / "seed").write_text("")
    else:
        path.unlink()
        named = {
            "the artifact is a directory": path,
            "the lock is a directory": path.with_name(f".lock-{key}"),
            "the checkpoint is a directory": path.with_name(f".checkpoint-{key}.safetensors"),
        }[what]
        named.unlink(missing_ok=True)
        named.mkdir()
    return root


WORDS = {
    "the cache is a file": "is a file where a directory should be",
    "a parent is a file": "file is a file where a directory should be",
    "a link to nothing": "link to nothing",
    "the kind is a file": "seed is a file where a directory should be",
    "the artifact is a directory": "directory where a file should be; move it away",
    "the lock is a directory": "directory where a file should be; move it away",
    "the checkpoint is a directory": "directory where a file should be; move it away",
}


@pytest.mark.parametrize("what", WORDS)
def test_what_is_in_the_way_is_named_before_anything_is_built(tmp_path: Path, what: str) -> None:
    root = blocked(tmp_path, what)
    with pytest.raises(Unwritable, match=WORDS[what]):
        Store(root).get_or_build("seed", RECIPE, never, name="s")
    if what != "the kind is a file":  # whose name is known when it is built
        with pytest.raises(Unwritable, match=WORDS[what]):
            only_readable(root)


def test_a_temporary_that_is_a_directory_harms_nobody(tmp_path: Path) -> None:
    Store(tmp_path).get_or_build("seed", RECIPE, Builder(), name="s")
    (path,) = artifacts(tmp_path)
    path.unlink()
    path.with_name(f".tmp-{path.stem[-16:]}-x").mkdir()
    Store(tmp_path).get_or_build("seed", RECIPE, Builder(), name="s")


def test_a_name_that_is_too_long_is_cut_and_a_folder_s_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_build("seed", RECIPE, Builder(), name="x" * 400)
    assert store.get_or_build("seed", RECIPE, never).meta == {"accuracy": 0.5}
    with pytest.raises(Unwritable, match="its name is too long for the disk"):
        only_readable(tmp_path / ("y" * 300))
    with pytest.raises(Unwritable, match="its name is too long for the disk"):
        write_atomically(tmp_path / ("y" * 300), "text")


def test_a_cache_that_can_only_be_read_still_serves(tmp_path: Path) -> None:
    root, beside = tmp_path / "cache", tmp_path / "beside"
    Store(root).get_or_build("seed", RECIPE, Builder(), name="s")
    beside.mkdir()
    beside.chmod(0o777)
    with closed(root, root / "seed"):
        assert f"{root} cannot be written: you may not write in" in only_readable(root)
        with pytest.raises(Unwritable, match=r"you may not write in .*--artifacts DIR"):
            Store(root).get_or_build("seed", OTHER, never)
        store = Store(root, instead=beside)
        assert store.get_or_build("seed", RECIPE, never).meta == {"accuracy": 0.5}
        assert store.has("seed", RECIPE)
        build = Builder()
        for _ in range(2):
            store.get_or_build("seed", OTHER, build)
        assert build.calls == 1
    assert len(artifacts(root)) == len(artifacts(beside)) == 1


def test_a_directory_of_a_kind_that_is_another_s_makes_the_cache_one_to_read(
    tmp_path: Path,
) -> None:
    root = tmp_path / "cache"
    Store(root).get_or_build("seed", RECIPE, Builder(), name="s")
    root.chmod(0o777)
    with closed(root / "seed"):
        assert "seed cannot be written: you may not write" in only_readable(root)
    assert only_readable(root) == ""


def test_a_directory_that_cannot_be_looked_into_is_no_cache(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    with (
        closed(root, mode=0o311),
        pytest.raises(Unwritable, match=r"cannot be (written|looked into)"),
    ):
        only_readable(root)


def test_a_disk_mounted_read_only_still_serves(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m") as disk:
        Store(disk).get_or_build("seed", RECIPE, Builder(), name="s")
        read_only(disk)
        assert "its disk is mounted read-only" in only_readable(disk)
        store = Store(disk, instead=tmp_path / "beside")
        store.get_or_build("seed", RECIPE, never)
        store.get_or_build("seed", OTHER, Builder())


@pytest.mark.parametrize(
    ("options", "said"),
    [("size=16k", r"no space left in \S+, 0\.0 MiB"), ("nr_inodes=3", r"no more files \(inodes\)")],
)
def test_a_full_disk_says_so_before_anything_is_built(
    tmp_path: Path, options: str, said: str
) -> None:
    with mounted(tmp_path / "disk", options) as disk:
        with contextlib.suppress(OSError):  # until it is full
            for i in range(9):
                (disk / str(i)).write_bytes(bytes(4096))
        with pytest.raises(Unwritable, match=said):
            only_readable(disk)
        with pytest.raises(Unwritable, match=said):
            check_folder(disk)
        if "inodes" not in options:  # a lock has no bytes
            return
        with pytest.raises(StoreFull, match=said):
            Store(disk).get_or_build("seed", RECIPE, never)


def test_a_disk_that_fills_up_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=32k") as disk:
        target = disk / "record"
        write_atomically(target, "before")
        with pytest.raises(Unwritable, match="record cannot be written: no space left"):
            write_atomically(target, "x" * 100_000)
        assert target.read_text() == "before"
        assert [path.name for path in disk.iterdir()] == ["record"]


def test_a_checkpoint_that_cannot_be_saved_says_where(tmp_path: Path) -> None:
    def build(checkpoint: Checkpoint) -> Artifact:
        with closed(checkpoint.path.parent):
            checkpoint.save(Artifact({}))
        raise AssertionError

    with pytest.raises(Unwritable, match=r"checkpoint-\w+.safetensors cannot be written") as caught:
        Store(tmp_path).get_or_build("seed", RECIPE, build)
    assert caught.value.errno == errno.EACCES


# -------------------------------------------------------------------------------- store verify


def test_verify_lists_whatever_is_wrong(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    (path,) = artifacts(shipped)
    kept = path.rename(shipped.parent / "kept")
    path.symlink_to(shipped.parent / "nothing")
    (shipped / "stray").write_text("")
    (shipped / "seed" / "deeper").mkdir()
    (shipped / "closed").mkdir()
    manifest = shipped / "manifest.toml"
    manifest.write_text(
        f'{manifest.read_text()}\n["seed/half.safetensors"]\nkind = "seed"\n["other"]\nkind = 1\n'
    )
    manifest.write_text('"no/table.safetensors" = 3\n' + manifest.read_text())
    with closed(shipped / "closed", mode=0):
        found = verify(shipped)
        assert main(["verify", "--shipped", str(shipped)]) == 1
    assert "Traceback" not in capsys.readouterr().err
    for said in (
        f"seed/{path.name}: a link to nothing",
        "stray: no file of the suite, and not in a directory of a kind",
        "seed/deeper: no artifact of the suite",
        "closed: it cannot be looked into (Permission denied)",
        "seed/half.safetensors: the manifest's sha256 is 'missing'",
        "no/table.safetensors: its entry in the manifest is no table, but 3",
        "other: the manifest names no file of the form kind/name.safetensors",
        "other: listed in the manifest, but missing",
    ):
        assert said in found
    assert main(["list", "--shipped", str(shipped)]) == 1, "an entry without figures is no list"
    path.unlink()
    kept.rename(path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sha256", '""', "sha256 is no sha256"),
        ("kind", '"other"', "the manifest's kind is 'other', the file's 'seed'"),
        ("bytes", "7", "the manifest's bytes is 7, the file's"),
        ("bytes", "true", "the manifest's bytes is True"),
        ("seconds", '"long"', "the manifest's seconds is 'long'"),
    ],
)
def test_verify_holds_every_key_against_the_file(
    shipped: Path,  # noqa: F811
    key: str,
    value: str,
    said: str,
) -> None:
    manifest = shipped / "manifest.toml"
    lines = manifest.read_text().splitlines()
    altered = [f"{key} = {value}" if line.startswith(f"{key} = ") else line for line in lines]
    manifest.write_text("\n".join(altered) + "\n")
    assert [said in line for line in verify(shipped)] == [True]


@pytest.mark.parametrize("text", ["x = [" + "[" * 5000, "[a\n", "x = nan\n\xff", "d"])
def test_a_manifest_that_is_none_is_said(shipped: Path, text: str) -> None:  # noqa: F811
    (shipped / "manifest.toml").write_text(text, encoding="latin-1")
    assert "manifest.toml is damaged" in verify(shipped)[0]
    (shipped / "manifest.toml").unlink()
    (shipped / "manifest.toml").mkdir()
    assert "manifest.toml is damaged" in verify(shipped)[0]


def test_a_shipped_directory_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be looked into" in " ".join(verify(tmp_path / "file"))
