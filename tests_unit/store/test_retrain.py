"""`--retrain`: what it ignores, when it is over, and that it keeps what is unfinished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fixtures.cohorts  # noqa: F401  # loaded here once: pytester unloads what an inner run imports
from polyrot.store import Artifact, Checkpoint, Store
from tests_unit.outcomes import assert_outcomes
from tests_unit.store.store_helpers import RECIPE, Builder, artifacts, never

OTHER = RECIPE | {"seed": 4}


def test_retrain_ignores_what_is_there_and_reuses_what_it_built(tmp_path: Path) -> None:
    plain = Store(tmp_path)
    plain.get_or_build("seed", RECIPE, Builder(1.0), name="s")
    build = Builder(2.0)
    for _ in range(3):  # the same run, its other workers, the same run after a kill
        again = Store(tmp_path, shipped=tmp_path / "nowhere", retrain=True)
        assert again.get_or_build("seed", RECIPE, build).tensors["weight"][0, 0] == 2.0
    assert build.calls == 1
    assert again.state()[0] == plain.state()[0] == 1
    # Until it is finished, a plain run goes on with what it had.
    assert plain.get_or_build("seed", RECIPE, never).tensors["weight"][0, 0] == 1.0


def test_finished_retrain_becomes_the_cache_and_the_next_begins_anew(tmp_path: Path) -> None:
    store = Store(tmp_path, retrain=True)
    store.get_or_build("seed", RECIPE, Builder(2.0))
    assert store.finish_retrain() == 1
    assert Store(tmp_path).get_or_build("seed", RECIPE, never).tensors["weight"][0, 0] == 2.0
    build = Builder(3.0)
    Store(tmp_path, retrain=True).get_or_build("seed", RECIPE, build)
    assert build.calls == 1
    assert Store(tmp_path).finish_retrain() == 0


def test_remeasure_reads_what_is_trained_and_measures_the_rest(tmp_path: Path) -> None:
    plain = Store(tmp_path)
    plain.get_or_build("toy-seeds", RECIPE, Builder(1.0))
    plain.get_or_build("transfer", RECIPE, Builder(1.0))
    build, again = Builder(2.0), None
    for _ in range(2):  # the same run, and its other workers
        again = Store(tmp_path, folder="remeasure", remeasure=True)
        assert again.get_or_build("toy-seeds", RECIPE, never).tensors["weight"][0, 0] == 1.0
        assert again.get_or_build("transfer", RECIPE, build).tensors["weight"][0, 0] == 2.0
        assert not again.has("drift", RECIPE)
    assert build.calls == 1
    assert plain.get_or_build("transfer", RECIPE, never).tensors["weight"][0, 0] == 1.0
    assert again.finish_retrain() == 1
    assert plain.get_or_build("transfer", RECIPE, never).tensors["weight"][0, 0] == 2.0
    assert len(artifacts(tmp_path)) == 2


def test_a_run_counts_what_it_read_and_what_it_measured(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    for store in (first, first, second):
        store.get_or_build("transfer", RECIPE, Builder())
        store.get_or_build("dictionaries", RECIPE, Builder())
    assert first.tally.by_kind() == {"read": {}, "measured": {"transfer": 1}}
    assert second.tally.by_kind() == {"read": {"transfer": 1}, "measured": {}}
    lists = [sorted(first.tally.read), sorted(first.tally.measured)]
    second.tally.take(lists)  # a worker measured what this one read
    assert second.tally.sentence().startswith("tables behind the figures: 0 read")
    assert "1 measured in this run" in second.tally.sentence()


def stopped(checkpoint: Checkpoint) -> Artifact:
    checkpoint.save(Artifact({}, {"step": 40}))
    raise MemoryError


def unfinished(root: Path) -> list[Path]:
    """A retrain with one finished artifact and one checkpoint; its files."""
    store = Store(root, retrain=True)
    store.get_or_build("seed", RECIPE, Builder(2.0))
    with pytest.raises(MemoryError):
        store.get_or_build("seed", OTHER, stopped)
    return files(store.directory)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.name.startswith(".lock-"))


def test_a_checkpoint_outlives_the_finish(tmp_path: Path) -> None:
    unfinished(tmp_path)
    store = Store(tmp_path, retrain=True)
    assert store.finish_retrain() == 1
    states = []

    def resume(checkpoint: Checkpoint) -> Artifact:
        states.append(checkpoint.load())
        return Artifact({})

    store.get_or_build("seed", OTHER, resume)
    assert states[0].meta == {"step": 40}


def test_nothing_is_moved_while_another_run_builds(tmp_path: Path) -> None:
    store = Store(tmp_path, retrain=True)
    store.get_or_build("seed", RECIPE, Builder(2.0))

    def build(checkpoint: Checkpoint) -> Artifact:
        checkpoint.save(Artifact({}))
        before = files(tmp_path)
        assert Store(tmp_path, retrain=True).finish_retrain() == 0
        assert files(tmp_path) == before
        return Artifact({})

    store.get_or_build("seed", OTHER, build)
    assert store.finish_retrain() == 2


# ---------------------------------------------------------------------- sessions of pytest claims

HEAD = "from polyrot.store import Artifact"
BUILD = """
    def build(checkpoint):
        checkpoint.save(Artifact({}))
        with open("built", "a") as file:
            file.write("x")
        return Artifact({})
    request.getfixturevalue("store").get_or_build("toy", {}, build)
    verdict(0.7)
