"""Sequences of a text of any length, tokenised block by block as they are asked for.

`polyrot.language.text` holds every token; here only an index of the text is kept. Each block of
about a megabyte is tokenised on its own and cut into sequences; what is left at its end, less than
one sequence, is dropped. No special token is added.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from polyrot.language.text import (
    TextMissing,
    TextTooShort,
    check_plain,
    check_there,
    not_utf8,
)
from polyrot.runtime.progress import Progress, silent
from polyrot.runtime.seeding import numpy_generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLOCK = 2**20  # bytes; with _PIECE it decides where sequences begin, hence what is measured
_PIECE = 2**16  # characters tokenised as one string; the pieces of a block run in parallel


@dataclass(frozen=True)
class Split:
    """Numbers of the sequences to fit on and to score on, and the sha256 of all their tokens.

    A sequence to score on that is equal to one fitted on is left out.
    """

    fit: Sequence[int]
    score: Sequence[int]
    fit_sha: str
    score_sha: str


class StreamedText:
    """Sequences of `context` tokens of the UTF-8 file `path`, by number.

    vocabulary: tokens that the models know. `index`, made by `split`, may be given to the same in
    another process: the blocks' offsets in bytes, and their first sequences' numbers, each with the
    end in last place. counts, seen: how often each special token stands in what `split` read, and
    the number of all tokens there.
    """

    def __init__(
        self, path: Path, tokenizer: PreTrainedTokenizerBase, context: int, vocabulary: int
    ) -> None:
        self.path = path
        self.tokenizer = tokenizer
        self.context = context
        self.vocabulary = vocabulary
        self.index: tuple[list[int], list[int]] = ([0], [0])
        self.counts: Counter[int] = Counter()
        self.seen = 0
        self._held: tuple[int, np.ndarray] | None = None

    def sequences(self, numbers: Sequence[int]) -> Tensor:
        """int64 [sequences, context], in the order of `numbers`, which should rise."""
        starts, rows = self.index
        parts = []
        for number in numbers:
            block = bisect_right(rows, number) - 1
            if self._held is None or self._held[0] != block:
                with self.path.open("rb") as file:
                    file.seek(starts[block])
                    data = file.read(starts[block + 1] - starts[block])
                self._held = (block, self._rows_of(data, starts[block]))
            parts.append(self._held[1][number - rows[block]])
        return torch.from_numpy(np.stack(parts)).long()

    def split(self, fit_tokens: int, score_tokens: int, progress: Progress = silent) -> Split:
        """Read the text as far as it is needed: the first sequences are to fit on, the next ones to
        score on, as many as hold so many tokens.

        Raises TextTooShort, and TextMissing for a file that cannot be read as UTF-8.
        """
        check_there(self.path)
        n_fit, n_score = (math.ceil(n / self.context) for n in (fit_tokens, score_tokens))
        shas = hashlib.sha256(), hashlib.sha256()
        # Of a fitted sequence only a hash is kept: 8 bytes.
        key = numpy_generator(0, "hash of sequences").integers(2**63, size=self.context) * 2 + 1
        starts, rows = self.index = ([0], [0])
        seen: list[np.ndarray] = []
        score: list[int] = []
        fitted = np.empty(0, dtype=np.int64)
        for offset, data in self._blocks():
            found = self._rows_of(data, offset)
            for special in self.tokenizer.all_special_ids:
                self.counts[special] += int((found == special).sum())
            self.seen += found.size
            first = rows[-1]
            starts.append(offset + len(data))
            rows.append(first + len(found))
            hashes = (found * key).sum(1)
            to_fit = min(max(n_fit - first, 0), len(found))
            if to_fit:
                seen.append(hashes[:to_fit])
                shas[0].update(found[:to_fit].astype("<i4").tobytes())
                fitted = np.unique(np.concatenate(seen)) if to_fit + first == n_fit else fitted
            fresh = to_fit + np.flatnonzero(~np.isin(hashes[to_fit:], fitted))
            fresh = fresh[: n_score - len(score)]
            shas[1].update(found[fresh].astype("<i4").tobytes())
            score += (first + fresh).tolist()
            have = min(rows[-1], n_fit) + len(score)
            progress("reading the text", have * self.context, (n_fit + n_score) * self.context)
            if len(score) == n_score:
                return Split(range(n_fit), score, shas[0].hexdigest(), shas[1].hexdigest())
        total = rows[-1]
        raise TextTooShort(
            f"{self.path} gives {total * self.context} tokens in {total} sequences of "
            f"{self.context}, of which {max(total - n_fit - len(score), 0)} to score on repeat one "
            f"to fit on; wanted are {fit_tokens} tokens to fit on and {score_tokens} to score on, "
            f"{n_fit + n_score} sequences. Give a longer text, or lower --tokens, --held-out or "
            "--context"
        )

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        """Offset and bytes of each block, cut at the end of a line where it has one."""
        offset = 0
        try:
            with self.path.open("rb") as file:
                while data := file.read(BLOCK):
                    if len(data) == BLOCK:
                        data = data[: _cut(data)]
                        file.seek(offset + len(data))
                    yield offset, data
                    offset += len(data)
        except OSError as error:
            raise TextMissing(f"{self.path} cannot be read: {error.strerror}") from error

    def _rows_of(self, data: bytes, offset: int) -> np.ndarray:
        """The block's tokens, int64 [sequences, context]."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise TextMissing(not_utf8(self.path, error, offset)) from error
        text = text.removeprefix("\ufeff") if not offset else text
        check_plain(data, self.path, offset)
        pieces, lines, length = [], [], 0
        for line in text.replace("\r\n", "\n").replace("\r", "\n").splitlines(keepends=True):
            lines.append(line)
            length += len(line)
            if length >= _PIECE:
                pieces.append("".join(lines))
                lines, length = [], 0
        pieces.append("".join(lines))
        ids = self.tokenizer(pieces, add_special_tokens=False, verbose=False)["input_ids"]
        flat = np.concatenate([np.asarray(piece, dtype=np.int64) for piece in ids])
        if len(flat) and int(flat.max()) >= self.vocabulary:
            raise TextMissing(
                f"the tokenizer makes token {int(flat.max())} of {self.path}, but the models know "
                f"0 to {self.vocabulary - 1}: it belongs to other models"
            )
        return flat[: len(flat) // self.context * self.context].reshape(-1, self.context)


def _cut(data: bytes) -> int:
    """Where a block ends: behind a line, else before a word, else before a character."""
    cut = data.rfind(b"\n") + 1
    if cut <= 0:
        cut = data.rfind(b" ")
    if cut <= 0:
        cut = len(data) - 1
        while cut > 0 and data[cut] & 0xC0 == 0x80:
            cut -= 1
    return cut if cut > 0 else len(data)


__all__ = ["BLOCK", "Split", "StreamedText"]
