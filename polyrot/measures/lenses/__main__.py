"""`python -m polyrot.measures.lenses --seed 0`: one toy seed through the five lenses."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import platformdirs

from polyrot.measures.lenses.account import account
from polyrot.measures.lenses.lenses import measure_lenses, transcoder_quality
from polyrot.runtime.commands import run
from polyrot.runtime.device import resolve_device
from polyrot.runtime.progress import ConsoleProgress
from polyrot.store import Runtime, Store, check_writable, shipped_with_code
from polyrot.toy import seeds
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m polyrot.measures.lenses",
        description="Look at one toy seed through the five lenses and print what they show. Seeds "
        "and transcoders that are neither shipped nor cached are trained first.",
    )
    known = [seed for toy in seeds.TOYS.values() for seed in toy.seeds]
    parser.add_argument("--seed", type=int, choices=known, default=0)
    parser.add_argument(
        "--artifacts",
        type=Path,
        default=Path(platformdirs.user_cache_dir("polyrot")),
        help="the store (default: the user's cache)",
    )
    parser.add_argument("--schedule", choices=sorted(PROFILES), default="shipped")
    parser.add_argument(
        "--device", type=resolve_device, default="cpu", help="auto, cpu (default) or cuda"
    )
    parser.add_argument("--no-transcoders", action="store_true", help="train no transcoders")
    asked = parser.parse_args(arguments)
    return run(lambda: _look(asked))


def _look(asked: argparse.Namespace) -> None:
    check_writable(asked.artifacts)
    scale = next(name for name, toy in seeds.TOYS.items() if asked.seed in toy.seeds)
    store = Store(asked.artifacts, shipped=shipped_with_code())
    runtime = Runtime(store, asked.device, ConsoleProgress())
    workshop = Workshop(runtime, PROFILES[asked.schedule])
    cohort = workshop.toy_cohort(scale)
    model = cohort.seeds.index(asked.seed)
    found = measure_lenses(workshop, cohort, model)
    quality = None if asked.no_transcoders else transcoder_quality(workshop, cohort, model)
    print(account(found, quality))


if __name__ == "__main__":
    sys.exit(main())
