"""Monte-Carlo null tables: what each statistic is under Haar, drawn once and kept.

Two tables feed the battery. The *class* table holds spectra of one coset, from the O(d^2) angle
ensemble. The *entry* table holds dense draws, shared by both cosets. A third holds distances to the
nearest permutation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, Protocol

import numpy as np

from polyrot.haar.orthogonal import FloatArray, sample_haar
from polyrot.haar.permutations import permutation_distances
from polyrot.haar.spectrum import Coset, sample_angles
from polyrot.haar.statistics import (
    BATTERY_NAMES,
    CLASS_NAMES,
    ENTRY_NAMES,
    UPPER_TAIL,
    class_statistics,
    entry_statistics,
)
from polyrot.runtime.progress import Progress, silent
from polyrot.runtime.seeding import numpy_generator

Kind = Literal["class", "entry", "permutation"]
#: Raise when a statistic or a sampler changes, so that stored tables of the old one are not used.
RECIPE_VERSION = 1
#: Seed of the null draws unless another is given; apart from every seed of models and data.
NULL_SEED = 20261122
#: With N draws the smallest family p-value is about 5 / N: enough for Holm over 40 at 0.01.
DEFAULT_DRAWS = 20_000

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "class": CLASS_NAMES,
    "entry": ENTRY_NAMES,
    "permutation": ("signed",),
}
_CHUNK_ENTRIES = 1 << 20
# With a count c, the value itself among it, 1 / sqrt(c + 1.25) is about half the logarithm of the
# upper end of the exact 95 % interval over c, for c = 1 on.
_FEW = 1.25
_WORTH_TELLING = 30.0  # seconds below which a table is drawn without a word


class Store(Protocol):
    """What is needed of `polyrot.store.Store`, or of another hashable store like it."""

    def __hash__(self) -> int: ...

    @property
    def progress(self) -> Progress:
        """Shown while a table is drawn."""
        ...

    def get_or_build(
        self, kind: str, recipe: Mapping[str, Any], build: Callable[[Any], Any], name: str = ""
    ) -> Any:
        """As `polyrot.store.Store.get_or_build`."""
        ...


@dataclass(frozen=True)
class Tail:
    """A Monte-Carlo p-value and its standard error from the finite number of draws."""

    p_value: float
    p_error: float


@dataclass(frozen=True, eq=False)
class NullTable:
    """Draws ``[n_draws, statistics]`` of some statistics under Haar; `names` are the columns."""

    kind: str
    d: int
    det: int | None
    seed: int
    names: tuple[str, ...]
    draws: FloatArray

    def __len__(self) -> int:
        return len(self.draws)

    @cached_property
    def _sorted(self) -> FloatArray:
        return np.sort(self.draws, axis=0)

    def column(self, name: str) -> FloatArray:
        """The sorted draws of one statistic (a copy)."""
        return self._sorted[:, self._index(name)].copy()

    def moments(self, name: str) -> tuple[float, float]:
        """Mean and SD of one statistic over the draws; NaN where it is undefined."""
        i = self._index(name)
        return float(self._moments[0][i]), float(self._moments[1][i])

    @cached_property
    def _moments(self) -> tuple[FloatArray, FloatArray]:
        return self.draws.mean(axis=0), self.draws.std(axis=0, ddof=1)

    def p_value(self, name: str, value: float) -> Tail:
        """``(1 + count as extreme) / (1 + N)``, doubled for the smaller of two tails, at most 1.

        Valid for any N since value and draws are exchangeable under Haar. A statistic that is
        undefined at this dimension (NaN) has p = 1. The error is a binomial count's, smaller where
        few draws lie beyond: there the interval of 1.96 errors on the scale of log p ends where
        the exact one does (3.7 / N with none beyond).
        """
        column, n = self._sorted[:, self._index(name)], len(self)
        if np.isnan(value) or np.isnan(column[-1]):
            return Tail(1.0, 0.0)
        upper = (1 + n - int(np.searchsorted(column, value, side="left"))) / (n + 1)
        lower = (1 + int(np.searchsorted(column, value, side="right"))) / (n + 1)
        sides = 1 if name in UPPER_TAIL else 2
        one = upper if sides == 1 else min(upper, lower)
        count = one * (n + 1)  # with the value itself
        error = sides * one * float(np.sqrt(max(1 - one, 0.0) / (count + _FEW)))
        return Tail(min(1.0, sides * one), error)

    @property
    def family(self) -> tuple[str, ...]:
        """Those of `names` that belong to the battery."""
        return tuple(name for name in self.names if name in BATTERY_NAMES)

    @cached_property
    def smallest_p(self) -> FloatArray:
        """For every draw the smallest p-value of the `family`, ranked within the table; sorted."""
        n = len(self)
        smallest = np.ones(n)
        for name in self.family:
            values, column = self.draws[:, self._index(name)], self._sorted[:, self._index(name)]
            if np.isnan(column[-1]):
                continue
            upper = (n - np.searchsorted(column, values, side="left")) / n
            if name not in UPPER_TAIL:
                lower = np.searchsorted(column, values, side="right") / n
                upper = np.minimum(1.0, 2 * np.minimum(upper, lower))
            smallest = np.minimum(smallest, upper)
        return np.sort(smallest)

    def _index(self, name: str) -> int:
        try:
            return self.names.index(name)
        except ValueError:
            raise KeyError(f"no statistic {name!r} in this table; it has {self.names}") from None


def null_table(
    d: int,
    det: int,
    n_draws: int = DEFAULT_DRAWS,
    seed: int = NULL_SEED,
    store: Store | None = None,
    *,
    kind: Kind = "class",
) -> NullTable:
    """The table of one `kind` for Haar measure on SO(d) (`det` +1) or O-(d) (-1).

    - ``"class"``: Q, TR, SR, KS from the angle ensemble, O(d^2) a draw.
    - ``"entry"``: S4, SUB, MX from dense draws, O(d^3) a draw; the same for both determinants.
    - ``"permutation"``: distance to the nearest signed permutation; the same for both.

    Kept in the process, and on disk if `store` is given. The draws follow from `seed` alone.

    Raises:
        ValueError: fewer than 19 draws (no p-value below 0.1 would exist), or bad `d`, `det`.
    """
    coset = Coset(d, det)
    if n_draws < 19:
        raise ValueError(f"a null table needs at least 19 draws, got {n_draws}")
    shared = kind != "class"
    return _cached(kind, d, None if shared else coset.det, n_draws, seed, store)


@lru_cache(maxsize=64)
def _cached(
    kind: str, d: int, det: int | None, n_draws: int, seed: int, store: Store | None
) -> NullTable:
    if store is None:
        draws = _draw(kind, d, det, n_draws, seed)
    else:
        draws = _from_store(store, kind, d, det, n_draws, seed)
    draws.flags.writeable = False
    return NullTable(kind, d, det, seed, _COLUMNS[kind], draws)


def _from_store(
    store: Store, kind: str, d: int, det: int | None, n_draws: int, seed: int
) -> FloatArray:
    import torch

    from polyrot.store import Artifact

    recipe = {
        "statistics": list(_COLUMNS[kind]),
        "d": d,
        "det": det,
        "draws": n_draws,
        "seed": seed,
        "version": RECIPE_VERSION,
    }

    def build(_checkpoint: object) -> Artifact:
        draws = _draw(kind, d, det, n_draws, seed, store.progress)
        return Artifact(tensors={"draws": torch.from_numpy(draws)}, meta=dict(recipe))

    artifact = store.get_or_build(f"haar-null-{kind}", recipe, build, _label(kind, d, det))
    draws = np.array(artifact.tensors["draws"].numpy(), dtype=np.float64)
    if draws.shape != (n_draws, len(_COLUMNS[kind])):
        raise ValueError(f"the stored {kind} table has shape {draws.shape}: delete and rebuild it")
    return draws


def _label(kind: str, d: int, det: int | None) -> str:
    return f"{kind}-d{d}" + {1: "-so", -1: "-o-minus", None: ""}[det]


def _draw(
    kind: str, d: int, det: int | None, n_draws: int, seed: int, progress: Progress = silent
) -> FloatArray:
    # one stream per table, whatever else is drawn from the same seed
    rng = numpy_generator(seed, "haar null", _label(kind, d, det))
    chunk = max(1, _CHUNK_ENTRIES // d**2)
    rows, began, expected = [], time.monotonic(), 0.0
    for start in range(0, n_draws, chunk):
        size = min(chunk, n_draws - start)
        if kind == "class":
            coset = Coset(d, det or 1)
            rows.append(class_statistics(sample_angles(coset, size, rng), coset))
        elif kind == "entry":
            rows.append(entry_statistics(sample_haar(d, size, rng)))
        else:
            rows.append(permutation_distances(sample_haar(d, size, rng))[:, None].round(9))
        if not start:
            expected = (time.monotonic() - began) * n_draws / size
        if expected > _WORTH_TELLING:  # at d = 512 a table takes many minutes
            progress(f"null table {_label(kind, d, det)}", start + size, n_draws)
    return np.concatenate(rows)
