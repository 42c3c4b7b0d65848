"""Dictionaries in directories: this project's own, and those of other tools.

Read are SAELens's format, in which this project saves its own too (either reads the other's),
dictionary_learning's, sparsify's and Gemma Scope's; a module each. What a directory is, its files
say. Whatever would reconstruct otherwise than the tool that wrote it is refused by name.

`python -m polyrot.dictionaries.loading --help` saves a trained dictionary of a store.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
