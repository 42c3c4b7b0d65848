"""Run a study, or write its page from its record.

`polyrot study --help`
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from polyrot.runtime import threads
from polyrot.runtime.checkout import checkout
from polyrot.runtime.commands import run
from polyrot.runtime.device import resolve_device
from polyrot.runtime.files import write_atomically
from polyrot.runtime.progress import ConsoleProgress
from polyrot.store import SHIPPED, Runtime, Store, check_writable
from polyrot.studies import record

#: Every study: what it asks, and its module.
STUDIES = {
    "dictionaries": (
        "why do sparse dictionaries miss what is registered of them?",
        "polyrot.studies.dictionaries",
    ),
    "optimiser": ("does the optimiser privilege a basis?", "polyrot.studies.optimiser"),
}
RECORDS, PAGES, PICTURES = Path("docs/studies/records"), Path("docs/studies"), Path("docs/pictures")
"""In a checkout: where records, pages and figures lie."""


class Study(Protocol):
    """What the module of a study offers."""

    SEPARABLE: tuple[str, ...]
    """Arms that can be trained and measured without the others."""
    train: Callable[[Runtime, Sequence[str]], None]
    """All that is trained for it, or for some of SEPARABLE, resumed or found."""
    measure: Callable[[Runtime, Sequence[str]], dict[str, Any]]
    """Its record, or what of it is of some of SEPARABLE, from what is trained."""
    page: Callable[[dict[str, Any] | None], str]
    """The page of a record, Markdown; without one, what is asked and predicted."""
    pictures: Callable[[dict[str, Any]], dict[str, str]]
    """Its figures by file name, SVG."""


def study(name: str) -> Study:
    """A study by its name. Raises KeyError."""
    return cast(Study, importlib.import_module(STUDIES[name][1]))


def record_path(name: str, root: Path) -> Path:
    """Where the record of a study lies in the checkout `root`."""
    return root / RECORDS / f"study-{name}.json"


def main(given: Sequence[str] | None = None, prog: str = "python -m polyrot.studies") -> int:
    """Command line: train and measure one study, or write its page; the exit status."""
    listed = "; ".join(f"{name}: {asks}" for name, (asks, _) in STUDIES.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train and measure a study, resuming whatever a killed run left, and write its "
        "record, its page and its figures. A study is not registered: no ledger changes. "
        f"({listed}.)",
    )
    parser.add_argument("study", choices=sorted(STUDIES), help="which one")
    parser.add_argument("--artifacts", type=Path, help="the store to train into")
    parser.add_argument("--train", action="store_true", help="train only; nothing is measured")
    parser.add_argument(
        "--only",
        metavar="ARM,ARM",
        type=lambda given: tuple(given.split(",")),
        default=(),
        help="train and measure these arms alone, in place of what the record has of them",
    )
    parser.add_argument(
        "--page", action="store_true", help="write page and figures from the record that is there"
    )
    parser.add_argument(
        "--device", type=resolve_device, default="cpu", help="auto, cpu (default) or cuda"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    arguments = parser.parse_args(given)
    if arguments.artifacts is None and not arguments.page:
        parser.error("--artifacts DIR is needed to train and measure (or give --page)")
    separable = study(arguments.study).SEPARABLE
    if unknown := [arm for arm in arguments.only if arm not in separable]:
        known = f"one of {', '.join(separable)}" if separable else "this study is measured whole"
        parser.error(f"--only: no arm {', '.join(unknown)} that can be measured alone; {known}")
    return run(lambda: _work(arguments))


def _work(arguments: argparse.Namespace) -> None:
    name, asked, root = arguments.study, study(arguments.study), checkout()
    if not arguments.page:
        check_writable(arguments.artifacts)
        threads.settle(arguments.threads)
        progress = ConsoleProgress()
        shipped = root / SHIPPED
        store = Store(arguments.artifacts, shipped if shipped.is_dir() else None)
        runtime = Runtime(store, arguments.device, progress)
        path = record_path(name, root)
        before = record.read(path, name) if arguments.only and not arguments.train else None
        asked.train(runtime, arguments.only)
        if arguments.train:
            return
        found = asked.measure(runtime, arguments.only)
        record.write(path, found if before is None else record.merged(before, found))
        progress.say(f"wrote {path}")
    write_page(name, root)


def written(name: str, root: Path) -> dict[Path, str]:
    """The page and the figures of a study as its record has them, by path; without a record, the
    page alone. Raises BadDocument."""
    asked, path = study(name), record_path(name, root)
    found = record.read(path, name) if path.exists() else None
    drawn = {} if found is None else asked.pictures(found)
    return {
        root / PAGES / f"{name}.md": asked.page(found),
        **{root / PICTURES / file: svg for file, svg in drawn.items()},
    }


def write_page(name: str, root: Path) -> None:
    """Write the page and the figures of a study. Raises BadDocument, Unwritable."""
    for path, text in written(name, root).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)


if __name__ == "__main__":
    sys.exit(main())
