"""How long, how fast and on what toy models train, and what of it a fingerprint knows."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from polyrot.cohorts import departures
from polyrot.runtime.device import BF16
from polyrot.toy.task import CONTENT_RANGE, Law

ADAMW, SGD = "adamw", "sgd"
STANDARD, RANDOM = "standard", "random"
EARLY = 2 / 3  # of a schedule's steps
ADDED = (
    "late_violations",
    "late_violations_until",
    "full_context",
    "hidden_closers",
    "shallow_walks",
    "at_once",
    "cycle",
    "choose",
    "keep",
    "lengths",
    "optimiser",
    "momentum",
    "optimiser_basis",
    "begin",
    "onward",
)
"""Fields of a schedule that came after the shipped fingerprints."""


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, and on what. The defaults are the paper's protocol.

    late_violations, full_context, hidden_closers, shallow_walks: see `task.Law`; late violations
    are drawn until the share `late_violations_until` of the steps is done.
    cycle: the schedule on which a model that has not met the goal at the end trains on, once and
    again (see `polyrot.toy.seeds.finished`).
    onward: the schedule by which a model that ended well before its `steps` trains on from where it
    ended (see `polyrot.toy.seeds.finished`). begin: of such a schedule, the steps that its models
    have behind them: rate, data and evaluations go on from there, the optimiser's moments anew.
    at_once: models of a cohort trained as one program (default: all that can be).
    choose: which of a run's weights are its model: the "last", or the "best" of those that were
    evaluated, which have the highest lowest accuracy, and of equals the lowest loss.
    keep: steps whose weights are kept beside, of a training of one seed.
    lengths: of the content of training sequences, least and most; evaluations keep theirs.
    precision: see `polyrot.runtime.device`.
    optimiser: "adamw", or "sgd" with this `momentum` and no scaling by coordinates; the peak rate
    is the optimiser's own. optimiser_basis: of the residual stream, in which it steps: "standard",
    or a "random" one of each seed (see `polyrot.toy.optimiser`).
    """

    steps: int = 60_000
    batch: int = 512
    warmup: int = 500
    peak_rate: float = 3e-3
    final_share: float = 0.02
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-4
    clip: float = 1.0
    precision: str = BF16
    patience: int = 10_000
    evaluate_every: int = 500
    evaluation_sequences: int = 512
    late_violations: float = 0.0
    late_violations_until: float = 1.0
    full_context: float = 0.0
    hidden_closers: float = 0.0
    shallow_walks: float = 0.0
    at_once: int | None = None
    cycle: Schedule | None = None
    choose: Literal["last", "best"] = "last"
    keep: tuple[int, ...] = ()
    lengths: tuple[int, int] = CONTENT_RANGE["train"]
    optimiser: str = ADAMW
    momentum: float = 0.9
    optimiser_basis: str = STANDARD
    begin: int = 0
    onward: Schedule | None = None

    def recipe(self) -> dict[str, Any]:
        """What a fingerprint needs to know; fields that came later only where they are used."""
        later = {f.name: f.default for f in fields(self) if f.name in ADDED}
        known = {n: v for n, v in asdict(self).items() if n not in later or v != later[n]}
        for after in ("cycle", "onward"):  # decide what comes after, with a recipe of its own
            known.pop(after, None)
        listed = ("betas", "keep", "lengths")
        lists: dict[str, Any] = {n: list(known[n]) for n in listed if n in known}
        return {**known, **lists}

    def departures(self, precision: str = "", subject: str = "toys") -> tuple[str, ...]:
        """How it departs from the paper's protocol, in sentences, which begin with `subject` where
        lengths are the paper's. precision: what was taken, where the schedule leaves that to the
        hardware and an artifact says it."""
        made: dict[str, object] = {name: getattr(self, name) for name in departures.TOYS}
        made["cycle"] = self.cycle.steps if self.cycle is not None else 0
        made["onward"] = self.onward.early if self.onward is not None else 0
        made["precision"] = precision or self.precision
        low, high = self.lengths
        usual = self.lengths == CONTENT_RANGE["train"]
        called = subject if usual else f"toy on contents of {low} to {high}"
        return departures.departures(called, departures.TOYS, made)

    @property
    def early(self) -> int:
        """A model that ended before this step ended early, its rate still high."""
        return round(EARLY * self.steps)

    def law(self, begun: float) -> Law:
        """What the data are drawn from once the share `begun` of the steps is done."""
        late = self.late_violations if begun < self.late_violations_until else 0.0
        return Law(late, self.hidden_closers, self.shallow_walks, self.full_context, self.lengths)

    def rate(self, step: int) -> float:
        """Learning rate of the 0-based `step`: linear warm-up, cosine to `final_share`."""
        if step < self.warmup:
            return self.peak_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        floor = self.final_share
        return self.peak_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def drift_steps(steps: int) -> list[int]:
    """Nine checkpoints of a run: 1/256 of it, doubling, to half-way and the end."""
    return sorted({max(1, round(steps / 2**k)) for k in range(9)})
