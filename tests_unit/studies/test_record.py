"""The record of a study: the same bytes again, and a clear word for what is no record."""

import json

import pytest

from polyrot.runtime.documents import BadDocument
from polyrot.studies import record
from polyrot.studies.record import Row

ROWS = [Row("tails", "adam", 1 / 3, 0.1, 0.5, "models", 5, "axes"), Row("tails", "sgd", 2.0)]


def made(study="tails"):
    return record.record_of(study, device="cpu", seconds=61.4, predictions=[], rows=ROWS, extra=[1])


def test_a_record_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "records" / "study-tails.json"
    record.write(path, made())
    again = record.read(path, "tails")
    assert record.rows_of(again)[0] == Row("tails", "adam", 0.333333, 0.1, 0.5, "models", 5, "axes")
    assert (again["seconds"], again["extra"]) == (61, [1])
    assert record.text_of(again) == path.read_text(encoding="utf-8")


def test_what_is_no_record_is_refused(tmp_path):
    path = tmp_path / "study-tails.json"
    with pytest.raises(BadDocument, match="cannot be read"):
        record.read(path, "tails")
    path.write_text("[1]")
    with pytest.raises(BadDocument, match="no record of a study: it has no format, study"):
        record.read(path, "tails")
    path.write_text(json.dumps({**made(), "format": 99}))
    with pytest.raises(BadDocument, match="of study 'tails', format 99; wanted 'tails', 1"):
        record.read(path, "tails")
    record.write(path, made("other"))
    with pytest.raises(BadDocument, match="of study 'other'"):
        record.read(path, "tails")


def test_a_number_that_is_none_is_not_written(tmp_path):
    bad = {**made(), "trial": {"1": float("inf")}}
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.write(tmp_path / "study.json", bad)
    assert not list(tmp_path.iterdir())
