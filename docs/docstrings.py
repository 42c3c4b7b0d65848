"""An extension of griffe: docstrings are plain text with examples, and pages are Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)>>> .*?(?=\n\s*\n|\Z)", re.M | re.S)
_CODE = re.compile(r"(^ *```pycon\n.*?^ *```$|``[^`]+``|`[^`]+`)", re.M | re.S)
_ROLE = re.compile(r":(?:func|class|meth|mod|attr):(?=`)")
_ENTRY = re.compile(r"(?<=[^\n])\n(?=[a-z_]\w*(?:, \w+)*: |Source: |Raises \w)")
_SPECIAL = re.compile(r"([*_])")


def markdown(text: str) -> str:
    """A docstring in Markdown: examples are fenced, what is no code is shown as it stands, and each
    argument begins a line."""

    def fenced(found: re.Match[str]) -> str:
        indent = found[1]
        return f"{indent}```pycon\n{found[0]}\n{indent}```"

    parts = _CODE.split(_EXAMPLE.sub(fenced, _ROLE.sub("", text)))
    parts[::2] = [
        _SPECIAL.sub(r"\\\1", _ENTRY.sub("  \n", part)).replace("<", "&lt;") for part in parts[::2]
    ]
    return "".join(parts)


class Plain(griffe.Extension):
    """Every docstring through `markdown`, before anything else reads it."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe once an object is read."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
