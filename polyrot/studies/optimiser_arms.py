"""The arms of the study of the optimiser: five seeds each, alike in all but how they are stepped.

Seeds, data, batch and steps are those of every arm; the schedule of `sgd` has a peak rate of its
own, chosen on one further seed by its training loss alone. Seeds are trained one by one, so that
each keeps its weights at half-way and a training that is cut short loses little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import torch

from polyrot.runtime.device import FLOAT32
from polyrot.store import Artifact, Checkpoint, Runtime
from polyrot.toy import seeds
from polyrot.toy.cohort import INDEPENDENT_FACTS, ToyCohort
from polyrot.toy.schedule import RANDOM, SGD as SGD_NAME, Schedule
from polyrot.toy.seeds import TOYS, Training
from polyrot.toy.trained import Trained

STEPS = 4000
HALF_WAY = STEPS // 2
ADAM = Schedule(
    steps=STEPS,
    batch=128,
    precision=FLOAT32,
    patience=STEPS,
    evaluation_sequences=128,
    at_once=1,
    keep=(HALF_WAY,),
)
"""AdamW as cohort B is trained by it, for as long as two CPU cores allow in an hour."""
ROT = replace(ADAM, optimiser_basis=RANDOM)
"""The same in a fixed random basis of each seed."""
SGD = replace(ADAM, optimiser=SGD_NAME)
"""SGD with momentum, nothing scaled by coordinates; its peak rate is that of the trial."""
ARMS = {
    "adam": "AdamW",
    "rot": "AdamW in a random basis of each seed",
    "sgd": "SGD with momentum",
}
SEEDS = TOYS["toy_b"].seeds
SHIPPED = "cohort B"
"""What the shipped models of these seeds are called beside the arms."""

RECIPE_VERSION = 1  # raise when a change of code changes what the trial of a rate measures
TRIAL_SEED = 105
"""Of no cohort, so that nothing is chosen on what is judged."""
TRIAL = replace(SGD, steps=1000, warmup=125, evaluate_every=50, evaluation_sequences=2, keep=())
RATES = (0.03, 0.1, 0.3, 1.0)
FACTOR = 3.0
"""Where the best rate is the first or the last, the next beyond it is tried, so many times as low
or high; at most FURTHER of them."""
FURTHER = 2


def loss_at(runtime: Runtime, rate: float) -> float:
    """Mean training loss of the trial over the evaluations of its second half, in nats; infinite
    where it diverges. Kept in the store: a training that failed leaves nothing there itself."""
    training = Training((TRIAL_SEED,), replace(TRIAL, peak_rate=rate))

    def build(_: Checkpoint) -> Artifact:
        try:
            run = seeds.trained(runtime, training)
        except FloatingPointError:
            return Artifact({}, {"loss": None})
        half = [row["loss"][0] for row in run.history if row["step"] > TRIAL.steps // 2]
        return Artifact({}, {"loss": fmean(half)})

    recipe = {"version": RECIPE_VERSION, "trial": training.fingerprint}
    found = runtime.store.get_or_build("rate-trial", recipe, build, name=f"{rate:g}")
    loss: float | None = found.meta["loss"]
    return math.inf if loss is None else loss


def rate_trial(runtime: Runtime) -> dict[float, float]:
    """Training loss by rate, lowest rate first: of RATES, and beyond them while the best is at an
    end."""
    found = {rate: loss_at(runtime, rate) for rate in RATES}
    for _ in range(FURTHER):
        low, best, high = min(found), best_rate(found), max(found)
        if best not in (low, high):
            break
        beyond = best * FACTOR if best == high else best / FACTOR
        found[float(f"{beyond:.3g}")] = loss_at(runtime, float(f"{beyond:.3g}"))
    return dict(sorted(found.items()))


def as_recorded(losses: Mapping[float, float]) -> dict[str, float | None]:
    """The trial as the record has it: None where a rate diverged, as JSON has no infinity."""
    return {f"{rate:g}": x if math.isfinite(x) else None for rate, x in losses.items()}


def best_rate(losses: dict[float, float]) -> float:
    """The rate of the lowest loss."""
    return min(losses, key=lambda rate: losses[rate])


def schedule_of(runtime: Runtime, arm: str) -> Schedule:
    """The schedule of an arm; for `sgd` the rate trial is run first. Raises KeyError: no arm."""
    if arm == "sgd":
        return replace(SGD, peak_rate=best_rate(rate_trial(runtime)))
    return {"adam": ADAM, "rot": ROT}[arm]


def trainings(schedule: Schedule) -> list[Training]:
    """One for each seed, the anchor first."""
    return [Training((seed,), schedule) for seed in SEEDS]


def train(runtime: Runtime, arms: Sequence[str]) -> dict[str, list[Trained]]:
    """The runs of these arms, one a seed: trained now, resumed or found; seed by seed over the
    arms, so that what is there after a kill can be compared."""
    schedules = {arm: schedule_of(runtime, arm) for arm in arms}
    found: dict[str, list[Trained]] = {arm: [] for arm in arms}
    for i in range(len(SEEDS)):
        for arm, schedule in schedules.items():
            found[arm].append(seeds.trained(runtime, trainings(schedule)[i]))
    return found


def cohort_of(arm: str, runs: Sequence[Trained], schedule: Schedule, device: str) -> ToyCohort:
    """The seeds of an arm after their last step, the anchor first."""
    params = {name: p.to(device) for name, p in seeds.models(runs).items()}
    made_by = [training.fingerprint for training in trainings(schedule)]
    return ToyCohort(f"toy_{arm}", SEEDS, params, made_by, facts=INDEPENDENT_FACTS)


def shipped(runtime: Runtime) -> ToyCohort | None:
    """Cohort B as shipped, each seed as it ended first; None where the runtime's store has not all
    of it."""
    each = seeds.trainings("toy_b", seeds.FULL)
    if not all(runtime.store.has(training.kind, training.recipe) for training in each):
        return None
    runs = [seeds.trained(runtime, training) for training in each]
    params = {name: p.to(runtime.device) for name, p in seeds.models(runs).items()}
    made_by = [training.fingerprint for training in each]
    return ToyCohort("toy_b", SEEDS, params, made_by, facts=INDEPENDENT_FACTS)


def half_way(arm: str, runs: Sequence[Trained], schedule: Schedule, device: str) -> ToyCohort:
    """The same after half of the steps."""
    each = [run.snapshots[HALF_WAY] for run in runs]
    params = {name: torch.cat([p[name] for p in each]).to(device) for name in each[0]}
    made_by = [f"{training.fingerprint}, step {HALF_WAY}" for training in trainings(schedule)]
    return ToyCohort(f"toy_{arm} half-way", SEEDS, params, made_by, facts=INDEPENDENT_FACTS)
