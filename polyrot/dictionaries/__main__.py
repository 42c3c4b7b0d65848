"""`python -m polyrot.dictionaries`: how good every shipped dictionary is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from polyrot.dictionaries.loading import BadDictionary, read_group
from polyrot.runtime.checkout import NotACheckout, checkout
from polyrot.runtime.commands import run
from polyrot.store import SHIPPED


def main(arguments: list[str] | None = None) -> int:
    """Print EV, L0 and dead share of every dictionary group below a directory; returns the exit
    status."""
    parser = argparse.ArgumentParser(
        prog="python -m polyrot.dictionaries",
        description="Explained variance, mean active features (L0) and dead share of every "
        "dictionary, measured on its own model's fit split when it was trained.",
    )
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        help="a cache, or shipped artifacts (default: those of the checkout)",
    )
    given = parser.parse_args(arguments).directory
    return run(lambda: _list(parser, given), goes_on="")


def _list(parser: argparse.ArgumentParser, given: Path | None) -> None:
    try:
        directory = given if given is not None else checkout() / SHIPPED
    except NotACheckout as error:
        parser.error(str(error))
    # Checkpoints of unfinished groups are hidden files.
    files = sorted(directory.glob("dictionaries/[!.]*.safetensors"))
    if not files:
        parser.error(f"no dictionaries below {directory}")
    print(
        f"{'group':<24}{'model':>6}  {'site':<14}{'start':>6}{'l1':>9}{'EV':>9}{'L0':>8}{'dead':>7}"
    )
    for file in files:
        try:
            head, _ = read_group(file)
        except BadDictionary as error:
            parser.error(str(error))
        for spec, q in zip(head["recipe"]["specs"], head["meta"]["quality"], strict=True):
            model, site, start, l1 = spec
            print(
                f"{head['name']:<24}{model:>6}  {site:<14}{start:>6}{l1:>9.3g}"
                f"{q['ev']:>9.4f}{q['l0']:>8.1f}{q['dead']:>7.1%}"
            )


if __name__ == "__main__":
    sys.exit(main())
