"""What the paper published, by scale, for the figures to stand beside.

From the post of arXiv 2605.24577; section numbers are the post's. `neox` is not a scale of the
paper: its language model is Pythia-70m, whose figures are named as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Published:
    """Ranges over the sites (or pairs) of one cohort; None where the paper has none.

    of: whose they are. naive, rotated, noise: explained variances, sections 3 and 4. distance:
    ||R - I||_F, section 5. patching, integrated: Pearson r, section 8. across: Pearson r across
    seeds, section 10. mean_cosine: section 1. largest_mse: best alignment, section 10.
    """

    of: str
    naive: Range | None = None
    rotated: Range | None = None
    noise: Range | None = None
    distance: Range | None = None
    patching: Range | None = None
    integrated: Range | None = None
    across: Range | None = None
    mean_cosine: float | None = None
    largest_mse: Range | None = None


_PYTHIA = Published(
    of="Pythia-70m",
    naive=(-2.11, 0.75),
    rotated=(0.85, 0.99),
    distance=(31.94, 32.03),
    patching=(0.05, 0.05),
    integrated=(0.98, 0.98),
    mean_cosine=0.92,
)
PUBLISHED: Mapping[str, Published] = {
    "toy_a": Published(
        of="shared input and output",
        rotated=(0.976, 0.990),
        noise=(0.94, 0.98),
        distance=(9.4, 10.7),
        patching=(-0.632, 0.585),
        integrated=(0.9995, 1.0),
        across=(0.52, 0.69),
        mean_cosine=0.89,
        largest_mse=(0.264, 0.298),
    ),
    "toy_b": Published(
        of="independent cohort",
        naive=(-1.53, -0.58),
        rotated=(0.965, 0.987),
        distance=(10.80, 11.25),
    ),
    "neox": _PYTHIA,
    "pythia": _PYTHIA,
}


def published(scale: str) -> Published:
    """What the paper has of `scale`, nothing for a scale it does not know."""
    return PUBLISHED.get(scale, Published(of=""))
