"""Options, scales, device, and the verdict plugin: nothing numeric.

The plugin is only active in runs that collect claims/. Each claim test leaves one Finding in its
item; findings travel as JSON in the reports' user properties, so that pytest-xdist and JUnit XML
have them too, and the controlling process concludes, prints, and writes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from polyrot.judge.ledger import Ledger, LedgerError
from polyrot.judge.registration import (
    DEFAULT_SCALES,
    SCALES,
    Claim,
    Registration,
    RegistrationError,
)
from polyrot.judge.verdicts import ClaimRefuted, Finding, NotRun, Verdict, judge
from polyrot.measured import Measured
from polyrot.report import junit, provenance, table
from polyrot.report.closing import Closing, close_run, missing

pytest_plugins = [
    "pytester",
    "fixtures.cohorts",
    "fixtures.dictionaries",
    "fixtures.measurements",
    "fixtures.interventions",
    "fixtures.language",
    "fixtures.bars",
    "fixtures.figures",
]

REGISTRATION = "preregistration.toml"
LEDGER = "verdicts.toml"
UNREGISTERED = "polyrot_unregistered"
FINDING = pytest.StashKey[Finding]()
PLUGIN = "polyrot-claims"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("polyrot", "polyrot: the claims of the paper")
    group.addoption(
        "--scale",
        metavar="A,B",
        help=f"scales to judge, of {', '.join(SCALES)} (default: {','.join(DEFAULT_SCALES)})",
    )
    group.addoption(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to compute; auto (default) is cuda where torch sees a card, else cpu",
    )
    group.addoption(
        "--artifacts",
        metavar="DIR",
        default=platformdirs.user_cache_dir("polyrot"),
        help="where artifacts are cached (default: the user's cache)",
    )
    group.addoption(
        "--retrain", action="store_true", help="ignore what is shipped or cached; train anew"
    )
    # Paths stay strings: xdist sends options to its workers as plain data.
    group.addoption(
        "--report", metavar="DIR", help="write index.html, figures, verdicts.json and .md there"
    )
    group.addoption(
        "--pair",
        nargs=2,
        metavar=("A", "B"),
        help="judge two checkpoints, NAME, NAME@REVISION or DIR (scale pair, then the default)",
    )
    group.addoption("--sae", metavar="DIR", help="a dictionary of the pair's model A")
    group.addoption(
        "--update-verdicts", action="store_true", help="rewrite claims/verdicts.toml from this run"
    )
    parser.addini(
        UNREGISTERED, "judge by bars that are not the registered ones (said loudly)", "bool"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "claim(id): the registered claim that the test judges")
    scales = _scales(config)
    if config.option.device == "cuda":
        _resolve_device(config)
    if config.option.sae is not None and not Path(config.option.sae).is_dir():
        raise pytest.UsageError(f"--sae: {config.option.sae} is not a directory")
    if _asks_for_claims(config):
        config.pluginmanager.register(ClaimSuite(config, scales), PLUGIN)


def _scales(config: pytest.Config) -> tuple[str, ...]:
    """The scales asked for, in the suite's order."""
    given, pair = config.option.scale, config.option.pair
    if given is None:
        asked = ["pair"] if pair else list(DEFAULT_SCALES)
    else:
        asked = [scale.strip() for scale in given.split(",")]
    for scale in asked:
        if scale not in SCALES:
            raise pytest.UsageError(f"--scale: unknown scale {scale!r}; known: {', '.join(SCALES)}")
    if ("pair" in asked) != bool(pair):
        raise pytest.UsageError("scale pair and the option --pair A B need each other")
    return tuple(scale for scale in SCALES if scale in asked)


def _resolve_device(config: pytest.Config) -> str:
    # Only here: `pytest --help` and xdist workers need not wait for torch.
    from polyrot.runtime.device import NoDevice, resolve_device

    try:
        return resolve_device(config.option.device)
    except NoDevice as error:
        raise pytest.UsageError(f"--device {error}") from error


def _asks_for_claims(config: pytest.Config) -> bool:
    folder = config.rootpath / "claims"
    return any(
        path.is_relative_to(folder) or folder.is_relative_to(path) for path in _asked_paths(config)
    )


def _asks_for_all_claims(config: pytest.Config) -> bool:
    folder, option = config.rootpath / "claims", config.option
    all_of_it = any(folder.is_relative_to(path) for path in _asked_paths(config))
    return all_of_it and not (option.keyword or option.markexpr)


def _asked_paths(config: pytest.Config) -> list[Path]:
    """What is to be collected; a node id counts as a path inside of its file."""
    paths = [str(argument).replace("::", "/") for argument in config.args]
    return [(config.invocation_params.dir / path).resolve() for path in paths]


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> str:
    """The scale at which a claim is being judged, such as "toy_a"."""
    return request.param


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """ "cuda" or "cpu", as --device says."""
    return _resolve_device(pytestconfig)


