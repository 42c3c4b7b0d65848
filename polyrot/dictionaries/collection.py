"""The dictionaries that the claims ask for, trained in groups through the store.

A group is a set of equal-shaped dictionaries trained by one schedule on one cohort; it is one
artifact. Every group is a few lines below: which models, sites, starts and sparsity.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.cohorts.run import EARLY, nearest
from polyrot.dictionaries.sae import Dictionary, quality, stack, unstack
from polyrot.dictionaries.training import Schedule, train
from polyrot.maps.null_space import haar_block
from polyrot.runtime.device import FLOAT32, memory_for
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact, Checkpoint, Runtime
from polyrot.store.resuming import resume

KIND = "dictionaries"
RECIPE_VERSION = 1  # raise when a change of code changes what a training produces

EXPANSION = 8
WIDE_EXPANSION = 32
SHARED_START = 0
L1 = 1e-3

AT_ONCE = {"cpu": 1, "cuda": 32}
"""Dictionaries trained as one program, by kind of device: a slice. One keeps its batch in a CPU's
cache. A GPU is given many, but not any number: a group is saved after each slice, which is what a
kill loses and what the device must hold."""
DICTIONARY_MEMORY_REMEDY = (
    "lower AT_ONCE of polyrot.dictionaries.collection, use --schedule shipped, whose batches are "
    "smaller than those of full, or --device cpu; at scales pythia and pair also lower --tokens"
)
"""What a training that does not fit on a GPU can do without."""

Data = Literal["activations", "isotropic noise", "activations, turned"]


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


def readings(cohort: Cohort, schedule: Schedule) -> tuple[int, ...]:
    """Steps at which dictionaries that the paper trains are read: of the toy both that it names, of
    language models the end, and so of dictionaries that depart from the paper's protocol."""
    departs = cohort.facts.language or schedule.departures()
    return _steps((1.0,) if departs else READINGS, schedule)


def _steps(shares: Sequence[float], schedule: Schedule) -> tuple[int, ...]:
    return tuple(dict.fromkeys(max(1, round(share * schedule.steps)) for share in shares))


def own_start(model: int) -> int:
    """A start of each model's own; the anchor's is the shared one, so that its SAE serves both."""
    return SHARED_START + model


def published(cohort: Cohort, schedule: Schedule) -> Group:
    """Every sibling from the anchor's own start, as the paper trains them: at every site, or at
    those the paper names, which is where these are asked for."""
    models, l1 = range(1, len(cohort.seeds)), cohort.facts.published_l1
    sites = cohort.sites if cohort.facts.every_site else cohort.named_sites
    specs = [Spec(m, site, SHARED_START, l1) for m in models for site in sites]
    return Group("published", tuple(specs), schedule)


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
    """The shared start, trained on isotropic noise of the siblings' scale, internal sites,
    or those the paper names."""
    l1 = cohort.facts.published_l1
    sites = cohort.internal if cohort.facts.every_site else cohort.named_sites
    specs = tuple(Spec(1, s, SHARED_START, l1) for s in sites)
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


def sparse_grid(cohort: Cohort, schedule: Schedule) -> Group:
    """The anchor at every l1 of the grid, internal sites: from these the sparsity is chosen."""
    return _grid(cohort, schedule, {site: l1_grid(cohort, site) for site in cohort.internal})


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


LEAST_EV = 0.9  # at which the registration asks for the sparse dictionaries


def l0_range(cohort: Cohort) -> tuple[float, float]:
    """Least and largest L0 that the registration asks of the sparse dictionaries."""
    return 4.0, cohort.width / 4


@dataclass(frozen=True)
class Choice:
    """The sparsity chosen at one site on the anchor alone, and what it gives there.

    admissible: whether L0 and EV are what the registration asks for."""

    l1: float
    l0: float
    ev: float
    admissible: bool


