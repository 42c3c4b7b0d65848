"""The README says what the ledger says, and its commands and options exist."""

import dataclasses
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from polyrot.judge.ledger import Ledger
from polyrot.judge.registration import DEFAULT_SCALES, Registration
from polyrot.judge.verdicts import Verdict
from polyrot.report import every_claim, pictures, readme
from polyrot.report.markdown import escaped

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def registration():
    return Registration.load(ROOT / "claims" / "preregistration.toml")


@pytest.fixture(scope="module")
def ledger(registration):
    return Ledger.load(ROOT / "claims" / "verdicts.toml", registration)


@pytest.fixture(scope="module")
def made():
    return readme.documents(ROOT)


def turned(ledger, key, verdict):
    entry = dataclasses.replace(ledger.entries[key], verdict=verdict)
    return Ledger({**ledger.entries, key: entry})


def test_every_document_says_what_the_ledger_and_the_schedules_say(made):
    assert len(made) == 7
    for name, wanted in made.items():
        found = (ROOT / name).read_text(encoding="utf-8")
        assert found == wanted, f"{name}: run `python -m polyrot.report readme`"


def test_the_readme_is_short(made):
    assert len(made[readme.README].splitlines()) <= 150
    assert len(readme.CORE) <= 12
    assert 3 <= len(readme.FINDINGS) <= 4


@pytest.mark.parametrize("found", readme.FINDINGS, ids=lambda found: found.claim)
def test_a_finding_is_said_in_words_of_its_verdict(found, ledger, registration):
    key = (found.claim, found.scale)
    text = found.text(ledger, registration)
    assert text.startswith("- **"), "the ledger's verdict has no words of its own"
    assert text in TEXT
    entry = dataclasses.replace(ledger.entries[key], measured=0.314159)
    assert "31" in found.text(Ledger({key: entry}), registration) or found.figure == ".0e"
    for verdict in set(readme.MEANING) - set(found.said):
        other = found.text(turned(ledger, key, verdict), registration)
        assert f"**{verdict.value}**" in other
        assert registration.claim(found.claim).says[:20] in other


def test_each_word_has_an_example_of_its_verdict(ledger, registration):
    lines = readme.verdict_words(ledger, registration).splitlines()[2:]
    assert len(lines) == len(readme.MEANING)
    said = {
        entry.verdict
        for (id, _), entry in ledger.entries.items()
        if not registration.claim(id).is_control
    }
    for word, line in zip(readme.MEANING, lines, strict=True):
        if word not in said:
            assert line.endswith("| none at present |"), word
            continue
        id, scale = re.fullmatch(r".*\| `([\w.]+)`, (\w+)(?::.*)? \|", line).groups()
        assert ledger.entries[id, scale].verdict is word
        assert not registration.claim(id).is_control


def test_core_results_are_core_claims_with_their_verdicts(ledger, registration):
    lines = readme.core_results(ledger, registration).splitlines()[2:]
    for id, line in zip(readme.CORE, lines, strict=True):
        assert registration.claim(id).status == "core"
        for scale in pictures.SCALES:
            entry = ledger.entries.get((id, scale))
            assert entry is None or entry.verdict.value in line
    key = ("procrustes.recovers", "toy_a")
    held = readme.core_results(turned(ledger, key, Verdict.HELD), registration)
    assert held != readme.core_results(ledger, registration)


def test_every_claim_is_in_the_long_account(made, ledger, registration):
    text = made[readme.VERDICTS]
    sections = dict(re.findall(r"^### ([\w.]+).*?\n(.*?)(?=^##|\Z)", text, re.M | re.S))
    assert list(sections) == sorted(
        [claim.id for claim in registration.claims],
        key=lambda id: list(dict.fromkeys(c.family for c in registration.claims)).index(
            id.split(".")[0]
        ),
    )
    for claim in registration.claims:
        said = sections[claim.id]
        for part in (claim.says, claim.measures, claim.bar.describe(), claim.paper):
            assert escaped(part)[:40] in said
        command = re.search(r"judged alone by `pytest claims/test_\w+\.py::test_\w+(.*)`", said)
        assert command
        by_default = not set(DEFAULT_SCALES).isdisjoint(claim.scales)
        assert by_default == (command[1] == "")
        if not by_default:
            assert (
                f"--{claim.scales[0]} " in command[1] or f"--scale {claim.scales[0]}" in command[1]
            )
        for scale in claim.scales:
            entry = ledger.entries.get((claim.id, scale))
            if entry is not None and entry.measured is not None:
                assert re.search(
                    rf"^\| {scale} \| {re.escape(claim.bar.show(entry.measured))}", said, re.M
                )
            else:
                assert re.search(rf"^Not run: .*\b{scale}\b", said, re.M)
    assert "](#cosinenoise_control)" in text
    assert "&lt;" not in text


