"""The registration: bars, keys, cross-references, and that it is the registered one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polyrot.judge.bar import Bar, RegistrationError
from polyrot.judge.registration import (
    MEASURED_AS_BEFORE,
    REGISTERED_SHA256,
    SCALES,
    Amendment,
    Change,
    Registration,
)
from polyrot.measures.haar.rotations import LEVEL

REGISTERED = Path(__file__).parents[2] / "claims" / "preregistration.toml"

CLAIM = """
[[claim]]
id = "family.name"
section = "1"
status = "core"
scales = ["toy_a"]
says = "It is so."
measures = "how much it is so"
bar = { at_least = 0.5 }
"""
CONTROL = """
[[claim]]
id = "family.control"
section = "1"
status = "control"
controls = ["family.name"]
scales = ["toy_a"]
says = "The null is not so."
measures = "how much the null is so"
bar = { below = 0.5 }
"""
AMENDMENT = """
[[amendment]]
claim = "family.name"
date = 2026-12-01
reason = "it was written for another unit"
bar = { at_least = 0.6 }
"""
CONTROL_AMENDMENT = """
[[amendment]]
claim = "family.control"
date = 2026-12-01
reason = "it controls another"
"""
META = "[meta]\nregistered = 2026-11-22\nalpha = 0.01\n"


def load(tmp_path: Path, text: str) -> Registration:
    path = tmp_path / "preregistration.toml"
    path.write_text(text)
    return Registration.load(path, registered=False)


def test_the_registered_file_loads() -> None:
    registration = Registration.load(REGISTERED)
    assert registration.as_registered
    assert registration.sha256 == REGISTERED_SHA256
    assert len(registration.claims) == 150
    assert len(registration.pairs()) == sum(len(claim.scales) for claim in registration.claims)
    assert {scale for claim in registration.claims for scale in claim.scales} == set(SCALES)
    assert len(registration.amendments) == 18
    assert {made.date for made in registration.amendments} == {"2026-11-27"}
    assert {claim.registered for claim in registration.claims} <= {"", "2026-11-27", "2026-11-28"}
    assert registration.alpha == LEVEL  # at which the Haar claims count a rejection


def test_a_moved_bar_is_not_the_registered_registration(tmp_path: Path) -> None:
    path = tmp_path / "preregistration.toml"
    path.write_bytes(REGISTERED.read_bytes().replace(b"at_least = 0.96", b"at_least = 0.95"))
    with pytest.raises(RegistrationError, match="not the registered registration") as caught:
        Registration.load(path)
    assert REGISTERED_SHA256 in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RegistrationError, match="cannot read the registration"):
        Registration.load(tmp_path / "none.toml")


def test_a_well_formed_registration(tmp_path: Path) -> None:
    registration = load(tmp_path, META + CLAIM + CONTROL)
    assert not registration.as_registered
    assert registration.claim("family.name").bar == Bar(at_least=0.5)
    assert registration.controls_at("family.name", "toy_a") == [
        (registration.claim("family.control"), "toy_a")
    ]
    with pytest.raises(KeyError, match=r"no registered claim family\.other"):
        registration.claim("family.other")


def test_a_paper_control_speaks_for_every_scale(tmp_path: Path) -> None:
    control = CONTROL.replace('scales = ["toy_a"]', 'scales = ["paper"]')
    claim = CLAIM.replace('scales = ["toy_a"]', 'scales = ["toy_a", "neox"]')
    registration = load(tmp_path, META + claim + control)
    for scale in ("toy_a", "neox"):
        assert [at for _, at in registration.controls_at("family.name", scale)] == ["paper"]


def test_a_paper_control_leaves_a_scale_to_itself_where_it_has_it(tmp_path: Path) -> None:
    control = CONTROL.replace('scales = ["toy_a"]', 'scales = ["paper", "toy_a"]')
    claim = CLAIM.replace('scales = ["toy_a"]', 'scales = ["toy_a", "neox"]')
    registration = load(tmp_path, META + claim + control)
    for scale, of in (("toy_a", ["toy_a"]), ("neox", ["paper"])):
        assert [at for _, at in registration.controls_at("family.name", scale)] == of


def test_a_control_speaks_only_for_its_own_scales(tmp_path: Path) -> None:
    claim = CLAIM.replace('scales = ["toy_a"]', 'scales = ["toy_a", "toy_b"]')
    assert load(tmp_path, META + claim + CONTROL).controls_at("family.name", "toy_b") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (META + CLAIM + CLAIM, r"family\.name is registered twice"),
        (META + CLAIM + 'note = "x"\n', r"family\.name: unknown key 'note'"),
        (META + CLAIM.replace('section = "1"\n', ""), r"family\.name: key 'section' is missing"),
        (META + CLAIM.replace("bar = { at_least = 0.5 }", ""), r"family\.name: key 'bar' is miss"),
        (META + CLAIM.replace("{ at_least = 0.5 }", "{}"), r"family\.name: bar must be a non-emp"),
        (META + CLAIM.replace("at_least", "atleast"), r"family\.name, bar: unknown key 'atleast'"),
        (META + CLAIM.replace("0.5", '"0.5"'), r"family\.name: bar at_least = '0.5' is not"),
        (META + CLAIM.replace("0.5", "nan"), r"family\.name: bar at_least = nan is not"),
        (META + CLAIM.replace('"core"', '"main"'), r"family\.name: unknown status 'main'"),
        (META + CLAIM.replace('"toy_a"', '"toy_c"'), r"family\.name: unknown scale 'toy_c'"),
        (META + CLAIM.replace('"toy_a"', '"toy_a", "toy_a"'), r"family\.name: scales lists som"),
        (META + CLAIM.replace('["toy_a"]', "[]"), r"family\.name: scales must be a non-empty"),
        (META + CLAIM.replace('"family.name"', '"name"'), r"claim name: an id is family\.name"),
        (META + CLAIM + 'controls = ["family.name"]\n', r"family\.name: `controls` belongs"),
        (META + CLAIM + CONTROL.replace("controls =", "# "), r"family\.control: `controls` bel"),
        (META + CONTROL, r"family\.control: controls family\.name, which is not registered"),
        (
            META + CLAIM + CONTROL.replace("family.name", "family.control"),
            r"family\.control: controls family\.control, which is itself a control",
        ),
        (
            META + CLAIM + CONTROL.replace('scales = ["toy_a"]', 'scales = ["toy_b"]'),
            r"family\.control: controls family\.name, but they share no scale",
        ),
        (CLAIM, "the registration: key 'meta' is missing"),
        (META + CLAIM + "[other]\n", "the registration: unknown key 'other'"),
        (META + CLAIM.replace("[[claim]]", "[claim]"), r"claim must be tables, each headed \[\[cl"),
        ("claim = [1]\n" + META, r"claim must be tables, each headed \[\[claim\]\]"),
        ("meta = 3\n" + CLAIM, r"\[meta\] must be a table, not 3"),
        (META.replace("2026-11-22", "3") + CLAIM, r"\[meta\]: registered must be a date.*not 3"),
        (META.replace("0.01", '"1 %"') + CLAIM, r"\[meta\]: alpha must be between 0 and 1"),
        (META.replace("0.01", "nan") + CLAIM, r"\[meta\]: alpha must be between 0 and 1, not nan"),
        (META + CLAIM.replace('["toy_a"]', "3"), r"family\.name: scales must be a non-empty list"),
        (
            META + CLAIM.replace('["toy_a"]', "[[1]]"),
            r"family\.name: scales must be .* strings, not",
        ),
        (META + CLAIM + 'over = ["pairs"]\n', r"family\.name: over must be a non-empty string"),
        (
            META + CLAIM + CONTROL.replace('["family.name"]', "[[1]]"),
            "controls must be a non-empty",
        ),
        (
            META + CLAIM + "[amendment]\n",
            r"amendment must be tables, each headed \[\[amendment\]\]",
        ),
        (META + CLAIM + AMENDMENT.replace("family", "f"), r"amendment of f\.name: no such claim"),
        (
            META + CLAIM + AMENDMENT.replace("reason =", "#"),
            r"amendment of .*: key 'reason' is mis",
        ),
        (META + CLAIM + AMENDMENT.replace("2026-12-01", '"now"'), "date must be a date, such as"),
        (META + CLAIM + AMENDMENT + 'why = "x"', r"amendment of family\.name: unknown key 'why'"),
        (META + CLAIM + AMENDMENT.replace("0.6", "inf"), "amendment of .*: bar at_least = inf is"),
        (META + CLAIM + AMENDMENT.replace("0.6", "0.5"), "amendment of .*: bar is what it was"),
        (
            META + CLAIM + AMENDMENT + AMENDMENT.replace("12-01", "12-02"),
            "amendment of .*: bar is what it was",
        ),
        (
            META + CLAIM + AMENDMENT.replace("2026-12-01", "2026-12-01T10:00:00"),
            r"amendment of .*: date must be a date, such as 2026-11-22, not datetime",
        ),
        (
            META
            + CLAIM
            + CONTROL
            + CONTROL_AMENDMENT
            + 'controls = ["family.name", "family.name"]',
            r"amendment of family\.control: controls lists something twice",
        ),
        (
            META
            + CLAIM
            + CONTROL
            + CONTROL_AMENDMENT
            + 'controls = ["family.none"]'
            + CONTROL_AMENDMENT
            + 'controls = ["family.name"]',
            r"amendment of family\.control: .* controls family\.none, which is not registered",
        ),
        (META + CLAIM + AMENDMENT.replace("bar =", "#"), "amends nothing; give one of bar, over,"),
        (
            META + CLAIM + AMENDMENT + 'over = ["pairs"]',
            "amendment of .*: over must be a non-empty st",
        ),
        (
            META + CLAIM + AMENDMENT + "controls = []",
            "amendment of .*: controls must be a non-empty l",
        ),
        (META + CLAIM + AMENDMENT + 'measures = "how much it is so"', "measures is what it was"),
        (
            META + CLAIM + AMENDMENT + 'controls = ["family.none"]',
            "`controls` belongs to claims of",
        ),
        (
            META
            + CLAIM
            + CONTROL
            + AMENDMENT.replace("family.name", "family.control")
            + 'controls = ["family.none"]',
            "family.control: controls family.none, which is not registered",
        ),
        (META + CLAIM + 'registered = "soon"', r"family\.name: registered must be a date"),
        ("not toml", "preregistration.toml: "),
    ],
)
def test_what_a_registration_must_not_be(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        load(tmp_path, text)


def test_an_amendment_corrects_a_bar_and_the_old_one_stays(tmp_path: Path) -> None:
    again = AMENDMENT.replace("0.6", "0.7").replace("12-01", "12-02")
    registration = load(tmp_path, META + CLAIM + CONTROL + AMENDMENT + again)
    first = Bar(at_least=0.6, was=Bar(at_least=0.5))
    second = Bar(at_least=0.7, was=first)
    reason = "it was written for another unit"
    assert registration.amendments == (
        Amendment("family.name", "2026-12-01", reason, (Change("bar", first.was, first),)),
        Amendment("family.name", "2026-12-02", reason, (Change("bar", first, second),)),
    )
    bar = registration.claim("family.name").bar
    assert bar == second
    assert not bar.satisfied(0.65)
    assert bar.margin(0.65) == pytest.approx(-0.05)
    assert bar.describe() == "≥ 0.7 (was ≥ 0.6 (was ≥ 0.5))"
    assert [claim.id for claim in registration.claims] == ["family.name", "family.control"]


def test_an_amendment_puts_texts_and_controls_in_place_of_the_old(tmp_path: Path) -> None:
    second = CLAIM.replace("family.name", "family.other")
    made = """
