"""Train everything that the claims need at a scale, outside of pytest and resumable.

`python -m polyrot.workshop --help`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from polyrot.defaults import WIDTH
from polyrot.language import neox
from polyrot.language.architecture import n_heads
from polyrot.runtime import threads
from polyrot.runtime.commands import run
from polyrot.runtime.device import resolve_device
from polyrot.runtime.progress import ConsoleProgress
from polyrot.store import Runtime, Store, check_writable, shipped_with_code
from polyrot.toy import seeds
from polyrot.toy.evaluation import GOAL, lowest
from polyrot.toy.schedule import Schedule
from polyrot.workshop import estimate, plan
from polyrot.workshop.parts import PARTS, parts_of
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop

SHORTER = "shorter-content"


def main(given: Sequence[str] | None = None, prog: str = "python -m polyrot.workshop") -> int:
    """Command line: train one cohort's seeds and dictionaries, or resume them; the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train the seeds of a cohort and its dictionaries into a store, resuming "
        "whatever a killed run left. The claims then only judge.",
    )
    parser.add_argument(
        "scale",
        choices=(*plan.SCALES, SHORTER),
        help=f"the cohort to train; or {SHORTER}, the one toy that is trained on those alone",
    )
    parser.add_argument("--artifacts", type=Path, required=True, help="the store to train into")
    parser.add_argument(
        "--schedule",
        choices=sorted(PROFILES),
        default="shipped",
        help="how long, and by which recipe: shipped (default), as in fixtures/shipped; short and "
        "long, the same with toys for a CPU; text and pipeline, the toys as the paper's "
        "text and its pipeline have them; full, everything at full length; tiny, for trying out",
    )
    parser.add_argument(
        "--device", type=resolve_device, default="cpu", help="auto, cpu (default) or cuda"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument(
        "--parts",
        default=",".join(PARTS),
        help=f"which dictionaries (default all; '' for the seeds alone), of {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--seeds",
        type=_numbers,
        default=(),
        metavar="N,N",
        help="of a toy cohort, these alone and no dictionaries, so that several processes can "
        "share a cohort by one store (default: all seeds, then the dictionaries)",
    )
    parser.add_argument(
        "--retrain",
        action="store_true",
        help="train what is shipped anew, too, in a folder of the store that `pytest claims "
        "--retrain` goes on from (default: what is shipped is read, and the rest trained on it)",
    )
    parser.add_argument(
        "--neox-width",
        type=int,
        default=WIDTH,
        metavar="D",
        help=f"of the language models of {neox.SCALE} (default {WIDTH}; 512 is Pythia-70m's)",
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="say what it would take on this device, by a trial of seconds, and train nothing",
    )
    arguments = parser.parse_args(given)
    if arguments.neox_width != WIDTH:
        _check_width(parser, arguments)
    if arguments.estimate and arguments.scale == SHORTER:
        parser.error(f"--estimate is of a cohort, and {SHORTER} is one model: minutes")
    if arguments.seeds:
        _check_seeds(parser, arguments)
    parts = [p for p in arguments.parts.split(",") if p]
    for part in parts:
        if part not in PARTS:
            parser.error(f"no part {part!r}: one of {', '.join(PARTS)}")
    return run(lambda: _train(arguments, parts))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def _check_seeds(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.scale not in seeds.TOYS:
        parser.error(f"--seeds is of {' and '.join(seeds.TOYS)}, not of {arguments.scale}")
    if arguments.estimate:
        parser.error("--estimate is of a whole cohort, so without --seeds")
    known = seeds.TOYS[arguments.scale].seeds
    for seed in arguments.seeds:
        if seed not in known:
            has = ", ".join(map(str, known))
            parser.error(f"{arguments.scale} has no seed {seed}: its seeds are {has}")


def _check_width(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.scale != neox.SCALE:
        parser.error(f"--neox-width is of scale {neox.SCALE}, not of {arguments.scale}")
    try:
        n_heads(arguments.neox_width)
    except ValueError as error:
        parser.error(f"--neox-width {arguments.neox_width}: {error}")


def _train(arguments: argparse.Namespace, parts: list[str]) -> None:
    check_writable(arguments.artifacts)
    threads.settle(arguments.threads)
    progress = ConsoleProgress()
    profile, width = PROFILES[arguments.schedule], arguments.neox_width
    store = Store(arguments.artifacts, shipped_with_code(), retrain=arguments.retrain)
    runtime = Runtime(store, arguments.device, progress)
    workshop = Workshop(runtime, profile, width, say=progress.say)
    if arguments.estimate:
        pieces = plan.pieces(runtime, profile, width, arguments.scale, parts)
        progress.say(
            estimate.notice(arguments.scale, pieces, store.directory, arguments.device, least=0)
            or f"{arguments.scale}: its models are there"
        )
        return
    if arguments.scale == SHORTER:
        training, made = workshop.shorter_content()
        progress.say(f"{training.name}: lowest accuracy {lowest(made.accuracies, 0):.4%}")
        return
    if arguments.seeds:
        _train_toys(runtime, arguments.scale, profile.toy, arguments.seeds, progress.say)
        return
    workshop.announce_scale(arguments.scale, parts)
    cohort = workshop.cohort(arguments.scale)
    if arguments.scale in seeds.TOYS:
        every = seeds.TOYS[arguments.scale].seeds
        _train_toys(runtime, arguments.scale, profile.toy, every, progress.say)
    for part in parts_of(cohort.facts, parts):
        workshop.train(part, cohort)


def _train_toys(
    runtime: Runtime,
    scale: str,
    schedule: Schedule,
    wanted: Collection[int],
    say: Callable[[str], None],
) -> None:
    """Train the seeds that are wanted, and those that train at once with them; say what came."""
    for each in seeds.trainings(scale, schedule):
        if not set(each.seeds) & set(wanted):
            continue
        _, result = seeds.finished(runtime, each, only=wanted)
        for m, seed in enumerate(each.seeds):
            step = result.reached(m)
            first = f"first {GOAL:.2%} at step {step}" if step else f"never {GOAL:.2%}"
            say(
                f"seed {seed}: lowest accuracy {lowest(result.accuracies, m):.4%}; on the way "
                f"{first}"
            )


if __name__ == "__main__":
    sys.exit(main())
