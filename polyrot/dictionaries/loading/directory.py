"""Which tool's dictionary a directory is, or what else it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from polyrot.dictionaries.loading import dictionary_learning, gemma_scope, saelens, sparsify
from polyrot.dictionaries.loading.values import BadDictionary, Saved


@dataclass(frozen=True)
class Format:
    """A tool's format. files: that make a dictionary, first the weights, by which a directory is
    known; load: reads the dictionary of a directory."""

    name: str
    files: tuple[str, ...]
    load: Callable[[Path], Saved]

    @property
    def weights(self) -> str:
        """The file with the weights."""
        return self.files[0]


FORMATS = (
    Format("SAELens", (saelens.WEIGHTS, saelens.CONFIGURATION), saelens.load),
    Format(
        dictionary_learning.NAME,
        (dictionary_learning.WEIGHTS, dictionary_learning.CONFIGURATION),
        dictionary_learning.load,
    ),
    Format(sparsify.NAME, (sparsify.WEIGHTS, sparsify.CONFIGURATION), sparsify.load),
    Format(gemma_scope.NAME, (gemma_scope.WEIGHTS,), gemma_scope.load),
)
OTHERS = {
    "params.safetensors": "a dictionary of Gemma Scope 2: SAELens reads it and saves it in its own "
    "format (save_model), which is read here",
    "sae.pt": "a dictionary in a PyTorch file of unknown origin",
    "model.safetensors": "a model's checkpoint",
    "pytorch_model.bin": "a model's checkpoint",
    "adapter_model.safetensors": "an adapter of a model",
}
"""What else is met, by a file that tells it."""
DEEP, MANY = 5, 2000
"""How far below a directory, and among how many entries, dictionaries are looked for."""


def load_sae(directory: Path | str) -> Saved:
    """The dictionary in a directory, or of one of its files, on the CPU, in float32.

    Raises BadDictionary naming the directory and what cannot be used: another thing than a
    dictionary, a missing or damaged file, an architecture, an activation function, a normalisation
    that is not in the weights, a hook that is no residual site, tensors that do not fit.
    """
    folder = Path(directory).expanduser()
    if folder.is_file():
        if not _format_of(folder.parent):
            raise BadDictionary(f"{folder} is a file that is no dictionary's; {_read()}")
        folder = folder.parent
    found = _format_of(folder)
    if found is None:
        raise BadDictionary(_what_it_is(folder))
    try:
        return replace(found.load(folder), files=tuple(folder / name for name in found.files))
    except BadDictionary as error:
        named = str(error).startswith(str(folder))
        raise BadDictionary(str(error) if named else f"{folder}: {error}") from error


def _format_of(folder: Path) -> Format | None:
    return next((each for each in FORMATS if (folder / each.weights).is_file()), None)


def _read() -> str:
    names = [f"{each.weights} ({each.name})" for each in FORMATS]
    return f"read are directories with {', '.join(names[:-1])} or {names[-1]}"


def _what_it_is(folder: Path) -> str:
    """A sentence on a directory that is no dictionary, and what to name in its place."""
    if not folder.exists():
        return f"{folder}: no such directory"
    below = sorted({f"{p.parent.relative_to(folder)} ({f.name})" for p, f in _below(folder)})
    if below:
        shown = ", ".join(below[:5]) + (f" and {len(below) - 5} more" if len(below) > 5 else "")
        return f"{folder} is a parent of {len(below)} dictionaries; name one: {shown}"
    for name, what in OTHERS.items():
        if (folder / name).exists():
            return f"{folder} is {what} ({name}); {_read()}"
    if (folder / saelens.CONFIGURATION).is_file():
        return f"{folder} has {saelens.CONFIGURATION} and no weights; {_read()}"
    return f"{folder} holds no dictionary; {_read()}"


def _below(folder: Path) -> Iterator[tuple[Path, Format]]:
    """Weights of dictionaries below a directory, the first of MANY entries."""
    level, seen = [folder], 0
    for _ in range(DEEP):
        following = []
        for each in level:
            try:
                entries = sorted(each.iterdir())
            except OSError:
                continue
            for entry in entries:
                seen += 1
                if seen > MANY:
                    return
                if entry.is_dir() and not entry.name.startswith("."):
                    following.append(entry)
                    if (found := _format_of(entry)) is not None:
                        yield entry / found.weights, found
        level = following