[[amendment]]
claim = "family.control"
date = 2026-12-01
reason = "it controls both"
over = "pairs"
measures = "how much less the null is so"
controls = ["family.name", "family.other"]
"""
    registration = load(tmp_path, META + CLAIM + second + CONTROL + made)
    claim = registration.claim("family.control")
    assert (claim.over, claim.measures) == ("pairs", "how much less the null is so")
    assert claim.bar == Bar(below=0.5)
    assert [c.id for c, _ in registration.controls_at("family.other", "toy_a")] == [claim.id]
    (found,) = registration.amendments_of("family.control")
    assert found.describe() == (
        "over: pairs (was: nothing); measures: how much less the null is so (was: how much the "
        "null is so); controls: family.name, family.other (was: family.name)"
    )
    assert found.to_json()["changes"][2] == {
        "key": "controls", "old": ["family.name"], "new": ["family.name", "family.other"]
    }  # fmt: skip
    assert registration.judged_over(claim) == "pairs"
    assert not registration.measured_as_before


def test_of_several_amendments_the_last_one_wins(tmp_path: Path) -> None:
    texts = [
        AMENDMENT.replace("bar = { at_least = 0.6 }", f'over = "{over}"\nmeasures = "{measures}"')
        for over, measures in (("pairs", "first"), ("sites", "second"))
    ]
    claim = load(tmp_path, META + CLAIM + texts[0] + texts[1]).claim("family.name")
    assert (claim.over, claim.measures) == ("sites", "second")
    claim = load(tmp_path, META + CLAIM + texts[1] + texts[0]).claim("family.name")
    assert (claim.over, claim.measures) == ("pairs", "first")


def test_a_measure_that_is_still_the_one_before_aggregates_as_registered_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (
        AMENDMENT.replace("bar = { at_least = 0.6 }", f'over = "{over}"')
        for over in ("pairs", "sites")
    )
    text = META + CLAIM + 'over = "all"\n' + first + second
    assert load(tmp_path, text).judged_over(load(tmp_path, text).claim("family.name")) == "sites"
    monkeypatch.setattr("polyrot.judge.registration.MEASURED_AS_BEFORE", {"family.name"})
    registration = load(tmp_path, text)
    assert registration.measured_as_before == {"family.name"}
    assert registration.claim("family.name").over == "sites"
    assert registration.judged_over(registration.claim("family.name")) == "all"


def test_a_date_of_its_own_is_read(tmp_path: Path) -> None:
    registration = load(tmp_path, META + CLAIM + "registered = 2026-11-27\n" + CONTROL)
    assert [claim.registered for claim in registration.claims] == ["2026-11-27", ""]
    assert registration.registered == "2026-11-22"


def test_amendments_come_back_as_they_were_written(tmp_path: Path) -> None:
    made = CONTROL_AMENDMENT + 'over = "pairs"\ncontrols = ["family.other"]\nbar = { above = 0.1 }'
    other = CLAIM.replace("family.name", "family.other")
    (found,) = load(tmp_path, META + CLAIM + other + CONTROL + made).amendments
    document = json.loads(json.dumps(found.to_json()))
    assert Amendment.from_json("family.control", document) == found


def test_claims_still_measured_as_before_are_amended_and_known() -> None:
    registration = Registration.load(REGISTERED)
    assert registration.measured_as_before == MEASURED_AS_BEFORE
    for id in MEASURED_AS_BEFORE:
        keys = {c.key for made in registration.amendments_of(id) for c in made.changes}
        assert keys & {"measures", "over"}, id
    battery = registration.claim("haar.battery")
    assert battery.over == "pairs x identified sites"
    assert registration.judged_over(battery) == battery.over, "it is measured as amended"
    assert registration.judged_over(registration.claim("procrustes.recovers")) == (
        "pairs x internal sites"
    )


def test_what_controls_a_claim_controls_its_form_as_published() -> None:
    registration = Registration.load(REGISTERED)
    for form in ("naive.internal_sites_fail", "naive.internal_sites_fail_as_published"):
        found = {control.id for control, _ in registration.controls_at(form, "toy_b")}
        assert {"naive.translation_control", "naive.untrained_control"} <= found


@pytest.mark.parametrize(
    "bar", [Bar(at_least=0.5, was=Bar(above=0.1, below=2.0, was=Bar(equals=1.0))), Bar(equals=3.0)]
)
def test_a_bar_travels_with_the_one_it_was(bar: Bar) -> None:
    assert Bar.from_json(json.loads(json.dumps(bar.to_json()))) == bar
    with pytest.raises(RegistrationError, match="unknown key 'most'"):
        Bar.from_json({"most": 1.0})


def test_an_amended_registration_is_not_the_registered_one(tmp_path: Path) -> None:
    path = tmp_path / "preregistration.toml"
    made = AMENDMENT.replace("family.name", "procrustes.recovers")
    path.write_text(REGISTERED.read_text(encoding="utf-8") + made, encoding="utf-8")
    with pytest.raises(RegistrationError, match="not the registered registration"):
        Registration.load(path)
    amended = Registration.load(path, registered=False)
    assert amended.claim("procrustes.recovers").bar.describe() == "≥ 0.6 (was ≥ 0.96)"
