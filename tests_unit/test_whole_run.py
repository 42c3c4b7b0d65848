"""A run of all of tests_unit is shared among processes and leaves out what is slow; no other is."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from tests_unit import whole_run

TESTS = """
import pytest

@pytest.mark.slow
def test_slow(): pass

def test_quick(): pass
"""


@pytest.fixture
def small(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder tests_unit with one slow and one quick test."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makeini("[pytest]\nmarkers = slow: slow\naddopts = -p no:cacheprovider")
    pytester.mkdir("tests_unit")
    (pytester.path / "tests_unit" / "test_both.py").write_text(TESTS)
    pytester.makeconftest("from tests_unit.whole_run import *")
    return pytester


class Machine:
    """A plugin that says how many cores there are, and may end the run once it is shared out."""

    def __init__(self, cores: int, ends: bool) -> None:
        self.cores, self.ends, self.shared = cores, ends, ""

    @pytest.hookimpl(tryfirst=True)  # before pytest-xdist's own answer
    def pytest_xdist_auto_num_workers(self) -> int:
        return self.cores

    def pytest_cmdline_main(self, config: pytest.Config) -> int | None:
        option = config.option
        self.shared = f"{option.numprocesses} {option.dist} {len(option.tx)}"
        return 0 if self.ends else None


def shared(small: pytest.Pytester, *arguments: str, cores: int = 2) -> str:
    """Workers asked for, how tests are shared among them, and workers that will be started."""
    machine = Machine(cores, ends=True)
    small.runpytest_inprocess("-p", "xdist", *arguments, plugins=[machine])
    return machine.shared


@pytest.mark.parametrize("more", [[], ["-m", "slow"], ["-x"], ["-q"]], ids=" ".join)
def test_a_run_of_all_takes_the_cores_there_are(small: pytest.Pytester, more: list[str]) -> None:
    assert shared(small, "tests_unit", *more) == "2 loadfile 2"
    assert shared(small, "tests_unit/", *more, cores=64) == "8 loadfile 8"


@pytest.mark.parametrize(
    "arguments",
    [["tests_unit/test_both.py"], ["tests_unit", "-k", "quick"], ["tests_unit", "--collect-only"]],
    ids=" ".join,
)
def test_a_run_of_few_is_not_shared(small: pytest.Pytester, arguments: list[str]) -> None:
    assert shared(small, *arguments) == "None no 0"


def test_one_core_and_what_the_command_line_says(small: pytest.Pytester) -> None:
    assert shared(small, "tests_unit", cores=1) == "None no 0"
    assert shared(small, "tests_unit", "-n3") == "3 load 3", "as asked for"
    assert shared(small, "tests_unit", "-n0") == "0 no 0"


def test_workers_share_the_threads(small: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    shared(small, "tests_unit", cores=3)
    assert os.environ["OMP_NUM_THREADS"] == "2"
    shared(small, "tests_unit", cores=2)
    assert os.environ["OMP_NUM_THREADS"] == "2", "the environment's own limit holds"


@pytest.mark.parametrize("name", ["PYTEST_XDIST_WORKER", ""])
def test_a_worker_starts_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked as the controlling process is, and would start others without end."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setattr(whole_run, "asks_for_all", lambda _: True)
    hook = SimpleNamespace(pytest_xdist_auto_num_workers=lambda config: 2)
    there = SimpleNamespace(option=SimpleNamespace(numprocesses=None), hook=hook)
    assert whole_run.workers(there) == 2
    if name:
        monkeypatch.setenv(name, "gw0")
    else:
        there.workerinput = {}
    assert whole_run.workers(there) == 0


@pytest.mark.parametrize(
    ("arguments", "ran"),
    [
        (["tests_unit"], ["test_quick"]),
        (["."], ["test_quick"]),
        (["tests_unit", "-m", "slow"], ["test_slow"]),
        (["tests_unit", "-m", "slow or not slow"], ["test_slow", "test_quick"]),
        (["tests_unit/test_both.py"], ["test_slow", "test_quick"]),
        (["tests_unit/test_both.py::test_slow"], ["test_slow"]),
    ],
    ids=lambda x: " ".join(x),
)
def test_what_is_slow_is_left_out_of_a_run_of_all(
    small: pytest.Pytester, arguments: list[str], ran: list[str]
) -> None:
    result = small.runpytest_inprocess("-v", "-p", "xdist", *arguments, plugins=[Machine(1, False)])
    result.assert_outcomes(passed=len(ran))
    for name in ran:
        result.stdout.fnmatch_lines([f"*::{name} PASSED*"])
    said = "unit tests: without those marked slow" in result.stdout.str()
    assert said == (ran == ["test_quick"])


def test_the_suite_registers_both(request: pytest.FixtureRequest) -> None:
    """The hooks are in the folder's conftest, and the marker is pytest's to check."""
    plugins = request.config.pluginmanager.get_plugins()
    hooks = (whole_run.pytest_cmdline_main, whole_run.pytest_collection_modifyitems)
    for hook in hooks:
        assert any(getattr(plugin, hook.__name__, None) is hook for plugin in plugins)
    assert any(line.startswith("slow:") for line in request.config.getini("markers"))
