"""Records, figures, ledgers and registrations that somebody changed: one clear error, no traceback,
nothing half-written; and text of theirs stays text in Markdown."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polyrot.judge.ledger import Ledger, LedgerError
from polyrot.judge.registration import Registration, RegistrationError
from polyrot.maps.files import BadFile, read_array
from polyrot.report import figures
from polyrot.report.__main__ import main
from polyrot.report.compare import compare
from polyrot.report.figures.glance import Glance
from polyrot.report.html import render
from polyrot.report.markdown import code, escaped
from polyrot.report.record import RecordError, markdown, read_record
from polyrot.runtime.documents import BadDocument, json_of, read_json, toml_of
from polyrot.store.file import Damaged, read
from tests_unit.disks import closed
from tests_unit.report import planted_figures
from tests_unit.report.planted_record import (
    AMENDED,
    HELD,
    REFUTED,
    REGISTRATION,
    RUN,
    concluded,
    finding,
    not_run,
    record_of,
)

RECORD = record_of(
    finding("cosine.match", "toy_a", [HELD, 0.9], registration=AMENDED),
    finding("naive.fails", "toy_a", REFUTED, registration=AMENDED),
    finding("cosine.noise_control", "toy_a", HELD, registration=AMENDED),
    not_run("bars.missed", "neox"),
    registration=AMENDED,
)
RECORD = json.loads(json.dumps(RECORD))
OTHERS: tuple[Any, ...] = (None, "x", [-1.5])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, of lists the first."""
    if path:
        yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:1])
        if isinstance(value, list)
        else ()
    )
    for key, part in inner:
        yield from places(part, (*path, key))


def altered(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    record = copy.deepcopy(RECORD)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return record


def everything(record: dict[str, Any]) -> None:
    """What is done with a record, but for drawing."""
    render(record, (), figures.standing(record))
    Glance.of(record).words()
    compare(RECORD, record).markdown("a", "b")
    compare(record, RECORD).markdown("a", "b")


@pytest.mark.parametrize("place", sorted(RECORD))
def test_a_record_with_anything_altered_is_refused_or_reads(tmp_path: Path, place: str) -> None:
    file = tmp_path / "verdicts.json"
    refused = 0
    for path in places({place: RECORD[place]}):
        for value in OTHERS:
            record = altered(path, value)
            file.write_text(json.dumps(record))
            try:
                read_record(file)
            except RecordError:
                refused += 1
            else:
                everything(record)
    assert refused


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
def test_a_number_that_is_none_is_no_figure(
    tmp_path: Path, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "verdicts.json"
    file.write_text(
        json.dumps(altered(("verdicts", 0, "measured"), "HERE")).replace('"HERE"', number)
    )
    for arguments in (["compare", file, file], ["html", file, "-o", tmp_path / "out"]):
        assert main(list(map(str, arguments))) == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 2
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists(), "nothing is written of a record that is none"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("verdicts", 0, "bar"), {}, "bar"),
        (("verdicts", 0, "bar"), {"above": 1, "at_least": 1}, "both above and at_least"),
        (("verdicts", 0, "bar"), {"at_least": 2, "at_most": 1}, "nothing satisfies"),
        (("verdicts", 0, "claim"), "cosine", "cosine"),
        (("verdicts", 0, "scale"), "moon", "moon"),
        (("verdicts", 0, "measured"), None, "None is not of type 'number'"),
        (("verdicts", 0, "measured"), 7, "does not lie in its interval"),
        (("verdicts", 0, "missed"), 99, "missed and open than checked"),
        (("verdicts", 1, "claim"), "cosine.match", "is there twice"),
        (("verdicts", 0, "controls", 0, "outcome"), "perhaps", "perhaps"),
        (("verdicts", 1, "verdict"), "not run", "not run"),
    ],
)
def test_parts_that_do_not_belong_together(
    tmp_path: Path, path: tuple[Any, ...], value: Any, said: str
) -> None:
    (tmp_path / "verdicts.json").write_text(json.dumps(altered(path, value)))
    with pytest.raises(RecordError, match=said):
        read_record(tmp_path / "verdicts.json")


def test_nan_is_never_the_same_figure() -> None:
    record = altered(("verdicts", 0, "measured"), math.nan)
    assert [change.name for change in compare(record, record).figures] == ["cosine.match[toy_a]"]


