"""Where the test of each claim is, read from the tests' source."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from polyrot.runtime.checkout import NotACheckout, checkout


@dataclass(frozen=True)
class Source:
    """The test of a claim: path in the checkout, name and first line of its function, its text."""

    path: str
    name: str
    line: int
    text: str

    def node(self, scale: str) -> str:
        """As pytest takes it: the test at one scale and no other."""
        return f"{self.path}::{self.name}[{scale}]"


def read_sources(root: Path | None = None) -> Mapping[str, Source]:
    """By claim, the tests in `root`/claims; `root` is the checkout around the working directory
    unless given. Nothing outside of a checkout. Files that are no Python are passed over: pytest
    says so.

    >>> read_sources()["haar.battery"].path
    'claims/test_haar.py'
    """
    try:
        root = checkout() if root is None else root
    except NotACheckout:
        return {}
    found: dict[str, Source] = {}
    for path in sorted((root / "claims").glob("test_*.py")):
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (OSError, ValueError, SyntaxError):
            continue
        lines = source.splitlines()
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                text = "\n".join(lines[first - 1 : node.end_lineno])
                for claim in filter(None, map(_claim, node.decorator_list)):
                    where = path.relative_to(root).as_posix()
                    found[claim] = Source(where, node.name, first, text)
    return found


def _claim(decorator: ast.expr) -> str | None:
    """The id in ``@pytest.mark.claim("family.name")``."""
    match decorator:
        case ast.Call(
            func=ast.Attribute(attr="claim") | ast.Name(id="claim"),
            args=[ast.Constant(value=str(id)), *_],
        ):
            return id
    return None
