"""A cohort of one's own, --cohort MODULE:FACTORY: what it is judged by, and what it may lack."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fixtures.cohorts
import fixtures.interventions  # noqa: F401  # here once: pytester unloads what an inner run imports
from fixtures.own_cohort import BadCohort, extended, load
from tests_unit.outcomes import assert_outcomes

MINE = """
from dataclasses import dataclass

import torch
from polyrot.cohorts.cohort import SPLITS, CohortDefaults


class Mine(CohortDefaults):
    scale, seeds, width, fingerprint = "toy_b", (0, 1), 8, "two random models, version 1"
    sites = ("resid_pre_0", "resid_post_0", "resid_post_1")

    def activations(self, split, site):
        number = 3 * SPLITS.index(split) + self.sites.index(site)
        drawn = torch.Generator().manual_seed(number)
        return torch.randn(len(self.seeds), 64, self.width, generator=drawn)


class WithUntrained(Mine):
    def untrained(self):
        return Mine()


class Told(Mine):
    def sequences(self, split):
        return torch.arange(64) // 4


class Listed(Told):
    def sequences(self, split):
        return super().sequences(split).tolist()


class Behind(Mine):
    def fixed_directions(self, site):
        return torch.ones(1, self.width)


class Fewer(Mine):
    internal = ("resid_post_1",)


class Worded(Mine):
    def tokens(self, split):
        return torch.zeros(16, 4, dtype=torch.int64)


class Failing(Told):
    def sequences(self, split):
        raise OSError("no such file")


@dataclass(frozen=True)
class Frozen(Mine):
    fingerprint: str = Mine.fingerprint


class Computed(Mine):
    @property
    def fingerprint(self):
        return "two random models, version 1"


class Lone(Mine):
    seeds = (0,)


class Elsewhere(Mine):
    scale = "moon"


class Twice(Mine):
    seeds = (3, 1, 3)


class Three(Mine):
    scale, seeds = "pair", (0, 1, 2)


class Nameless(Mine):
    fingerprint = ""


class Bare:
    scale = "toy_b"


def broken():
    raise OSError("no such disk")


number = 3
"""
BY_COHORT = """
cohort = request.getfixturevalue("cohort")
verdict(0.6 if type(cohort).__name__ == "Mine" else 0.1, "pairs")
"""
LEDGER = """
["f.one".toy_b]
verdict = "refuted"
why = "0.2, bar ≥ 0.5"
"""
PLUGINS = ("-p", "fixtures.cohorts", "-p", "fixtures.interventions", "--device=cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the module `planted_cohorts`, not yet imported."""
    path, known = list(sys.path), set(sys.modules)
    (tmp_path / "planted_cohorts.py").write_text(MINE)
    (tmp_path / "planted_broken.py").write_text("import nowhere_at_all")
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - known:
        if name.startswith("planted_"):
            del sys.modules[name]


def test_what_the_factory_makes(folder: Path) -> None:
    made = load("planted_cohorts:Mine", folder)
    assert (made.scale, made.seeds, made.internal) == (
        "toy_b",
        (0, 1),
        ("resid_post_0", "resid_post_1"),
    )


def test_the_fingerprint_knows_what_is_quick_to_read(folder: Path) -> None:
    """A run that says which tokens are of one sequence reads no table of one that did not."""
    given = "two random models, version 1"
    kinds = ("Mine", "Told", "Behind", "Fewer", "Worded", "Failing")
    found = [load(f"planted_cohorts:{kind}", folder).fingerprint for kind in kinds]
    assert len({given, *found}) == 1 + len(kinds)
    alike = ("Frozen", "Listed")
    assert load("planted_cohorts:Computed", folder).fingerprint == found[0], "of a property, too"
    again = [load(f"planted_cohorts:{kind}", folder).fingerprint for kind in (*kinds, *alike)]
    assert again == [*found, *found[:2]]
    bare = load("planted_cohorts:Mine", folder)
    bare.activations = None  # type: ignore[method-assign, assignment]
    assert extended(bare).fingerprint not in found  # and no activation was read


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("planted_cohorts", "give module:factory, such as"),
        (":Mine", "give module:factory"),
        ("planted_nowhere:Mine", "there is no module planted_nowhere in "),
        ("planted_broken:Mine", "planted_broken fails with ModuleNotFoundError: .*nowhere_at_all"),
        ("planted_cohorts:Yours", "planted_cohorts has no function Yours"),
        ("planted_cohorts:number", "planted_cohorts has no function number"),
        ("planted_cohorts:broken", r"broken\(\) fails with OSError: no such disk"),
        ("planted_cohorts:Bare", r"a Bare, is no cohort .*: it lacks .*seeds.*activations"),
        ("planted_cohorts:Lone", "has 1 seeds: give two or more"),
        ("planted_cohorts:Elsewhere", "is of scale 'moon'; known: toy_a, toy_b"),
        ("planted_cohorts:Three", "has 3 seeds, of which scale pair has two"),
        ("planted_cohorts:Twice", "cannot be used: toy_b: seed 3 is given twice"),
        ("planted_cohorts:Nameless", "has no fingerprint"),
    ],
)
def test_what_is_no_cohort(folder: Path, name: str, message: str) -> None:
    with pytest.raises(BadCohort, match=message):
        load(name, folder)


