"""Groups of dictionaries, trained through the store: found as they were made, or made now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries.groups import Group, Spec
from polyrot.dictionaries.sae import Dictionary, quality, stack, unstack
from polyrot.dictionaries.training import remedy, train
from polyrot.maps.null_space import haar_block
from polyrot.runtime.device import memory_for
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact, Checkpoint, Runtime
from polyrot.store.resuming import resume

KIND = "dictionaries"
RECIPE_VERSION = 1  # raise when a change of code changes what a training produces

AT_ONCE = {"cpu": 1, "cuda": 32}
"""Dictionaries trained as one program, by kind of device: a slice. One keeps its batch in a CPU's
cache. A GPU is given many, but not any number: a group is saved after each slice, which is what a
kill loses and what the device must hold."""
DICTIONARY_MEMORY_REMEDY = (
    "lower AT_ONCE of polyrot.dictionaries.collection, use --schedule shipped, whose batches are "
    "smaller than those of full, or --device cpu; at scales pythia and pair also lower --tokens"
)
"""What a training that does not fit on a GPU can do without."""


def isotropic_noise(x: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise shaped like x [models, tokens, d]: mean 0, each model's mean variance per
    dimension, nothing else of it."""
    scale = x.var(dim=1, correction=0).mean(-1).sqrt()
    drawn = torch.randn(x.shape, generator=generator, device=x.device)
    return drawn * scale[:, None, None]


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
                remedy=remedy(cohort.scale),
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
