"""What a claim test hands to ``verdict``: values, with the interval and the ceiling of each."""

from polyrot.measured.intervals import Interval, Source, Unit, interval_about, jackknifed
from polyrot.measured.readings import (
    Side,
    favourable,
    favoured,
    of_text_or_pipeline,
    with_pipeline,
)
from polyrot.measured.values import NOT_IDENTIFIED, Figure, Measured, PairSite, Seeds

__all__ = [
    "NOT_IDENTIFIED",
    "Figure",
    "Interval",
    "Measured",
    "PairSite",
    "Seeds",
    "Side",
    "Source",
    "Unit",
    "favourable",
    "favoured",
    "interval_about",
    "jackknifed",
    "of_text_or_pipeline",
    "with_pipeline",
]
