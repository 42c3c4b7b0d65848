"""What every command line has in common: an error is one line, and an end from outside says that
the same command goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

GOES_ON = "the same command goes on from the last save"


class Terminated(KeyboardInterrupt):
    """SIGTERM, so that whoever cleans up after Ctrl-C does so after this, too."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within it SIGTERM raises Terminated, as Ctrl-C raises KeyboardInterrupt. Only in the main
    thread can it; elsewhere, and where somebody else has asked for the signal, nothing changes."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def status_of(interrupted: KeyboardInterrupt) -> int:
    """The exit status of a command that a signal ended: 128 and the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(interrupted, Terminated) else signal.SIGINT)


def run(
    work: Callable[[], int | None],
    errors: tuple[type[Exception], ...] = (ValueError, OSError),
    goes_on: str = GOES_ON,
) -> int:
    """The exit status of `work`: what it returns, 2 after one of `errors`, which is told in one
    line, 130 or 143 after Ctrl-C or SIGTERM, with what the same command does then."""
    try:
        with terminable():
            status = int(work() or 0)
            sys.stdout.flush()  # here, not at the interpreter's end, where nobody tells the error
            return status
    except BrokenPipeError:  # such as `| head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except errors as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupted:
        said = f"interrupted: {goes_on}" if goes_on else "interrupted"
        print(f"\n{said}", file=sys.stderr)
        return status_of(interrupted)
