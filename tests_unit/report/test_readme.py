"""The README says what the ledger says, and its commands and options exist."""

import dataclasses
import re
from pathlib import Path

import pytest

from polyrot.judge.ledger import Ledger
from polyrot.judge.registration import Registration
from polyrot.judge.verdicts import Verdict
from polyrot.report import readme
from polyrot.report.table import before_mark

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def registration():
    return Registration.load(ROOT / "claims" / "preregistration.toml")


@pytest.fixture(scope="module")
def ledger(registration):
    return Ledger.load(ROOT / "claims" / "verdicts.toml", registration)


def test_the_readme_says_what_the_ledger_says(ledger, registration):
    wanted = readme.filled(TEXT, readme.account(ledger, registration))
    assert wanted == TEXT, "run `python -m polyrot.report readme`"


def test_another_verdict_is_another_account(ledger, registration):
    (key, entry), *_ = [
        (key, entry)
        for key, entry in ledger.entries.items()
        if entry.verdict is Verdict.HELD and registration.claim(key[0]).status == "core"
    ]
    turned = dataclasses.replace(entry, verdict=Verdict.REFUTED)
    changed = Ledger({**ledger.entries, key: turned})
    assert readme.account(changed, registration) != readme.account(ledger, registration)


def test_every_judged_core_claim_is_in_the_account(ledger, registration):
    text = readme.account(ledger, registration)
    for (id, scale), entry in ledger.entries.items():
        if registration.claim(id).status == "core" and entry.measured is not None:
            mark = before_mark(id, registration)
            assert f"| `{id}`{mark} | {scale} |" in text


def test_what_is_measured_as_before_its_amendment_is_marked(ledger, registration):
    id = "cosine.matched_fraction"
    waiting = dataclasses.replace(registration, measured_as_before=frozenset({id}))
    text = readme.account(ledger, waiting)
    assert f"| `{id}` † |" in text
    assert "† amended, and still judged" in text
    followed = dataclasses.replace(registration, measured_as_before=frozenset())
    assert "†" not in readme.account(ledger, followed)


def test_the_title_has_its_ceiling_where_the_ledger_has(ledger, registration, tmp_path):
    key = ("cosine.universal_up_to_rotation", "toy_a")
    figures = {"two_starts_mid": 0.1204, "haar_mid": 0.01, "ev_mid": 0.8, "l0_mid": 5.0}
    path = tmp_path / "verdicts.toml"
    accounts = {}
    for name, beside in (("with", figures), ("without", {})):
        entry = dataclasses.replace(ledger.entries[key], beside=beside)
        Ledger({key: entry}).save(path, registration)
        accounts[name] = readme.account(Ledger.load(path, registration), registration)
    said = (
        "), where two dictionaries of one and the same model share 12% to 12%, so that at 1 of 1 "
        "sites the bar lay above it, with dictionaries that at 1 of 1 sites are not as registered "
        "(self EV 0.9 or more): EV 0.8, L0 5."
    )
    assert said in accounts["with"]
    assert accounts["without"] == accounts["with"].replace(said, ").")


def test_the_readme_lists_the_departures_of_what_is_shipped():
    listed = readme.departures(ROOT / "fixtures" / "shipped")
    markers = (readme.BEGIN_DEPARTURES, readme.END_DEPARTURES)
    assert readme.filled(TEXT, listed, markers) == TEXT, "run `python -m polyrot.report readme`"
    assert "- toys' dictionaries: batches of 1,024 where the paper takes 4,096" in listed
    assert "1,500 of seed 2 cpu" in listed, "what the artifacts say of their device is not read"


def test_both_are_written_where_they_belong(tmp_path, ledger, registration):
    for folder in ("claims", "fixtures"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    empty = readme.filled(
        readme.filled(TEXT, "-"), "-", (readme.BEGIN_DEPARTURES, readme.END_DEPARTURES)
    )
    (tmp_path / "README.md").write_text(empty, encoding="utf-8")
    text = readme.write(tmp_path).read_text(encoding="utf-8")
    assert readme.account(ledger, registration) in text.partition(readme.END)[0]
    assert readme.departures(ROOT / "fixtures" / "shipped") in text.partition(readme.END)[2]
    with pytest.raises(ValueError, match="has lost a marker"):
        readme.filled("# nothing here", "text", (readme.BEGIN_DEPARTURES, readme.END_DEPARTURES))


def test_a_lost_marker_is_named():
    with pytest.raises(ValueError, match="has lost a marker"):
        readme.filled("# nothing here", "text")


def test_its_options_exist(pytestconfig):
    known = {o for action in pytestconfig._parser.optparser._actions for o in action.option_strings}
    blocks = re.findall(r"^pytest (.*?)(?:#.*)?$", TEXT, re.MULTILINE)
    named = {option for line in blocks for option in re.findall(r"--[a-z-]+", line)}
    assert named, "the README shows no option"
    assert named <= known


def test_its_rooms_exist():
    for path in re.findall(r"`((?:polyrot|claims|fixtures|tests_unit)/[\w/.]*)`", TEXT):
        assert (ROOT / path).exists(), path
