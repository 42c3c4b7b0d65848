"""The toy seeds of the two cohorts, trained through the store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch

from polyrot.cohorts.cohort import ScaleFacts
from polyrot.runtime.device import BY_HARDWARE, FLOAT32
from polyrot.store import Artifact, Checkpoint, Runtime, fingerprint
from polyrot.toy import task, training, transformer
from polyrot.toy.cohort import INDEPENDENT_FACTS, SHARED_FACTS
from polyrot.toy.evaluation import GOAL, lowest
from polyrot.toy.schedule import Schedule, drift_steps
from polyrot.toy.trained import Trained
from polyrot.toy.transformer import Params

RECIPE_VERSION = 1  # raise when a change of code changes what a training produces

FULL = Schedule()
"""The paper's protocol, for a GPU."""
TEXT = Schedule(
    precision=BY_HARDWARE,
    evaluation_sequences=2048,
    at_once=1,
    choose="best",
    keep=(
        1000,
        1500,
        2000,
        3000,
        4000,
        6000,
        8000,
        12_000,
        18_000,
        24_000,
        30_000,
        40_000,
        50_000,
        58_000,
    ),
)
"""The paper's protocol as its text has it: steps, patience, stop rule and choice of the seeds."""
PIPELINE = replace(
    TEXT,
    steps=30_000,
    patience=3000,
    keep=(1000, 1500, 2000, 3000, 4000, 6000, 8000, 11_000, 15_000, 20_000, 25_000),
)
"""The same as its public pipeline runs it."""
CONTINUED = replace(FULL, onward=replace(TEXT, keep=()))
"""That of the shipped seeds: those that ended early, as a stop rule on few sequences let them, are
trained on as the text has it."""
SHORT = Schedule(steps=18_000, batch=128, precision=BY_HARDWARE)
"""For two CPU cores: two hours for both cohorts."""
SHORTER_CONTENT = replace(SHORT, precision=FLOAT32, lengths=(2, 48))
"""The same on contents of length 2 to 48 alone, of which the paper asks what it does beyond."""
LONG = Schedule(
    steps=96_000,
    batch=128,
    peak_rate=2e-3,
    precision=BY_HARDWARE,
    patience=96_000,
    late_violations=0.5,
    late_violations_until=0.85,
    full_context=0.2,
    at_once=1,
    cycle=Schedule(
        steps=16_000,
        batch=128,
        peak_rate=1.5e-3,
        precision=BY_HARDWARE,
        betas=(0.9, 0.99),
        patience=16_000,
        late_violations=0.5,
        late_violations_until=0.85,
        full_context=0.2,
        hidden_closers=0.6,
        shallow_walks=0.15,
    ),
)
"""To 99.99 % on thousands of sequences, on CPU cores: 40 minutes a seed and core, and 7 for every
cycle of a seed that has not met it then."""
MOST_CYCLES = 4
TINY = Schedule(
    steps=40,
    batch=32,
    warmup=5,
    precision=BY_HARDWARE,
    evaluate_every=20,
    evaluation_sequences=16,
    patience=40,
)
"""A schedule that trains nothing worth judging, to try the machinery in a minute."""


@dataclass(frozen=True)
class Toy:
    """A toy scale. shares_io: its first seed is trained freely, the others take its trained
    embedding and unembeddings, frozen; else every seed is trained on its own."""

    seeds: tuple[int, ...]
    shares_io: bool
    facts: ScaleFacts


TOYS = {
    "toy_a": Toy((0, 1, 2, 3, 4), True, SHARED_FACTS),
    "toy_b": Toy((100, 101, 102, 103, 104), False, INDEPENDENT_FACTS),
}


@dataclass(frozen=True)
class Training:
    """One batched training: which seeds, on which schedule, with whose frozen input and output.

    continued_from: the training among whose models these are before the first step, in place of
    their own starts; in a cycle their input and output stay as they are, as others may share them.
    """

    seeds: tuple[int, ...]
    schedule: Schedule
    io_from: Training | None = None
    continued_from: Training | None = None
    kind: str = "toy-seeds"

    @property
    def recipe(self) -> dict[str, object]:
        """What decides it, for its fingerprint."""
        before = self.continued_from
        return {
            **({} if before is None else {"goes_on_from": before.fingerprint}),
            "version": RECIPE_VERSION,
            "seeds": list(self.seeds),
            "schedule": self.schedule.recipe(),
            "frozen_io": None if self.io_from is None else self.io_from.fingerprint,
            "shapes": {n: list(s) for n, s in transformer.shapes().items()},
            "task": {"context": task.CONTEXT, "max_depth": task.MAX_DEPTH},
        }

    @property
    def fingerprint(self) -> str:
        """Of the recipe."""
        return fingerprint(self.kind, self.recipe)

    @property
    def name(self) -> str:
        """The first and last seed, and the cycle, the first step and the lengths of content if they
        are others."""
        found = f"{self.seeds[0]}-{self.seeds[-1]}" + (f"-cycle-{self.cycle}" if self.cycle else "")
        found += f"-from-{self.schedule.begin}" if self.schedule.begin else ""
        low, high = self.schedule.lengths
        usual = (low, high) == task.CONTENT_RANGE["train"]
        return found if usual else f"{found}-lengths-{low}-{high}"

    @property
    def cycle(self) -> int:
        """0 for a training from the start, and for one that goes on with its schedule."""
        before = self.continued_from
        return 0 if before is None else before.cycle + (self.schedule.begin == 0)

    @property
    def snapshot_at(self) -> tuple[int, ...]:
        """Steps whose weights are kept: those the schedule names, and of seed 0 those for drift."""
        drift = self.seeds[0] == 0 and self.continued_from is None
        return tuple(
            sorted({*self.schedule.keep, *(drift_steps(self.schedule.steps) if drift else ())})
        )


