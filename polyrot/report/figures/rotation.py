"""Distance of R from the identity, and its eigenphases on the exact Haar density (section 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from polyrot.cohorts.cohort import Cohort
from polyrot.haar.orthogonal import FloatArray, determinant_sign
from polyrot.haar.published import frobenius_distances
from polyrot.haar.spectrum import Coset, angles, expected_count
from polyrot.measures.fits import Fits
from polyrot.measures.haar.published import distances
from polyrot.measures.haar.rotations import rotation_stack
from polyrot.report.figures import style
from polyrot.report.figures.published import published
from polyrot.report.figures.style import Look
from polyrot.report.figures.values import Row, Table, Words, row, table

PER_BIN = 40  # phases that a bin holds in the mean: enough to tell a bump from scatter
MATCHED = Look(style.BLUE, "o")
SHUFFLED = Look(style.VERMILION, "x", "--")


@dataclass(frozen=True)
class Phases:
    """Free eigenphases of several matrices, each conjugate pair once, in bins of [0, pi].

    counts, expected: [bins]; expected is exact, from Weyl's formula on each matrix's own coset.
    """

    name: str
    matrices: int
    reflections: int
    counts: Row
    expected: Row


@dataclass(frozen=True)
class RotationSpectrum:
    """||R - I||_F [pairs, sites] of matched and shuffled tokens, and both sets of eigenphases."""

    scale: str
    width: int
    sites: tuple[str, ...]
    pairs: tuple[str, ...]
    distances: Table
    shuffled: Table
    phases: tuple[Phases, ...]

    @classmethod
    def of(cls, cohort: Cohort, fits: Fits) -> RotationSpectrum:
        """From every rotation of a cohort."""
        shape = (len(fits.pairs), len(fits.sites))
        shuffled = rotation_stack(fits, "shuffled")
        return cls(
            cohort.scale,
            cohort.width,
            fits.sites,
            fits.pairs,
            table(distances(fits).values),
            table(frobenius_distances(shuffled).reshape(shape)),
            (_phases("R", rotation_stack(fits)), _phases("R of shuffled tokens", shuffled)),
        )

    def merged(self, other: RotationSpectrum) -> RotationSpectrum:
        """The later one: it is made of one piece."""
        return other

    def words(self) -> Words:
        """Title, caption, and the same in words."""
        low, high = np.min(self.distances), np.max(self.distances)
        first = self.phases[0]
        n = int(sum(first.counts))
        return Words(
            f"Distance of R from the identity and its eigenphases, {self.scale}",
            f"Left: ‖R − I‖ of every pair (n = {len(self.pairs)}) and site; the dashed line is "
            f"√(2d) for d = {self.width}, the grey band the central 99 % of Haar draws, hatched "
            f"the published range. Right: {n:,} eigenphases of {first.matrices} matrices, each "
            "conjugate pair once, over the exact Haar density of those matrices (filled). "
            "Rotations fitted on shuffled tokens, which relate nothing, are drawn beside.",
            f"{self.seen()} Distances {low:.4g} to {high:.4g}, shuffled "
            f"{np.min(self.shuffled):.4g} to {np.max(self.shuffled):.4g}, "
            f"Haar {(2 * self.width) ** 0.5:.4g}. "
            f"{first.reflections} of {first.matrices} determinants are −1.",
        )

    def seen(self) -> str:
        """Where the distances lie by the band of Haar draws, and what that means."""
        low, high = haar_band(self.width)
        found = np.ravel(self.distances)
        below, above = int((found < low).sum()), int((found > high).sum())
        said = [
            f"{'every R lies' if n == len(found) else f'{n} of {len(found)} R lie'} {where}"
            for n, where in (
                (below, "below the band: closer to the identity than Haar"),
                (len(found) - below - above, "within the band, as far from I as a Haar draw"),
                (above, "above the band: farther from the identity than Haar"),
            )
            if n
        ]
        text = "; ".join(said)
        return f"{text[:1].upper()}{text[1:]}."


def haar_band(d: int) -> tuple[float, float]:
    """Between which ||R - I||_F of 99 % of Haar draws at dimension `d` lie: tr R is N(0, 1) to far
    below drawing precision, and ||R - I||^2 = 2d - 2 tr R."""
    z = float(stats.norm.ppf(0.995))
    return (2 * d - 2 * z) ** 0.5, (2 * d + 2 * z) ** 0.5


def _phases(name: str, stack: FloatArray) -> Phases:
    n, d = stack.shape[:2]
    bins = int(np.clip(n * d / 2 / PER_BIN, 8, 48))
    edges = np.linspace(0, np.pi, bins + 1)
    counts, expected = np.zeros(bins), np.zeros(bins)
    signs = determinant_sign(stack)
    for free, det in zip(angles(stack), signs, strict=True):
        counts += np.histogram(free, edges)[0]
        expected += np.diff(expected_count(edges, Coset(d, int(det))))
    return Phases(name, n, int((signs < 0).sum()), row(counts), row(expected))


@style.styled
def draw(value: RotationSpectrum) -> Figure:
    """The figure of a value."""
    figure = style.canvas(9.4, 4.2)
    left, right = style.row_of_axes(figure, 2)
    _distances(left, value)
    _densities(right, value)
    style.legend_above(figure, [left, right], 3)
    matrices = value.phases[0].matrices
    style.note_n(
        figure,
        f"{value.scale}: n = {len(value.pairs)} pairs × {len(value.sites)} sites = {matrices} "
        f"matrices, d = {value.width}; {sum(value.phases[0].counts):,.0f} free eigenphases",
    )
    return figure


def _distances(axes: Axes, value: RotationSpectrum) -> None:
    d = value.width
    axes.axhspan(*haar_band(d), color=style.FAINT, label="99 % of Haar draws")
    axes.axhline((2 * d) ** 0.5, color=style.INK, linestyle="--", linewidth=1, label="√(2d)")
    known = published(value.scale)
    if known.distance is not None:
        style.band(axes, *known.distance, f"published ({known.of})")
    for name, values, look, offset in (
        ("R", value.distances, MATCHED, -0.1),
        ("R of shuffled tokens", value.shuffled, SHUFFLED, 0.1),
    ):
        at = np.tile(np.arange(len(value.sites)) + offset, len(values))
        axes.plot(
            at,
            np.ravel(values),
            look.marker,
            color=look.colour,
            label=name,
            markersize=5,
            alpha=0.8,
        )
    axes.set_xticks(range(len(value.sites)), value.sites, rotation=25, ha="right")
    axes.grid(axis="x", visible=False)
    axes.set_title("distance from the identity")
    axes.set_ylabel("‖R − I‖  (Frobenius norm)")
    axes.set_xlabel("residual site")
    axes.margins(y=0.12)


def _densities(axes: Axes, value: RotationSpectrum) -> None:
    """Density per radian of each set, and the exact one under it."""
    edges = np.linspace(0, np.pi, len(value.phases[0].counts) + 1)
    for phases, look in zip(value.phases, (MATCHED, SHUFFLED), strict=True):
        scale = sum(phases.counts) * np.diff(edges)
        axes.stairs(
            np.array(phases.counts) / scale, edges, color=look.colour, linestyle=look.line,
            label=phases.name, linewidth=1.4,
        )  # fmt: skip
        if phases is value.phases[0]:
            steps = np.repeat(np.array(phases.expected) / scale, 2)
            axes.fill_between(
                np.repeat(edges, 2)[1:-1], steps, color=style.FAINT, zorder=0, linewidth=0,
                label="Haar, exact",
            )  # fmt: skip
    axes.set_title("density of the eigenphases")
    axes.set_xticks(np.linspace(0, np.pi, 5), ["0", "π/4", "π/2", "3π/4", "π"])
    axes.set_xlabel("eigenphase θ, radians")
    axes.set_ylabel("density, per radian")
    axes.set_ylim(bottom=0)
