"""Train everything that the claims need at a scale, outside of pytest and resumable.

`python -m polyrot.workshop --help`
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries import collection
from polyrot.language import neox
from polyrot.runtime.device import resolve_device
from polyrot.runtime.progress import ConsoleProgress
from polyrot.store import Store
from polyrot.toy import seeds
from polyrot.toy.evaluation import GOAL, lowest
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop, tell


def _shares_starts(cohort: Cohort) -> bool:
    """Whether the registration asks for the paper's manner of training dictionaries there."""
    return cohort.scale != "toy_b"


PARTS: dict[str, Callable[[Workshop, Cohort], object]] = {
    "anchor": lambda w, c: w.named(c, collection.anchor),
    "sparsity": lambda w, c: w.chosen(c),
    "wide": lambda w, c: w.named(c, collection.wide) if c.scale == "toy_a" else None,
    "untrained": lambda w, c: w.named(w.untrained(c), collection.anchor),
    "published": lambda w, c: w.named(c, collection.published) if _shares_starts(c) else None,
    "noise": lambda w, c: w.named(c, collection.noise) if _shares_starts(c) else None,
    "own": lambda w, c: w.named(c, collection.own),
    "sparse": lambda w, c: w.sparse(c),
    "drift": lambda w, c: (
        w.named(w.checkpoints(c.scale), collection.drift) if c.scale != "toy_b" else None
    ),
}


def main(given: Sequence[str] | None = None) -> None:
    """Command line: train one cohort's seeds and dictionaries, or resume them."""
    parser = argparse.ArgumentParser(
        prog="python -m polyrot.workshop",
        description="Train the seeds of a cohort and its dictionaries into a store, resuming "
        "whatever a killed run left. The claims then only judge.",
    )
    parser.add_argument("scale", choices=[*sorted(seeds.SEEDS), neox.SCALE])
    parser.add_argument("--artifacts", type=Path, required=True, help="the store to train into")
    parser.add_argument("--schedule", choices=sorted(PROFILES), default="shipped")
    parser.add_argument(
        "--device", type=resolve_device, default="cpu", help="auto, cpu (default) or cuda"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument(
        "--parts",
        default=",".join(PARTS),
        help=f"which dictionaries (default all; '' for the seeds alone), of {', '.join(PARTS)}",
    )
    arguments = parser.parse_args(given)
    parts = [p for p in arguments.parts.split(",") if p]
    for part in parts:
        if part not in PARTS:
            parser.error(f"no part {part!r}: one of {', '.join(PARTS)}")
    torch.set_num_threads(arguments.threads)
    progress = ConsoleProgress()
    workshop = Workshop(
        Store(arguments.artifacts),
        PROFILES[arguments.schedule],
        arguments.device,
        progress,
        say=progress.say,
    )
    tell(workshop, arguments.scale, parts)
    cohort = workshop.cohort(arguments.scale)
    if arguments.scale in seeds.SEEDS:
        for each in seeds.trainings(arguments.scale, workshop.profile.toy):
            _, result = seeds.finished(workshop.store, each)
            for m, seed in enumerate(each.seeds):
                step = result.reached(m)
                first = f"first {GOAL:.2%} at step {step}" if step else f"never {GOAL:.2%}"
                progress.say(
                    f"seed {seed}: lowest accuracy {lowest(result.accuracies, m):.4%}; on the way "
                    f"{first}"
                )
    for part in parts:
        PARTS[part](workshop, cohort)


if __name__ == "__main__":
    main()
