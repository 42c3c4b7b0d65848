"""Scale `neox` as cohorts: the seeds trained here, untrained, and one run on its way."""

from __future__ import annotations

from dataclasses import dataclass

from polyrot.language import corpus, seeds
from polyrot.language.checkpoints import checkpoints
from polyrot.language.cohort import LanguageCohort
from polyrot.language.corpus import Evaluation
from polyrot.language.directions import PYTHON, tokenise
from polyrot.language.training import Schedule, Trained
from polyrot.runtime.progress import Progress, silent
from polyrot.store import Store

SCALE = "neox"


@dataclass(frozen=True)
class Neox:
    """Where the cohort's models come from: a store, a schedule, a width, a device."""

    store: Store
    schedule: Schedule
    width: int = seeds.WIDTH
    device: str = "cpu"
    progress: Progress = silent

    def evaluation(self) -> Evaluation:
        """The tokenizer and the held-out sequences."""
        return corpus.evaluation(self.store)

    def trained(self, on: Evaluation) -> list[Trained]:
        """Every seed, the anchor first: shipped, cached, or trained now."""
        return [
            seeds.trained(self.store, each, on, device=self.device, progress=self.progress)
            for each in seeds.trainings(self.schedule, self.width)
        ]

    def cohort(self, trained: bool = True) -> LanguageCohort:
        """The models of the scale; with `trained` False as they were before their first step."""
        on, numbers = self.evaluation(), seeds.seeds(self.width)
        if trained:
            models = [
                seeds.model(self.width, run.weights, device=self.device) for run in self.trained(on)
            ]
            made_by = [t.fingerprint(on) for t in seeds.trainings(self.schedule, self.width)]
        else:
            models = [seeds.model(self.width, seed=s, device=self.device) for s in numbers]
            made_by = [f"start {seed}, width {self.width}" for seed in numbers]
        return LanguageCohort(
            SCALE,
            numbers,
            models,
            on.tokens,
            made_by,
            tokenise(PYTHON, on.tokenizer),
            trained=trained,
        )

    def checkpoints(self) -> LanguageCohort:
        """The first seed on its way, the last step included."""
        on = self.evaluation()
        first = seeds.trainings(self.schedule, self.width)[0]
        run = seeds.trained(self.store, first, on, device=self.device, progress=self.progress)
        weights = {**run.snapshots, self.schedule.steps: run.weights}
        models = [seeds.model(self.width, w, device=self.device) for w in weights.values()]
        made_by = [first.fingerprint(on), f"steps {list(weights)}"]
        return checkpoints(SCALE, list(weights), models, on.tokens, made_by)
