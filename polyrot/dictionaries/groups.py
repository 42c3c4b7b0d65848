"""The groups of dictionaries that the claims ask for: which models, sites, starts and sparsity.

A group is a set of equal-shaped dictionaries trained by one schedule on one cohort; it is one
artifact (see `polyrot.dictionaries.collection`). Every group is a few lines below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from polyrot.cohorts.cohort import Cohort
from polyrot.cohorts.run import EARLY, nearest
from polyrot.dictionaries.training import Schedule
from polyrot.runtime.device import FLOAT32

EXPANSION = 8
WIDE_EXPANSION = 32
SHARED_START = 0
L1 = 1e-3

Data = Literal["activations", "isotropic noise", "activations, turned"]

RECIPE_VERSION = 1  # of the grids: raise when a change of code changes what `l1_grid` finds


@dataclass(frozen=True)
class Spec:
    """One dictionary of a group: model (0 is the anchor), site, start seed, l1."""

    model: int
    site: str
    start: int
    l1: float = L1


@dataclass(frozen=True)
class Group:
    """Dictionaries trained together, and what they are trained on."""

    name: str
    specs: tuple[Spec, ...]
    schedule: Schedule
    expansion: int = EXPANSION
    data: Data = "activations"

    def after(self, steps: int) -> Group:
        """The same trained for so many steps: a state on the way of a longer training."""
        return replace(self, schedule=replace(self.schedule, steps=steps))


READINGS = (2 / 3, 1.0)
"""Shares of a toy's schedule at which the paper's two scripts stop: 4,000 and 6,000 steps."""
CURVE = (1 / 12, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1.0)
"""Shares of a schedule at which the match is looked at: 500, 1,000, 2,000, ... 6,000 steps."""


def readings(cohort: Cohort, schedule: Schedule) -> tuple[int, ...]:
    """Steps at which dictionaries that the paper trains are read: of the toy both that it names, of
    language models the end, and so of dictionaries that depart from the paper's protocol."""
    departs = cohort.facts.language or schedule.departures()
    return _steps((1.0,) if departs else READINGS, schedule)


def curve(schedule: Schedule) -> tuple[int, ...]:
    """Steps at which the match of dictionaries is looked at as they train."""
    return _steps(CURVE, schedule)


def _steps(shares: Sequence[float], schedule: Schedule) -> tuple[int, ...]:
    return tuple(dict.fromkeys(max(1, round(share * schedule.steps)) for share in shares))


def own_start(model: int) -> int:
    """A start of each model's own; the anchor's is the shared one, so that its SAE serves both."""
    return SHARED_START + model


def published(cohort: Cohort, schedule: Schedule) -> Group:
    """Every sibling from the anchor's own start, as the paper trains them, where these are asked
    for."""
    models, l1 = range(1, len(cohort.seeds)), cohort.facts.published_l1
    specs = [Spec(m, s, SHARED_START, l1) for m in models for s in shared_start_sites(cohort)]
    return Group("published", tuple(specs), schedule)


def shared_start_sites(cohort: Cohort) -> tuple[str, ...]:
    """Where siblings' dictionaries are trained from the anchor's own start: the sites at which the
    paper reports decoder cosines, and of language models the last block's output, too."""
    last = cohort.sites[-1:] if cohort.facts.language else ()
    return tuple(dict.fromkeys((*cohort.named_sites, *last)))


def own(cohort: Cohort, schedule: Schedule) -> Group:
    """Every sibling and site, each from its own start; or at internal sites alone."""
    models, l1 = range(1, len(cohort.seeds)), cohort.facts.published_l1
    sites = cohort.sites if cohort.facts.every_site else cohort.internal
    specs = [Spec(m, site, own_start(m), l1) for m in models for site in sites]
    return Group("own", tuple(specs), schedule)


def anchor(cohort: Cohort, schedule: Schedule) -> Group:
    """The anchor alone, every site."""
    l1 = cohort.facts.published_l1
    return Group("anchor", tuple(Spec(0, s, SHARED_START, l1) for s in cohort.sites), schedule)


def wide(cohort: Cohort, schedule: Schedule) -> Group:
    """The anchor at 32x, internal sites."""
    l1 = cohort.facts.published_l1
    specs = tuple(Spec(0, s, SHARED_START, l1) for s in cohort.internal)
    return Group("wide", specs, schedule, expansion=WIDE_EXPANSION)


def noise(cohort: Cohort, schedule: Schedule) -> Group:
    """The shared start, trained on isotropic noise of the siblings' scale, at the sites that the
    paper names."""
    l1 = cohort.facts.published_l1
    specs = tuple(Spec(1, s, SHARED_START, l1) for s in cohort.named_sites)
    return Group("noise", specs, schedule, data="isotropic noise")


DRIFT = "drift"
"""The name of the group of a run's checkpoints."""


def drift(checkpoints: Cohort, schedule: Schedule) -> Group:
    """Of one run's checkpoints: every one but the last at every site; or the early one at the
    middle site, as the paper trains it of a language model."""
    l1 = checkpoints.facts.drift_l1 or checkpoints.facts.published_l1
    if not checkpoints.facts.every_site:
        early = (nearest(checkpoints.seeds, EARLY), checkpoints.middle)
        return Group(DRIFT, (Spec(*early, SHARED_START, l1),), schedule)
    models = range(len(checkpoints.seeds) - 1)
    specs = tuple(Spec(m, s, SHARED_START, l1) for m in models for s in checkpoints.sites)
    return Group(DRIFT, specs, schedule)


