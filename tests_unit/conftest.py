"""How the unit tests are run, and a small suite of claims for the tests of the verdict plugin."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import fontTools.subset  # noqa: F401  # see below
import matplotlib.figure  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import torch._dynamo  # noqa: F401

from tests_unit.whole_run import (  # noqa: F401  # hooks of pytest
    pytest_cmdline_main,
    pytest_collection_modifyitems,
    pytest_report_header,
)

# Loaded here once: pytester unloads what an inner run imports, and the next would pay for it again;
# torch._dynamo, which some releases of transformers import, fails at the second time, and so do
# fonts in PDF.

# The plugin under test is the suite's own, without the fixtures that come with it.
CONFTEST = 'pytest_plugins = ["fixtures.options", "fixtures.workers", "fixtures.suite"]'
HEAD = """
import pytest
from polyrot.measured import Measured
from polyrot.judge.verdicts import NotRun

claim = pytest.mark.claim
"""
GOOD = {
    "f.one": 'verdict({"a": 0.9, "b": 0.6}, over="pairs")',
    "f.two": "verdict(0.7)",
    "g.null": "verdict(0.8)",
}


def registered(id: str, status: str, scales: list[str], **more: Any) -> str:
    table = {
        "id": id,
        "section": "1",
        "status": status,
        "scales": scales,
        "says": "says",
        "measures": "measures",
        "paper": "0.9",
        **more,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(["[[claim]]", *lines, "bar = { at_least = 0.5 }", ""])


REGISTRATION = "[meta]\nregistered = 2026-11-22\nalpha = 0.01\n" + "\n".join(
    [
        registered("f.one", "core", ["toy_a", "toy_b"], over="pairs"),
        registered("f.two", "core", ["toy_a"]),
        registered("g.null", "control", ["toy_a"], controls=["f.one"]),
    ]
)


class Suite:
    """A small claims/ in a folder of its own."""

    head = HEAD
    good = GOOD

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.claims = pytester.mkdir("claims")
        self.ledger = self.claims / "verdicts.toml"
        pytester.makeconftest(CONFTEST)
        pytester.makeini(
            """
            [pytest]
            addopts = --strict-markers --import-mode=importlib -p no:cacheprovider
            polyrot_unregistered = true
            """
        )
        (self.claims / "preregistration.toml").write_text(REGISTRATION)

    def write(self, head: str = "", **bodies: str) -> None:
        """Tests by claim id, with "__" for the dot; those of GOOD unless given, none if ""."""
        given = {id.replace("__", "."): body for id, body in bodies.items()}
        source = HEAD + textwrap.dedent(head)
        for id, body in {**GOOD, **given}.items():
            if body:
                name = id.replace(".", "_")
                source += f'\n\n@claim("{id}")\ndef test_{name}(verdict, scale, request):\n'
                source += textwrap.indent(textwrap.dedent(body), "    ")
        (self.claims / "test_small.py").write_text(source)

    def run(self, *arguments: str, folder: str = "claims") -> pytest.RunResult:
        return self.pytester.runpytest_inprocess(folder, *arguments)

    def judge(self, *arguments: str) -> dict[str, str]:
        """Verdicts by claim[scale], from the report."""
        self.run("--report=out", *arguments)
        return {f"{v['claim']}[{v['scale']}]": v["verdict"] for v in self.report()["verdicts"]}

    def report(self) -> dict[str, Any]:
        return json.loads((self.pytester.path / "out" / "verdicts.json").read_text())


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    # Other plugins cost each inner run seconds of imports, which pytester undoes after it.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    made = Suite(pytester)
    made.write()
    return made
