"""The tutorials' Python is run, and prints what they say it prints."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def test_matrices(capsys: pytest.CaptureFixture[str]) -> None:
    shown = blocks("tutorial_matrices.md", "pycon")
    examples = "\n".join(re.sub(r"^$(?!\Z)", "<BLANKLINE>", block, flags=re.M) for block in shown)
    test = doctest.DocTestParser().get_doctest(examples, {}, "tutorial_matrices.md", None, 0)
    result = doctest.DocTestRunner().run(test)
    assert result.attempted > 20
    assert result.failed == 0, capsys.readouterr().out
