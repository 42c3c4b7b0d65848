"""What workers of pytest-xdist hand back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fixtures import language, workers


def config(**more: Any) -> Any:
    return SimpleNamespace(stash=pytest.Stash(), **more)


def worker() -> Any:
    return config(workerinput={}, workeroutput={})


def test_a_value_is_given_at_a_workers_end_and_taken_by_the_controller() -> None:
    there, here, taken = worker(), config(), []
    workers.share(there, "figures", lambda: {"n": 1, "at": ("a", "b")}, taken.append)
    workers.share(here, "figures", lambda: pytest.fail("gives nothing"), taken.append)
    workers.pytest_sessionfinish(SimpleNamespace(config=there))
    workers.pytest_sessionfinish(SimpleNamespace(config=here))
    workers.pytest_testnodedown(SimpleNamespace(config=here, workeroutput=there.workeroutput))
    assert taken == [{"n": 1, "at": ["a", "b"]}]


def test_a_worker_that_died_hands_nothing_back() -> None:
    here, taken = config(), []
    workers.share(here, "figures", dict, taken.append)
    workers.pytest_testnodedown(SimpleNamespace(config=here))
    workers.pytest_testnodedown(SimpleNamespace(config=here, workeroutput={"exitstatus": 0}))
    assert taken == []


def test_the_table_of_the_pair_is_shown_by_the_controller() -> None:
    idle, busy, here = worker(), worker(), config()
    for each in (idle, busy, here):
        language.pytest_configure(each)
    busy.stash[language.FRONTIER] = ["naive_ev 0.1"]
    for each in (busy, idle):
        workers.pytest_sessionfinish(SimpleNamespace(config=each))
        workers.pytest_testnodedown(SimpleNamespace(config=here, workeroutput=each.workeroutput))
    assert here.stash[language.FRONTIER] == ["naive_ev 0.1"]


@pytest.mark.parametrize(
    ("processes", "given", "taken"),
    [
        (2, "no", "worksteal"),
        ("auto", "no", "worksteal"),
        (2, "loadfile", "loadfile"),
        (None, "no", "no"),
        (0, "no", "no"),
    ],
)
def test_workers_begin_with_a_part_of_the_scales_unless_told_otherwise(
    processes: int | str | None, given: str, taken: str
) -> None:
    option = SimpleNamespace(numprocesses=processes, dist=given)
    workers.pytest_cmdline_main(SimpleNamespace(option=option))
    assert option.dist == taken


def test_without_pytest_xdist_nothing_is_set() -> None:
    option = SimpleNamespace()
    workers.pytest_cmdline_main(SimpleNamespace(option=option))
    assert vars(option) == {}
