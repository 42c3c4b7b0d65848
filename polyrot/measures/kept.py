"""Measurements kept in the store: small where what they are measured on is too large to ship.

A recipe names everything behind the figures, down to the models, so a kept table is as good as one
measured now; with `--retrain` everything behind it is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.dictionaries import collection
from polyrot.dictionaries.collection import Group
from polyrot.measured import PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED
from polyrot.store import Artifact, Store

RECIPE_VERSION = 1  # raise when a change of code changes what is measured

Tables = Mapping[str, PairSite]


def to_json(table: PairSite) -> dict[str, Any]:
    """Plain values of a table; `from_json` gives it back exactly."""
    return {**asdict(table), "values": table.values.tolist()}


def from_json(saved: Mapping[str, Any]) -> PairSite:
    """The table that `to_json` wrote."""
    return PairSite(**{**saved, "pairs": tuple(saved["pairs"]), "sites": tuple(saved["sites"])})


def recipe(cohort: Cohort, groups: Sequence[Group], **more: object) -> dict[str, object]:
    """What decides a measurement on these dictionaries: they, the models, the draws of nulls."""
    return {
        "version": RECIPE_VERSION,
        "dictionaries": [collection.recipe(cohort, group) for group in groups],
        "nulls": NULL_DRAWS_SEED,
        **more,
    }


def kept(
    store: Store,
    kind: str,
    name: str,
    recipe: Mapping[str, Any],
    measure: Callable[[], tuple[Tables, Mapping[str, Tensor]]],
) -> tuple[dict[str, PairSite], dict[str, Tensor]]:
    """Named tables and tensors: shipped, cached, or measured now."""

    def build(_: object) -> Artifact:
        tables, tensors = measure()
        return Artifact(dict(tensors), {"tables": {n: to_json(t) for n, t in tables.items()}})

    found = store.get_or_build(kind, recipe, build, name=name)
    return {n: from_json(t) for n, t in found.meta["tables"].items()}, dict(found.tensors)
