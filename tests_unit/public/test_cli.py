"""The command `polyrot`: its help, its files, its one-line errors."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from polyrot import cli
from polyrot.cli import ROOMS, main
from polyrot.dictionaries.loading import save_sae
from polyrot.dictionaries.sae import Dictionary
from polyrot.haar import sample_haar
from polyrot.maps.files import BadFile, read_array

D = 6


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """An anchor and an exact rotated copy of it, in every kind of file."""
    rng = np.random.default_rng(0)
    b = rng.laplace(size=(600, D)) * np.linspace(1, 3, D)
    a = b @ sample_haar(D, 1, rng)[0].T + 1
    paths = {kind: tmp_path / f"pair.{kind}" for kind in ("npz", "safetensors")}
    paths |= {"a": tmp_path / "a.npy", "b": tmp_path / "b.npy", "groups": tmp_path / "groups.npy"}
    np.save(paths["a"], a)
    np.save(paths["b"], b)
    np.save(paths["groups"], np.arange(600) // 10)
    np.savez(paths["npz"], a=a, b=b)
    save_file(
        {"a": torch.from_numpy(a).bfloat16(), "b": torch.from_numpy(b).bfloat16()},
        paths["safetensors"],
    )
    return paths


def run(*arguments: object) -> int:
    return main([str(each) for each in arguments])


def figures(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, float]:
    assert run("compare", *arguments, "--json") == 0
    return dict(json.loads(capsys.readouterr().out))


def test_two_files_are_compared(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", files["a"], files["b"]) == 0
    assert "predicts b" in capsys.readouterr().out
    found = figures(capsys, files["a"], files["b"], "--seed", 3, "--groups", files["groups"])
    assert found["rotated_ev"] == pytest.approx(1)
    assert found["groups"] == 60
    assert found["seed"] == 3
    for kind, exact in (("npz", 1e-9), ("safetensors", 1e-3)):
        names = ("--name-a", "a", "--name-b", "b")
        found = figures(capsys, files[kind], files[kind], *names)
        assert found["rotated_ev"] == pytest.approx(1, abs=exact)
        assert found["naive_ev"] < 0.9
    det = figures(capsys, files["a"], files["b"], "--no-reflection")["det"]
    assert det == 1


def test_dictionaries_are_read(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eye = torch.eye(D)
    both, zero = torch.cat([eye, -eye], 1), torch.zeros(D)
    sae = Dictionary(both, torch.zeros(2 * D), both.T.contiguous(), zero, zero)
    save_sae(tmp_path / "sae", sae, "resid_post_1")
    given = ("--sae", tmp_path / "sae", "--sae-of-a", tmp_path / "sae")
    found = figures(capsys, files["a"], files["b"], *given)
    assert found["self_ev"] == pytest.approx(1)
    assert found["decoder_cosine"] == pytest.approx(1)


def test_what_cannot_be_used_is_one_line(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {n: tmp_path / n for n in ("pickled.npy", "empty.npy", "text.npz", "vector.npy")}
    np.save(named["pickled.npy"], np.array([{}], dtype=object), allow_pickle=True)
    named["empty.npy"].touch()
    named["text.npz"].write_text("nothing of the kind")
    np.save(named["vector.npy"], np.ones(5))
    (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 40)
    np.save(tmp_path / "whole.npy", np.ones((600, D), dtype=np.int64))
    np.savez(tmp_path / "none.npz")
    b = files["b"]
    for arguments, says in {
        (tmp_path / "missing.npy", b): "no such file",
        (tmp_path, b): "expected a file that ends in .npy, .npz, .safetensors",
        (tmp_path / "a.pt", b): "expected a file that ends in",
        (named["pickled.npy"], b): "cannot be read as .npy",
        (named["empty.npy"], b): "cannot be read as .npy",
        (named["text.npz"], b): "cannot be read as .npz",
        (tmp_path / "none.npz", b): "holds no array",
        (tmp_path / "bad.safetensors", b): "cannot be read as .safetensors",
        (files["npz"], b): "holds 2 arrays (a, b); name one",
        (files["npz"], b, "--name-a", "c"): "has no array 'c'; it has a, b",
        (b, b, "--name-a", "c"): "has no name",
        (named["vector.npy"], b): "expected [tokens, d], got shape [5]",
        (tmp_path / "whole.npy", b): "int64",
        (b, b, "--groups", named["vector.npy"]): "groups of shape [5]",
        (b, b, "--sae", tmp_path): "holds no dictionary",
        (b, b, "--sae-of-a", tmp_path): "give --sae too",
    }.items():
        assert run("compare", *arguments) == 2, says
        out, err = capsys.readouterr()
        assert not out
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert says in err
    assert run("haar", "battery", named["pickled.npy"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(BadFile, match="no such file"):
        read_array(tmp_path / "missing.npy")


def test_a_matrix_in_any_kind_of_file_is_tested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = sample_haar(8, 1, np.random.default_rng(1))[0]
    np.savez(tmp_path / "r.npz", eye=np.eye(8), drawn=drawn)
    given = ("haar", "battery", tmp_path / "r.npz", "--null-draws", 500, "--name")
    assert run(*given, "drawn") == 0
    assert run(*given, "eye") == 1
    assert "REJECTED" in capsys.readouterr().out


def test_outside_of_a_checkout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (("store", "verify"), ("store", "list"), ("report", "readme")):
        assert run(*arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: not a polyrot checkout")
        assert err.count("\n") == 1


class _Parsed(Exception):
    """Stands for what comes after the command line was read."""


COMMANDS = {
    "polyrot": ["compare", "x.npy", "y.npy"],
    "haar": ["haar", "battery", "x.npy"],
    "pair": ["pair", "A", "B"],
    "report": ["report", "readme"],
    "store": ["store", "verify"],
    "train": ["train", "toy_a"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_argument(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.ArgumentParser] = []

    def parse(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        seen.append(self)
        raise _Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises(_Parsed):
        main(COMMANDS[name])
    assert seen[0].prog == ("polyrot" if name == "polyrot" else f"polyrot {name}")
    explained = 0
    while seen:
        parser = seen.pop()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                assert len(action._choices_actions) == len(action.choices)
                assert all(each.help for each in action._choices_actions)
                seen += action.choices.values()
            else:
                assert action.help, f"{parser.prog}: {action.dest}"
                explained += 1
    assert explained > 3


def test_the_commands_of_the_rooms_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("compare", *ROOMS))
    for arguments in ([], ["unheard-of"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"], ["--version"]])
def test_help_comes_without_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom polyrot.cli import main\n"
        f"try:\n    main({arguments!r})\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_help_of_a_room_comes_without_transformers_and_figures(room: str) -> None:
    heavy = "{'transformers', 'matplotlib', 'tokenizers'}"
    code = (
        "import sys\nfrom polyrot.cli import main\n"
        f"try:\n    main(['{room}', '--help'])\n"
        f"finally:\n    found = {heavy} & set(sys.modules)\n    assert not found, found\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert found.returncode == 0, found.stderr


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "polyrot", "--version"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.startswith("polyrot ")


def test_an_interrupt_while_a_command_is_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.importlib, "import_module", interrupted)
    monkeypatch.setattr(sys, "argv", ["polyrot", "haar"])
    with pytest.raises(SystemExit) as ended:
        cli.script()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted\n"
