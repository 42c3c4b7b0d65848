"""Where the checkout of the suite is, seen from the working directory."""

from __future__ import annotations

from pathlib import Path

#: What a checkout has and nothing else does.
MARK = Path("claims") / "preregistration.toml"


class NotACheckout(FileNotFoundError):
    """The working directory lies in no checkout of polyrot."""


def checkout(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (the working directory) with the registration in it.

    Raises NotACheckout.
    """
    here = (Path.cwd() if start is None else start).resolve()
    for folder in (here, *here.parents):
        if (folder / MARK).is_file():
            return folder
    raise NotACheckout(
        f"not a polyrot checkout: there is no {MARK.as_posix()} in or above {here}; "
        "change to a checkout, or name the folder that is meant (see --help)"
    )
