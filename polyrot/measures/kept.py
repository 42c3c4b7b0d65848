"""Measurements kept in the store: small where what they are measured on is too large to ship.

A recipe names everything behind the figures, down to the models, so a kept table is as good as one
measured now; with `--retrain` everything behind it is made anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries import collection
from polyrot.dictionaries.groups import Group
from polyrot.measured import Interval, Measured, PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED
from polyrot.store import Artifact, Store
from polyrot.store.packed import packed, unpacked

RECIPE_VERSION = 1  # raise when a change of code changes what is measured

SKIPPED_VERSION = 2  # the same, of cohorts that leave first positions out

RESAMPLES = "resamples of "
"""Before the name of a table: the tensor [draws, pairs, sites] of its resamples."""

Tables = Mapping[str, PairSite]


def to_json(table: PairSite) -> dict[str, Any]:
    """Plain values of a table but for its resamples; `from_json` gives it back exactly."""
    saved = {
        **asdict(replace(table, resamples=None)),
        "values": table.values.tolist(),
        "ceiling": None if table.ceiling is None else table.ceiling.tolist(),
    }
    if table.identified is None:  # of most tables it is kept apart, once for all of a cohort
        del saved["identified"]
    return saved


def from_json(saved: Mapping[str, Any], resamples: Tensor | None = None) -> PairSite:
    """The table that `to_json` wrote, now or before tables had a unit and a ceiling."""
    identified = saved.get("identified")
    return PairSite(
        **{
            **saved,
            "pairs": tuple(saved["pairs"]),
            "sites": tuple(saved["sites"]),
            "identified": None if identified is None else tuple(identified),
            "resamples": None if resamples is None else resamples.numpy(),
        }
    )


def skipped(cohort: Cohort) -> dict[str, int]:
    """What a recipe names in addition where the cohort leaves first positions out; else nothing."""
    return {"skipped": SKIPPED_VERSION} if cohort.skip else {}


def recipe(cohort: Cohort, groups: Sequence[Group], **more: object) -> dict[str, object]:
    """What decides a measurement on these dictionaries: they, the models, the draws of nulls."""
    return {
        "version": RECIPE_VERSION,
        "dictionaries": [collection.recipe(cohort, group) for group in groups],
        "nulls": NULL_DRAWS_SEED,
        **skipped(cohort),
        **more,
    }


def kept(
    store: Store,
    kind: str,
    name: str,
    recipe: Mapping[str, Any],
    measure: Callable[[], tuple[Tables, Mapping[str, Tensor]]],
) -> tuple[dict[str, PairSite], dict[str, Tensor]]:
    """Named tables and tensors: shipped, cached, or measured now. Resamples are kept in single
    precision, beside the tensors."""

    def build(_: object) -> Artifact:
        tables, tensors = measure()
        drawn = {
            RESAMPLES + name: torch.tensor(table.resamples, dtype=torch.float32)
            for name, table in tables.items()
            if table.resamples is not None
        }
        saved = {name: to_json(table) for name, table in tables.items()}
        return Artifact({**tensors, **drawn}, {"tables": saved})

    found = store.get_or_build(kind, recipe, build, name=name)
    tables = {
        name: from_json(saved, found.tensors.get(RESAMPLES + name))
        for name, saved in found.meta["tables"].items()
    }
    return tables, {n: t for n, t in found.tensors.items() if not n.startswith(RESAMPLES)}


T = TypeVar("T")


def kept_value(
    store: Store,
    kind: str,
    name: str,
    recipe: Mapping[str, Any],
    made: type[T],
    measure: Callable[[], T],
) -> T:
    """A frozen dataclass of arrays and plain values: shipped, cached, or measured now."""
    found = store.get_or_build(kind, recipe, lambda _: packed(measure()), name=name)
    value: T = unpacked(found, made)
    return value


def kept_measured(
    store: Store,
    function: Callable[..., Any],
    measure: Callable[[], Any],
    name: str,
    **more: object,
) -> Measured:
    """What `function` makes, as a claim is judged by it: shipped, cached, or measured now by
    `measure`, which calls it. more: what decides its result beside its own module's RECIPE_VERSION,
    such as the fingerprint of the cohort."""
    module = sys.modules[function.__module__]
    recipe = {
        "function": f"{function.__module__}.{function.__qualname__}",
        "version": getattr(module, "RECIPE_VERSION", RECIPE_VERSION),
        **more,
    }

    def build(_: object) -> Artifact:
        found = Measured.of(measure())
        # Intervals of replicates are made from them.
        derived = {"intervals"} if found.replicates is not None else set()
        return packed(
            {f.name: getattr(found, f.name) for f in fields(found) if f.name not in derived}
        )

    found = store.get_or_build("measured", recipe, build, name=f"{function.__name__}-{name}")
    return Measured(**unpacked(found, Interval))
