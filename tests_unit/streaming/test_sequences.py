"""A text of any length as numbered sequences: blocks, splits, and what is no text."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from polyrot.language.text import TextMissing, TextTooShort
from polyrot.runtime.seeding import numpy_generator
from polyrot.streaming import sequences
from polyrot.streaming.sequences import StreamedText
from tests_unit.streaming.streaming_checkpoints import tokenizer


def text(path: Path, context: int = 8) -> StreamedText:
    return StreamedText(path, tokenizer(), context, 256)


@pytest.mark.parametrize("gap", ["\n", " ", ""])
def test_blocks_cut_a_text_anywhere_but_inside_a_character(tmp_path, monkeypatch, gap):
    monkeypatch.setattr(sequences, "BLOCK", 50)
    monkeypatch.setattr(sequences, "_PIECE", 20)
    drawn = numpy_generator(0, "characters")
    words = ["".join(drawn.choice(list("abźλ語🙂"), 7)) for _ in range(60)]
    path = tmp_path / "text.txt"
    path.write_bytes(gap.join(words).encode())
    data, made = path.read_bytes(), text(path)
    with pytest.raises(TextTooShort):
        made.split(10**6, 1)
    starts, firsts = made.index
    assert starts[0] == 0
    assert starts[-1] == len(data)
    assert all(0 < end - start <= 50 for start, end in pairwise(starts))
    ids = {}
    for (start, end), first in zip(pairwise(starts), firsts, strict=False):
        part = data[start:end].decode()
        tokens = tokenizer()(part)["input_ids"]
        for i in range(len(tokens) // 8):
            ids[first + i] = tokens[8 * i : 8 * i + 8]
    assert len(ids) == firsts[-1]
    order = numpy_generator(0, "order").permutation(len(ids)).tolist()
    assert made.sequences(order).tolist() == [ids[i] for i in order]


def test_fit_and_score_have_no_sequence_in_common(tmp_path):
    path = tmp_path / "text.txt"
    fit, fresh = "abcdefgh" * 3 + "qrstuvwx", "12345678" + "abcdefg1"
    path.write_text(fit + "abcdefgh" + fresh[:8] + "qrstuvwx" + fresh[8:])
    made = text(path)
    split = made.split(32, 16)
    assert list(split.fit) == [0, 1, 2, 3]
    assert split.score == [5, 7]
    decoded = tokenizer().batch_decode(made.sequences(split.score).tolist())
    assert decoded == [fresh[:8], fresh[8:]]
    other = text(path)
    other.index = made.index  # as another rank has it
    assert torch.equal(other.sequences(split.score), made.sequences(split.score))
    with pytest.raises(TextTooShort, match="64 tokens in 8 sequences of 8, of which 2 to score"):
        made.split(32, 17)


def test_the_hashes_are_of_the_tokens_that_are_used(tmp_path):
    shas = set()
    for name, ending in (("a", "x" * 8), ("b", "x" * 8), ("c", "y" * 8)):
        path = tmp_path / name
        path.write_text("abcdefgh12345678" + ending)
        split = text(path).split(8, 8)
        shas.add((split.fit_sha, split.score_sha))
        whole = text(path).split(16, 8)
        assert whole.fit_sha != split.fit_sha
    assert len(shas) == 1  # the endings are not read


def test_a_text_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"abcdefgh" * 4 + b"\xff")
    with pytest.raises(TextMissing, match="not UTF-8 text: byte 32"):
        text(path).split(8, 8)
    for data, message in (
        (b"\xff\xfea\x00b\x00", "is UTF-16, where UTF-8"),
        ("abcdefgh".encode("utf-16-le") * 4, "no plain text: byte 1 is NUL"),
        (b"\x1f\x8b\x08", r"is compressed \(gzip\), where"),
    ):
        path.write_bytes(data)
        with pytest.raises(TextMissing, match=message):
            text(path).split(8, 8)
    path.write_text("abcdefgh" * 4)
    with pytest.raises(TextMissing, match="the models know 0 to 60"):
        StreamedText(path, tokenizer(), 8, 61).split(8, 8)


def test_a_nul_is_counted_from_the_beginning_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("polyrot.streaming.sequences.BLOCK", 64)
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"abcdefgh" * 20 + b"\0")
    with pytest.raises(TextMissing, match="no plain text: byte 163 is NUL"):
        text(path).split(400, 400)


def test_a_byte_order_mark_and_ends_of_lines_are_no_tokens(tmp_path):
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.write_bytes(b"abc\ndef\nghi\njkl\nmnopqrst" * 3)
    found = text(plain).split(16, 16)
    for end in (b"\r\n", b"\r"):
        other.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", end))
        again = text(other).split(16, 16)
        assert (again.fit_sha, again.score_sha) == (found.fit_sha, found.score_sha)


def test_special_tokens_in_the_text_are_counted(tmp_path):
    words = tokenizer()
    words.add_special_tokens({"eos_token": "<|end|>"})
    path = tmp_path / "text"
    path.write_text("abcdefg<|end|>hijklmn<|end|>opqrstuvwxyz0123456789")
    made = StreamedText(path, words, 8, 300)
    made.split(8, 8)
    assert made.counts[words.eos_token_id] == 2
    assert made.seen == 32