def half_way(checkpoints: Cohort, schedule: Schedule) -> Group:
    """Of one run's checkpoints: the one nearest to half of its steps, at every site, which the
    paper puts on the last.

    In float32 on every device: what a CPU without bf16 instructions trains as fast.
    """
    middle = nearest(checkpoints.seeds, 0.5)
    l1 = checkpoints.facts.published_l1
    specs = tuple(Spec(middle, site, SHARED_START, l1) for site in checkpoints.sites)
    return Group(DRIFT, specs, replace(schedule, precision=FLOAT32))


L1_GRID = tuple(2e-3 * 2**i for i in range(9))  # to 0.512
RELATIVE_GRID = (0.05, 0.1, 0.14, 0.2, 0.28)


def l1_grid(cohort: Cohort, site: str) -> tuple[float, ...]:
    """The sparsities to choose among at a site: the toy's, or for language models as many in units
    of what a feature costs there.

    At width d and mean variance v a feature of the size of the activations gains v in mean squared
    error where l1 is about (v / d)^(1/2). The unit is that, to the nearest power of two, so that
    another machine's rounding makes no other grid.
    """
    if not cohort.facts.relative_l1:
        return L1_GRID
    x = cohort.activations("fit", site)[0].float()
    size = math.sqrt(float(x.var(0, correction=0).mean()) / x.shape[1])
    unit = 2.0 ** round(math.log2(max(size, 1e-30)))
    return tuple(unit * share for share in RELATIVE_GRID)


def sparse_grid(
    cohort: Cohort, schedule: Schedule, grids: Mapping[str, Sequence[float]] | None = None
) -> Group:
    """The anchor at every l1 of the grid, internal sites: from these the sparsity is chosen.
    grids: those of `l1_grid`, by site, where they are known."""
    if grids is None:
        grids = {site: l1_grid(cohort, site) for site in cohort.internal}
    return _grid(cohort, schedule, grids)


def planned_grid(cohort: Cohort, schedule: Schedule) -> Group:
    """As many as `sparse_grid` trains, without a look at activations: a relative l1 stands for what
    it will come to."""
    grid = RELATIVE_GRID if cohort.facts.relative_l1 else L1_GRID
    return _grid(cohort, schedule, dict.fromkeys(cohort.internal, grid))


def _grid(cohort: Cohort, schedule: Schedule, l1: Mapping[str, Sequence[float]]) -> Group:
    specs = tuple(Spec(0, s, SHARED_START, each) for s in cohort.internal for each in l1[s])
    return Group("sparse-grid", specs, schedule)


SECOND_START = 1000  # a second start on the anchor: what two starts on one model agree on


def second_start(cohort: Cohort, schedule: Schedule) -> Group:
    """The anchor once more from another start, internal sites: what two dictionaries of one model
    share is the ceiling of what those of two models can.

    In float32 on every device: what a CPU without bf16 instructions trains as fast.
    """
    l1, plain = cohort.facts.published_l1, replace(schedule, precision=FLOAT32)
    specs = tuple(Spec(0, s, SECOND_START, l1) for s in cohort.internal)
    return Group("second-start", specs, plain)


def turned(cohort: Cohort, schedule: Schedule) -> Group:
    """An exact copy of the anchor, its stream turned by a Haar matrix, from the anchor's own start
    at the sites the paper names: what a perfect sibling gives where all share a start.

    Another start would not do: two dictionaries of one model from one start are the same.
    """
    l1, plain = cohort.facts.published_l1, replace(schedule, precision=FLOAT32)
    specs = tuple(Spec(0, s, SHARED_START, l1) for s in cohort.named_sites)
    return Group("turned", specs, plain, data="activations, turned")


def sparse(cohort: Cohort, schedule: Schedule, l1: Mapping[str, float]) -> Group:
    """Every sibling from its own start at the sparsity chosen per site on the anchor, and the
    anchor once more from another start (the ceiling)."""
    starts = [(m, own_start(m)) for m in range(1, len(cohort.seeds))] + [(0, SECOND_START)]
    specs = tuple(Spec(m, s, start, l1[s]) for m, start in starts for s in cohort.internal)
    return Group("sparse", specs, schedule)


MORE_STARTS = (2000, 2001, 2002)
"""Further starts on the anchor: three pairs of starts on one model."""


def more_starts(cohort: Cohort, schedule: Schedule, l1: Mapping[str, float]) -> Group:
    """The anchor from three further starts at the sparsity chosen per site, in float32 on every
    device: what all pairs of starts on one model agree on is a ceiling with an interval."""
    plain = replace(schedule, precision=FLOAT32)
    specs = tuple(Spec(0, s, start, l1[s]) for start in MORE_STARTS for s in cohort.internal)
    return Group("more-starts", specs, plain)


BY_PROTOCOL: tuple[Callable[..., Group], ...] = (anchor, published, noise, turned)
"""Of trained models: what the paper trains, and what that is held against from the same start.
These keep the paper's batch and precision; the others may be of smaller batches (at 6,000 steps
their EV differs by 0.003)."""


def departures(cohort: Cohort, group: Group) -> tuple[str, ...]:
    """How a group's training departs from the paper's protocol, in sentences. Sparsities that a
    claim asks for (a grid, what was chosen from it) are the registration's and none of ours."""
    checkpoints = group.name == DRIFT
    l1 = {spec.l1 for spec in group.specs}
    return group.schedule.departures(
        language=cohort.facts.language,
        checkpoints=checkpoints,
        l1=l1.pop() if len(l1) == 1 and l1 == {cohort.facts.published_l1} else None,
    )
