"""The battery: seven statistics of one orthogonal matrix, and one calibrated decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from polyrot.haar.nulls import DEFAULT_DRAWS, NULL_SEED, NullTable, Store, null_table
from polyrot.haar.orthogonal import FloatArray, as_one_orthogonal, as_orthogonal, determinant_sign
from polyrot.haar.spectrum import Coset, angles
from polyrot.haar.statistics import (
    BATTERY_NAMES,
    SEES,
    UPPER_TAIL,
    class_statistics,
    entry_statistics,
    one_p_value,
)
from polyrot.maps.arrays import Array, read_numpy

#: A frame: one orthogonal matrix U for ``U^T R U``, or a pair (U, V) for ``U^T R V``.
Frame = Array | tuple[Array, Array]
#: A named direction: one vector for ``v^T R v``, or a pair (u, v) for ``u^T R v``.
Direction = Array | tuple[Array, Array]

#: A direction with no more than this norm is what rounding leaves of one that was projected away.
_NOTHING_LEFT = {np.dtype(np.float64): 1e-10}
_NOTHING_LEFT_SINGLE = 1e-5


@dataclass(frozen=True)
class StatisticResult:
    """One statistic in one frame: value, its null, p-value, Monte-Carlo error of p (0 if exact)."""

    name: str
    frame: str
    value: float
    null_mean: float
    null_sd: float
    p_value: float
    p_error: float

    @property
    def tail(self) -> str:
        """On which side of its null it rejects."""
        return "upper" if self.name.split("[")[0] in UPPER_TAIL else "two-sided"

    @property
    def sees(self) -> str:
        """What it is sensitive to, in words."""
        return SEES[self.name.split("[")[0]]


@dataclass(frozen=True)
class BatteryResult:
    """Outcome of `haar_battery`. `p_value` is the calibrated p of the whole family of statistics.

    `p_floor` is the smallest p that so many draws can give: a Holm family of m at level alpha
    needs ``m * p_floor < alpha``.
    """

    d: int
    det: int
    statistics: tuple[StatisticResult, ...]
    p_value: float
    p_error: float
    p_floor: float
    alpha: float
    draws: int
    seed: int
    tables: tuple[NullTable, ...] = field(repr=False, compare=False)

    def p_along(self, *directions: str) -> float:
        """The family p-value with ONE along these directions alone; with none given, without ONE.

        It tells what decides where directions differ in how far they were fixed before R. They are
        named as in `statistics`, such as "ONE[mean]".

        Raises:
            KeyError: no such statistic.
        """
        kept = {self[name].name for name in directions}
        rest = [s for s in self.statistics if s.name in kept or not _is_one(s)]
        return _family(rest, self.tables)[0]

    @property
    def rejected(self) -> bool:
        """Whether Haar is rejected at level `alpha` by this matrix alone."""
        return self.p_value <= self.alpha

    @property
    def smallest(self) -> StatisticResult:
        """The statistic with the smallest p-value."""
        return min(self.statistics, key=lambda s: s.p_value)

    def __getitem__(self, name: str) -> StatisticResult:
        for s in self.statistics:
            if s.name == name:
                return s
        raise KeyError(f"no statistic {name!r}; there are {[s.name for s in self.statistics]}")

    def __str__(self) -> str:
        many = len({s.frame for s in self.statistics}) > 1
        head = ["statistic", "value", "null mean", "null sd", "p", "+-", "tail", "sees"]
        rows = [
            [
                f"{s.name} ({s.frame})" if many else s.name,
                f"{s.value:.5g}",
                f"{s.null_mean:.5g}",
                f"{s.null_sd:.3g}",
                f"{s.p_value:.3g}",
                f"{s.p_error:.1g}" if s.p_error else "exact",
                s.tail,
                s.sees,
            ]
            for s in self.statistics
        ]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

        def line(row: Sequence[str]) -> str:
            cells = [
                c.ljust(w) if i in (0, 6, 7) else c.rjust(w)
                for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ]
            return "  ".join(cells).rstrip()

        verdict = "REJECTED: not Haar" if self.rejected else "not rejected"
        sign = "+1" if self.det == 1 else "-1"
        return "\n".join(
            [
                f"Haar battery, d = {self.d}, det = {sign}, null {Coset(self.d, self.det).name}, "
                f"{self.draws} draws, seed {self.seed}",
                line(head),
                line(["-" * w for w in widths]),
                *map(line, rows),
                f"family p = {self.p_value:.3g} +- {self.p_error:.1g} (floor {self.p_floor:.1g}): "
                f"{verdict} at level {self.alpha:g}",
            ]
        )


def haar_battery(
    r: Array,
    *,
    frames: Mapping[str, Frame] | None = None,
    vectors: Mapping[str, Direction] | None = None,
    draws: int = DEFAULT_DRAWS,
    seed: int = NULL_SEED,
    alpha: float = 0.01,
    store: Store | None = None,
) -> BatteryResult:
    """Test whether one orthogonal matrix ``[d, d]`` is a Haar draw, given its determinant.

    Seven statistics (S4, Q, TR, SR, SUB, MX, ONE; see `polyrot.haar.statistics`), each against its
    own null on the coset of R's determinant, and one decision from the smallest p-value t. Its
    level is the probability that some statistic falls below t under Haar. The three of the spectrum
    are calibrated jointly, and so are the three of the entries; these two groups and ONE, whose law
    is exact, are joined by the union bound, so the family p is valid whatever their dependence and
    at level 0.01 exceeds the jointly calibrated one by some 1e-4. ONE along k directions enters as
    one statistic with k times its smallest p, so that further directions cost the six others
    nothing.

    Args:
        r: the matrix, orthogonal to within 1e-4.
        frames: further bases in which to look, by name: U for ``U^T R U`` (the spectrum is the
            same, only entries are tested anew) or (U, V) for ``U^T R V``. They must be fixed
            without sight of R. The frame in which R is written is always tested.
        vectors: directions for ONE, in the basis of R, by name: v for ``v^T R v``, or (u, v);
            normalised here. All-ones unless given; none (an empty mapping) leaves ONE out. One
            whose norm is nearly zero (1e-10 in double precision, 1e-5 in less) is refused: a
            direction that was projected away is rounding, and points anywhere.
        draws, seed: of the null tables, which are kept in the process and in `store`.
        alpha: level of `BatteryResult.rejected`.

    Raises:
        NotOrthogonalError: R or a frame is not square, not finite, not orthogonal, or not of a
            floating dtype.
        ValueError: a frame or vector of the wrong width or dtype, a vector that is nearly zero,
            `alpha` outside (0, 1).

    Sources: Diaconis and Evans 2001, doi:10.1090/S0002-9947-01-02800-8; Jiang 2005,
    doi:10.1007/s00440-004-0376-4; Atas et al. 2013, arXiv:1212.5611; Sepehri, arXiv:1612.03233.

    >>> from polyrot.haar import sample_haar
    >>> r = sample_haar(8, 1, np.random.default_rng(0))[0]
    >>> haar_battery(r, draws=2000).rejected
    False
    >>> haar_battery(np.eye(8), draws=2000).rejected
    True
    """
    return _battery(as_one_orthogonal(r), frames, vectors, draws, seed, alpha, store)


def haar_batteries(
    rs: Array,
    *,
    vectors: Sequence[Mapping[str, Direction]] | None = None,
    draws: int = DEFAULT_DRAWS,
    seed: int = NULL_SEED,
    alpha: float = 0.01,
    store: Store | None = None,
) -> list[BatteryResult]:
    """`haar_battery` of every matrix of a stack ``[n, d, d]``; apply `holm` to their p-values.

    `vectors`: directions for ONE, one mapping per matrix.

    Raises:
        ValueError: another number of mappings than of matrices; and as `haar_battery`.
    """
    stack = as_orthogonal(rs)
    if vectors is not None and len(vectors) != len(stack):
        raise ValueError(f"directions for {len(vectors)} matrices, but there are {len(stack)}")
    each = [None] * len(stack) if vectors is None else vectors
    return [
        _battery(r, None, named, draws, seed, alpha, store)
        for r, named in zip(stack, each, strict=True)
    ]


def _battery(
    r: FloatArray,
    frames: Mapping[str, Frame] | None,
    vectors: Mapping[str, Direction] | None,
    draws: int,
    seed: int,
    alpha: float,
    store: Store | None,
) -> BatteryResult:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    d = len(r)
    det = int(determinant_sign(r[None])[0])
    entry_table = null_table(d, det, draws, seed, store, kind="entry")
    results: list[StatisticResult] = []
    groups: list[NullTable] = []

    def test(matrix: FloatArray, frame: str, *, spectrum: bool) -> None:
        if spectrum:
            coset = Coset(d, int(determinant_sign(matrix[None])[0]))
            free = angles(matrix[None], validate=False)[0]
            table = null_table(d, coset.det, draws, seed, store, kind="class")
            values = class_statistics(free[None], coset)[0]
            results.extend(_against(table, values, frame))
            groups.append(table)
        values = entry_statistics(matrix[None])[0]
        results.extend(_against(entry_table, values, frame))
        groups.append(entry_table)

    test(r, "given", spectrum=True)
    for label, (u, v) in _directions(d, vectors).items():
        value = float(u @ r @ v)
        p = one_p_value(value, d)
        results.append(StatisticResult(label, "given", value, 0.0, d**-0.5, p, 0.0))
    for name, frame in (frames or {}).items():
        left, right, conjugation = _frame(d, name, frame)
        test(left.T @ r @ right, name, spectrum=not conjugation)

    first = len([s for s in results if s.frame == "given"])
    given = sorted(results[:first], key=lambda s: BATTERY_NAMES.index(s.name.split("[")[0]))
    results[:first] = given
    p_value, p_error = _family(results, groups)
    # a statistic beyond its table has t = 2 / (N + 1); no class draw reaches that, one entry draw
    # does (SUB has one tail), and ONE adds t itself
    steps = sum(2 if table.kind == "entry" else 1 for table in groups)
    floor = (steps + 2 * any(map(_is_one, results))) / (draws + 1)
    return BatteryResult(
        d, det, tuple(results), p_value, p_error, min(1.0, floor), alpha, draws, seed, tuple(groups)
    )


def _against(table: NullTable, values: FloatArray, frame: str) -> list[StatisticResult]:
    found = []
    for name, value in zip(table.names, values, strict=True):
        if name in table.family:
            tail = table.p_value(name, float(value))
            mean, sd = table.moments(name)
            found.append(
                StatisticResult(name, frame, float(value), mean, sd, tail.p_value, tail.p_error)
            )
    return found


def _is_one(statistic: StatisticResult) -> bool:
    return statistic.name.split("[")[0] == "ONE"


def _family(results: Sequence[StatisticResult], groups: Sequence[NullTable]) -> tuple[float, float]:
    """Probability under Haar that any statistic reaches the smallest of their p-values, with ONE's
    corrected for the number of its directions, and its Monte-Carlo error."""
    directions = sum(map(_is_one, results))
    t, error = min((s.p_value * (directions if _is_one(s) else 1), s.p_error) for s in results)
    total, variance = (t, 0.0) if directions else (0.0, 0.0)
    for table in groups:
        n = len(table)
        below = int(np.searchsorted(table.smallest_p, t, side="right"))
        p = (1 + below) / (n + 1)
        # Bonferroni within the group needs no draws: it takes over below the table's resolution
        if len(table.family) * t < p:
            p = len(table.family) * t
        else:
            variance += p * (1 - min(p, 1.0)) / n
        total += p
    # All parts go with t, so that its error is theirs; where t is exact, the counts' own is left.
    return min(1.0, total), total * error / t if error else float(np.sqrt(variance))


def _directions(
    d: int, vectors: Mapping[str, Direction] | None
) -> dict[str, tuple[FloatArray, FloatArray]]:
    ones = np.full(d, d**-0.5)
    if vectors is None:
        return {"ONE": (ones, ones)}
    found = {}
    for name, given in vectors.items():
        pair = given if isinstance(given, tuple) else (given, given)
        units = []
        for v in pair:
            raw = read_numpy(v, f"direction {name!r}", ValueError)
            wide = raw.astype(np.float64)
            norm = float(np.linalg.norm(wide)) if wide.shape == (d,) else float("nan")
            if not np.isfinite(norm) or norm == 0:
                raise ValueError(
                    f"direction {name!r}: expected a finite non-zero vector [{d}], "
                    f"got shape {wide.shape} and norm {norm:g}"
                )
            if norm <= _NOTHING_LEFT.get(raw.dtype, _NOTHING_LEFT_SINGLE):
                raise ValueError(
                    f"direction {name!r} is nearly zero, its norm is {norm:.1g}: what rounding "
                    "leaves of a direction that was projected away points anywhere; leave it out, "
                    "or scale it up if it is that small by itself"
                )
            units.append(wide / norm)
        found[f"ONE[{name}]"] = (units[0], units[1])
    return found


def _frame(d: int, name: str, frame: Frame) -> tuple[FloatArray, FloatArray, bool]:
    conjugation = not isinstance(frame, tuple)
    pair = frame if isinstance(frame, tuple) else (frame, frame)
    left, right = (as_one_orthogonal(f) for f in pair)
    if len(left) != d or len(right) != d:
        raise ValueError(f"frame {name!r}: expected [{d}, {d}], got {left.shape}, {right.shape}")
    return left, right, conjugation


def holm(p: ArrayLike) -> FloatArray:
    """Holm's step-down adjusted p-values, same shape and order (doi:10.2307/4615733).

    Raises:
        ValueError: a p-value outside [0, 1] or NaN.
    """
    values = np.asarray(p, dtype=np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("p-values must lie in [0, 1]")
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    adjusted = np.empty_like(flat)
    adjusted[order] = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    return np.minimum(1.0, adjusted).reshape(values.shape)
