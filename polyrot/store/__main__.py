"""`python -m polyrot.store`: check, list and ship artifacts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from polyrot.runtime.checkout import NotACheckout, checkout
from polyrot.store.shipped import (
    DamagedArtifact,
    read_manifest,
    ship,
    verify,
    write_manifest,
)

SHIPPED = Path("fixtures") / "shipped"

_STATUS = "Exit status: 0 all is well, 1 something is not, 2 not run in a checkout."


def _parser(prog: str) -> argparse.ArgumentParser:
    about = "Check, list and extend the artifacts that are shipped with the suite. "
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
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m polyrot.store") -> int:
    """The command line; returns the exit status, 0 where all is well."""
    options = _parser(prog).parse_args(arguments)
    try:
        shipped = options.shipped if options.shipped is not None else checkout() / SHIPPED
        return _run(options, shipped)
    except NotACheckout as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (DamagedArtifact, OverflowError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, shipped: Path) -> int:
    if options.command == "verify":
        problems = verify(shipped)
        print("\n".join(problems) or f"{len(read_manifest(shipped))} files, all well")
        return int(bool(problems))
    if options.command == "ship":
        for file in options.files:
            print(ship(file, shipped, options.half))
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
