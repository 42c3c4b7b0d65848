"""The dictionaries of a group in a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from polyrot.dictionaries.collection import KIND
from polyrot.dictionaries.loading.values import BadDictionary
from polyrot.store.file import Damaged, read


def read_group(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of the dictionaries of a group in a store. Raises BadDictionary naming a
    file that is damaged, or holds something else."""
    try:
        head, tensors = read(file)
    except Damaged as damage:
        raise BadDictionary(f"{file}: {damage}") from damage
    if head["kind"] != KIND:
        raise BadDictionary(f"{file} is of kind {head['kind']}, not {KIND}: name a group's file")
    return head, tensors
