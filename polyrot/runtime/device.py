"""The device that work runs on: which one was asked for, and what to do where it is full."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BF16 = "bf16 autocast, fp32 weights"
FLOAT32 = "float32"
BY_HARDWARE = "bf16 autocast on CUDA, float32 on CPUs"
"""What a schedule may say of the precision of its products. By hardware, a CPU too takes bf16 where
it has instructions for it and a trial is faster; the artifact says what was taken."""


class NoDevice(argparse.ArgumentTypeError, ValueError):
    """A device that is unknown or not there; `argparse` shows the message as it is."""


def resolve_device(asked: str) -> str:
    """ "cpu" or "cuda", as `asked`; "auto" is CUDA where there is one. Serves as a `type` of
    argparse's.

    Raises NoDevice: another name, CUDA asked for and absent.
    """
    import torch

    if asked not in ("auto", "cpu", "cuda"):
        raise NoDevice(f"{asked}: no such device; name auto, cpu or cuda")
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise NoDevice(f"cuda: torch {torch.__version__} sees no CUDA device; use --device cpu")
    return "cuda" if asked != "cpu" and there else "cpu"


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices by instructions of its own; without them bf16 is
    8 to 28 times slower than float32."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001  # no public name


def precision_of(asked: str, device: torch.device, trial: Callable[[str], Any]) -> str:
    """BF16 or FLOAT32, as the schedule's `asked` means it on this device.

    trial: runs one step in the precision given; called a few times where only a trial can tell.
    Raises ValueError: `asked` is none of BF16, FLOAT32 and BY_HARDWARE.
    """
    if asked in (BF16, FLOAT32):
        return asked
    if asked != BY_HARDWARE:
        raise ValueError(f"no precision {asked!r}: one of {BF16!r}, {FLOAT32!r}, {BY_HARDWARE!r}")
    if device.type == "cuda":
        return BF16
    if not cpu_has_bf16():
        return FLOAT32
    seconds = {}
    for precision in (FLOAT32, BF16):
        trial(precision)
        start = perf_counter()
        trial(precision)
        seconds[precision] = perf_counter() - start
    return min(seconds, key=lambda p: seconds[p])


Stretches = list[list[Any]]
"""[first step, precision] of each stretch of a run, which may be resumed on other hardware."""


def begin_stretch(stretches: Stretches, step: int, precision: str) -> None:
    """Note, in place, that a run works in `precision` from `step` on."""
    if not stretches or stretches[-1][1] != precision:
        stretches.append([step, precision])


@contextlib.contextmanager
def memory_for(what: str, device: torch.device | str, remedy: str) -> Iterator[None]:
    """Where the memory of `device` runs out inside, say what did not fit, and the remedy.

    Raises torch.OutOfMemoryError; one that was raised so further inside is left as it is.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        if isinstance(error.__cause__, torch.OutOfMemoryError):
            raise
        raise torch.OutOfMemoryError(f"{what} does not fit on {device}: {remedy}") from error
