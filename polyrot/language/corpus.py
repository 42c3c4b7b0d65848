"""Real text that every machine has: the source of the running Python's standard library.

A byte-level BPE is trained on it, and a share of the files is held out for everything that is
measured. Another Python has another library, so what is measured on (the tokenizer and the held-out
sequences) is an artifact of its own, shipped with the cohort; the corpus is recorded by its hash.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polyrot.cohorts.cohort import SPLITS, Split
from polyrot.defaults import NEOX_CONTEXT
from polyrot.store import Artifact, Store, fingerprint

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RECIPE_VERSION = 1  # raise when a change of code changes what is made
VOCABULARY = 1024
CONTEXT = NEOX_CONTEXT
N_SEQUENCES: dict[Split, int] = {"dictionary": 768, "fit": 512, "score": 512}
HELD_OUT = 0.08
"""Share of the files that no model is trained on."""
END = "<|endoftext|>"
END_ID = 0
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


@dataclass(frozen=True)
class Evaluation:
    """What language models trained here are measured on.

    tokens: split -> int64 [sequences, 128], from files that no model was trained on.
    """

    tokenizer: Tokenizer
    tokens: dict[Split, Tensor]
    fingerprint: str
    corpus: str
    """See `description`."""


def source_files(root: Path | None = None) -> list[Path]:
    """The library's Python files in a fixed order, tests and third-party packages left out.

    Raises FileNotFoundError where there are none, as in a Python shipped without its source.
    """
    folder = Path(sysconfig.get_path("stdlib")) if root is None else root
    found = [
        path.relative_to(folder)
        for path in folder.rglob("*.py")
        if not _LEFT_OUT.intersection(path.relative_to(folder).parts)
    ]
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no Python source: use a Python whose standard library comes as files"
        )
    return [folder / path for path in sorted(found, key=lambda p: p.as_posix())]


def is_held_out(path: Path, root: Path) -> bool:
    """Whether a file is kept for measuring; decided by its name alone."""
    name = path.relative_to(root).as_posix().encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") < HELD_OUT * 2**64


def _texts(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        yield path.read_text(encoding="utf-8", errors="replace")


def _parts(root: Path | None) -> tuple[list[Path], list[Path]]:
    """Files to train on, and held-out ones."""
    folder = Path(sysconfig.get_path("stdlib")) if root is None else root
    files = source_files(root)
    held = [path for path in files if is_held_out(path, folder)]
    return [path for path in files if not is_held_out(path, folder)], held


def train_tokenizer(texts: Iterator[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """A byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909) with an end-of-text token, id 0."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Iterator[str]) -> Tensor:
    """All texts one after another, each ended by `END`, int16 [tokens]."""
    ids: list[int] = []
    for encoded in tokenizer.encode_batch(list(texts)):
        ids += [*encoded.ids, END_ID]
    return torch.tensor(ids, dtype=torch.int16)


def description(root: Path | None = None) -> str:
    """sha256 of the corpus, held-out files included, and the Python that it came from."""
    train, held = _parts(root)
    digest = hashlib.sha256()
    for text in _texts([*train, *held]):
        digest.update(text.encode())
    return f"{digest.hexdigest()}, Python {sys.version.split()[0]}"


def evaluation(store: Store, root: Path | None = None) -> Evaluation:
    """Tokenizer and held-out sequences: shipped, cached, or made now from the library at `root`
    (default: the running Python's). The sequences of a split are drawn over all held-out files.

    Raises ValueError where the held-out files are too short.
    """
    from tokenizers import Tokenizer

    recipe = {
        "version": RECIPE_VERSION,
        "corpus": "standard library" if root is None else str(root),
        "vocabulary": VOCABULARY,
        "context": CONTEXT,
        "sequences": dict(N_SEQUENCES),
        "held_out": HELD_OUT,
    }

    def build(_: object) -> Artifact:
        train, held = _parts(root)
        tokenizer = train_tokenizer(_texts(train))
        tokens = encode(tokenizer, _texts(held))
        rows = tokens[: len(tokens) // CONTEXT * CONTEXT].reshape(-1, CONTEXT)
        wanted = sum(N_SEQUENCES.values())
        if len(rows) < wanted:
            raise ValueError(
                f"the held-out files give {len(rows)} sequences of {CONTEXT} tokens, of which "
                f"{wanted} are needed: use a Python with its whole standard library"
            )
        generator = torch.Generator().manual_seed(20261123)
        rows = rows[torch.randperm(len(rows), generator=generator)[:wanted]]
        parts = rows.split([N_SEQUENCES[split] for split in SPLITS])
        saved = torch.frombuffer(bytearray(tokenizer.to_str().encode()), dtype=torch.uint8)
        meta = {
            "corpus": description(root),
            "files": len(train) + len(held),
            "held_out_files": len(held),
            "held_out_tokens": len(tokens),
        }
        named: dict[str, Tensor] = {
            split: part.clone() for split, part in zip(SPLITS, parts, strict=True)
        }
        return Artifact({"tokenizer": saved} | named, meta)

    found = store.get_or_build("language-text", recipe, build, name="standard-library")
    tokenizer = Tokenizer.from_str(bytes(found.tensors["tokenizer"].tolist()).decode())
    return Evaluation(
        tokenizer,
        {split: found.tensors[split].long() for split in SPLITS},
        fingerprint("language-text", recipe),
        found.meta["corpus"],
    )


def training_tokens(store: Store, on: Evaluation, root: Path | None = None) -> Tensor:
    """The files that are not held out, int16 [tokens], by the tokenizer of `on`."""
    train, _ = _parts(root)
    texts = list(_texts(train))
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()
    recipe = {"version": RECIPE_VERSION, "texts": digest, "tokenizer": on.fingerprint}

    def build(_: object) -> Artifact:
        return Artifact({"tokens": encode(on.tokenizer, iter(texts))}, {"files": len(train)})

    return store.get_or_build("language-corpus", recipe, build, name="training").tensors["tokens"]
