"""Two small checkpoints, one of them in another basis as well, and a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from polyrot.dictionaries.loading import Saved
from polyrot.language import pair
from polyrot.language.pair import Loaded
from polyrot.language.text import sequences_from_text
from tests_unit.language.small_checkpoints import CONTEXT, model, save, write_text
from tests_unit.language.tiny_language import rotated, rotation

SIZES = {"dictionary": 64, "fit": 32, "score": 32}


def save_pair(folder: Path) -> Path:
    """Models A and B, A in another basis (R), and a text."""
    a = model(1, plain_norms=True)
    save(folder / "A", a)
    save(folder / "B", model(2))
    save(folder / "R", rotated(a, rotation()))
    write_text(folder / "text", 2500)
    return folder


def splits(folder: Path) -> Callable[[Any], Any]:
    return lambda words: sequences_from_text(folder / "text", words, CONTEXT, SIZES)


def load(folder: Path, sae: Saved | None = None) -> Loaded:
    """A and B."""
    return pair.load(str(folder / "A"), str(folder / "B"), splits(folder), sae)
