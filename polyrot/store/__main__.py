"""`python -m polyrot.store`: check, list and ship artifacts; list and prune a cache."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import platformdirs

from polyrot.runtime.checkout import NotACheckout, checkout
from polyrot.runtime.commands import run
from polyrot.store import cache
from polyrot.store.shipped import (
    SHIPPED,
    DamagedArtifact,
    read_manifest,
    ship,
    verify,
    write_manifest,
)

_CACHE_STATUS = "Exit status: 0, or 1 where the cache cannot be used."
_STATUS = "Exit status: 0 all is well, 1 something is not, 2 not run in a checkout."


def _parser(prog: str) -> argparse.ArgumentParser:
    about = (
        "Check, list and extend the artifacts that are shipped with the suite; look after a cache. "
    )
    parser = argparse.ArgumentParser(prog=prog, description=about + _STATUS)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (
        ("verify", "check every shipped file against the manifest"),
        ("list", "list the shipped files"),
        ("ship", "copy artifacts of a cache into the shipped directory, rewrite the manifest"),
    ):
        sub = commands.add_parser(command, help=text, description=f"{text.capitalize()}. {_STATUS}")
        sub.add_argument(
            "--shipped",
            type=Path,
            metavar="DIR",
            help=f"the shipped directory (default: {SHIPPED.as_posix()} of the checkout that the "
            "working directory lies in)",
        )
        if command == "ship":
            sub.add_argument(
                "files", type=Path, nargs="+", metavar="FILE", help="artifacts of a cache to ship"
            )
            sub.add_argument("--half", action="store_true", help="store float tensors as float16")
            sub.add_argument(
                "--without",
                default="",
                metavar="NAME",
                help="leave out tensors whose names begin so (`snapshot.`: a toy's weights on its "
                "way, of which tables are shipped in their place)",
            )
    _add_cache(commands)
    return parser


def _add_cache(commands: Any) -> None:
    listing = commands.add_parser(
        "cache",
        help="list what lies in a cache, by kind",
        description=f"List what lies in a cache, by kind. {_CACHE_STATUS}",
    )
    prune = commands.add_parser(
        "prune",
        help="take away what a cache no longer needs",
        description="Take away what a cache no longer needs: leftover locks and temporary files, "
        "and artifacts that are shipped as well; more where it is asked for. What a process is "
        f"building stays. Says what it would do, and does it with --yes. {_CACHE_STATUS}",
    )
    for command in (listing, prune):
        command.add_argument(
            "cache",
            type=Path,
            nargs="?",
            default=Path(platformdirs.user_cache_dir("polyrot")),
            metavar="DIR",
            help="the cache, as in --artifacts (default: the user's)",
        )
    prune.add_argument(
        "--kind", action="append", default=[], help="artifacts of this kind; repeat for more"
    )
    prune.add_argument(
        "--older-than",
        type=float,
        metavar="DAYS",
        help="only what was not written for so long; without --kind, of every kind",
    )
    prune.add_argument(
        "--unfinished", action="store_true", help="checkpoints of unfinished builds too"
    )
    prune.add_argument("--yes", action="store_true", help="do it")


def main(arguments: Sequence[str] | None = None, prog: str = "python -m polyrot.store") -> int:
    """The command line; returns the exit status, 0 where all is well."""
    options = _parser(prog).parse_args(arguments)
    return run(lambda: _answered(options), errors=(OSError,), goes_on="")


def _answered(options: argparse.Namespace) -> int:
    """The exit status, 1 after an error of the files; raises what `run` tells."""
    try:
        if options.command in ("cache", "prune"):
            return _look_after(options)
        shipped = options.shipped if options.shipped is not None else checkout() / SHIPPED
        return _run(options, shipped)
    except (NotACheckout, BrokenPipeError):
        raise
    except (DamagedArtifact, OverflowError, KeyError, OSError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"error: {text}", file=sys.stderr)
        return 1


def _look_after(options: argparse.Namespace) -> int:
    files = cache.kept(options.cache)
    if not options.cache.is_dir():
        raise FileNotFoundError(f"{options.cache}: there is no such directory")
    if options.command == "cache":
        print("\n".join(cache.by_kind(files)))
        return 0
    if unknown := set(options.kind) - {each.kind for each in files}:
        there = ", ".join(sorted({each.kind for each in files})) or "nothing"
        raise FileNotFoundError(f"no {', '.join(sorted(unknown))} in {options.cache}: {there}")
    found = cache.superfluous(
        files,
        shipped=_shipped_keys(),
        kinds=options.kind,
        older_than=options.older_than,
        unfinished=options.unfinished,
    )
    print("\n".join(cache.by_kind(found)))
    if not options.yes:
        print("nothing was removed; --yes removes these")
        return 0
    for each in found:
        each.path.unlink(missing_ok=True)
    print("removed")
    return 0


def _shipped_keys() -> set[str]:
    """Of the checkout that the working directory lies in; none outside of one."""
    try:
        entries = read_manifest(checkout() / SHIPPED)
    except NotACheckout:
        return set()
    return {entry["fingerprint"][:16] for entry in entries.values()}


def _run(options: argparse.Namespace, shipped: Path) -> int:
    if options.command == "verify":
        problems = verify(shipped)
        print("\n".join(problems) or f"{len(read_manifest(shipped))} files, all well")
        return int(bool(problems))
    if options.command == "ship":
        copied: list[Path] = []
        try:
            for file in options.files:
                copied.append(ship(file, shipped, options.half, options.without))
                print(copied[-1])
        finally:
            if copied:  # they are listed, should a later one be refused
                write_manifest(shipped)
        return 0
    entries = read_manifest(shipped)
    if not entries:
        raise DamagedArtifact(f"nothing is shipped in {shipped}: there is no manifest")
    for file, entry in entries.items():
        print(f"{entry['bytes']:>10}  {entry['when']}  {entry['seconds']:>8} s  {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
