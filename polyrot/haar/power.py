"""Power of each statistic, of the battery and of the published criteria against alternatives."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from polyrot.haar.alternatives import ALTERNATIVES, Alternative
from polyrot.haar.battery import haar_battery
from polyrot.haar.nulls import NULL_SEED, Kind, NullTable, Store, null_table
from polyrot.haar.orthogonal import FloatArray, determinant_sign
from polyrot.haar.permutations import permutation_distances
from polyrot.haar.spectrum import Coset, angles, fold, ks_distance_to_haar, sample_angles
from polyrot.haar.statistics import BATTERY_NAMES
from polyrot.runtime.progress import Progress, silent
from polyrot.runtime.seeding import numpy_generator

#: Criteria in the order of the columns, with what "rejects" means.
CRITERIA: Mapping[str, str] = {
    **{name: f"{name} alone, p <= level" for name in BATTERY_NAMES},
    "battery": "family p of the seven <= level",
    "KS cal.": "KS distance to the exact density, two-sided Monte-Carlo p <= level",
    "KS .99": "as published: two-sample KS p-value below 0.99",
    "KS .01": "the same test at the usual level: two-sample KS p-value below 0.01",
    "Frob 1%": "as published: ||R - I|| more than 1 % away from sqrt(2 d)",
    "perm.": "distance to the nearest signed permutation, two-sided Monte-Carlo p <= level",
}
#: The columns that judge by the published criteria.
PUBLISHED = ("KS .99", "KS .01", "Frob 1%", "perm.")
_PERMUTATION_DRAWS = 2_000


@dataclass(frozen=True, eq=False)
class PowerTable:
    """Share of `draws` matrices rejected, ``power[alternative, criterion]``; NaN where undefined.

    The row "Haar" is the size. `seconds` is the wall time, null tables included.
    """

    d: int
    draws: int
    null_draws: int
    level: float
    seed: int
    alternatives: tuple[str, ...]
    criteria: tuple[str, ...]
    power: FloatArray
    seconds: float

    @property
    def errors(self) -> FloatArray:
        """Binomial standard errors, by Wilson's half-width so that 0 and 1 have one too."""
        n, p = self.draws, self.power
        return np.sqrt(p * (1 - p) / n + 1 / (4 * n**2)) / (1 + 1 / n)

    def get(self, alternative: str, criterion: str) -> float:
        """Power of one criterion against one alternative."""
        row, column = self.alternatives.index(alternative), self.criteria.index(criterion)
        return float(self.power[row, column])

    def __str__(self) -> str:
        first = max(len(a) for a in self.alternatives)
        head = " " * first + "".join(c.rjust(9) for c in self.criteria)
        lines = [
            f"Power at level {self.level:g}, d = {self.d}: share of {self.draws} matrices rejected "
            f"(null tables of {self.null_draws} draws, seed {self.seed})",
            head,
        ]
        for name, row in zip(self.alternatives, self.power, strict=True):
            cells = ("n/a" if np.isnan(p) else f"{p:.3f}" for p in row)
            lines.append(name.ljust(first) + "".join(c.rjust(9) for c in cells))
        worst = float(np.nanmax(self.errors))
        lines.append(f"Monte-Carlo standard error: at most {worst:.3f}.")
        lines += [f"  {c}: {CRITERIA[c]}" for c in self.criteria if c not in BATTERY_NAMES]
        lines.append(f"{self.seconds:.0f} s")
        return "\n".join(lines)


