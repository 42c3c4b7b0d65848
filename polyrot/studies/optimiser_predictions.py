"""What was predicted of the three arms before any of them was trained, as numbers.

The paper's explanation: bases are Haar because nothing in training prefers a direction. The
objection: AdamW prefers the axes of the basis in which it steps, for it scales each coordinate by
itself; SGD does not. Where the two differ, one value is looked at, with one limit: on one side of
it the paper's explanation stands, on the other the objection. Where both predict the same, the
prediction is a check of the experiment itself, and a value beyond the limit speaks against both.

Frames are orthonormal bases of the directions that the position features leave free. "axes" is the
one nearest to the coordinate axes, "own" that nearest to the basis of each seed's optimiser.
Known when this was written: on the shipped cohort B, which AdamW trained for up to 60,000 steps,
the largest kurtosis along the axes is 1.0 to 2.0 times that along random bases, by site, with
intervals that hold 1.5 at three sites of four; the battery on the free directions rejects none of
its rotations. Nothing of the arms below had been trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

PAPER, OBJECTION, BOTH = "the paper's explanation", "the objection", "both"


@dataclass(frozen=True)
class Prediction:
    """One value and its limit.

    measure, arm, frame: which value. limit: at most it is what `low` predicts, more than it what
    `high` does, each one of PAPER, OBJECTION, BOTH or "" for neither.
    """

    id: str
    measure: str
    arm: str
    frame: str
    limit: float
    low: str
    high: str

    @property
    def tells_apart(self) -> bool:
        """Whether the two explanations predict different sides."""
        return {self.low, self.high} == {PAPER, OBJECTION}


MEASURES: Mapping[str, str] = {
    "mean_kurtosis": "mean kurtosis over the frame's directions, over the same in random frames: "
    "geometric mean over internal sites and models",
    "largest_kurtosis": "the same of the largest kurtosis in the frame, the registered form, whose "
    "registered bar is the limit",
    "battery": "rotations between siblings and anchor at identified sites that the whole battery "
    "rejects, Holm-adjusted at 0.01",
    "S4": "S4 of the rotations (sum of fourth powers of the entries), in standard deviations of "
    "its Haar law, mean over pairs and identified sites",
    "MX": "the same of MX, the largest entry",
    "drift": "||R - I|| from half-way to the end over that of a Haar draw, at the sites that are "
    "identified in every arm, over the same in the arm adam: geometric mean over seeds",
    "accuracy": "lowest accuracy over heads and distributions, less that of the arm adam: mean "
    "over seeds",
}

_TOLD = {
    # measure: limit in standard terms
    "mean_kurtosis": 1.1,
    "largest_kurtosis": 1.5,
    "battery": 0.0,
    "S4": 1.0,
    "MX": 1.0,
}
_PRIVILEGED = (("adam", "axes"), ("rot", "own"))
"""Arms and frames in which the objection sees a privileged basis."""
_EVEN = (("rot", "axes"), ("sgd", "axes"))
"""Those in which neither explanation does."""

PREDICTIONS: tuple[Prediction, ...] = (
    *(
        Prediction(f"{measure}/{arm}/{frame}", measure, arm, frame, limit, PAPER, OBJECTION)
        for measure, limit in _TOLD.items()
        for arm, frame in _PRIVILEGED
    ),
    *(
        Prediction(f"{measure}/{arm}/{frame}", measure, arm, frame, limit, BOTH, "")
        for measure, limit in _TOLD.items()
        for arm, frame in _EVEN
    ),
    # To turn the optimiser's basis changes nothing else: runs drift and learn alike.
    Prediction("drift/rot, not less", "drift", "rot", "axes", 0.8, "", BOTH),
    Prediction("drift/rot, not more", "drift", "rot", "axes", 1.25, BOTH, ""),
    # Without axes to hold on to, SGD's basis is free to turn; its pace of learning is another,
    # so this one is weak evidence for either.
    Prediction("drift/sgd", "drift", "sgd", "axes", 1.25, PAPER, OBJECTION),
    Prediction("accuracy/rot, not less", "accuracy", "rot", "axes", -0.02, "", BOTH),
    Prediction("accuracy/rot, not more", "accuracy", "rot", "axes", 0.02, BOTH, ""),
)


def as_data() -> list[dict[str, Any]]:
    """The predictions as plain values, for the record."""
    return [asdict(each) for each in PREDICTIONS]


def judged(prediction: Prediction, low: float, high: float) -> str:
    """How a prediction came out, in words, from the 95 % interval of its value.

    >>> by_id = {each.id: each for each in PREDICTIONS}
    >>> judged(by_id["S4/adam/axes"], 2.0, 3.0)
    'as the objection predicts'
    >>> judged(by_id["S4/adam/axes"], 0.5, 3.0)
    'undecided'
    >>> judged(by_id["S4/sgd/axes"], 2.0, 3.0)
    'against both'
    """
    if low <= prediction.limit < high:
        return "undecided"
    side = prediction.high if low > prediction.limit else prediction.low
    return f"as {side} predict{'' if side == BOTH else 's'}" if side else "against both"
