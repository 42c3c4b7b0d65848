"""Scale `neox` as cohorts: the seeds trained here, untrained, and one run on its way."""

from __future__ import annotations

from dataclasses import dataclass, replace

from polyrot.cohorts.cohort import ScaleFacts
from polyrot.defaults import WIDTH
from polyrot.language import corpus, seeds
from polyrot.language.checkpoints import checkpoints
from polyrot.language.cohort import LanguageCohort
from polyrot.language.corpus import Evaluation
from polyrot.language.directions import PYTHON, tokenise
from polyrot.language.training import Schedule, Trained
from polyrot.store import Runtime

SCALE = "neox"
FACTS = ScaleFacts(drift=True)
LOWER_WIDTH = "--neox-width"
"""The option that decides how much memory its activations take."""


@dataclass(frozen=True)
class Neox:
    """What the cohort's models are: trained on a schedule, of a width, kept in a store. skip: the
    first positions of every sequence, which are left out of what is measured."""

    runtime: Runtime
    schedule: Schedule
    width: int = WIDTH
    skip: int = 0

    def evaluation(self) -> Evaluation:
        """The tokenizer and the held-out sequences."""
        return corpus.evaluation(self.runtime.store)

    def trained(self, on: Evaluation) -> list[Trained]:
        """Every seed, the anchor first: shipped, cached, or trained now."""
        return [
            seeds.trained(self.runtime, each, on)
            for each in seeds.trainings(self.schedule, self.width)
        ]

    def cohort(self, trained: bool = True) -> LanguageCohort:
        """The models of the scale; with `trained` False as they were before their first step."""
        on, numbers, device = self.evaluation(), seeds.seeds(self.width), self.runtime.device
        results = self.trained(on) if trained else []
        if trained:
            models = [seeds.model(self.width, r.weights, device=device) for r in results]
            made_by = [t.fingerprint(on) for t in seeds.trainings(self.schedule, self.width)]
        else:
            models = [seeds.model(self.width, seed=s, device=device) for s in numbers]
            made_by = [f"start {seed}, width {self.width}" for seed in numbers]
        made = LanguageCohort(
            SCALE,
            numbers,
            models,
            on.tokens,
            made_by,
            tokenise(PYTHON, on.tokenizer),
            trained=trained,
            lower=LOWER_WIDTH,
            facts=FACTS,
            start=lambda: replace(self, skip=0).cohort(trained=False),
        )
        made.notes = (_note(on),)
        if trained:
            made.departures = seeds.departures(self.schedule, self.width, results)
        return made.skipping(self.skip)

    def checkpoints(self) -> LanguageCohort:
        """The first seed on its way, the last step included."""
        on = self.evaluation()
        first = seeds.trainings(self.schedule, self.width)[0]
        run = seeds.trained(self.runtime, first, on)
        weights = {**run.snapshots, self.schedule.steps: run.weights}
        device = self.runtime.device
        models = [seeds.model(self.width, w, device=device) for w in weights.values()]
        made_by = [first.fingerprint(on), f"steps {list(weights)}"]
        made = checkpoints(
            SCALE, list(weights), models, on.tokens, made_by, lower=LOWER_WIDTH, facts=FACTS
        )
        made.departures = seeds.departures(self.schedule, self.width)
        return made.skipping(self.skip)


def _note(on: Evaluation) -> str:
    ends = sum(int((ids == corpus.END_ID).sum()) for ids in on.tokens.values())
    total = sum(ids.numel() for ids in on.tokens.values())
    return (
        "text: sequences are cut from Python sources, and no special token is put before them; "
        f"{corpus.END}, which ends each file, stands in them {ends} times, of {total} tokens"
    )
