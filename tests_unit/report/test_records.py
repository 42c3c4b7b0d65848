"""Runs kept beside the ledger: shown with their device and date, and no verdict is theirs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polyrot.judge.ledger import Ledger
from polyrot.judge.registration import Registration
from polyrot.report import readme, records
from polyrot.report.__main__ import main
from polyrot.report.html import render
from polyrot.report.markdown import escaped
from polyrot.report.record import markdown
from tests_unit.report.planted_record import (
    HELD,
    REFUTED,
    REGISTRATION,
    RUN,
    concluded,
    finding,
    not_run,
    record_of,
)

ROOT = Path(__file__).resolve().parents[2]
FINDINGS = (
    finding("cosine.match", "toy_a", HELD),
    finding("naive.fails", "toy_a", [REFUTED, REFUTED + 0.01]),
    not_run("bars.missed", "toy_a"),
)
ACCOUNT = (
    "toy_a, 3 seeds of width 64 on NVIDIA H100, 2026-12-01, options --neox-width 512: "
    "1 held, 1 refuted"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout of the registration alone."""
    (tmp_path / "claims").mkdir()
    shutil.copy(ROOT / "claims" / "preregistration.toml", tmp_path / "claims")
    return tmp_path


@pytest.fixture(scope="module")
def registration() -> Registration:
    return Registration.load(ROOT / "claims" / "preregistration.toml")


@pytest.fixture(scope="module")
def ledger(registration: Registration) -> Ledger:
    return Ledger.load(ROOT / "claims" / "verdicts.toml", registration)


def written(folder: Path, **run: Any) -> Path:
    record = record_of(
        *FINDINGS,
        **{
            "device_name": "NVIDIA H100",
            "date": "2026-12-01",
            "options": {"--neox-width": "512"},
            **run,
        },
    )
    path = folder / "verdicts.json"
    path.write_text(json.dumps(record))
    return path


def test_a_record_is_kept_whole_and_told_in_one_line(root: Path) -> None:
    path = written(root)
    to = records.keep(path, "neox512-h100", root)
    assert to == root / records.RECORDS / "neox512-h100.json"
    assert json.loads(to.read_text()) == json.loads(path.read_text())
    (kept,) = records.kept(root)
    assert (kept.name, kept.account) == ("neox512-h100", ACCOUNT)


def test_its_verdicts_stand_beside_those_of_the_ledger(root: Path, ledger: Ledger) -> None:
    entry = replace(ledger.entries["haar.battery", "neox"], measured=0.125)
    records.keep(written(root), "wide", root)
    text = records.markdown(records.kept(root), Ledger({("cosine.match", "toy_a"): entry}))
    assert "## wide" in text
    word = entry.verdict.value
    assert f"toy_a | ≥ 0.5 | 0.75 (0.7 to 0.8, sequences) | held | {word}, 0.125 |" in text
    assert "toy_a | ≥ 0.5 | 0.25 (0.2 to 0.3, sequences) | **refuted** |  |" in text
    assert "bars.missed" not in text, "it was not judged"


def test_every_report_and_the_readme_name_it(
    root: Path, ledger: Ledger, registration: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Runs kept beside" not in render(record_of(*FINDINGS), [], [])
    records.keep(written(root), "wide", root)
    monkeypatch.chdir(root)
    lines = records.lines()
    assert lines == [f"wide: {ACCOUNT}"]
    assert f"<li>wide: {ACCOUNT}</li>" in render(record_of(*FINDINGS), [], [], kept=lines)
    said = markdown(concluded(*FINDINGS), REGISTRATION, RUN, lines)
    assert f"- wide: {escaped(ACCOUNT)}" in said
    table = readme.core_results(ledger, registration, records.kept(root))
    assert table.endswith(f"|\n\n- [wide](claims/RECORDS.md#wide): {escaped(ACCOUNT)}")


def test_outside_of_a_checkout_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert records.lines() == []
    assert "None was kept so far" in records.markdown([], Ledger({}))


@pytest.mark.parametrize(
    ("name", "run", "said"),
    [
        ("Wide", {}, "is no name"),
        ("../wide", {}, "is no name"),
        ("wide", {"registration_sha256": "0" * 64}, "judged by other bars"),
    ],
)
def test_what_is_not_kept(
    name: str, run: dict[str, Any], said: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(root)
    record = json.loads(path.read_text())
    record["run"] |= run
    path.write_text(json.dumps(record))
    assert main(["keep", str(path), "--name", name, "--root", str(root)]) == 2
    assert said in capsys.readouterr().err
    assert not (root / records.RECORDS).exists()


def test_none_is_written_over_and_one_without_verdicts_is_refused(root: Path) -> None:
    path = written(root)
    records.keep(path, "wide", root)
    with pytest.raises(records.RecordError, match="is there: choose another --name"):
        records.keep(path, "wide", root)
    path.write_text(json.dumps(record_of(not_run("bars.missed", "toy_a"))))
    with pytest.raises(records.RecordError, match="has no verdict"):
        records.keep(path, "empty", root)
