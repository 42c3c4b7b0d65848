"""Text of others in Markdown: it stays text, in one line, and makes no cell, tag, link or image."""

from __future__ import annotations

import re
from collections.abc import Iterable


def escaped(text: str) -> str:
    """`text` in one line, to be read as it stands.

    A "<" that cannot begin a tag stays as it is, to be read in the source too.

    >>> escaped("a|b\\n<b>c</b> < 0.5")
    'a\\\\|b &lt;b>c&lt;/b> < 0.5'
    """
    line = " ".join(text.split())
    line = re.sub(r"&(?=#?\w+;)", "&amp;", line)
    line = re.sub(r"<(?=[^\s\d=]|$)", "&lt;", line)
    return line.replace("|", "\\|").replace("](", "]\\(")


def code(text: str, *, cell: bool = False) -> str:
    """`text` in one line as a code span, fenced by more backticks than it holds in a row. cell: in
    a table, where a bar must be escaped even there."""
    line = " ".join(text.split()) or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    inner = f" {line} " if "`" in line else line
    return f"{fence}{inner.replace('|', chr(92) + '|') if cell else inner}{fence}"


def row(cells: Iterable[str]) -> str:
    """A line of a table; each cell is Markdown already."""
    return f"| {' | '.join(cells)} |"
