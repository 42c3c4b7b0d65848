"""What long work will cost, said before it begins: time by a trial on this device, and disk.

The trial runs forward and backward of the very programs that will train, as they are without
torch.compile, on data of the right shape: a second or two for each kind of work.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from polyrot.dictionaries import training as dictionary_training
from polyrot.dictionaries.collection import AT_ONCE
from polyrot.dictionaries.groups import Group
from polyrot.language import corpus, seeds as language_seeds, training as language_training
from polyrot.language.architecture import neox_config
from polyrot.toy import seeds as toy_seeds, training as toy_training, transformer

WORTH_SAYING = 30.0
"""Seconds below which work begins without a word."""
TRIAL_SECONDS = 1.5
LONG_ENOUGH = 10 * TRIAL_SECONDS
_FEW_SEQUENCES = 4
MIB = 2**20


@dataclass(frozen=True)
class Piece:
    """Work of one kind: `count` models or dictionaries, `steps` each. seconds, bytes: of all."""

    what: str
    count: int
    steps: int
    seconds: float
    bytes: int


def seconds_a_step(step: Callable[[], object], device: str = "cpu") -> float:
    """Wall seconds of one call, the mean over `TRIAL_SECONDS` and one call at least, after a first
    one that is not counted, unless it took so long that what comes once with it is little."""
    start = time.perf_counter()
    step()
    _wait(device)
    first = time.perf_counter() - start
    if first >= LONG_ENOUGH:
        return first
    start, calls = time.perf_counter(), 0
    while True:
        step()
        calls += 1
        _wait(device)
        elapsed = time.perf_counter() - start
        if elapsed >= TRIAL_SECONDS:
            return elapsed / calls


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def dictionaries(group: Group, width: int, device: str, at_once: int | None = None) -> Piece:
    """The dictionaries of one group, so many at once (default: as they are trained)."""
    count, features = len(group.specs), group.expansion * width
    at_once = min(at_once or count, AT_ONCE[device])
    step = dictionary_training.trial_step(at_once, width, features, group.schedule, device)
    seconds = seconds_a_step(step, device) * group.schedule.steps * count / at_once
    floats = 2 * width * features + features + 2 * width
    what = f"dictionary at {group.expansion}x"
    return Piece(what, count, group.schedule.steps, seconds, 4 * floats * count)


def toys(each: toy_seeds.Training, device: str) -> Piece:
    """One training of toy seeds, all of them at once; the first seed is kept on its way."""
    count, trial = len(each.seeds), toy_training.trial_step
    steps = each.schedule.steps - each.schedule.begin
    seconds = seconds_a_step(trial(count, each.schedule, torch.device(device)), device) * steps
    parameters = sum(math.prod(shape) for shape in transformer.shapes().values())
    kept = count + len(each.snapshot_at)
    return Piece("seed", count, steps, seconds, 4 * parameters * kept)


def language_models(each: Sequence[language_seeds.Training], device: str) -> Piece:
    """Language models of one width and schedule, one after another. On a CPU, where a step of a
    wide one takes minutes, one of few sequences is timed and counted as often as it fits in."""
    from transformers import GPTNeoXForCausalLM

    width, schedule = each[0].width, each[0].schedule
    few = min(schedule.batch, _FEW_SEQUENCES) if device == "cpu" else schedule.batch
    step = language_training.trial_step(
        width, corpus.VOCABULARY, corpus.CONTEXT, replace(schedule, batch=few), device
    )
    seconds = seconds_a_step(step, device) * schedule.batch / few * schedule.steps * len(each)
    with torch.device("meta"):
        config = neox_config(width, corpus.VOCABULARY, corpus.CONTEXT)
        parameters = sum(p.numel() for p in GPTNeoXForCausalLM(config).parameters())
    snapshots = len(language_training.snapshot_steps(schedule.steps)) - 1
    kept = sum(1 + snapshots * t.keeps_snapshots for t in each)
    return Piece("language model", len(each), schedule.steps, seconds, parameters * kept)


def duration(seconds: float) -> str:
    """About how long, as one says it: "40 s", "12 min", "1 h 40 min", "31 h"."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 10 else f"{round(minutes / 60)} h"


def notice(
    scale: str, pieces: Sequence[Piece], folder: Path, device: str, least: float = WORTH_SAYING
) -> str:
    """One or two lines on what is to be built at a scale; "" where that takes fewer seconds than
    `least`, or nothing is to be built.

    The second line warns that the disk which holds `folder` has no room for it.
    """
    seconds = sum(piece.seconds for piece in pieces)
    if not pieces or seconds < least:
        return ""
    counted: dict[tuple[str, int], int] = {}
    for piece in pieces:
        key = piece.what, piece.steps
        counted[key] = counted.get(key, 0) + piece.count
    work = ", ".join(f"{n:,} x {what} ({steps:,} steps)" for (what, steps), n in counted.items())
    size, free = sum(piece.bytes for piece in pieces), _free(folder)
    text = (
        f"to build at {scale}: {work}: about {duration(seconds)} on "
        f"{device} by a trial, {size / MIB:.1f} MiB in {folder} ({free / 2**30:.1f} GiB free)"
    )
    if size > free:
        text += "\nWARNING: they will not fit; make room, or choose another --artifacts DIR"
    return text


def _free(folder: Path) -> int:
    """Bytes free on the disk that holds `folder`, whether or not it is there yet."""
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free
