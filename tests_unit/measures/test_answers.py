"""Does A's dictionary work on B through R? Yes, no, or it cannot be told, because of what."""

from __future__ import annotations

import numpy as np
import pytest

from polyrot.judge.registration import Registration
from polyrot.measured import PairSite
from polyrot.measures.answers import BEYOND_NULLS, HOME, Answer, Value, answer, in_words
from polyrot.measures.frontier import NAIVE_SERVES
from tests_unit.worlds.asked import CLAIMS


def value(x: float, half: float = 0.01) -> Value:
    return Value(x, x - half, x + half)


def asked(**changed: object) -> Answer:
    """Of a dictionary that works, but for what is changed."""
    figures = {
        "home": value(0.93),
        "naive": value(-3.0),
        "rotated": value(0.88),
        "gain": value(3.88),
        "beyond": value(0.6),
        "ceiling": 0.7,
    }
    return answer("resid_post_1", **{**figures, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "says", "because"),
    [
        ({}, "yes", "EV is 0.88 [0.87, 0.89] through R and -3 [-3.01, -2.99] without"),
        # A trained A against an untrained B: R does what replacing the mean does.
        (
            {"rotated": value(-34.5), "gain": value(69.35), "beyond": value(-0.1)},
            "no",
            "EV through R is -34.5 [-34.5, -34.5], where 0.5 is asked",
        ),
        ({"beyond": value(0.02)}, "no", "less that of the mean or of shuffled tokens is 0.02"),
        ({"gain": value(-0.1)}, "no", "less that of no map is -0.1"),
        # Random dictionaries, whatever R gives.
        ({"home": value(-22.0)}, "cannot tell", "it does not work on A: EV -22 [-22, -22]"),
        ({"home": value(0.5, 0.1)}, "cannot tell", "it is open whether it works on A"),
        ({"rotated": value(0.5, 0.1)}, "cannot tell", "interval and bar overlap; more tokens"),
        ({"beyond": value(0.06, 0.03)}, "cannot tell", "interval and bar overlap"),
        # What is plainly no is not open because of another figure.
        ({"rotated": value(0.5, 0.1), "beyond": value(-0.3)}, "no", "shuffled tokens is -0.3"),
        ({"ceiling": 0.01}, "cannot tell", "this dictionary does not need R"),
        ({"related": "the weights differ by 1%"}, "cannot tell", "no independent siblings, the w"),
        ({"ceiling": None}, "yes", "EV is 0.88"),
        ({"rotated": value(0.88, 0.0)}, "yes", "EV is 0.88 through R"),
    ],
)
def test_the_answer_and_its_reason(changed: dict[str, object], says: str, because: str) -> None:
    found = asked(**changed)
    assert found.says == says
    assert because in found.because


def test_the_words_name_the_question_the_sites_and_the_reasons() -> None:
    yes, no = asked(), Answer("resid_post_2", "no", "of something")
    (line,) = in_words([yes])
    assert line.startswith("A's dictionary works on B through R: yes, because at resid_post_1 EV")
    head, first, second = in_words([yes, no])
    assert head == "A's dictionary works on B through R: yes at resid_post_1; no at resid_post_2"
    assert first.strip().startswith("resid_post_1: yes, because EV")
    assert second.strip() == "resid_post_2: no, because of something"
    assert in_words([no, no])[0].endswith("R: no at every site")


def test_a_figure_has_the_interval_of_its_own_site() -> None:
    drawn = np.array([[[0.8, -1.9]], [[0.9, -2.1]]]).repeat(20, axis=0)
    table = PairSite(np.array([[0.85, -2.0]]), ("1-0",), ("one", "other"), resamples=drawn)
    found = Value.of(table, "other")
    assert found.value == -2
    assert -2.5 < found.low < -2 < found.high < -1.5
    bare = Value.of(PairSite(np.array([[0.85, -2.0]]), ("1-0",), ("one", "other")), "one")
    assert (bare.low, bare.high) == (0.85, 0.85)


def test_the_bars_are_the_registered_ones() -> None:
    claims = Registration.load(CLAIMS / "preregistration.toml")
    assert claims.claim("frontier.dictionary_works_at_home_control").bar.at_least == HOME
    assert claims.claim("frontier.beats_nulls_control").bar.at_least == BEYOND_NULLS
    text = (CLAIMS / "preregistration.toml").read_text(encoding="utf-8")
    assert f"where naive EV is within {NAIVE_SERVES} of self EV at every site" in text
