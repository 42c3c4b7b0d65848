"""The figure of power: what is shipped is whole, and what is kept is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyrot.report.figures import power
from tests_unit.report import planted_figures as planted


def test_the_shipped_power_is_whole_and_says_how_it_was_measured() -> None:
    tables = power.load()
    assert [found.d for found in tables] == [64, 512]
    for found in tables:
        assert found.command.startswith(f"python -m polyrot.report power --d {found.d} ")
        assert f"--draws {found.draws}" in found.command
        error = 4 * float(found.table().errors[0].max())
        assert found.table().get("Haar", "battery") <= found.level + error, "the size is the level"
        assert found.table().get("cyclic shift", "KS .99") <= error, "as published: it passes"
        assert found.table().get("cyclic shift", "battery") >= 1 - error


def test_power_is_kept_by_dimension(tmp_path: Path) -> None:
    path = tmp_path / "power.json"
    power.keep(planted.power(), path)
    assert power.load(path) == (planted.power(),)
    path.write_text(path.read_text().replace('"battery"', '"other"'))
    with pytest.raises(ValueError, match="criteria are not those"):
        power.load(path)
