"""Sequences of tokens to measure on, from a text file or from The Pile.

A text is cut into windows of `context` tokens; windows that occur twice are kept once, and are
dealt to the splits by a seed, so that no sequence is in two of them. No special token is put at
their beginning. A byte order mark is dropped, and every end of line is one line feed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polyrot.cohorts.cohort import SPLITS, Split
from polyrot.defaults import CONTEXT, DICTIONARY_SHARE, TOKENS
from polyrot.language.identity import tokenizer_fingerprint
from polyrot.language.loading import Unusable
from polyrot.runtime.seeding import torch_generator
from polyrot.store import fingerprint as fingerprint_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEAL_SEED = 20261124
PILE = "NeelNanda/pile-10k"
"""The first 10,000 documents of The Pile, as data alone: the hub's own copy is a script."""
INSTEAD = "or give a text of your own with --text FILE"
_CHARACTERS = 2**20
PREPARATION = {
    "version": 1,  # raise when a change of code makes other sequences of the same text
    "special tokens added": False,
    "byte order mark": "dropped",
    "ends of lines": "line feed",
}
"""How a text becomes tokens, beside its tokenizer."""
OF_ANOTHER_KIND = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "compressed (gzip)",
    b"\x28\xb5\x2f\xfd": "compressed (zstd)",
    b"PK\x03\x04": "an archive (zip)",
    b"%PDF": "a PDF",
    b"PAR1": "a table (Parquet)",
}
"""First bytes of files that are no UTF-8 text; the longer ones first."""


class TextTooShort(Unusable):
    """A text with too few different windows; the message has the numbers."""


class TextMissing(Unusable):
    """A text that is not there, or not text."""


def split_sizes(tokens: int = TOKENS, context: int = CONTEXT) -> dict[Split, int]:
    """Sequences of each split, for `tokens` to fit on and as many to score on."""
    if context < 2 or tokens < context:
        raise Unusable(
            f"{tokens} tokens in sequences of {context}: give a --context of 2 or more, and at "
            "least one sequence of --tokens"
        )
    n = math.ceil(tokens / context)
    return {"dictionary": DICTIONARY_SHARE * n, "fit": n, "score": n}


def split_sequences(
    pieces: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    sizes: Mapping[Split, int],
    where: str,
) -> dict[Split, Tensor]:
    """int64 [sequences, context] of each split, from the first windows of the joined `pieces`.

    No more pieces are taken than are needed. where: what the text is called in a message.
    Raises TextTooShort.
    """
    wanted, windows_read = sum(sizes.values()), 0
    found: dict[tuple[int, ...], None] = {}
    rest: list[int] = []
    for piece in pieces:
        rest += tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"]
        whole = len(rest) // context * context
        windows_read += len(rest) // context
        for start in range(0, whole, context):
            found.setdefault(tuple(rest[start : start + context]))
        rest = rest[whole:]
        if len(found) >= wanted:
            break
    if len(found) < wanted:
        asked = ", ".join(f"{split} {sizes[split]}" for split in SPLITS)
        repeats = ""
        if windows_read > len(found):
            repeats = f" (it has {windows_read}, but those that repeat count once)"
        raise TextTooShort(
            f"{where} gives {len(found)} different sequences of {context} tokens{repeats}, of "
            f"which {wanted} are needed ({asked}): give a longer"
            f"{' and more varied' if repeats else ''} text, or lower --tokens or --context"
        )
    windows = torch.tensor(list(found)[:wanted])
    order = torch.randperm(wanted, generator=torch_generator(DEAL_SEED, "windows"))
    parts = windows[order].split([sizes[split] for split in SPLITS])
    return {split: part.clone() for split, part in zip(SPLITS, parts, strict=True)}


def sequences_from_text(
    path: Path | str,
    tokenizer: PreTrainedTokenizerBase,
    context: int = CONTEXT,
    sizes: Mapping[Split, int] | None = None,
) -> dict[Split, Tensor]:
    """The splits of a UTF-8 text file; see `split_sequences`. Raises TextMissing, TextTooShort."""
    sizes = split_sizes(context=context) if sizes is None else sizes
    check_there(path)
    try:
        return split_sequences(_pieces(Path(path)), tokenizer, context, sizes, str(path))
    except UnicodeDecodeError as error:
        raise TextMissing(not_utf8(path, error)) from error
    except OSError as error:
        raise TextMissing(f"{path} cannot be read: {error.strerror}") from error


def _pieces(path: Path) -> Iterator[str]:
    """About a million characters at a time, cut at ends of lines where they are not too long."""
    done = 0
    with path.open(encoding="utf-8-sig") as file:
        while piece := file.read(_CHARACTERS):
            if not piece.endswith("\n"):
                piece += file.readline(_CHARACTERS)
            check_plain(piece, path, done)
            done += len(piece)
            yield piece


