"""The command `polyrot`: one name for the commands of the rooms, and `compare` for two files.

Nothing heavy is imported before it is known what is asked: the help of `polyrot` and of `compare`
comes without torch.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from polyrot import __version__

#: The commands of the rooms: what each is for, and the module whose `main` it is.
ROOMS = {
    "haar": ("is an orthogonal matrix Haar? the battery, and its power", "polyrot.haar.__main__"),
    "pair": (
        "does A's dictionary work on B, and carry it there",
        "polyrot.measures.porting_command",
    ),
    "report": ("compare two runs, build a page, fill the README", "polyrot.report.__main__"),
    "store": ("check, list and ship artifacts", "polyrot.store.__main__"),
    "study": ("questions beside the claims: train, measure, write", "polyrot.studies.__main__"),
    "train": ("train the seeds and dictionaries of a scale", "polyrot.workshop.__main__"),
}

_ABOUT = """Are two networks' activations one structure, seen through a rotation? The claims
themselves are run by `pytest claims` in a checkout. `polyrot COMMAND --help` explains every
argument of a command."""

_COMPARE = """Compare the activations of two models on the same tokens: A, the sibling, is carried
to B, the anchor. Prints how well A predicts B as it is, mean-shifted, rotated, scaled, by
covariances alone, by the best affine map and by the null; linear CKA; and how far the rotation is
determined.
Maps are fitted on half of the rows and scored on the rest. Exit status: 0, or 2 for input that
cannot be used."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="polyrot", description=_ABOUT)
    parser.add_argument("--version", action="version", version=f"polyrot {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    compare = commands.add_parser(
        "compare", help="compare two activation matrices", description=_COMPARE
    )
    kinds = ".npy, .npz or .safetensors"
    compare.add_argument(
        "a", type=Path, metavar="A", help=f"activations [tokens, d] of the sibling: {kinds}"
    )
    compare.add_argument(
        "b", type=Path, metavar="B", help="activations of the anchor: row i is the same token"
    )
    for side in "ab":
        compare.add_argument(
            f"--name-{side}",
            metavar="NAME",
            help=f"which array of {side.upper()}, where the file holds several",
        )
    compare.add_argument(
        "--sae",
        type=Path,
        metavar="DIR",
        help="the anchor's dictionary, a directory in SAELens's format: explained variances "
        "through it are given as well",
    )
    compare.add_argument(
        "--sae-of-a",
        type=Path,
        metavar="DIR",
        help="the sibling's dictionary, for the decoder cosine (needs --sae)",
    )
    compare.add_argument(
        "--groups",
        type=Path,
        metavar="FILE",
        help="[tokens], the sequence of each row, whole numbers in a .npy file: rows of a "
        "sequence are not split between fit and score",
    )
    compare.add_argument(
        "--seed", type=int, default=0, help="of the split and the nulls (default 0)"
    )
    compare.add_argument(
        "--no-reflection", action="store_true", help="allow rotations of determinant +1 alone"
    )
    compare.add_argument(
        "--json", action="store_true", help="print the figures as JSON in place of a table"
    )
    for name, (text, _) in ROOMS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in ROOMS:
        room = importlib.import_module(ROOMS[given[0]][1])
        return int(room.main(given[1:], prog=f"polyrot {given[0]}") or 0)
    return _compare(_parser().parse_args(given))


def _compare(options: argparse.Namespace) -> int:
    import json

    from polyrot.dictionaries.loading import load_sae
    from polyrot.maps.files import read_array
    from polyrot.measures.comparison import compare
    from polyrot.runtime.commands import run

    def work() -> None:
        if options.sae_of_a is not None and options.sae is None:
            raise ValueError("--sae-of-a is compared with the anchor's dictionary: give --sae too")
        found = compare(
            read_array(options.a, options.name_a),
            read_array(options.b, options.name_b),
            None if options.sae is None else load_sae(options.sae).dictionary,
            sae_of_a=None if options.sae_of_a is None else load_sae(options.sae_of_a).dictionary,
            groups=None if options.groups is None else read_array(options.groups),
            seed=options.seed,
            allow_reflection=not options.no_reflection,
        )
        print(json.dumps(found.to_dict(), indent=1) if options.json else found)

    return run(work, goes_on="")


def script() -> NoReturn:
    """The console script. Ctrl-C while a command is still being imported ends it as one later."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
