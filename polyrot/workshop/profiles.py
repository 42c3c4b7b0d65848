"""How long everything trains: one name for the schedules of seeds and dictionaries together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries import training as dictionary_training
from polyrot.language import seeds as language_seeds
from polyrot.language import training as language_training
from polyrot.runtime.device import BF16
from polyrot.toy import seeds
from polyrot.toy.schedule import Schedule

PYTHIA = dictionary_training.Schedule(steps=4000)
"""The paper's protocol for its language models."""


@dataclass(frozen=True)
class Profile:
    """Schedules of one name. dictionaries: of the toys; language_dictionaries: of language models
    trained here and of a pair; pythia_dictionaries: the paper's protocol, but for a trial."""

    toy: Schedule
    dictionaries: dictionary_training.Schedule
    language: language_training.Schedule
    language_dictionaries: dictionary_training.Schedule
    pythia_dictionaries: dictionary_training.Schedule = PYTHIA

    def dictionaries_of(self, cohort: Cohort) -> dictionary_training.Schedule:
        """The schedule of a cohort's dictionaries."""
        if cohort.facts.from_paper:
            return self.pythia_dictionaries
        return self.language_dictionaries if cohort.facts.language else self.dictionaries


_SHIPPED = Profile(
    seeds.FULL,
    dictionary_training.Schedule(batch=1024, precision=BF16),
    language_seeds.SHIPPED,
    dictionary_training.Schedule(steps=2000, batch=1024, precision=BF16),
)
PROFILES = {
    "shipped": _SHIPPED,
    "short": replace(_SHIPPED, toy=seeds.SHORT),
    "long": replace(_SHIPPED, toy=seeds.LONG),
    "text": replace(_SHIPPED, toy=seeds.TEXT),
    "pipeline": replace(_SHIPPED, toy=seeds.PIPELINE),
    "full": Profile(
        seeds.FULL,
        dictionary_training.Schedule(),
        language_seeds.FULL,
        PYTHIA,
    ),
    "tiny": Profile(
        seeds.TINY,
        dictionary_training.Schedule(steps=30, batch=128),
        language_seeds.TINY,
        dictionary_training.Schedule(steps=30, batch=128),
        dictionary_training.Schedule(steps=30, batch=128),
    ),
}
