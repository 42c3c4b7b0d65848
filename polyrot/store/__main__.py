"""`python -m polyrot.store`: check, list and ship artifacts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from polyrot.store.file import (
    StoreFull,
)
from polyrot.store.shipped import (
    DamagedArtifact,
    read_manifest,
    ship,
    verify,
    write_manifest,
)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 where all is well."""
    about = "Check, list and extend the artifacts that are shipped with the suite."
    parser = argparse.ArgumentParser(prog="python -m polyrot.store", description=about)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (
        ("verify", "check every shipped file against the manifest"),
        ("list", "list the shipped files"),
        ("ship", "copy artifacts of a cache into the shipped directory, rewrite the manifest"),
    ):
        sub = commands.add_parser(command, help=text, description=text)
        sub.add_argument("--shipped", type=Path, default=Path("fixtures/shipped"), metavar="DIR")
        if command == "ship":
            sub.add_argument("files", type=Path, nargs="+", metavar="FILE")
            sub.add_argument("--half", action="store_true", help="store float tensors as float16")
    options = parser.parse_args(arguments)
    try:
        if options.command == "verify":
            problems = verify(options.shipped)
            print("\n".join(problems) or f"{len(read_manifest(options.shipped))} files, all well")
            return int(bool(problems))
        if options.command == "ship":
            for file in options.files:
                print(ship(file, options.shipped, options.half))
            write_manifest(options.shipped)
        else:
            for file, entry in read_manifest(options.shipped).items():
                print(f"{entry['bytes']:>10}  {entry['when']}  {entry['seconds']:>8} s  {file}")
    except (DamagedArtifact, OverflowError, StoreFull) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
