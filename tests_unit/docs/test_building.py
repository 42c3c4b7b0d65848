"""The site is whole: every public name has its place, and no page asks for what lies elsewhere."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import polyrot

ROOT = Path(__file__).parents[2]


def module(name: str) -> ModuleType:
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def described(page: str) -> dict[str, set[str]]:
    """What a page asks for: dotted name -> the members it lists."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    parts = re.split(r"^::: (\S+)$", text, flags=re.M)[1:]
    names, rest = parts[::2], parts[1::2]
    return {
        name: set(re.findall(r"^ +- (\w+)$", below, re.M))
        for name, below in zip(names, rest, strict=True)
    }


def offered(stub: Path) -> dict[str, set[str]]:
    """What a room's stub offers: module -> names."""
    return {
        node.module: {alias.name for alias in node.names}
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.module is not None
    }


def test_every_name_of_the_public_face_is_described() -> None:
    wanted = {f"polyrot.{name}" for name in polyrot.__all__ if name != "__version__"}
    assert set(described("api.md")) == wanted


def test_every_name_of_the_haar_room_is_described() -> None:
    stub = offered(ROOT / "polyrot" / "haar" / "__init__.pyi")
    assert described("api_haar.md") == {f"polyrot.haar.{m}": names for m, names in stub.items()}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<link rel="stylesheet" href="https://fonts.example/css">'),
        ("a.html", '<script src="//cdn.example/x.js"></script>'),
        ("a.html", '<img alt="" srcset="a.png 1x, https://cdn.example/a.png 2x">'),
        ("a.html", "<style>@import 'https://fonts.example/css';</style>"),
        ("a.html", '<p style="background: url(https://cdn.example/a.png)">'),
        ("a.html", '<pre class="mermaid"></pre>'),
        ("a.css", "@font-face { src: url('https://fonts.example/a.woff2') }"),
    ],
)
def test_what_is_fetched_from_elsewhere_is_found(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert len(module("building").from_elsewhere(tmp_path)) == 1


def test_links_and_what_lies_beside_a_page_are_no_fetches(tmp_path: Path) -> None:
    text = (
        '<link rel="canonical" href="https://a.example/"><link rel="icon" href="../icon.png">'
        '<a href="https://arxiv.org/abs/2605.24577">paper</a><script src="a.js"></script>'
        "<p>url(https://a.example)</p><style>p { background: url(data:image/png;base64,A) }</style>"
    )
    (tmp_path / "a.html").write_text(text, encoding="utf-8")
    assert module("building").from_elsewhere(tmp_path) == []


def test_docstrings_are_shown_as_they_stand() -> None:
    pytest.importorskip("griffe", reason='needs what `pip install -e ".[docs]"` installs')
    text = (
        "||(a - mean_a) r||_F < 1, see :func:`x_y`.\na_b, b: [n].\nRaises E.\n\n"
        "    >>> a_b * 2 < 3\n    True\n\nMore."
    )
    shown = (
        "||(a - mean\\_a) r||\\_F &lt; 1, see `x_y`.  \na\\_b, b: [n].  \nRaises E.\n\n"
        "    ```pycon\n    >>> a_b * 2 < 3\n    True\n    ```\n\nMore."
    )
    assert module("docstrings").markdown(text) == shown


@pytest.mark.slow
def test_the_site_is_built(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason='needs what `pip install -e ".[docs]"` installs')
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    api = (site / "docs" / "api.html").read_text(encoding="utf-8")
    for name in polyrot.__all__:
        assert name == "__version__" or f'id="polyrot.{name}"' in api, name
    haar = (site / "docs" / "api_haar.html").read_text(encoding="utf-8")
    for inside, names in offered(ROOT / "polyrot" / "haar" / "__init__.pyi").items():
        for name in names:
            assert f'id="polyrot.haar.{inside}.{name}"' in haar, name
    claims = (site / "claims" / "VERDICTS.html").read_text(encoding="utf-8")
    assert 'id="cosinenoise_control"' in claims
    home = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="claims/VERDICTS.html#cosinenoise_control"' in home
    assert 'src="docs/pictures/stitching.svg"' in home
