"""Schedules by name."""

from polyrot.defaults import SCHEDULES
from polyrot.toy import seeds
from polyrot.workshop.profiles import PROFILES


def test_every_schedule_can_be_asked_for() -> None:
    assert list(SCHEDULES) == sorted(PROFILES)


def test_toys_go_on_at_the_scales_of_which_a_profile_says_so():
    usual, shipped = PROFILES["full"], PROFILES["shipped"]
    assert {usual.toy_of(scale) for scale in seeds.TOYS} == {seeds.FULL}
    assert [s for s in seeds.TOYS if shipped.toy_of(s) == seeds.CONTINUED] == ["toy_b"]
    assert {shipped.of_pipeline().toy_of(scale) for scale in seeds.TOYS} == {seeds.PIPELINE}