@pytest.fixture
def verdict(request: pytest.FixtureRequest, scale: str) -> Callable[..., None]:
    """``verdict(measured, over=...)``: judge a claim by every value of `measured`.

    `measured` is a Measured, a number, or a mapping label -> number; `over` repeats the
    registration's, so that a reader of the test sees what is aggregated. Raises ClaimRefuted.
    """
    claim = request.config.pluginmanager.get_plugin(PLUGIN).claim_of(request.node)

    def record_finding(
        measured: Measured | float | Mapping[str, float], over: str | None = None
    ) -> None:
        __tracebackhide__ = True
        if FINDING in request.node.stash:
            raise RuntimeError(f"{claim.id}: verdict was called twice")
        if over != claim.over:
            raise ValueError(f"{claim.id}: over={over!r}, but registered is over={claim.over!r}")
        made = Measured.of(measured)
        finding = judge(claim, scale, made)
        request.node.stash[FINDING] = finding
        request.node.user_properties.append(junit.values(made))
        if finding.outcome is Verdict.REFUTED:
            raise ClaimRefuted(claim, finding)

    return record_finding


class ClaimSuite:
    """The verdict plugin of one run."""

    def __init__(self, config: pytest.Config, scales: tuple[str, ...]) -> None:
        self.config = config
        self.scales = scales
        self.options = provenance.decisive(config.option, scales)
        self.folder = config.rootpath / "claims"
        self.is_worker = hasattr(config, "workerinput")
        self.tests: dict[str, str] = {}  # claim id -> node id of its test
        self.findings: dict[tuple[str, str], Finding] = {}
        self.lost_worker = False  # one of pytest-xdist died, and its test with it
        self.closing: Closing | None = None
        self.report = Path(config.option.report) if config.option.report else None
        self.started = time.monotonic()
        try:
            self.registration = Registration.load(
                self.folder / REGISTRATION, registered=not config.getini(UNREGISTERED)
            )
            self.ledger = Ledger.load(self.folder / LEDGER, self.registration)
        except (RegistrationError, LedgerError) as error:
            raise pytest.UsageError(str(error)) from error
        if self.report is not None:
            try:
                self.report.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise pytest.UsageError(f"--report: {error}") from error

    def claim_of(self, item: Any) -> Claim:
        """The one registered claim that a test names."""
        markers = list(item.iter_markers("claim"))
        if len(markers) != 1 or len(markers[0].args) != 1 or markers[0].kwargs:
            raise pytest.Collector.CollectError(
                f"{item.nodeid}: a test in claims/ names one claim: @pytest.mark.claim(id)"
            )
        try:
            return self.registration.claim(markers[0].args[0])
        except KeyError as error:
            raise pytest.Collector.CollectError(f"{item.nodeid}: {error.args[0]}") from error

    # ------------------------------------------------------------------------------ collection

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        definition = metafunc.definition
        if not definition.path.is_relative_to(self.folder):
            return
        claim = self.claim_of(definition)
        first = self.tests.setdefault(claim.id, definition.nodeid)
        if first != definition.nodeid:
            raise pytest.Collector.CollectError(
                f"{claim.id} has two tests: {first} and {definition.nodeid}"
            )
        if "verdict" not in metafunc.fixturenames:
            raise pytest.Collector.CollectError(f"{definition.nodeid}: takes no fixture verdict")
        if any(definition.iter_markers("xfail")):
            raise pytest.Collector.CollectError(
                f"{definition.nodeid}: only the ledger says which claims are expected to fail"
            )
        scales = [scale for scale in claim.scales if scale in self.scales]
        metafunc.parametrize("scale", scales or [None], indirect=True, scope="session")

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makeitem(self) -> Generator[None, Any, Any]:
        """Drop the stand-in of a claim that none of the asked scales judges."""
        made = yield
        return [item for item in made if _judged(item)] if isinstance(made, list) else made

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        judged: dict[tuple[str, str], str] = {}
        for item in filter(self._is_claim, items):
            key = _key(self, item)
            if judged.setdefault(key, item.nodeid) != item.nodeid:
                raise pytest.UsageError(f"{item.nodeid}: {key[0]} has one verdict per scale")
            entry = self.ledger.entries.get(key)
            refuted = entry is not None and entry.outcome is Verdict.REFUTED
            if refuted and not self.config.option.update_verdicts:
                item.add_marker(
                    pytest.mark.xfail(strict=True, raises=ClaimRefuted, reason=entry.why)
                )
        unwritten = [claim.id for claim in self.registration.claims if claim.id not in self.tests]
        if unwritten and _asks_for_all_claims(self.config):
            raise pytest.UsageError(f"registered claims without a test: {', '.join(unwritten)}")

    # --------------------------------------------------------------------------------- running

    def _is_claim(self, item: pytest.Item) -> bool:
        return item.path.is_relative_to(self.folder)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        try:
            return (yield)
        except NotRun as reason:
            raise pytest.skip.Exception(str(reason)) from reason

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        try:
            result = yield
        except NotRun as reason:
            raise pytest.skip.Exception(str(reason)) from reason
        if self._is_claim(item):
            finding = item.stash.get(FINDING, None)
            if finding is None:
                raise RuntimeError(f"{item.nodeid} never called verdict")
            if finding.outcome is Verdict.REFUTED:  # the test swallowed it
                raise ClaimRefuted(self.claim_of(item), finding)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        report = yield
        if not self._is_claim(item):
            return report
        error = call.excinfo.value if call.excinfo is not None else None
        if error is not None and not isinstance(error, ClaimRefuted):
            item.stash[FINDING] = _unjudged(*_key(self, item), error)
        finding = item.stash.get(FINDING, None)
        if finding is not None:
            earlier = self.findings.values()
            found = junit.properties(finding, earlier, self.registration, self.ledger)
            others = [pair for pair in item.user_properties if pair[0] not in dict(found)]
            item.user_properties[:] = [*others, *found]
            report.user_properties = list(item.user_properties)
        option = self.config.option
        if isinstance(error, ClaimRefuted) and option.update_verdicts and not option.runxfail:
            report.outcome, report.wasxfail = "skipped", finding.why
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == "finding":
                finding = Finding.from_json(json.loads(value))
                self.findings[finding.key] = finding

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        self.lost_worker = self.lost_worker or bool(error)
        self.tests.update(getattr(node, "workeroutput", {}).get("polyrot_tests", {}))

    # --------------------------------------------------------------------------------- closing

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.is_worker:
            self.config.workeroutput["polyrot_tests"] = self.tests
        if self.is_worker or self.config.option.collectonly or not self.findings:
            return
        findings = list(self.findings.values())
        if _asks_for_all_claims(self.config):
            findings += missing(self.findings, self.registration, self.scales, self.tests)
        collector = self.config.pluginmanager.get_plugin("polyrot-figures")
        device, root = _resolve_device(self.config), self.config.rootpath
        rewrite = self.config.option.update_verdicts
        self.closing = close_run(
            findings,
            self.registration,
            self.ledger,
            provenance.of_run(root, device, self.scales, self.options, self.started),
            rewrite_ledger=self.folder / LEDGER if rewrite else None,
            report=self.report,
            gathered=collector.gathered() if collector is not None else None,
        )
        if not self.closing.all_written and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_report_header(self) -> list[str]:
        versions = ", ".join(f"{name} {found}" for name, found in provenance.versions().items())
        device = _resolve_device(self.config)
        registered = f"registration: {self.registration.sha256[:12]}, as registered"
        return [
            f"polyrot: {versions}",
            f"device: {device} ({provenance.device_name(device)})",
            f"scales: {', '.join(self.scales)}",
            f"options: {provenance.options_line(self.options)}",
            f"cache: {provenance.cache_state(Path(self.config.option.artifacts))}",
            registered if self.registration.as_registered else self._warning(),
        ]

    def _warning(self) -> str:
        return (
            f"WARNING: bars that are NOT the registered ones ({UNREGISTERED}): "
            f"registration {self.registration.sha256[:12]}"
        )

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.closing is None:
            return
        conclusions = self.closing.conclusions
        terminalreporter.section("claims")
        for line in table.render(conclusions, self.registration):
            for text, style in line:
                terminalreporter.write(text, **({style: True} if style else {}))
            terminalreporter.write("\n")
        for text in (*table.sentences(conclusions, self.registration), *self.closing.messages):
            terminalreporter.write_line(text)
        if not self.registration.as_registered:
            terminalreporter.write_line(self._warning())


def _judged(item: Any) -> bool:
    """False for the stand-in that parametrisation leaves of a claim without an asked scale."""
    return not hasattr(item, "callspec") or item.callspec.params.get("scale", "") is not None


def _key(suite: ClaimSuite, item: Any) -> tuple[str, str]:
    return suite.claim_of(item).id, item.callspec.params["scale"]


def _unjudged(id: str, scale: str, error: BaseException) -> Finding:
    """The finding of a test that came to no verdict."""
    if isinstance(error, pytest.skip.Exception):
        reason = error.__cause__
        if isinstance(reason, NotRun):
            return Finding(id, scale, Verdict.NOT_RUN, reason.reason, command=reason.command)
        return Finding(id, scale, Verdict.NOT_RUN, str(error))
    first = (str(error).splitlines() or [""])[0]
    return Finding(id, scale, Verdict.ERROR, f"{type(error).__name__}: {first}")
