"""``python -m polyrot.report``: compare runs, build a page, fill the README, measure power."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from polyrot.runtime.checkout import checkout
from polyrot.runtime.commands import run
from polyrot.runtime.progress import ConsoleProgress

_COMPARE = """What changed between two runs, verdict by verdict, as Markdown. Exit status: 0 no
verdict changed, 1 one did (also: one that was judged in one run only), 2 a file that is no record
of this version."""
_HTML = """Write index.html and the figures from verdicts.json, and from figures.json beside it
where that is there."""
_POWER = """Measure the power of the Haar tests that the report shows, and keep it in the package.
Minutes at d = 64, half an hour at d = 512."""


_KEEP = """Keep the record of a run of other models (wider, longer, on another device) beside the
ledger, in the checkout. `readme` then shows it in claims/RECORDS.md, and every report names it."""
_README = """Write what the ledger, claims/verdicts.toml, says into README.md, claims/LIMITS.md and
claims/VERDICTS.md, and claims/RECORDS.md of the runs beside it, and draw the README's pictures."""


def _parser(prog: str) -> argparse.ArgumentParser:
    about = "Compare runs, build a page, fill the README, measure power."
    parser = argparse.ArgumentParser(prog=prog, description=about)
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("compare", help="what changed", description=_COMPARE)
    compare.add_argument("before", type=Path, metavar="A.json", help="the record of a run")
    compare.add_argument("after", type=Path, metavar="B.json", help="the record of a later one")
    html = commands.add_parser("html", help="the page of a record", description=_HTML)
    html.add_argument("record", type=Path, metavar="verdicts.json", help="the record of a run")
    html.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="where to write (default: beside the record)"
    )
    power = commands.add_parser("power", help="power of the Haar tests", description=_POWER)
    power.add_argument("--d", type=int, default=64, help="a power of two (default 64)")
    power.add_argument("--draws", type=int, default=1000, help="matrices a row (default 1000)")
    power.add_argument(
        "--null-draws", type=int, default=20_000, help="draws of the null tables (default 20000)"
    )
    keep = commands.add_parser("keep", help="keep a run beside the ledger", description=_KEEP)
    keep.add_argument("record", type=Path, metavar="verdicts.json", help="the record of the run")
    keep.add_argument("--name", required=True, help="such as neox512-h200")
    readme = commands.add_parser("readme", help="the README's account", description=_README)
    for writes in (keep, readme):
        writes.add_argument(
            "--root",
            type=Path,
            metavar="DIR",
            help="the checkout (default: that in which the working directory lies)",
        )
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "python -m polyrot.report") -> int:
    """Run the command line; returns the exit status."""
    args = _parser(prog).parse_args(argv)
    work = {
        "compare": _compare,
        "html": _html,
        "keep": _keep,
        "power": _power,
        "readme": _readme,
    }
    return run(lambda: work[args.command](args), goes_on="")


def _compare(args: argparse.Namespace) -> int:
    from polyrot.report.compare import compare
    from polyrot.report.record import read_record

    found = compare(read_record(args.before), read_record(args.after))
    print(found.markdown(str(args.before), str(args.after)))
    return int(found.changed)


def _html(args: argparse.Namespace) -> int:
    from polyrot.report.html import write_page_of

    folder = args.out if args.out is not None else args.record.parent
    print(write_page_of(args.record, folder))
    return 0


def _keep(args: argparse.Namespace) -> int:
    from polyrot.report.records import keep

    print(keep(args.record, args.name, args.root if args.root is not None else checkout()))
    return 0


def _power(args: argparse.Namespace) -> int:
    from polyrot.haar.power import power_table
    from polyrot.report.figures import power

    given = f"--d {args.d} --draws {args.draws} --null-draws {args.null_draws}"
    found = power_table(args.d, args.draws, null_draws=args.null_draws, progress=ConsoleProgress())
    command = f"python -m polyrot.report power {given}"
    power.keep(power.Power.of(found, date.today().isoformat(), command))
    print(found)
    return 0


def _readme(args: argparse.Namespace) -> int:
    from polyrot.report.readme import write

    for path in write(args.root if args.root is not None else checkout()):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
