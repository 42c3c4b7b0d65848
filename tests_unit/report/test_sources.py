"""The test of every claim is found where it is, and names read as a reader says them."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyrot.judge.registration import SCALES, STATUSES, Registration
from polyrot.report.said import SCALE_WORDS, STATUS_WORDS, label_words, section_words
from polyrot.report.sources import read_sources

ROOT = Path(__file__).parents[2]


def test_every_registered_claim_has_a_test_at_its_line() -> None:
    found = read_sources(ROOT)
    registration = Registration.load(ROOT / "claims" / "preregistration.toml")
    assert found.keys() == {claim.id for claim in registration.claims}
    for id, source in found.items():
        lines = (ROOT / source.path).read_text(encoding="utf-8").splitlines()
        assert "\n".join(lines[source.line - 1 :]).startswith(source.text)
        assert f'"{id}"' in source.text
        assert f"def {source.name}(" in source.text
        assert source.path == f"claims/test_{id.split('.')[0]}.py"
    one = found["haar.battery"]
    assert one.node("neox") == f"claims/test_haar.py::{one.name}[neox]"


def test_outside_of_a_checkout_no_test_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_sources() == {}


def test_files_that_are_no_python_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "test_bad.py").write_text("def (")
    text = '@claim("a.b")\n@other\ndef test_it():\n    pass'
    (tmp_path / "claims" / "test_a.py").write_text(f"import x\n\n{text}\n")
    found = read_sources(tmp_path)
    assert list(found) == ["a.b"]
    assert (found["a.b"].line, found["a.b"].text) == (3, text)


def test_every_status_and_scale_has_its_words() -> None:
    assert STATUS_WORDS.keys() == set(STATUSES)
    assert SCALE_WORDS.keys() == set(SCALES)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("0-1", "seeds 0 → 1"),
        ("200-202 resid_post_5", "seeds 200 → 202, resid_post_5"),
        ("100-102 100-103 resid_mid_1", "seeds 100 → 102, 100 → 103, resid_mid_1"),
        ("step 30000 to 51500 resid_mid_0", "step 30000 to 51500 resid_mid_0"),
        ("", ""),
    ],
)
def test_a_pair_of_seeds_reads_as_such(label: str, words: str) -> None:
    assert label_words(label) == words


def test_a_section_says_whose_it_is() -> None:
    assert (
        section_words(["10, 11", "8, paper 3.3"])
        == "post, sections 10, 11 and 8; paper, section 3.3"
    )
