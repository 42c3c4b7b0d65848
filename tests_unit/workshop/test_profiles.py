"""Schedules by name."""

from polyrot.defaults import SCHEDULES
from polyrot.workshop.profiles import PROFILES


def test_every_schedule_can_be_asked_for() -> None:
    assert list(SCHEDULES) == sorted(PROFILES)