def choose_l1(
    grid: Mapping[Spec, Dictionary],
    x: Tensor,
    site: str,
    *,
    l0: tuple[float, float],
    ev: float = LEAST_EV,
) -> Choice:
    """Among the grid's dictionaries at `site`, the best EV on x [tokens, d] with L0 in range.

    Where none has its L0 in range, the one nearest to the range.
    """
    found = []
    for spec, dictionary in grid.items():
        if spec.site == site:
            q = quality(dictionary, x)
            outside = max(l0[0] - q.l0, q.l0 - l0[1], 0.0)
            choice = Choice(spec.l1, q.l0, q.ev, outside == 0 and q.ev >= ev)
            found.append((outside, -q.ev, spec.l1, choice))
    return min(found)[-1]


BY_PROTOCOL: tuple[Callable[..., Group], ...] = (anchor, published, noise, turned)
"""Of trained models: what the paper trains, and what that is held against from the same start.
These keep the paper's batch and precision; the others may be of smaller batches (at 6,000 steps
their EV differs by 0.003)."""


def isotropic_noise(x: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise shaped like x [models, tokens, d]: mean 0, each model's mean variance per
    dimension, nothing else of it."""
    scale = x.var(dim=1, correction=0).mean(-1).sqrt()
    drawn = torch.randn(x.shape, generator=generator, device=x.device)
    return drawn * scale[:, None, None]


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


def turn(width: int, site: str) -> Tensor:
    """The Haar matrix [width, width] by which the copy of `turned` is turned at a site."""
    return haar_block(width, torch_generator(0, "a turned copy", site))


def seen(x: Tensor, group: Group, model: int, site: str) -> Tensor:
    """What a group's dictionary of that model and site sees in place of its activations x
    [tokens, d]: they themselves, turned, or noise of their scale."""
    if group.data == "isotropic noise":
        generator = torch_generator(0, "isotropic noise", model, site, device=x.device)
        return isotropic_noise(x[None], generator)[0]
    if group.data == "activations, turned":
        return x @ turn(x.shape[-1], site).to(x)
    return x


def recipe(cohort: Cohort, group: Group) -> dict[str, object]:
    """Everything that makes a group what it is, for its fingerprint."""
    return {
        "version": RECIPE_VERSION,
        "cohort": cohort.fingerprint,
        "specs": [list(astuple(s)) for s in group.specs],
        "schedule": group.schedule.recipe(),
        "expansion": group.expansion,
        "data": group.data,
    }


def trained(
    runtime: Runtime,
    cohort: Cohort,
    group: Group,
    *,
    at_once: int | None = None,
    compiled: bool = False,
    states: Sequence[int] = (),
) -> dict[Spec, Dictionary]:
    """The dictionaries of a group: shipped, cached, or trained now.

    at_once: how many are trained as one program (default: see AT_ONCE). The progress is saved after
    each such slice, and resumed on the same kind of device alone, as random numbers are drawn
    there; a StoreWarning says where it is not. states: steps on the way after which the
    dictionaries are kept too, where they are trained now (see `along`).
    Raises torch.OutOfMemoryError saying what to lower.
    """

    def build(checkpoint: Checkpoint) -> Artifact:
        return _build(runtime, cohort, group, checkpoint, at_once, compiled, states)

    artifact = _stored(runtime, cohort, group, build)
    return dict(zip(group.specs, unstack(artifact.tensors), strict=True))


def along(
    runtime: Runtime,
    cohort: Cohort,
    group: Group,
    steps: Sequence[int],
    *,
    at_once: int | None = None,
    compiled: bool = False,
) -> dict[int, dict[Spec, Dictionary]]:
    """A group's dictionaries after each of these steps of one training.

    A state on the way is the very artifact that a training of so many steps makes (start and order
    of the batches hang on neither), and is found as such. What is missing is trained once, to the
    last of the missing steps. Otherwise as `trained`.
    """
    store = runtime.store
    absent = sorted(s for s in steps if not store.has(KIND, recipe(cohort, group.after(s))))
    how: dict[str, Any] = {"at_once": at_once, "compiled": compiled}
    if absent:
        trained(runtime, cohort, group.after(absent[-1]), states=absent[:-1], **how)
    return {s: trained(runtime, cohort, group.after(s), **how) for s in steps}


def _stored(
    runtime: Runtime, cohort: Cohort, group: Group, build: Callable[[Checkpoint], Artifact]
) -> Artifact:
    untrained = "" if cohort.trained else "-untrained"
    name = f"{cohort.scale}{untrained}-{group.name}"
    return runtime.store.get_or_build(KIND, recipe(cohort, group), build, name=name)


def training_data(cohort: Cohort, group: Group, specs: Sequence[Spec]) -> tuple[Tensor, list[int]]:
    """What these dictionaries are trained on, [sources, tokens, d], and which source is whose."""
    sources = sorted({(s.model, s.site) for s in specs})
    out = torch.empty(0)
    for i, (model, site) in enumerate(sources):
        x = seen(cohort.activations("dictionary", site)[model], group, model, site)
        if i == 0:
            out = x.new_empty(len(sources), *x.shape)
        out[i] = x  # copied at once: a view would hold the activations of every model
    return out, [sources.index((s.model, s.site)) for s in specs]


def _build(
    runtime: Runtime,
    cohort: Cohort,
    group: Group,
    checkpoint: Checkpoint,
    at_once: int | None,
    compiled: bool,
    states: Sequence[int],
) -> Artifact:
    end, last = len(group.specs), group.schedule.steps
    done: dict[int, list[Dictionary]] = {step: [] for step in (*states, last)}
    meta: dict[str, Any] = {"early_losses": [], "seconds": 0.0}
    device = cohort.activations("dictionary", cohort.sites[0]).device
    # Progress that kept other states is of another making.
    made_with = {"device": device.type, "states": ", ".join(map(str, done))}
    saved = resume(checkpoint, **made_with)
    if saved is not None:
        done = {step: unstack(_of(saved.tensors, step)) for step in done}
        meta = {**meta, **saved.meta}
    step = at_once or AT_ONCE[device.type]
    while len(done[last]) < end:
        started, had = time.monotonic(), len(done[last])
        specs = group.specs[had : had + step]
        what = f"training {len(specs)} dictionaries at once"
        with memory_for(what, device, DICTIONARY_MEMORY_REMEDY):
            x, source = training_data(cohort, group, specs)
            more, losses = train(
                x,
                source,
                [s.start for s in specs],
                [s.l1 for s in specs],
                group.expansion * cohort.width,
                group.schedule,
                progress=runtime.progress,
                stage=f"{cohort.scale} {group.name} {had + 1}-{had + len(specs)}/{end}",
                compiled=compiled,
                states={at: done[at] for at in states},
            )
        done[last] += more
        meta["early_losses"] += [list(row) for row in zip(*losses, strict=True)]
        meta["seconds"] += time.monotonic() - started
        if len(done[last]) < end:
            tensors = {
                f"{at}/{name}": tensor
                for at, found in done.items()
                for name, tensor in stack(found).items()
            }
            checkpoint.save(Artifact(tensors, {**meta, **made_with}))
    meta["device"] = device.type
    for at in states:
        shorter = group.after(at)
        # The same hours made all of them: each says the share that it would have taken alone.
        of_it = {**meta, "seconds": meta["seconds"] * at / last}
        made = _judged(cohort, shorter, done[at], of_it, device)
        _stored(runtime, cohort, shorter, lambda _, made=made: made)  # type: ignore[misc]
    return _judged(cohort, group, done[last], meta, device)


def _of(tensors: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
    """Those of the state after `step`, of a saved progress."""
    prefix = f"{step}/"
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _judged(
    cohort: Cohort,
    group: Group,
    dictionaries: Sequence[Dictionary],
    meta: Mapping[str, Any],
    device: torch.device,
) -> Artifact:
    """A group's artifact, with what its dictionaries reach on the fit split."""
    found = []
    for spec, dictionary in zip(group.specs, dictionaries, strict=True):
        x = cohort.activations("fit", spec.site)[spec.model]
        if group.data == "activations, turned":
            x = seen(x, group, spec.model, spec.site)
        q = quality(dictionary.to(device), x)
        found.append({"ev": q.ev, "l0": q.l0, "dead": q.dead})
    return Artifact(stack(dictionaries), {**meta, "quality": found})
