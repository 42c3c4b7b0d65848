"""How long everything trains: one name for the schedules of seeds and dictionaries together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries import groups, training as dictionary_training
from polyrot.dictionaries.groups import Group
from polyrot.language import seeds as language_seeds, training as language_training
from polyrot.runtime.device import BF16
from polyrot.toy import seeds
from polyrot.toy.schedule import Schedule

PYTHIA = dictionary_training.Schedule(steps=4000)
"""The paper's protocol for its language models."""


@dataclass(frozen=True)
class Profile:
    """Schedules of one name. dictionaries: of the toys; language_dictionaries: of language models
    trained here and of a pair; pythia_dictionaries: the paper's protocol, but for a trial.
    other_...: of the dictionaries that the paper does not train (all but those of
    `polyrot.dictionaries.groups.BY_PROTOCOL`), where it is another. shorter_content: of the toy
    that is trained on these alone."""

    toy: Schedule
    dictionaries: dictionary_training.Schedule
    language: language_training.Schedule
    language_dictionaries: dictionary_training.Schedule
    pythia_dictionaries: dictionary_training.Schedule = PYTHIA
    other_dictionaries: dictionary_training.Schedule | None = None
    other_language_dictionaries: dictionary_training.Schedule | None = None
    shorter_content: Schedule = seeds.SHORTER_CONTENT

    def dictionaries_of(
        self,
        cohort: Cohort,
        make: Callable[..., Group] = groups.anchor,
        trained: bool | None = None,
    ) -> dictionary_training.Schedule:
        """The schedule of a cohort's dictionaries, of the group that `make` makes. trained: whether
        its models are (default: as the cohort says)."""
        if cohort.facts.from_paper:
            return self.pythia_dictionaries
        usual, other = self.dictionaries, self.other_dictionaries
        if cohort.facts.language:
            usual, other = self.language_dictionaries, self.other_language_dictionaries
        trained = cohort.trained if trained is None else trained
        by_protocol = trained and make in groups.BY_PROTOCOL
        return usual if by_protocol or other is None else other


_SHIPPED = Profile(
    seeds.CONTINUED,
    dictionary_training.Schedule(),
    language_seeds.SHIPPED,
    dictionary_training.Schedule(steps=2000, batch=1024),
    other_dictionaries=dictionary_training.Schedule(batch=1024, precision=BF16),
    other_language_dictionaries=dictionary_training.Schedule(
        steps=2000, batch=1024, precision=BF16
    ),
)
PROFILES = {
    "shipped": _SHIPPED,
    "short": replace(_SHIPPED, toy=seeds.SHORT),
    "long": replace(_SHIPPED, toy=seeds.LONG),
    "text": replace(_SHIPPED, toy=seeds.TEXT),
    "pipeline": replace(_SHIPPED, toy=seeds.PIPELINE),
    "full": Profile(
        seeds.CONTINUED,
        dictionary_training.Schedule(),
        language_seeds.FULL,
        PYTHIA,
        shorter_content=replace(seeds.FULL, lengths=seeds.SHORTER_CONTENT.lengths),
    ),
    "tiny": Profile(
        seeds.TINY,
        dictionary_training.Schedule(steps=30, batch=128),
        language_seeds.TINY,
        dictionary_training.Schedule(steps=30, batch=128),
        dictionary_training.Schedule(steps=30, batch=128),
        shorter_content=replace(seeds.TINY, lengths=seeds.SHORTER_CONTENT.lengths),
    ),
}
