"""The folder of a report: the names of its files, and whether they can be written."""

from __future__ import annotations

from pathlib import Path

from polyrot.runtime.files import check_file, check_folder

RECORD, MARKDOWN = "verdicts.json", "verdicts.md"
PAGE, FIGURES = "index.html", "figures.json"
DRAWN = "figures"  # the directory of the figures themselves
_ADVICE = "Give another directory"


def check_report(folder: Path) -> None:
    """Make the folder of a report unless it is there. Raises Unwritable where a file of a report
    could not be written in it: before a run that takes hours, not after it."""
    check_folder(folder, _ADVICE)
    drawn = folder / DRAWN
    if drawn.exists() or drawn.is_symlink():
        check_folder(drawn, _ADVICE)
    for name in (RECORD, MARKDOWN, PAGE, FIGURES):
        check_file(folder / name, _ADVICE)
