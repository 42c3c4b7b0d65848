"""Sequences from texts: which, how many, and in one split each."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from polyrot.cohorts.cohort import SPLITS
from polyrot.language import text
from polyrot.language.loading import Unusable
from polyrot.language.text import (
    TextMissing,
    TextTooShort,
    check_there,
    notes_on,
    pile_sequences,
    sequences_from_text,
    split_sequences,
    split_sizes,
)
from tests_unit.language.small_checkpoints import tokenizer, words, write_text

SIZES = {"dictionary": 8, "fit": 4, "score": 4}


def test_sizes() -> None:
    assert split_sizes() == {"dictionary": 512, "fit": 256, "score": 256}  # the paper's 256 of 256
    assert split_sizes(100, 30) == {"dictionary": 8, "fit": 4, "score": 4}
    for tokens, context in ((10, 20), (10, 1)):
        with pytest.raises(Unusable, match="--context of 2 or more"):
            split_sizes(tokens, context)


def test_splits_are_disjoint_windows_of_the_text(tmp_path: Path) -> None:
    path = write_text(tmp_path / "text", 2000)
    found = sequences_from_text(path, tokenizer(), 16, SIZES)
    assert {split: tuple(x.shape) for split, x in found.items()} == {
        split: (SIZES[split], 16) for split in SPLITS
    }
    assert all(x.dtype == torch.int64 for x in found.values())
    rows = {tuple(row) for x in found.values() for row in x.tolist()}
    assert len(rows) == 16
    whole = tokenizer()(path.read_text(), add_special_tokens=False)["input_ids"]
    assert rows == {tuple(whole[i : i + 16]) for i in range(0, 16 * 16, 16)}
    again = sequences_from_text(path, tokenizer(), 16, SIZES)
    assert all(torch.equal(found[split], again[split]) for split in SPLITS)
    # Dealt, not cut: the splits are not three stretches of the text.
    first = [tuple(row) for row in found["dictionary"].tolist()]
    assert first != [tuple(whole[i : i + 16]) for i in range(0, 8 * 16, 16)]


def test_a_window_that_recurs_is_taken_once() -> None:
    whole = [word for word in words() if word.isalpha()]  # one token each
    line = "".join(f" {word}" for word in whole[:16])
    with pytest.raises(TextTooShort, match="gives 4 different sequences of 4 tokens"):
        split_sequences([line] * 20, tokenizer(), 4, SIZES, "it")


def test_no_more_of_a_text_is_read_than_needed() -> None:
    taken = []

    def pieces() -> Any:
        for i in range(1000):
            taken.append(i)
            yield " ".join(words()[i % 40 : i % 40 + 30])

    split_sequences(pieces(), tokenizer(), 8, SIZES, "it")
    assert len(taken) < 10


def test_too_short_has_the_numbers(tmp_path: Path) -> None:
    path = write_text(tmp_path / "text", 100)
    message = (
        r"text gives \d different sequences of 16 tokens, of which 16 are needed \(dictionary 8, "
        r"fit 4, score 4\): give a longer text, or lower --tokens or --context"
    )
    with pytest.raises(TextTooShort, match=message):
        sequences_from_text(path, tokenizer(), 16, SIZES)
    path.write_text("")
    with pytest.raises(TextTooShort, match="gives 0 different"):
        sequences_from_text(path, tokenizer(), 16, SIZES)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(TextMissing, match="nowhere cannot be read: it is no file"):
        sequences_from_text(tmp_path / "nowhere", tokenizer(), 16, SIZES)
    with pytest.raises(TextMissing, match="cannot be read"):
        sequences_from_text(tmp_path, tokenizer(), 16, SIZES)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(
        TextMissing, match=r"is UTF-16, .*convert it \(`iconv -f UTF-16 -t UTF-8`\)"
    ):
        sequences_from_text(tmp_path / "bytes", tokenizer(), 16, SIZES)


def test_a_byte_order_mark_and_ends_of_lines_are_no_tokens(tmp_path: Path) -> None:
    plain = write_text(tmp_path / "text", 2000).read_bytes()
    own = sequences_from_text(tmp_path / "text", tokenizer(), 16, SIZES)
    for end in (b"\r\n", b"\r"):
        (tmp_path / "other").write_bytes(b"\xef\xbb\xbf" + plain.replace(b"\n", end))
        found = sequences_from_text(tmp_path / "other", tokenizer(), 16, SIZES)
        assert all(torch.equal(found[split], own[split]) for split in SPLITS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("words of it".encode("utf-16"), r"is UTF-16, where .* \(`iconv -f UTF-16 -t UTF-8`\)"),
        ("words of it".encode("utf-32"), r"is UTF-32, where"),
        ("words of it".encode("utf-16-le"), r"no plain text: character 1 is NUL"),
        (b"words\0of it", r"character 5 is NUL. It is a binary file, or UTF-16"),
        ("na\u00efve words".encode("latin-1"), r"not UTF-8 text: byte 2 .*`iconv -f LATIN1 -t"),
        (b"\x1f\x8b\x08\x00", r"is compressed \(gzip\), where UTF-8 text is expected"),
        (b"PK\x03\x04", "is an archive"),
    ],
)
def test_files_of_other_encodings_and_kinds(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(data)
    with pytest.raises(TextMissing, match=message):
        sequences_from_text(tmp_path / "it", tokenizer(), 16, SIZES)


def test_one_character_over_and_over(tmp_path: Path) -> None:
    (tmp_path / "it").write_text("a" * 20_000)
    message = r"gives \d different sequences of 16 tokens \(it has \d+, but those that repeat count"
    with pytest.raises(TextTooShort, match=message + ".* longer and more varied text"):
        sequences_from_text(tmp_path / "it", tokenizer(), 16, SIZES)


def test_a_long_line_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_CHARACTERS", 100)
    (tmp_path / "it").write_text("x" * 1000 + "\n" + "y" * 150 + "\nz")
    pieces = list(text._pieces(tmp_path / "it"))
    assert max(map(len, pieces)) <= 200
    assert "".join(pieces) == (tmp_path / "it").read_text()


def test_what_is_said_of_special_tokens() -> None:
    plain = tokenizer()
    ids = torch.tensor(
        plain("one<|endoftext|>two<|endoftext|>", add_special_tokens=False).input_ids
    )
    begins, inside = notes_on(plain, {"fit": ids[None]})
    assert begins.endswith("running text, and no special token is put before them")
    assert f"read as such: <|endoftext|> 2 times, of {len(ids)} tokens" in inside
    assert len(notes_on(plain, {"fit": ids[:1][None]})) == 1
    begun = tokenizer()
    begun.add_special_tokens({"bos_token": "<s>"})
    begun._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begun.bos_token_id)]
    )
    assert "though this tokenizer puts <s> before a text" in notes_on(begun, {"fit": ids[None]})[0]


def test_the_pile(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for `datasets`: documents are joined by the end-of-text token."""
    documents = [{"text": " ".join(words()[i : i + 5])} for i in range(60)]
    asked = []

    def load_dataset(name: str, **options: str) -> list[dict[str, str]]:
        asked.append((name, options))
        return documents

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    found = pile_sequences(tokenizer(), 8, SIZES)
    assert asked == [("NeelNanda/pile-10k", {"split": "train"})]
    end = tokenizer().eos_token_id
    rows = torch.cat([found[split] for split in SPLITS])
    assert (rows == end).sum() >= 10

    def unreachable(name: str, **options: str) -> None:
        raise ConnectionError("Couldn't reach it\nand more")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=unreachable))
    with pytest.raises(TextMissing, match=r"Couldn't reach it\. Download with `hf download --rep"):
        pile_sequences(tokenizer(), 8, SIZES)


def test_the_pile_without_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TextMissing, match=r'`pip install -e "\.\[pile\]"`, or give a text of your'):
        pile_sequences(tokenizer(), 8, SIZES)


def test_whether_a_text_is_there(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("words")
    check_there(tmp_path / "text")
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(TextMissing, match="cannot be read: it is no file"):
            check_there(path)