"""
CRASH = """
    def build(checkpoint):
        checkpoint.save(Artifact({}))
        raise MemoryError
    request.getfixturevalue("store").get_or_build("toy", {"other": 1}, build)
"""
RETRAIN = ("-p", "fixtures.cohorts", "--retrain", "--artifacts=cache")


@pytest.fixture
def cache(pytester: pytest.Pytester) -> Path:
    return pytester.path / "cache"


def test_a_retrain_that_ended_is_over(suite: Any, cache: Path) -> None:
    suite.write(HEAD, f__two=BUILD, g__null="verdict(0.1)")  # refuted is an end too
    built = suite.pytester.path / "built"
    for times in (1, 2):
        assert_outcomes(suite.run(*RETRAIN), passed=3, failed=1)
        assert built.read_text() == "x" * times
        assert [path.parent for path in artifacts(cache)] == [cache / "toy"]
    suite.run("-p", "fixtures.cohorts", "--artifacts=cache")
    assert built.read_text() == "xx"


def test_a_remeasuring_leaves_models_alone_and_becomes_the_cache(suite: Any, cache: Path) -> None:
    suite.write(HEAD, f__two=BUILD.replace('"toy"', '"transfer"'), g__null="verdict(0.1)")
    built = suite.pytester.path / "built"
    remeasure = ("-p", "fixtures.cohorts", "--artifacts=cache", "--remeasure")
    for times in (1, 2):
        result = suite.run(*remeasure)
        assert_outcomes(result, passed=3, failed=1)
        assert built.read_text() == "x" * times
        assert [path.parent for path in artifacts(cache)] == [cache / "transfer"]
    suite.write(HEAD, f__two=BUILD.replace('"toy"', '"toy-seeds"'), g__null="verdict(0.1)")
    for _ in range(2):
        assert_outcomes(suite.run(*remeasure), passed=3, failed=1)
    assert built.read_text() == "xxx"  # trained once


def test_a_retrain_in_which_something_crashed_is_not_over(suite: Any, cache: Path) -> None:
    suite.write(HEAD, f__two=BUILD, g__null=CRASH)
    assert_outcomes(suite.run(*RETRAIN), passed=3, failed=1)
    assert [path.parent for path in artifacts(cache)] == [cache / "retrain" / "toy"]
    assert len(list(cache.rglob(".checkpoint-*"))) == 1
    suite.run(*RETRAIN)
    assert (suite.pytester.path / "built").read_text() == "x"


@pytest.mark.slow  # starting workers takes seconds
def test_a_retrain_that_lost_a_worker_is_not_over(suite: Any, cache: Path) -> None:
    before = unfinished(cache)
    suite.write(f__two="import os; os._exit(1)")
    result = suite.run(*RETRAIN, "-p", "xdist", "-n1")
    result.stdout.fnmatch_lines(["*worker 'gw0' crashed*"])
    assert files(cache / "retrain") == before


@pytest.mark.parametrize(
    "arguments",
    [["--collect-only"], ["-k", "no_such_claim"], ["-k", "f_two"], ["--exitfirst"]],
    ids=["collect only", "nothing", "nothing judged", "stopped"],
)
def test_a_run_that_judged_nothing_or_stopped_ends_no_retrain(
    suite: Any, cache: Path, arguments: list[str]
) -> None:
    before = unfinished(cache)
    suite.write(f__one='verdict(0.1, over="pairs")', f__two='raise NotRun("no weights", "get")')
    suite.run(*RETRAIN, *arguments)
    assert files(cache / "retrain") == before


def test_unit_tests_alone_end_no_retrain(suite: Any, cache: Path) -> None:
    before = unfinished(cache)
    suite.pytester.makepyfile(test_unit="def test_unit(): pass")
    assert_outcomes(suite.run(*RETRAIN, folder="test_unit.py"), passed=1)
    assert files(cache / "retrain") == before
