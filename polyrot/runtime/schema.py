"""Documents held against their JSON Schema."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


def against_schema(document: Any, schema: Path) -> str:
    """Where and how a document is not as its JSON Schema has it, "" where it is."""
    from jsonschema.exceptions import best_match

    wrong = best_match(_validator(schema).iter_errors(document))
    if wrong is None:
        return ""
    where = wrong.json_path.removeprefix("$").removeprefix(".") or "the document"
    return f"{where[:200]}: {wrong.message[:200]}"


@cache
def _validator(schema: Path) -> Any:
    from jsonschema import Draft202012Validator  # not needed to write a document

    return Draft202012Validator(json.loads(schema.read_text(encoding="utf-8")))
