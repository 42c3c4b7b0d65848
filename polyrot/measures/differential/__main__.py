"""`python -m polyrot.measures.differential --pipeline DIR`: the paper's pipeline and this suite."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from polyrot.dictionaries import collection, groups
from polyrot.measures.differential.pipeline import NAMES, Pipeline, opened
from polyrot.measures.differential.quantities import (
    QUANTITIES,
    SEQUENCES,
    TOLERANCE,
    Row,
    Sides,
    compare,
)
from polyrot.runtime.commands import run
from polyrot.runtime.progress import ConsoleProgress
from polyrot.store import Runtime, Store, shipped_with_code
from polyrot.toy import seeds
from polyrot.workshop import plan
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop

_ABOUT = """The differential test: the paper's public pipeline, as it lies in DIR, and this suite
on the same trained toys. Our seeds are put into the pipeline's model class, its functions and ours
are called on the same tokens, and every quantity is shown as it computes it, as we do, and with the
largest difference over its entries. Where the paper's text and its pipeline differ, ours is the
suite's function of the pipeline's reading. This runs the code in DIR, with your rights: name a
directory that you trust. Nothing is written there."""
_END = """What is asked of the pipeline, by name:
{names}

A quantity whose function the pipeline lacks is "not offered", one whose function raises is
"failed"; neither counts as agreement. Exit status: 0 every quantity agrees; 1 some do not; 2 there
is no pipeline in DIR, or an argument cannot be used."""


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {name}{name.called}" for name in NAMES.values())
    parser = argparse.ArgumentParser(
        prog="python -m polyrot.measures.differential",
        description=_ABOUT,
        epilog=_END.format(names=names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--pipeline",
        type=Path,
        required=True,
        metavar="DIR",
        help="a checkout of the paper's pipeline, its src, or the package itself",
    )
    parser.add_argument("--scale", choices=sorted(seeds.TOYS), default="toy_a", help="the cohort")
    parser.add_argument(
        "--seeds",
        metavar="N,...",
        help="which of its seeds (default all); its first, the anchor, always takes part",
    )
    parser.add_argument(
        "--sequences",
        type=int,
        default=SEQUENCES,
        metavar="N",
        help=f"of the score split, and of each distribution for accuracies (default {SEQUENCES:,})",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=list(QUANTITIES),
        metavar="QUANTITY",
        help=f"one quantity; repeat for more (default all: {', '.join(QUANTITIES)})",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="largest difference that is agreement, relative to the quantity's largest entry "
        f"(default {TOLERANCE:g})",
    )
    parser.add_argument(
        "--artifacts",
        type=Path,
        default=Path(platformdirs.user_cache_dir("polyrot")),
        metavar="DIR",
        help="the store of seeds and dictionaries that are not shipped (default: the user's cache)",
    )
    parser.add_argument(
        "--schedule",
        choices=sorted(PROFILES),
        default="shipped",
        help="by which seeds and dictionaries were trained (default shipped)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the figures as JSON in place of a table"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    asked = _parser().parse_args(arguments)
    return run(lambda: _compare(asked), goes_on="")


def _compare(asked: argparse.Namespace) -> int:
    models = _models(asked.scale, asked.seeds)
    if asked.sequences < 8:
        raise ValueError(f"--sequences {asked.sequences}: 8 at least")
    if not asked.tolerance > 0:
        raise ValueError(f"--tolerance {asked.tolerance}: a positive number")
    progress = ConsoleProgress()
    store = Store(asked.artifacts, shipped=shipped_with_code())
    runtime = Runtime(store, "cpu", progress)
    workshop = Workshop(runtime, PROFILES[asked.schedule], say=progress.say)
    with opened(asked.pipeline) as pipeline:
        sides = _sides(workshop, asked.scale, models, asked.sequences, pipeline)
        rows: list[Row] = []
        wanted = asked.only or list(QUANTITIES)
        for done, name in enumerate(wanted):
            progress("differential test", done, len(wanted), name)
            rows += compare(sides, [name])
        progress("differential test", len(wanted), len(wanted))
        used = [sides.cohort.seeds[m] for m in models]
        say = _json if asked.json else _table
        print(say(pipeline.folder, asked.scale, used, asked.sequences, rows, asked.tolerance))
    return int(not all(row.agrees(asked.tolerance) for row in rows))


def _sides(
    workshop: Workshop, scale: str, models: tuple[int, ...], sequences: int, pipeline: Pipeline
) -> Sides:
    """Raises ValueError where seeds or dictionaries are not in the store: here nothing is trained,
    as that may take hours."""
    store, profile = workshop.runtime.store, workshop.profile
    command = (
        f"`polyrot train {scale} --artifacts {store.root}` with the same --schedule makes them"
    )
    for training in plan.missing_toys(workshop.runtime, profile, scale):
        raise ValueError(
            f"seeds {training.name} are neither shipped nor in {store.root}: {command}"
        )
    cohort = workshop.toy_cohort(scale)
    for make in (groups.anchor, groups.own):
        group = make(cohort, profile.dictionaries_of(cohort, make))
        if not store.has(collection.KIND, collection.recipe(cohort, group)):
            raise ValueError(
                f"the dictionaries {group.name!r} of {scale} are neither shipped nor in "
                f"{store.root}: {command}"
            )
    anchors = workshop.named(cohort, groups.anchor)
    others = workshop.named(cohort, groups.own)
    return Sides(
        cohort,
        models,
        {spec.site: dictionary for spec, dictionary in anchors.items()},
        {(spec.model, spec.site): dictionary for spec, dictionary in others.items()},
        pipeline,
        sequences,
    )


def _models(scale: str, asked: str | None) -> tuple[int, ...]:
    """Numbers of the seeds asked for, the anchor first. Raises ValueError for others."""
    known = seeds.TOYS[scale].seeds
    if asked is None:
        return tuple(range(len(known)))
    parts = [part.strip() for part in asked.split(",")]
    unknown = [part for part in parts if part not in map(str, known)]
    if unknown:
        shown = ", ".join(map(str, known))
        raise ValueError(f"--seeds: {scale} has no seed {', '.join(unknown)}; it has {shown}")
    return tuple(sorted({0, *(known.index(int(part)) for part in parts)}))


def _closing(rows: Iterable[Row], tolerance: float) -> str:
    """How many agree, and the others by name."""
    by: dict[str, list[str]] = {}
    for row in rows:
        by.setdefault(row.status(tolerance), []).append(row.name)
    total = sum(map(len, by.values()))
    parts = [
        f"{len(by.get('agrees', []))} of {total} quantities agree within {tolerance:g} of their "
        "largest entry"
    ]
    parts += [
        f"{len(names)} {word}: {', '.join(names)}"
        for status, word in (("differs", "differ"), ("failed", "failed"))
        if (names := by.get(status, []))
    ]
    if missing := by.get("not offered", []):
        parts.append(f"{len(missing)} not offered by the pipeline: {', '.join(missing)}")
    return "; ".join(parts)


def _table(
    folder: Path, scale: str, used: list[int], sequences: int, rows: list[Row], tolerance: float
) -> str:
    shown = ", ".join(map(str, used))
    lines = [
        f"pipeline {folder}",
        f"{scale}, seeds {shown}; {sequences:,} sequences",
        "",
        f"{'quantity (mean of its entries)':<44}{'entries':>11}{'pipeline':>14}{'ours':>14}"
        f"{'difference':>13}",
    ]
    for row in rows:
        status = row.status(tolerance)
        if row.theirs is None or row.ours is None:
            lines.append(f"{row.name:<44}{status}: {row.reason}")
            continue
        lines.append(
            f"{row.name:<44}{row.ours.size:>11,}{row.theirs.mean():>14.6g}{row.ours.mean():>14.6g}"
            f"{row.difference:>13.2g}" + ("" if status == "agrees" else f"  {status}")
        )
    return "\n".join([*lines, "", _closing(rows, tolerance)])


def _json(
    folder: Path, scale: str, used: list[int], sequences: int, rows: list[Row], tolerance: float
) -> str:
    def figures(row: Row) -> dict[str, Any]:
        status = row.status(tolerance)
        if row.theirs is None or row.ours is None:
            return {"quantity": row.name, "status": status, "reason": row.reason}
        return {
            "quantity": row.name,
            "status": status,
            "entries": row.ours.size,
            "pipeline": _finite(float(row.theirs.mean())),
            "ours": _finite(float(row.ours.mean())),
            "difference": _finite(row.difference),
        }

    return json.dumps(
        {
            "pipeline": str(folder),
            "scale": scale,
            "seeds": used,
            "sequences": sequences,
            "tolerance": tolerance,
            "rows": [figures(row) for row in rows],
            "closing": _closing(rows, tolerance),
        },
        indent=1,
    )


def _finite(value: float) -> float | None:
    """JSON has no infinity, and nothing that is no number."""
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main())
