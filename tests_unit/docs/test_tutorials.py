"""The tutorials' Python is run, and prints what they say it prints."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import pytest

from polyrot import cli

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


@pytest.mark.slow
def test_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With fewer steps the figures are others; the command and the words of the answer are not."""
    monkeypatch.chdir(tmp_path)
    (script,) = blocks("tutorial_pair.md", "python")
    quick = re.sub(r"= 500, 16, 64, 100$", "= 2, 4, 64, 100", script, flags=re.M)
    assert quick != script
    exec(compile(quick, "make_pair.py", "exec"), {})
    command = shlex.split(blocks("tutorial_pair.md", "sh")[0])
    assert command.pop(0) == "polyrot"
    capsys.readouterr()
    assert cli.main(command) == 0
    figure = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?(?=[;,\n])")
    shown = blocks("tutorial_pair.md", "text")[1]
    assert figure.sub("_", capsys.readouterr().out) == figure.sub("_", shown)
    assert {path.name for path in Path("carried").iterdir()} == {"maps.safetensors", "port.json"}