def test_what_is_measured_as_before_its_amendment_is_marked(ledger, registration):
    id = "cosine.matched_fraction"
    waiting = dataclasses.replace(registration, measured_as_before=frozenset({id}))
    assert f"### {id} †" in every_claim.markdown(ledger, waiting, {})
    followed = dataclasses.replace(registration, measured_as_before=frozenset())
    assert "†" not in every_claim.markdown(ledger, followed, {})


def test_the_grid_has_a_mark_for_every_verdict_and_is_drawn_of_the_ledger(ledger, registration):
    drawn = pictures.grid(ledger, registration)
    shown = [
        entry.verdict.value
        for (id, scale), entry in ledger.entries.items()
        if scale in pictures.SCALES and registration.claim(id).status in ("core", "sharp")
    ]
    marks = re.findall(r"<title>(.*?)</title>", drawn)
    legend = set(shown)
    assert sorted(marks) == sorted([*shown, *legend])
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    sizes = [float(n) for n in re.findall(r'font-size="([\d.]+)"', drawn)]
    assert min(sizes) >= 12, "no text is too small to be read"
    assert len(drawn) < 40_000
    words = pictures.in_words(ledger, registration)
    assert f"{sum(v == 'held' for v in shown)}" in drawn
    assert "core claims: " in words


def test_a_recovered_loss_stands_where_its_value_is(ledger):
    key = (pictures.STITCHED, "toy_a")
    entry = ledger.entries[key]
    beside = {"recovered_rotated_s": 1.0, "recovered_principal_s": -0.5, "recovered_haar_s": 0.3}
    planted = Ledger({key: dataclasses.replace(entry, beside=beside)})
    drawn = pictures.stitching(planted)
    ticks = [float(x) for x in re.findall(r'd="M([\d.]+) [\d.]+V', drawn)]  # at -1, 0 and 1
    marks = [float(x) + 8 for x in re.findall(r"translate\(([\d.]+) 66\)", drawn)]
    assert marks == pytest.approx([ticks[2], (ticks[0] + ticks[1]) / 2], abs=0.2)
    assert "at toy_a through R 1.00 to 1.00" in pictures.stitching_in_words(planted)
    assert pictures.recovered(Ledger()) == {}


def test_the_departures_of_what_is_shipped_are_listed(made):
    listed = made[readme.LIMITS].partition("<!-- made: departures -->")[2]
    assert "- toys' dictionaries: batches of 1,024 where the paper takes 4,096" in listed
    assert "1,500 of seed 2 cpu" in listed, "what the artifacts say of their device is not read"


def test_all_are_written_where_they_belong(tmp_path, made):
    (tmp_path / "claims").mkdir()
    for name in ("preregistration.toml", "verdicts.toml", "LIMITS.md"):
        shutil.copy(ROOT / "claims" / name, tmp_path / "claims" / name)
    for path in (ROOT / "claims").glob("test_*.py"):
        shutil.copy(path, tmp_path / "claims" / path.name)
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    (tmp_path / "docs").mkdir()
    for name in (readme.README, readme.LIMITS, readme.FRONTIER):
        emptied = re.sub(r"(<!-- made: .*? -->).*?(<!-- end: )", r"\1\2", made[name], flags=re.S)
        assert emptied != made[name]
        (tmp_path / name).write_text(emptied, encoding="utf-8")
    assert readme.write(tmp_path) == [tmp_path / name for name in made]
    for name, text in made.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text


def test_a_lost_marker_is_named():
    with pytest.raises(ValueError, match="has lost a marker: <!-- made: findings -->"):
        readme.filled("# nothing here", {"findings": "text"})


LINK = re.compile(r"\]\(([^)#\s]*)(#[\w-]+)?\)")


@pytest.mark.parametrize("name", ["README.md", "claims/LIMITS.md", "claims/VERDICTS.md",
                                  "claims/RECORDS.md",
                                  "docs/running.md", "CONTRIBUTING.md"])  # fmt: skip
def test_links_lead_somewhere(name):
    page = ROOT / name
    text = page.read_text(encoding="utf-8")
    for target, fragment in LINK.findall(text):
        if target.startswith("https:"):
            continue
        path = page.parent / target if target else page
        assert path.exists(), f"{name}: {target}"
        if fragment:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}
            assert fragment[1:] in slugs, f"{name}: {target}{fragment}"


RUNNING = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")


def test_their_options_exist(pytestconfig):
    known = {o for action in pytestconfig._parser.optparser._actions for o in action.option_strings}
    blocks = re.findall(r"(?:^|`)pytest ([^`#\n]*)", TEXT + RUNNING, re.MULTILINE)
    named = {option for line in blocks for option in re.findall(r"--[a-z-]+", line)}
    assert {"--pair", "--report", "--device"} <= named
    assert named <= known


def test_its_rooms_exist():
    for path in re.findall(r"`((?:polyrot|claims|fixtures|tests_unit)/[\w/.]*)`", TEXT + RUNNING):
        assert (ROOT / path).exists(), path
