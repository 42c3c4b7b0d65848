"""Caches, reports and ledgers on disks that refuse; runs that somebody stops, or beside others."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

import fixtures.cohorts  # noqa: F401  # loaded here once: pytester unloads what an inner run imports
from polyrot.store import Store, begin_retraining
from tests_unit.disks import closed
from tests_unit.outcomes import assert_outcomes
from tests_unit.store.store_helpers import RECIPE, Builder, artifacts, never

HEAD = "from polyrot.store import Artifact"
BUILD = """
    def build(checkpoint):
        checkpoint.save(Artifact({}))
        return Artifact({})
    request.getfixturevalue("store").get_or_build("toy", {}, build)
    verdict(0.7)
"""
WITH = ("-p", "fixtures.cohorts", "--artifacts=cache")


@pytest.fixture
def cache(suite: Any) -> Path:
    folder: Path = suite.pytester.path / "cache"
    return folder


def test_a_cache_that_can_only_be_read_still_measures(suite: Any, cache: Path) -> None:
    suite.write(HEAD, f__two=BUILD)
    cache.mkdir()
    suite.pytester.path.chmod(0o777)
    with closed(cache):
        result = suite.run(*WITH)
    assert_outcomes(result, passed=4)
    result.stdout.fnmatch_lines(["cache: *only to be read (*you may not write*is not kept"])
    assert not list(cache.iterdir())


@pytest.mark.parametrize("name", ["verdicts.json", "verdicts.md", "index.html", "figures.json"])
def test_a_directory_in_the_place_of_a_report_s_file(suite: Any, name: str) -> None:
    (suite.pytester.path / "out" / name).mkdir(parents=True)
    result = suite.run("--report=out")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--report out: *{name} cannot be written: it is a directory*"])


def test_a_ledger_that_cannot_be_rewritten_is_said_first(suite: Any) -> None:
    suite.ledger.mkdir()
    result = suite.run("--update-verdicts")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_lock_that_is_a_directory_is_said_first(suite: Any, cache: Path) -> None:
    (cache / "toy" / ".lock-0").mkdir(parents=True)
    result = suite.run(*WITH)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--artifacts cache: *.lock-0 cannot be written: it is a dir*"])


def test_where_nothing_can_be_kept_the_run_stops_with_one_line(suite: Any) -> None:
    suite.write(
        "from polyrot.store import StoreFull", f__one='raise StoreFull(28, "no space left in x")'
    )
    result = suite.run()
    out = result.stdout.str()
    assert "Traceback" not in out
    assert out.count("def test_") == 0, "no source is shown"
    result.stdout.fnmatch_lines(["*nothing can be kept: no space left in x*"])
    assert_outcomes(result, failed=1)


# -------------------------------------------------------------------- two runs with --retrain


def test_two_retrainings_have_each_their_own(tmp_path: Path) -> None:
    one, other = begin_retraining(tmp_path), begin_retraining(tmp_path)
    stores = [Store(tmp_path, retrain=True, folder=run.folder) for run in (one, other)]
    builds = Builder(1.0), Builder(2.0)
    for store, build in zip(stores, builds, strict=True):
        store.get_or_build("seed", RECIPE, build, name="s")
    assert [build.calls for build in builds] == [1, 1], "neither takes the other's"
    assert stores[0].finish_retrain() == 1
    again = stores[1].get_or_build("seed", RECIPE, never)
    assert again.tensors["weight"][0, 0] == 2.0, "the end of one takes nothing from the other"
    assert Store(tmp_path).get_or_build("seed", RECIPE, never).tensors["weight"][0, 0] == 1.0
    one.release()
    other.release()


def test_a_retraining_that_was_stopped_is_gone_on_with(tmp_path: Path) -> None:
    first, second = begin_retraining(tmp_path), begin_retraining(tmp_path)
    Store(tmp_path, retrain=True, folder=second.folder).get_or_build("seed", RECIPE, Builder())
    first.release()
    second.release()
    after = begin_retraining(tmp_path)
    assert after.folder == second.folder != first.folder, "what is unfinished comes first"
    beside = begin_retraining(tmp_path)
    assert beside.folder == first.folder
    after.release()
    beside.release()


def test_a_run_beside_another_retrains_on_its_own(suite: Any, cache: Path) -> None:
    suite.write(HEAD, f__two=BUILD)
    other = begin_retraining(cache)
    Store(cache, retrain=True, folder=other.folder).get_or_build("toy", {}, Builder(), name="s")
    before = artifacts(cache)
    assert_outcomes(suite.run(*WITH, "--retrain"), passed=4)
    other.release()
    assert set(before) < set(artifacts(cache))
    assert [path.parent.name for path in artifacts(cache)] == ["toy", "toy"]


# ----------------------------------------------------------------------------- Ctrl-C and SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_run_that_is_stopped_says_that_the_same_command_goes_on(
    suite: Any, number: signal.Signals
) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
    suite.write(f__two=f"import signal\nsignal.raise_signal({int(number)})\nverdict(0.7)")
    try:
        run = suite.pytester.runpytest_inprocess(
            "claims", "--artifacts=cache", no_reraise_ctrlc=True
        )
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "given back"
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert run.ret == pytest.ExitCode.INTERRUPTED
    run.stdout.fnmatch_lines(
        [
            "core claims: *",  # what was judged until then is shown
            "Interrupted: the same command goes on from the last save; what is trained * cache",
        ]
    )
