"""The dictionaries that a scale needs: one table, from which plan, estimate and training follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from polyrot.cohorts.cohort import ScaleFacts
from polyrot.dictionaries import groups
from polyrot.dictionaries.groups import Group

Models = Literal["trained", "untrained", "checkpoints"]
Sparsity = Literal["published", "to be chosen", "chosen"]


@dataclass(frozen=True)
class Part:
    """Dictionaries that are trained for the same claims.

    name: as `--parts` of `python -m polyrot.workshop` calls it. group: makes the group from cohort
    and schedule, and with a chosen l1 from that too. models: which models they are of. l1: the
    paper's; a grid of which the best is chosen at each site; or what was chosen from the grid.
    needs: parts that must be trained before. wanted: whether a scale has the part, by its facts.
    """

    name: str
    group: Callable[..., Group]
    models: Models = "trained"
    l1: Sparsity = "published"
    needs: tuple[str, ...] = ()
    wanted: Callable[[ScaleFacts], bool] = lambda _: True


PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part("anchor", groups.anchor),
        Part("sparsity", groups.planned_grid, l1="to be chosen"),
        Part("wide", groups.wide, wanted=lambda facts: facts.wide),
        Part("untrained", groups.anchor, models="untrained"),
        Part("published", groups.published, wanted=lambda facts: facts.shared_start),
        Part("noise", groups.noise, wanted=lambda facts: facts.shared_start),
        Part("turned", groups.turned, wanted=lambda facts: facts.shared_start),
        Part("own", groups.own),
        Part("second-start", groups.second_start),
        Part("sparse", groups.sparse, l1="chosen", needs=("sparsity",)),
        Part("more-starts", groups.more_starts, l1="chosen", needs=("sparsity",)),
        Part("drift", groups.drift, models="checkpoints", wanted=lambda facts: facts.drift),
        Part(
            "half-way",
            groups.half_way,
            models="checkpoints",
            wanted=lambda facts: facts.drift and facts.every_site,
        ),
    )
}


def parts_of(facts: ScaleFacts, names: list[str] | None = None) -> list[Part]:
    """The parts that a scale has, in the order of the table: all, or those named and what they
    need. Raises KeyError for an unknown name.

    >>> [part.name for part in parts_of(ScaleFacts(), ["sparse", "wide"])]
    ['sparsity', 'sparse']
    """
    named = {name: PARTS[name] for name in (PARTS if names is None else names)}
    asked = {*named, *(needed for part in named.values() for needed in part.needs)}
    return [part for name, part in PARTS.items() if name in asked and part.wanted(facts)]
