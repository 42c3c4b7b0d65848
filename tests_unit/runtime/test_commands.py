"""Command lines: an error is one line, and who is stopped says that the same command goes on."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from polyrot.runtime.commands import Terminated, run, status_of, terminable
from polyrot.runtime.files import Unwritable

WAITS = """
    import sys, time
    from polyrot.runtime.commands import run
    def work():
        try:
            print("waits", flush=True)
            time.sleep(60)
        finally:
            print("cleaned up", flush=True)
    sys.exit(run(work))
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_stopped_command_cleans_up_and_says_that_the_same_goes_on(
    number: signal.Signals, status: int
) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WAITS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        # A shell in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "waits\n"
    command.send_signal(number)
    out, error = command.communicate(timeout=300)
    assert out == "cleaned up\n"
    assert error == "\ninterrupted: the same command goes on from the last save\n"
    assert command.returncode == status


def test_an_error_is_one_line_and_what_is_no_error_of_the_user_is_raised(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def raising(error: Exception) -> int:
        def work() -> None:
            raise error

        return run(work)

    assert raising(ValueError("no such thing")) == 2
    assert raising(Unwritable(13, "x cannot be written")) == 2
    assert capsys.readouterr().err == "error: no such thing\nerror: x cannot be written\n"
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError())
    assert run(lambda: 3) == 3
    assert run(lambda: None) == 0


def test_the_signal_is_given_back_and_not_taken_from_another() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(Terminated) as stopped, terminable():
            signal.raise_signal(signal.SIGTERM)
        assert status_of(stopped.value) == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with terminable():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


SHIPPED = str(Path(__file__).parents[2] / "fixtures" / "shipped")
COMMANDS = {
    "polyrot.store.__main__": ("_look_after", ["cache"]),
    "polyrot.dictionaries.__main__": ("_list", []),
    "polyrot.dictionaries.loading.__main__": ("_save", ["file", "out", "--site=resid_pre_0"]),
    "polyrot.measures.differential.__main__": ("_compare", ["--pipeline=."]),
    "polyrot.measures.porting_command": ("_run", ["A", "B"]),
}
"""Module: what does its work, and arguments with which it would."""


@pytest.mark.parametrize(("error", "status"), [(Terminated, 143), (KeyboardInterrupt, 130)])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_is_stopped_says_so(
    name: str,
    error: type[KeyboardInterrupt],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: object) -> None:
        raise error

    module, (work, arguments) = importlib.import_module(name), COMMANDS[name]
    monkeypatch.setattr(module, work, stopped)
    assert module.main(arguments) == status
    assert capsys.readouterr() == ("", "\ninterrupted\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "polyrot.store", "list", "--shipped", SHIPPED],
        ["-m", "polyrot.dictionaries", SHIPPED],
        ["-c", "import sys; from polyrot.runtime.commands import run; sys.exit(run(print))"],
    ],
    ids=["store", "dictionaries", "little"],
)
def test_a_reader_that_has_gone_is_no_error(arguments: list[str]) -> None:
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**buffered, "PYTHONPATH": str(Path(__file__).parents[2])},
            timeout=300,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
