"""The public face: what it offers, that it loads late, and that its examples are true."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import polyrot

FUNCTIONS = [name for name in polyrot.__all__ if inspect.isfunction(getattr(polyrot, name))]
ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for room in ("polyrot", "fixtures")
    for path in (ROOT / room).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
"""All that have an example."""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # some read the checkout
    made = importlib.import_module(module)
    result = doctest.testmod(made, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_every_public_function_has_an_example_that_is_run() -> None:
    wanted = {"compare", "explained_variance", "fit_rotation", "haar_battery", "linear_cka"}
    assert {*wanted, "max_cosine", "sample_haar"} == set(FUNCTIONS)
    for name in FUNCTIONS:
        function = getattr(polyrot, name)
        assert ">>>" in (function.__doc__ or ""), name
        assert function.__module__ in MODULES, name


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = "sorted({'torch', 'scipy', 'numpy', 'matplotlib'} & set(sys.modules))"
    found = python("-c", f"import sys, polyrot; print({heavy}); dir(polyrot); print({heavy})")
    assert found.stdout.split("\n")[:2] == ["[]", "[]"], found.stderr


def test_names_are_those_that_type_checkers_and_editors_see() -> None:
    stub = Path(polyrot.__file__).with_suffix(".pyi")
    seen = {
        alias.name: f"polyrot.{node.module}"
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {*seen, "__version__"} == set(polyrot.__all__)
    assert set(seen) <= set(dir(polyrot))
    for name, home in seen.items():
        assert getattr(polyrot, name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match="comparison"):
        polyrot.comparison  # noqa: B018
    assert (Path(polyrot.__file__).parent / "py.typed").is_file()


def test_one_version() -> None:
    """The package's metadata has the version of the code and none of its own."""
    project = Path(polyrot.__file__).parents[1] / "pyproject.toml"
    told = tomllib.loads(project.read_text(encoding="utf-8"))
    assert "version" not in told["project"]
    assert told["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "polyrot.__version__"}
