"""Two processes under torchrun, killed and resumed, equal one process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from polyrot.streaming import __main__ as command
from tests_unit.streaming.streaming_checkpoints import (
    CONTEXT,
    artifacts,
    checkpoints,
    covered,
    model,
    run_until_killed,
    save,
    write_text,
)

FIT, HELD_OUT, BATCH = 6400, 1600, 96
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


def arguments(root: Path, store: Path) -> list[str]:
    given = {
        "text": root / "text.txt",
        "context": CONTEXT,
        "tokens": FIT,
        "held-out": HELD_OUT,
        "batch-tokens": BATCH,
        "save-every": 0,
        "device": "cpu",
        "dtype": "float64",  # or forward passes of two processes may round otherwise
        "artifacts": store,
    }
    return [str(root / "a"), str(root / "b"), *(f"--{n}={value}" for n, value in given.items())]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    for seed, name in enumerate("ab"):
        save(model(seed), folder / name)
    write_text(folder / "text.txt", 9000)
    return folder


@pytest.fixture(scope="module")
def one_process(root: Path) -> dict[str, dict[str, Tensor]]:
    assert command.main(arguments(root, root / "one")) == 0
    return artifacts(root / "one")


@pytest.fixture(scope="module")
def killed(root: Path) -> Path:
    """A store that two processes left when the first of them was killed in pass 1."""
    store = root / "two"
    done = run_until_killed(root, "pass 1", arguments(root, store), TORCHRUN)
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr
    (left,) = checkpoints(store)
    assert 0 < covered(left) < FIT // CONTEXT
    assert not artifacts(store)
    return store


def equal(found: dict[str, dict[str, Tensor]], wanted: dict[str, dict[str, Tensor]]) -> None:
    """To the rounding of sums in float64 that are added in another order."""
    assert found.keys() == wanted.keys()
    for kind, tensors in wanted.items():
        assert found[kind].keys() == tensors.keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(
                found[kind][name], tensor, rtol=1e-12, atol=1e-13, msg=f"{kind} {name}"
            )


@pytest.mark.slow  # torchrun, killed
def test_one_process_finishes_what_two_began(root, killed, one_process, tmp_path):
    shutil.copytree(killed, tmp_path / "store")
    assert command.main(arguments(root, tmp_path / "store")) == 0
    equal(artifacts(tmp_path / "store"), one_process)


@pytest.mark.slow  # torchrun, twice
def test_two_processes_killed_and_resumed_equal_one(root, killed, one_process, tmp_path):
    shutil.copytree(killed, tmp_path / "store")
    command = [sys.executable, *TORCHRUN, "-m", "polyrot.streaming"]
    done = subprocess.run(
        [*command, *arguments(root, tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    # Only the first rank prints: a head, a rule, three sites.
    assert len([line for line in done.stdout.splitlines() if line.startswith("|")]) == 5
    assert done.stderr.count("pass 2, scores (tokens): 1600/1600 (100%)") == 1
    equal(artifacts(tmp_path / "store"), one_process)
    assert not checkpoints(tmp_path / "store")


def test_a_rank_that_is_refused_says_who_it_is(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    line = [*arguments(root, tmp_path), "--device-map=auto"]
    assert command.main(line) == 2
    assert capsys.readouterr().err.startswith("rank 1: error: --device-map")


@pytest.mark.parametrize(("size", "status"), [(1, -signal.SIGABRT), (2, 3)])
def test_a_rank_leaves_before_its_interpreter_is_torn_down(size: int, status: int) -> None:
    """What would abort a process at its end, as gloo's threads may, does not reach one of several
    ranks; what it printed is there."""
    code = (
        "import atexit, os; atexit.register(os.abort)\n"
        "from polyrot.streaming.ranks import leave\nprint('done'); leave(3)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "WORLD_SIZE": str(size)},
    )
    assert found.returncode == status, found.stderr
    assert size == 1 or found.stdout == "done\n"
