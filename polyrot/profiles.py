"""How long everything trains: one name for the schedules of seeds and dictionaries together."""

from __future__ import annotations

from dataclasses import dataclass

from polyrot.dictionaries import training as dictionary_training
from polyrot.toy import seeds
from polyrot.toy.training import Schedule


@dataclass(frozen=True)
class Profile:
    """Schedules of one name. toy: one after the other, each from where the last ended."""

    toy: tuple[Schedule, ...]
    dictionaries: dictionary_training.Schedule


PROFILES = {
    "shipped": Profile(seeds.SHIPPED, dictionary_training.Schedule(batch=1024)),
    "full": Profile(seeds.FULL, dictionary_training.Schedule()),
    "tiny": Profile(seeds.TINY, dictionary_training.Schedule(steps=30, batch=128)),
}