def power_table(
    d: int,
    draws: int = 1_000,
    seed: int = 0,
    alternatives: Sequence[str] | None = None,
    level: float = 0.01,
    *,
    null_draws: int = 20_000,
    null_seed: int = NULL_SEED,
    store: Store | None = None,
    progress: Progress = silent,
) -> PowerTable:
    """Estimate by simulation how often each criterion rejects each alternative at dimension `d`.

    Matrices are drawn with `seed`, one stream per alternative; the null tables have their own. The
    published reference of 10 Haar matrices on O(d) is drawn anew for every matrix, by angles.

    Raises:
        ValueError: d below 4, no draws, or an unknown alternative. An alternative that does not
            exist at this `d` (Hadamard) is a row of NaN.
    """
    if d < 4 or draws < 1:
        raise ValueError(f"expected d >= 4 and draws >= 1, got d = {d}, draws = {draws}")
    names = tuple(alternatives) if alternatives is not None else tuple(ALTERNATIVES)
    unknown = [n for n in names if n not in ALTERNATIVES]
    if unknown:
        raise ValueError(f"unknown alternatives {unknown}; there are {list(ALTERNATIVES)}")
    start = time.perf_counter()
    judge = _Judge(d, level, null_draws, null_seed, store)
    judge.prepare(progress)
    power = np.full((len(names), len(CRITERIA)), np.nan)
    for i, name in enumerate(names):
        rng = numpy_generator(seed, "haar power", d, name)
        draw = ALTERNATIVES[name]
        if not _exists(draw, d):
            continue
        rejected = np.zeros(len(CRITERIA))
        for j in range(draws):
            rejected += judge.rejects(draw(d, rng), rng)
            progress("power", i * draws + j + 1, len(names) * draws, name)
        power[i] = rejected / draws
    seconds = time.perf_counter() - start
    return PowerTable(d, draws, null_draws, level, seed, names, tuple(CRITERIA), power, seconds)


def _exists(draw: Alternative, d: int) -> bool:
    try:
        draw(d, np.random.default_rng(0))
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class _Judge:
    d: int
    level: float
    null_draws: int
    null_seed: int
    store: Store | None

    def prepare(self, progress: Progress) -> None:
        """Build the null tables before the first matrix, so that progress can tell of it."""
        steps: tuple[tuple[Kind, int], ...] = (
            ("class", 1),
            ("class", -1),
            ("entry", 1),
            ("permutation", 1),
        )
        progress("null tables", 0, len(steps))
        for i, (kind, det) in enumerate(steps):
            self._table(kind, det)
            progress("null tables", i + 1, len(steps), kind)

    def _table(self, kind: Kind, det: int) -> NullTable:
        n = self.null_draws
        if kind == "permutation":
            n = min(n, _PERMUTATION_DRAWS)
        return null_table(self.d, det, n, self.null_seed, self.store, kind=kind)

    def rejects(self, r: FloatArray, rng: np.random.Generator) -> FloatArray:
        """1 or 0 for every criterion, in the order of `CRITERIA`."""
        result = haar_battery(
            r, draws=self.null_draws, seed=self.null_seed, alpha=self.level, store=self.store
        )
        coset = Coset(self.d, int(determinant_sign(r[None])[0]))
        free = angles(r[None], validate=False)[0]
        ratio = float(np.sqrt(max(0.0, 1 - np.trace(r) / self.d)))
        distance = float(ks_distance_to_haar(free, coset).round(9))
        ks_p = self._table("class", coset.det).p_value("KS", distance).p_value
        two_sample = stats.ks_2samp(fold(free, coset), self._reference(rng)).pvalue
        nearest = float(permutation_distances(r[None])[0].round(9))
        permutation_p = self._table("permutation", 1).p_value("signed", nearest).p_value
        verdicts = {
            **{name: result[name].p_value <= self.level for name in BATTERY_NAMES},
            "battery": result.rejected,
            "KS cal.": ks_p <= self.level,
            "KS .99": two_sample < 0.99,
            "KS .01": two_sample < 0.01,
            "Frob 1%": abs(ratio - 1) > 0.01,
            "perm.": permutation_p <= self.level,
        }
        return np.array([float(verdicts[c]) for c in CRITERIA])

    def _reference(self, rng: np.random.Generator) -> FloatArray:
        rotations = int(rng.binomial(10, 0.5))
        cosets = ((Coset(self.d, 1), rotations), (Coset(self.d, -1), 10 - rotations))
        return np.concatenate([fold(sample_angles(c, n, rng), c).ravel() for c, n in cosets])
