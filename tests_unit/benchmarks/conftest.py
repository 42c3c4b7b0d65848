"""Benchmarks take their time: all of them are slow."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.is_relative_to(HERE):  # the hook is called for those of other folders as well
        item.add_marker("slow")