@pytest.fixture
def mine(suite: Any) -> Any:
    """The small suite with a module of cohorts beside it; f.one is judged by the cohort."""
    (suite.pytester.path / "planted_cohorts.py").write_text(MINE)
    suite.write(f__one=BY_COHORT)
    return suite


def test_it_is_judged_by_the_claims_of_its_scale(mine: Any) -> None:
    result = mine.run(*PLUGINS, "--cohort=planted_cohorts:Mine", "--report=out")
    assert_outcomes(result, passed=1)
    result.stdout.fnmatch_lines(["scales: toy_b", "options: *--cohort planted_cohorts:Mine*"])
    record = mine.report()
    assert record["run"]["options"]["--cohort"] == "planted_cohorts:Mine"
    assert [(v["claim"], v["scale"], v["verdict"]) for v in record["verdicts"]] == [
        ("f.one", "toy_b", "held")
    ]


def test_the_ledger_expects_nothing_of_it(mine: Any) -> None:
    mine.ledger.write_text(LEDGER)
    result = mine.run(*PLUGINS, "--cohort=planted_cohorts:Mine")
    assert_outcomes(result, passed=1)  # not an unexpected pass
    assert "ledger has" not in result.stdout.str()
    assert "not in it" not in result.stdout.str()
    mine.write(f__one='verdict(0.1, over="pairs")')
    assert_outcomes(mine.run(*PLUGINS, "--cohort=planted_cohorts:Mine"), failed=1)
    assert_outcomes(mine.run(*PLUGINS, "--scale=toy_b"), xfailed=1)
    before = mine.ledger.read_text()
    refused = mine.run(*PLUGINS, "--cohort=planted_cohorts:Mine", "--update-verdicts")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    assert mine.ledger.read_text() == before


@pytest.mark.parametrize(
    ("fixture", "reason"),
    [
        ("untrained_cohort", "not known as they were before their first step"),
        ("checkpoints", "have no checkpoints of one run"),
        ("open_cohort", "cannot be intervened on"),
        ("toy_cohort", "are not the toy's"),
    ],
)
def test_what_it_lacks_is_not_run_with_the_reason(mine: Any, fixture: str, reason: str) -> None:
    mine.write(f__one=f'request.getfixturevalue("{fixture}"); verdict(0.7, over="pairs")')
    assert_outcomes(mine.run(*PLUGINS, "--cohort=planted_cohorts:Mine", "--report=out"), skipped=1)
    (found,) = mine.report()["verdicts"]
    assert found["verdict"] == "not run"
    assert reason in found["why"]
    assert "--cohort" in found["command"]


def test_what_it_offers_is_run(mine: Any) -> None:
    named = 'made.fingerprint != "two random models, version 1"'
    asked = f'made = request.getfixturevalue("untrained_cohort"); verdict(0.7 * ({named}), "pairs")'
    mine.write(f__one=asked)
    result = mine.run(*PLUGINS, "--cohort=planted_cohorts:WithUntrained")
    assert_outcomes(result, passed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cohort=planted_cohorts:Yours"], "*--cohort planted_cohorts:Yours: *no function Yours"),
        (["--cohort=planted_cohorts:Mine", "--scale=toy_a"], "*--cohort*scale toy_b*"),
        (["--cohort=planted_cohorts:Mine", "--pair", "a", "b"], "*--cohort*--pair*"),
    ],
)
def test_what_is_refused_at_the_start(mine: Any, arguments: list[str], message: str) -> None:
    result = mine.run(*PLUGINS, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_what_the_suites_own_models_lack_is_an_error(mine: Any) -> None:
    """The registration asks nothing of a scale that it does not offer."""
    lacking = 'raise NotOffered("none")\nverdict(0.7, over="pairs")'
    mine.write("from polyrot.cohorts.cohort import NotOffered", f__one=lacking)
    found = mine.judge(*PLUGINS, "--cohort=planted_cohorts:Mine", "--scale=toy_a,toy_b")
    assert found["f.one[toy_a]"] == "error"
    assert found["f.one[toy_b]"] == "not run"


def test_other_scales_beside_it_keep_their_own(mine: Any) -> None:
    mine.write(f__one='verdict(0.7, over="pairs")')
    result = mine.run(*PLUGINS, "--cohort=planted_cohorts:Mine", "--scale=toy_a,toy_b")
    assert_outcomes(result, passed=4)
