"""The table of options: what is refused at the start, and that no deciding option goes unnamed."""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import pytest

from fixtures.options import OPTIONS, UPDATE, Option, check, decisive
from polyrot.judge.registration import SCALES
from tests_unit.conftest import registered

DECIDING = [option for option in OPTIONS if option.decides]
CHANGED: dict[str, list[str]] = {
    "--schedule": ["tiny"],
    "--positions": ["2000000"],
    "--neox-width": ["512"],
    "--cohort": ["mine:cohort"],
    "--pair": ["a", "b"],
    "--sae": ["folder"],
    "--pythia-dir": ["folder"],
    "--pythia-revision": ["step1000"],
    "--text": ["text"],
    "--context": ["64"],
    "--tokens": ["70000"],
    "--skip-positions": ["1"],
}
"""Another value than the default, for every option that decides verdicts."""
MINE = """
from polyrot.cohorts.cohort import CohortDefaults

class Mine(CohortDefaults):
    scale, seeds, width, fingerprint = "toy_a", (0, 1), 8, "nothing"
    sites = ("resid_pre_0", "resid_post_0")

    def activations(self, split, site):
        raise KeyError

cohort = Mine
"""


def given(**changed: object) -> argparse.Namespace:
    """A command line without options, but for `changed`."""
    names = {option.name.removeprefix("--").replace("-", "_"): option for option in OPTIONS}
    assert changed.keys() <= names.keys()
    return argparse.Namespace(**{n: option.default for n, option in names.items()} | changed)


@pytest.fixture
def surroundings(suite: Any) -> Any:
    """The small suite with a claim at every scale of models, and what options may point to."""
    scales = [scale for scale in SCALES if scale != "paper"]
    head = "[meta]\nregistered = 2026-11-22\nalpha = 0.01\n"
    (suite.claims / "preregistration.toml").write_text(head + registered("f.two", "core", scales))
    suite.write(f__one="", g__null="")
    suite.pytester.mkdir("folder")
    (suite.pytester.path / "text").write_text("text")
    (suite.pytester.path / "mine.py").write_text(MINE)
    return suite


@pytest.mark.parametrize("option", DECIDING, ids=lambda option: option.name)
def test_what_decides_is_named_and_never_rewrites_the_ledger(
    surroundings: Any, option: Option
) -> None:
    words, scale = [option.name, *CHANGED[option.name]], option.decides[0]
    needs = ["--pair", "a", "b"] if option.name == "--sae" else []
    named = "--pair a b" if needs else " ".join(words)  # of two that decide, the first
    refused = surroundings.run(UPDATE, *words, *needs, "--co")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines([f"*{UPDATE}: the ledger is of * plain run*with {named};*"])
    beside = [f"--scale={scale}", *needs]
    result = surroundings.run(*words, *beside, "--report=out")
    result.stdout.fnmatch_lines([f"options: *{' '.join(words)}*"])
    run = surroundings.report()["run"]
    assert run["options"][option.name] == " ".join(CHANGED[option.name])
    assert " ".join(words) in (surroundings.pytester.path / "out" / "verdicts.md").read_text()


def test_an_option_is_named_only_where_it_decides() -> None:
    assert set(decisive(given(), ["toy_a"])) == {"--schedule", "--positions"}
    neox = {"--schedule", "--neox-width", "--skip-positions"}
    assert set(decisive(given(), ["neox"])) == neox
    assert decisive(given(), ["paper"]) == {}
    assert decisive(given(pair=["a", "b"]), ["pair"])["--pair"] == "a b"


def test_what_decides_nothing_may_rewrite_the_ledger() -> None:
    check(given(update_verdicts=True, retrain=True, scale="toy_a", device="cpu"), claims=False)
    for option in OPTIONS:
        assert option.may_rewrite_ledger == (option not in DECIDING)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--neox-width=7"], "*--neox-width 7: possible are multiples of 32 below 512, * of 64*"),
        (["--neox-width=100"], "*--neox-width 100: possible are multiples of 32*"),
        (["--neox-width=-64"], "*--neox-width -64: possible are multiples of 32*"),
        (["--neox-width=0"], "*--neox-width 0: possible are multiples of 32*"),
        (["--neox-width=544"], "*--neox-width 544: possible are * 64 from there on*"),
        (["--positions=0"], "*--positions 0: the registration asks for 1000000 or more*"),
        (["--positions=999999"], "*--positions 999999: the registration asks for*"),
        (["--positions=1e7"], "*--positions: invalid int value: '1e7'*"),
        (["--tokens=0"], "*--tokens 0: that is less than one sequence of --context 256*"),
        (["--tokens=-5"], "*--tokens -5: that is less than one sequence*"),
        (["--context=1"], "*--context 1: a sequence has two tokens or more*"),
        (["--context=70000"], "*--tokens 65536: *one sequence of --context 70000 tokens*"),
        (
            ["--artifacts=tox.ini"],
            "*--artifacts tox.ini: *it is a file where a directory should be*",
        ),
        (
            ["--artifacts=tox.ini/x"],
            "*--artifacts tox.ini/x: *tox.ini is a file where a directory should be*",
        ),
        (["--report=tox.ini"], "*--report tox.ini: *it is a file where a directory should be*"),
        (
            ["--report=tox.ini/x"],
            "*--report tox.ini/x: *tox.ini is a file where a directory should be*",
        ),
        (["--sae=nowhere"], "*--sae nowhere: there is no such directory*"),
        (["--sae=tox.ini"], "*--sae tox.ini: *it goes with --pair A B*"),
        (["--sae=claims"], "*--sae claims: *it goes with --pair A B*"),
        (["--pythia-dir=nowhere"], "*--pythia-dir nowhere: it is not a directory*"),
        (["--pythia-dir=claims", "--pythia-revision=x"], "*--pythia-revision x: a revision is of*"),
        (["--text=nowhere"], "*--text nowhere: nowhere cannot be read: it is no file*"),
    ],
)
def test_values_that_cannot_be(suite: Any, arguments: list[str], message: str) -> None:
    result = suite.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert "Traceback" not in result.stderr.str()


@pytest.mark.parametrize(
    "option",
    [option for option in OPTIONS if not option.default and option.keywords.get("type") is not int],
    ids=lambda option: option.name,
)
def test_an_empty_value_is_refused(suite: Any, option: Option) -> None:
    if option.keywords.get("action") == "store_true":
        assert option.default is False
        return
    words = [option.name, "", "b"] if option.keywords.get("nargs") == 2 else [f"{option.name}= "]
    result = suite.run(*words)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{option.name}: the value is empty"])


def test_a_folder_that_cannot_be_written(suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    for words in (["--report=out"], ["--artifacts=cache", "--retrain"]):
        result = suite.run(*words)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*--* cannot be written: you may not write in *"])


@pytest.mark.parametrize("width", [32, 128, 480, 512, 576])
def test_widths_that_can_be(width: int) -> None:
    check(given(neox_width=width), claims=False)


def test_help_makes_nothing(suite: Any) -> None:
    assert suite.run("--help", "--artifacts=cache").ret == pytest.ExitCode.OK
    assert not (suite.pytester.path / "cache").exists()
