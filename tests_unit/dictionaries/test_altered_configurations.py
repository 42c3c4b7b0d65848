"""Configurations of other tools with anything altered: a BadDictionary that names the file, or a
dictionary; never a traceback."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from polyrot.dictionaries.loading import BadDictionary, load_sae
from polyrot.dictionaries.loading.saelens import save_sae
from tests_unit.dictionaries import other_formats
from tests_unit.dictionaries.other_formats import Weights

W = Weights.drawn()
OTHERS: tuple[Any, ...] = (None, 1.5, "x", [1], {})
EXTRA = {
    "seqpos_slice": [None],
    "model_from_pretrained_kwargs": {},
    "activation_fn_kwargs": {"k": 2},
    "exclude_special_tokens": False,
    "hook_head_index": None,
    "prepend_bos": False,
    "reshape_activations": "none",
    "metadata": {"seqpos_slice": [None], "hook_name": "blocks.1.hook_resid_post"},
}
"""Keys that SAELens writes and we do not."""


def saelens(folder: Path) -> Path:
    dictionary = load_sae(other_formats.sparsify(folder / "other", W)).dictionary
    save_sae(folder / "sae", dictionary, "resid_post_1")
    path = folder / "sae" / "cfg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **EXTRA}))
    return path


FILES: dict[str, Callable[[Path], Path]] = {
    "SAELens": saelens,
    "dictionary_learning": lambda folder: (
        other_formats.dictionary_learning(folder / "sae", W) / "config.json"
    ),
    "sparsify": lambda folder: other_formats.sparsify(folder / "sae", W) / "cfg.json",
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, part in value.items() if isinstance(value, dict) else ():
        yield from places(part, (*path, key))


@pytest.mark.parametrize("tool", FILES)
def test_whatever_is_altered_is_refused_by_name_or_read(tool: str, tmp_path: Path) -> None:
    path = FILES[tool](tmp_path)
    document = json.loads(path.read_text())
    load_sae(path.parent)
    refused = 0
    for keys in places(document):
        for value in OTHERS:
            changed = copy.deepcopy({"": document})
            inner: Any = changed
            for key in ("", *keys)[:-1]:
                inner = inner[key]
            inner[("", *keys)[-1]] = value
            path.write_text(json.dumps(changed[""]))
            try:
                load_sae(path.parent)
            except BadDictionary:
                refused += 1
    assert refused > len(OTHERS)


@pytest.mark.parametrize("tool", FILES)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"k": ' + "9" * 5000 + "}", "no JSON"),
        ('{"k": NaN}', "NaN is no number"),
        ('{"k": 1, "k": 2}', "is there twice"),
        ("[]", "is no configuration: it holds a list"),
    ],
)
def test_texts_that_crash_a_reader(tool: str, tmp_path: Path, text: str, said: str) -> None:
    path = FILES[tool](tmp_path)
    path.write_text(text)
    with pytest.raises(BadDictionary, match=said) as caught:
        load_sae(path.parent)
    assert str(path) in str(caught.value)
