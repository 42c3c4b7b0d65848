"""The device that work runs on: which one was asked for, and what to do where it is full."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

import torch


class NoDevice(argparse.ArgumentTypeError, ValueError):
    """A device that is unknown or not there; `argparse` shows the message as it is."""


def resolve_device(asked: str) -> str:
    """ "cpu" or "cuda", as `asked`; "auto" is CUDA where there is one. Serves as a `type` of
    argparse's.

    Raises NoDevice: another name, CUDA asked for and absent.
    """
    if asked not in ("auto", "cpu", "cuda"):
        raise NoDevice(f"{asked}: no such device; name auto, cpu or cuda")
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise NoDevice(f"cuda: torch {torch.__version__} sees no CUDA device; use --device cpu")
    return "cuda" if asked != "cpu" and there else "cpu"


@contextlib.contextmanager
def memory_for(what: str, device: torch.device | str, remedy: str) -> Iterator[None]:
    """Where the memory of `device` runs out inside, say what did not fit, and the remedy.

    Raises torch.OutOfMemoryError; one that was told so further inside is left as it is.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        if isinstance(error.__cause__, torch.OutOfMemoryError):
            raise
        raise torch.OutOfMemoryError(f"{what} does not fit on {device}: {remedy}") from error
