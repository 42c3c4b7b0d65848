"""What was predicted of the study of dictionaries, before anything of them was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SHRINKAGE = "L1 is to blame: it shrinks what it makes sparse, or was trained too briefly"
DENSE = "the activations are to blame: 32 features a token do not explain them"


@dataclass(frozen=True)
class Prediction:
    """Of `measure` in `arm`: whichever explanation holds where the share of sites at which it is
    `limit` or more is a half or more, and below. Sites are all there are: no interval.

    afterwards: written down when the others had been measured, before its own dictionaries were
    trained."""

    name: str
    measure: str
    arm: str
    limit: float
    at_least: str
    below: str
    afterwards: bool = False


_REPRODUCED = "the paper's title: what training reproduces at all, it reproduces across seeds"
_NOT_REPRODUCED = "it does not, and that is no matter of how dictionaries are trained"
PREDICTIONS = (
    Prediction("another kind of dictionary", "ev", "topk", 0.9, SHRINKAGE, DENSE),
    Prediction("and a third kind", "ev", "jumprelu", 0.9, SHRINKAGE, DENSE),
    Prediction("twice as many features a token", "ev", "topk64", 0.9, DENSE, "neither"),
    Prediction(
        "what siblings share of what starts share",
        "share",
        "topk",
        0.8,
        _REPRODUCED,
        _NOT_REPRODUCED,
    ),
    Prediction(
        "the same of dictionaries that meet what is registered",
        "share",
        "topk_longer",
        0.8,
        _REPRODUCED,
        _NOT_REPRODUCED,
        afterwards=True,
    ),
)


def as_data() -> list[dict[str, Any]]:
    """For the record."""
    return [asdict(each) for each in PREDICTIONS]


def outcome(prediction: Prediction, by_site: Mapping[str, float]) -> str:
    """How it came out, in words; by_site: the values that were measured.

    >>> outcome(PREDICTIONS[0], {"a": 0.95, "b": 0.91, "c": 0.5}) == SHRINKAGE
    True
    >>> outcome(PREDICTIONS[0], {})
    'not measured'
    """
    if not by_site:
        return "not measured"
    return prediction.at_least if reached(prediction, list(by_site.values())) else prediction.below


def reached(prediction: Prediction, values: Sequence[float]) -> bool:
    """Whether half of the values or more are at the limit or above."""
    return 2 * sum(value >= prediction.limit for value in values) >= len(values)
