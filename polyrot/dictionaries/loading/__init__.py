"""Dictionaries in directories: this project's own, and those of other tools.

Read are SAELens's format, in which this project saves its own too (either reads the other's),
dictionary_learning's, sparsify's and Gemma Scope's; a module each. What a directory is, its files
say. Whatever would reconstruct otherwise than the tool that wrote it is refused by name.

`python -m polyrot.dictionaries.loading --help` saves a trained dictionary of a store.
"""

from polyrot.dictionaries.loading.directory import load_sae
from polyrot.dictionaries.loading.group import read_group
from polyrot.dictionaries.loading.hooks import hook_of, site_of
from polyrot.dictionaries.loading.saelens import CONFIGURATION, WEIGHTS, save_sae
from polyrot.dictionaries.loading.values import BadDictionary, LoadedDictionary, Saved

__all__ = [
    "CONFIGURATION",
    "WEIGHTS",
    "BadDictionary",
    "LoadedDictionary",
    "Saved",
    "hook_of",
    "load_sae",
    "read_group",
    "save_sae",
    "site_of",
]