def test_figures_with_anything_altered_are_refused_or_join(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    figures.write_values(file, [planted_figures.cosine(), planted_figures.ev_by_site()], ["why"])
    document = json.loads(file.read_text())
    figures.read_values(file)
    for path in places(document):
        for value in (None, True, "x", [], {}, 1.5):
            changed = copy.deepcopy(document)
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            file.write_text(json.dumps(changed))
            with contextlib.suppress(ValueError):
                figures.read_values(file)


# ------------------------------------------------------------- texts that crash those who read them

BOMB = 100_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * BOMB, "nested too deeply"),
        ('{"a":' * BOMB, "nested too deeply"),
        ("[" * 100 + "]" * 100, "nested too deeply"),
        ("1" * BOMB, "no JSON"),
        ("9" * 400, "a whole number of 1329 bits"),
        ("1e400", "beyond double precision"),
        ("NaN", "NaN is no number"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ("", "no JSON"),
    ],
)
def test_json_that_crashes_a_reader(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadDocument, match=said):
        json_of(text)
    (tmp_path / "file").write_text(text)
    with pytest.raises(BadDocument, match=f"file: .*{said}"):
        read_json(tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * BOMB, "nested too deeply"),
        (".".join("a" * 200) + " = 1", "nested too deeply"),
        (f"a = {'1' * BOMB}", "no TOML"),
        (f"a = 0x{'f' * 400}", "a whole number of 1600 bits"),
        ("a = [1", "no TOML"),
    ],
)
def test_toml_that_crashes_a_reader(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadDocument, match=said):
        toml_of(text)
    file = tmp_path / "file.toml"
    file.write_text(text)
    with pytest.raises(RegistrationError, match=said):
        Registration.load(file, registered=False)
    with pytest.raises(LedgerError, match=said):
        Ledger.load(file, REGISTRATION)


def test_files_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "closed").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "latin").write_bytes(b'"\xff"')
    for name, said in (
        (".", "cannot be read: Is a directory"),
        ("link", "cannot be read: No such file"),
        ("latin", "is no UTF-8 text"),
        ("x" * 300, "cannot be read: File name too long"),
    ):
        with pytest.raises(BadDocument, match=said):
            read_json(tmp_path / name)
    with closed(tmp_path / "closed", mode=0), pytest.raises(BadDocument, match="Permission denied"):
        read_json(tmp_path / "closed")


def test_a_header_that_crashes_a_reader_is_a_damaged_file(tmp_path: Path) -> None:
    inner = json.dumps("[" * BOMB)
    for header in ('{"__metadata__":{"polyrot":' + inner + "}}", "[" * BOMB, "9" * BOMB):
        path = tmp_path / "a.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
        with pytest.raises(Damaged, match="no artifact of this suite"):
            read(path)
        with pytest.raises(BadFile, match=r"cannot be read as \.safetensors|holds no array"):
            read_array(path)


@pytest.mark.parametrize(
    "header",
    [
        "(" * 9000,
        "{'descr': '<f8', 'fortran_order': False, 'shape': (10**9, 10**9)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 30 + ",), }",
        "{" * 300,
    ],
)
def test_a_npy_header_that_crashes_a_reader_is_a_bad_file(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.npy"
    text = header.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64))
    with pytest.raises(BadFile, match=r"cannot be read as \.npy"):
        read_array(path)


# ------------------------------------------------------------------------------------- Markdown

NASTY = "one\n\n# two <script>x</script> | three [a](b) &lt; `four`"


def test_text_in_markdown_stays_text() -> None:
    assert escaped(NASTY) == (
        "one # two &lt;script>x&lt;/script> \\| three [a]\\(b) &amp;lt; `four`"
    )
    assert code("a `b`\nc|d", cell=True) == "`` a `b` c\\|d ``"


def test_no_text_of_a_run_breaks_its_markdown() -> None:
    judged = replace(finding("cosine.match", "toy_a", [HELD, 0.9]), label=NASTY, why=NASTY)
    waiting = replace(not_run("naive.fails", "neox"), why=NASTY, command="do `it`\n<b>")
    claims = tuple(replace(c, paper=NASTY) for c in REGISTRATION.claims)
    registration = replace(REGISTRATION, claims=claims)
    text = markdown(
        concluded(judged, waiting, registration=registration),
        registration,
        {**RUN, "device_name": NASTY, "options": {"--text": NASTY}},
    )
    assert "<script>" not in text
    assert "\n# two" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {9}
    assert "``do `it` <b>``" in text.replace("`` ", "``").replace(" ``", "``")
    record = record_of(replace(judged, why="x"), registration=registration)
    record["verdicts"][0]["label"] = NASTY
    shown = compare(record_of(judged), record).markdown(NASTY, "b")
    assert "<script>" not in shown
    assert "\n# two" not in shown
