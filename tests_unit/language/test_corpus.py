"""The corpus: held-out files stay held out, the tokenizer loses nothing, damage is said."""

import pytest
import torch

from polyrot.language import corpus
from polyrot.store import Store


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A small library of 400 modules, every one with a line of its own."""
    root = tmp_path_factory.mktemp("library")
    for i in range(400):
        folder = root / f"package{i % 7}"
        folder.mkdir(exist_ok=True)
        body = "\n".join(f"def f_{i}_{j}(self):\n    return {i * j}  # ü" for j in range(6))
        (folder / f"module{i}.py").write_text(f"'''only in {i}'''\n{body}\n", encoding="utf-8")
    (root / "test").mkdir()
    (root / "test" / "left_out.py").write_text("secret = 1\n")
    (root / "site-packages").mkdir()
    (root / "site-packages" / "foreign.py").write_text("secret = 1\n")
    return root


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(corpus, "N_SEQUENCES", {"dictionary": 6, "fit": 4, "score": 4})
    monkeypatch.setattr(corpus, "VOCABULARY", 300)


def test_tests_and_foreign_packages_are_left_out(library):
    names = {path.name for path in corpus.source_files(library)}
    assert len(names) == 400
    assert not names & {"left_out.py", "foreign.py"}


def test_a_share_of_the_files_is_held_out_by_name(library):
    files = corpus.source_files(library)
    held = [path for path in files if corpus.is_held_out(path, library)]
    assert 0.03 < len(held) / len(files) < 0.15
    assert held == [path for path in files if corpus.is_held_out(path, library)]


def test_evaluation_sequences_come_from_held_out_files_alone(library, small, tmp_path):
    store = Store(tmp_path)
    on = corpus.evaluation(store, library)
    assert {split: list(x.shape) for split, x in on.tokens.items()} == {
        "dictionary": [6, 128],
        "fit": [4, 128],
        "score": [4, 128],
    }
    whole = corpus.training_tokens(store, on, library)
    trained_on = on.tokenizer.decode(whole.tolist(), skip_special_tokens=False)
    for path in corpus.source_files(library):
        said = f"'''only in {path.stem.removeprefix('module')}'''"
        assert (said in trained_on) != corpus.is_held_out(path, library)
    rows = torch.cat(list(on.tokens.values()))
    assert len(rows.unique(dim=0)) == len(rows)
    assert whole.dtype == torch.int16


def test_the_tokenizer_loses_nothing(library, small, tmp_path):
    on = corpus.evaluation(Store(tmp_path), library)
    for path in corpus.source_files(library)[:5]:
        text = path.read_text(encoding="utf-8")
        assert on.tokenizer.decode(on.tokenizer.encode(text).ids) == text


def test_a_second_call_reads_what_the_first_made(library, small, tmp_path):
    first = corpus.evaluation(Store(tmp_path), library)
    again = corpus.evaluation(Store(tmp_path), library)
    assert first.fingerprint == again.fingerprint
    assert all(torch.equal(first.tokens[s], again.tokens[s]) for s in first.tokens)
    assert first.corpus == again.corpus == corpus.description(library)


def test_too_little_text_says_how_much_there_is(library, monkeypatch, tmp_path):
    monkeypatch.setattr(corpus, "N_SEQUENCES", {"dictionary": 10_000, "fit": 4, "score": 4})
    with pytest.raises(ValueError, match=r"sequences of 128 tokens, of which 10008 are needed"):
        corpus.evaluation(Store(tmp_path), library)


def test_a_python_without_source_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no Python source"):
        corpus.source_files(tmp_path)