def check_plain(text: str | bytes, path: Path | str, before: int = 0) -> None:
    """A text has no NUL, which UTF-8 can hold and files of other kinds do. before: characters (or,
    of bytes, bytes) that come before these. Raises TextMissing."""
    if isinstance(text, str):
        unit, at = "character", text.find("\0")
    else:
        unit, at = "byte", text.find(b"\0")
    if at >= 0:
        raise TextMissing(
            f"{path} is no plain text: {unit} {before + at} is NUL. It is a binary file, or "
            "UTF-16 or UTF-32 without a byte order mark: convert it "
            "(`iconv -f UTF-16LE -t UTF-8`), or take the NULs out (`tr -d '\\000'`)"
        )


def not_utf8(path: Path | str, error: UnicodeDecodeError, before: int = 0) -> str:
    """What is to be said of bytes that are not UTF-8. before: bytes that come before these."""
    return (
        f"{path} is not UTF-8 text: byte {before + error.start} ({error.reason}); convert it (of "
        "Latin-1: `iconv -f LATIN1 -t UTF-8`), or give another file"
    )


def check_there(path: Path | str) -> None:
    """Whether there is such a file, and it begins as text does, before much is done for it. Raises
    TextMissing."""
    if not Path(path).is_file():
        raise TextMissing(f"{path} cannot be read: it is no file")
    try:
        with Path(path).open("rb") as file:
            head = file.read(max(map(len, OF_ANOTHER_KIND)))
    except OSError as error:
        raise TextMissing(f"{path} cannot be read: {error.strerror}") from error
    for begins, kind in OF_ANOTHER_KIND.items():
        if head.startswith(begins):
            remedy = f": convert it (`iconv -f {kind} -t UTF-8`)" if kind[:3] == "UTF" else ""
            raise TextMissing(f"{path} is {kind}, where UTF-8 text is expected{remedy}")


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of what makes tokens of a text: the tokenizer, and how the text is prepared."""
    return fingerprint_of(
        "text", {"tokenizer": tokenizer_fingerprint(tokenizer), "preparation": PREPARATION}
    )


def notes_on(tokenizer: PreTrainedTokenizerBase, tokens: Mapping[Split, Tensor]) -> tuple[str, ...]:
    """What is to be said of the special tokens of these sequences."""
    every = torch.cat([ids.flatten() for ids in tokens.values()])
    numbers, counts = every.unique(return_counts=True)
    found = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    return special_notes(tokenizer, found, every.numel())


def special_notes(
    tokenizer: PreTrainedTokenizerBase, counts: Mapping[int, int], total: int
) -> tuple[str, ...]:
    """See `notes_on`. counts: how often each special token occurs, at least, in `total` tokens."""
    plain, own = (
        tokenizer("a", add_special_tokens=more, verbose=False)["input_ids"]
        for more in (False, True)
    )
    before = own[: len(own) - len(plain)] if own[len(own) - len(plain) :] == plain else own[:1]
    begins = "text: sequences are cut from a running text, and no special token is put before them"
    if own != plain:
        put = " ".join(tokenizer.convert_ids_to_tokens(before))
        begins += f", though this tokenizer puts {put} before a text: the models may expect it"
    inside = [
        f"{tokenizer.convert_ids_to_tokens(number)} {counts[number]} times"
        for number in sorted(set(tokenizer.all_special_ids))
        if counts.get(number)
    ]
    said = [begins]
    if inside:
        said.append(
            f"text: special tokens that stand in it are read as such: {', '.join(inside)}, of "
            f"{total} tokens"
        )
    return tuple(said)


def pile_sequences(
    tokenizer: PreTrainedTokenizerBase,
    context: int = CONTEXT,
    sizes: Mapping[Split, int] | None = None,
    name: str = PILE,
) -> dict[Split, Tensor]:
    """The splits of The Pile (Gao et al. 2020, arXiv 2101.00027), its documents joined by the
    end-of-text token where the tokenizer has one. Raises TextMissing, TextTooShort."""
    sizes = split_sizes(context=context) if sizes is None else sizes
    try:
        from datasets import load_dataset  # only here: an optional extra
    except ImportError as error:
        raise TextMissing(
            f"The Pile ({name}) is read through `datasets`, which is not installed: "
            f'`pip install -e ".[pile]"`, {INSTEAD}'
        ) from error
    try:
        documents = load_dataset(name, split="train")
    except Exception as error:  # datasets, the hub and the transport each have their own
        raise TextMissing(
            f"The Pile ({name}) is not to be had: {(str(error).splitlines() or [''])[0]}. Download "
            f"with `hf download --repo-type dataset {name}`, {INSTEAD}"
        ) from error
    end = tokenizer.eos_token or ""
    texts = (f"{document['text']}{end}" for document in documents)
    return split_sequences(texts, tokenizer, context, sizes, f"The Pile ({name})")
