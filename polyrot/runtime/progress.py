"""Progress of long work: a line that rewrites itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Called by long work with how far it is; `note` is a short figure such as the loss."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` of this stage are done."""


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """The progress display that shows nothing."""


def silence(text: str) -> None:
    """Takes a notice and shows nothing."""


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


class ConsoleProgress:
    """Stage, share done, time left. On a terminal every second, elsewhere one line a minute."""

    def __init__(
        self, write: Callable[[str], None] = _to_stderr, *, live: bool | None = None
    ) -> None:
        self._write = write
        self._live = sys.stderr.isatty() if live is None else live
        self._interval = 1.0 if self._live else 60.0
        self._started: dict[str, tuple[float, int]] = {}
        self._shown: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Show a notice on lines of its own."""
        self._write(("\r\x1b[K" if self._live else "") + text + "\n")

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Show how far a stage is, at most once an interval, and its end."""
        now = time.monotonic()
        start, first = self._started.setdefault(stage, (now, done))
        finished = done >= total
        if not finished and now - self._shown.get(stage, -1e9) < self._interval:
            return
        self._shown[stage] = now
        elapsed, advanced = now - start, done - first
        text = f"{stage}: {done}/{total} ({done / max(total, 1):.0%})"
        if finished:
            text += f" in {_duration(elapsed)}"
            del self._started[stage], self._shown[stage]
        elif advanced:
            text += f", {_duration(elapsed * (total - done) / advanced)} left"
        text += f", {note}" if note else ""
        if not self._live:
            self._write(text + "\n")
            return
        self._write(f"\r\x1b[K{text[:110]}" + ("\n" if finished else ""))