def shorter_content(schedule: Schedule = SHORTER_CONTENT) -> Training:
    """The training of one model on shorter contents, with a seed of its own."""
    return Training((5,), schedule)


def trainings(scale: str, schedule: Schedule) -> list[Training]:
    """The trainings that make a cohort, in order. Raises KeyError: no toy scale."""
    if scale not in TOYS:
        raise KeyError(f"no toy cohort {scale!r}: one of {', '.join(TOYS)}")
    seeds = TOYS[scale].seeds
    if not TOYS[scale].shares_io:
        return [Training(part, schedule) for part in _parts(seeds, schedule)]
    first = Training(seeds[:1], schedule)
    rest = _parts(seeds[1:], schedule)
    return [first, *(Training(part, schedule, io_from=first) for part in rest)]


def _parts(seeds: tuple[int, ...], schedule: Schedule) -> list[tuple[int, ...]]:
    n = schedule.at_once or len(seeds)
    return [seeds[i : i + n] for i in range(0, len(seeds), n)]


def trained(
    runtime: Runtime,
    training_: Training,
    *,
    compiled: bool | None = None,
) -> Trained:
    """The result of one training: shipped, cached, or made now (resuming where it was left)."""

    def build(checkpoint: Checkpoint) -> Artifact:
        io = None
        if training_.io_from is not None:
            io = trained(runtime, training_.io_from, compiled=compiled).params
        initial = None
        if training_.continued_from is not None:
            before = trained(runtime, training_.continued_from)
            initial = transformer.select(
                before.params, [before.seeds.index(s) for s in training_.seeds]
            )
            io = initial if training_.cycle else io
        return training.train(
            training_.seeds,
            training_.schedule,
            frozen_io=io,
            initial=initial,
            stream=f"toy data, cycle {training_.cycle}" if training_.cycle else "toy data",
            snapshot_at=training_.snapshot_at,
            device=runtime.device,
            checkpoint=checkpoint,
            progress=runtime.progress,
            compiled=compiled,
        ).to_artifact()

    kind, recipe, name = training_.kind, training_.recipe, training_.name
    return Trained.from_artifact(runtime.store.get_or_build(kind, recipe, build, name=name))


def finished(
    runtime: Runtime,
    training_: Training,
    *,
    only: Collection[int] | None = None,
    compiled: bool | None = None,
) -> tuple[tuple[Training, ...], Trained]:
    """The trainings that these seeds are of, and all of them as they stand after these.

    Where the schedule says how those that ended early go `onward`, each of them does (`only`: but
    no others than these). Where it has a cycle, the seeds that have not met the paper's goal on the
    sequences of the last evaluation train on, and of them those that still have not, on the
    sequences of their last cycle: until every head meets it on every distribution, or for
    MOST_CYCLES.
    """
    result = trained(runtime, training_, compiled=compiled)
    onward = tuple(t for t in going_on(training_, result) if only is None or t.seeds[0] in only)
    for each in onward:
        result = result.replaced(trained(runtime, each, compiled=compiled))
    schedule = training_.schedule.cycle
    while schedule is not None and training_.cycle < MOST_CYCLES and below_goal(result):
        training_ = Training(below_goal(result), schedule, continued_from=training_)
        more = trained(runtime, training_, compiled=compiled)
        result = result.replaced(more)
    return (training_, *onward), result


def as_there(runtime: Runtime, training_: Training) -> Trained | None:
    """What a training and those that go on from it came to as far as they are shipped or cached;
    None where the first is not."""
    store = runtime.store
    if not store.has(training_.kind, training_.recipe):
        return None
    result = trained(runtime, training_)
    for each in going_on(training_, result):
        if store.has(each.kind, each.recipe):
            result = result.replaced(trained(runtime, each))
    return result


def going_on(training_: Training, result: Trained) -> list[Training]:
    """The trainings by which models that ended early go on, one for each; none where the schedule
    does not say how. What was frozen stays so."""
    schedule = training_.schedule.onward
    if schedule is None:
        return []
    ended = zip(result.seeds, result.stopped_at, strict=True)
    return [
        replace(
            training_,
            seeds=(seed,),
            schedule=replace(schedule, begin=step),
            continued_from=training_,
        )
        for seed, step in ended
        if step < schedule.early
    ]


def below_goal(result: Trained) -> tuple[int, ...]:
    """The seeds of which a head missed the paper's goal on a distribution at the end."""
    return tuple(s for m, s in enumerate(result.seeds) if lowest(result.accuracies, m) < GOAL)


def departures(schedule: Schedule, results: Sequence[Trained]) -> tuple[str, ...]:
    """How the training of these models departs from the paper's protocol, in sentences: by its
    schedule, by the precision that a stretch of it took, and where it changed its device."""
    subject = "toys of the pipeline" if schedule == PIPELINE else "toys"
    named = [] if schedule.precision == BY_HARDWARE else [schedule.precision]
    taken = dict.fromkeys([*named, *(str(p) for result in results for _, p in result.precision)])
    moved = [result.device for result in results if result.device not in ("cpu", "cuda")]
    return schedule.departures(" and ".join(taken), subject) + tuple(
        f"{subject}: trained on {device.replace('; ', ', ')}; the paper names no device"
        for device in moved
    )


def models(results: Sequence[Trained]) -> Params:
    """All models of a cohort as one batch."""
    return {name: torch.cat([r.params[name] for r in results]) for name in results[0].params}
