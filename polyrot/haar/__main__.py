"""``python -m polyrot.haar``: the power table, and the battery on a matrix in a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from polyrot.haar.alternatives import ALTERNATIVES
from polyrot.haar.battery import haar_batteries, holm
from polyrot.haar.nulls import DEFAULT_DRAWS, NULL_SEED
from polyrot.haar.power import power_table
from polyrot.maps.files import read_array
from polyrot.runtime.commands import run
from polyrot.runtime.files import check_folder
from polyrot.runtime.progress import ConsoleProgress

_POWER = """Estimate by simulation how often each test rejects orthogonal matrices that are not
Haar: the seven statistics of the battery, the battery itself, and the published criteria. The row
"Haar" is the size: how often a true Haar matrix is rejected. Prints a table to standard output and
progress to standard error; with --out also writes haar_power_d<d>.svg and .png. At d = 64 the
defaults take some minutes; cost grows as d^3, so use --draws 50 --null-draws 4000 at
d = 512."""
_BATTERY = """Run the Haar battery on the orthogonal matrix [d, d], or stack [n, d, d], in a
file. With a stack the p-values are also corrected by Holm. Exit status: 0 not rejected, 1 rejected,
2 error."""


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Is this orthogonal matrix Haar?")
    commands = parser.add_subparsers(dest="command", required=True)
    power = commands.add_parser("power", help="power of every test", description=_POWER)
    power.add_argument("--d", type=int, default=64, help="dimension (default 64)")
    power.add_argument("--draws", type=int, default=1000, help="matrices per row (default 1000)")
    power.add_argument(
        "--alternative",
        action="append",
        choices=list(ALTERNATIVES),
        metavar="NAME",
        help=f"one row; repeat for more (default all: {', '.join(ALTERNATIVES)})",
    )
    power.add_argument("--seed", type=int, default=0, help="of the matrices (default 0)")
    power.add_argument("--level", type=float, default=0.01, help="level (default 0.01)")
    power.add_argument("--out", type=Path, metavar="DIR", help="where to write the figure")
    battery = commands.add_parser("battery", help="test a matrix", description=_BATTERY)
    battery.add_argument(
        "file", type=Path, metavar="FILE", help="the matrix: .npy, .npz or .safetensors"
    )
    battery.add_argument("--name", help="which array, where the file holds several")
    battery.add_argument("--alpha", type=float, default=0.01, help="level (default 0.01)")
    for command in (power, battery):
        command.add_argument(
            "--null-draws",
            type=int,
            default=DEFAULT_DRAWS,
            help=f"draws of the null tables (default {DEFAULT_DRAWS})",
        )
        command.add_argument(
            "--null-seed", type=int, default=NULL_SEED, help="seed of the null tables"
        )
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "python -m polyrot.haar") -> int:
    """Run the command line; returns the exit status."""
    args = _parser(prog).parse_args(argv)
    work = _power if args.command == "power" else _battery
    return run(lambda: work(args), goes_on="")


def _power(args: argparse.Namespace) -> int:
    from polyrot.haar.figure import write_power_figure

    if args.out is not None:  # before the minutes that it takes
        check_folder(args.out)
    table = power_table(
        args.d,
        args.draws,
        args.seed,
        args.alternative,
        args.level,
        null_draws=args.null_draws,
        null_seed=args.null_seed,
        progress=ConsoleProgress(),
    )
    print(table)
    if args.out is not None:
        for path in write_power_figure(table, args.out):
            print(path)
    return 0


def _battery(args: argparse.Namespace) -> int:
    r = read_array(args.file, args.name)
    results = haar_batteries(r, draws=args.null_draws, seed=args.null_seed, alpha=args.alpha)
    print("\n\n".join(map(str, results)))
    adjusted = holm([b.p_value for b in results])
    if len(results) > 1:
        shown = ", ".join(f"{p:.3g}" for p in adjusted)
        print(f"\nHolm-adjusted over {len(results)} matrices: {shown}")
    return int(bool((adjusted <= args.alpha).any()))


if __name__ == "__main__":
    sys.exit(main())
