"""Models whose loss is a known curve along the way from each component's write to its mean.

Component c's loss, t of the way, is slope_c t + curve_c t^order more than the clean one. So its
effect is slope_c + curve_c, attribution patching says slope_c, and integrated gradients must say
what the effect is, whatever the curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SLOPES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


@dataclass(frozen=True)
class CurvedRun:
    """See `polyrot.cohorts.interventions.CleanRun`; a write is [.., 1]: how far it has gone."""

    kept: Tensor
    writes: Tensor
    slope: Tensor
    curve: Tensor
    order: int

    def loss(self, components: Sequence[int], writes: Tensor) -> Tensor:
        t = writes[..., 0][:, self.kept].mean(-1)
        index = list(components)
        slope, curve = self.slope.to(t), self.curve.to(t)
        return 1 + slope[index] * t + curve[index] * t**self.order


@dataclass(frozen=True)
class Curved:
    """What attribution asks of a cohort. slope, curve: [components], of every model alike."""

    name: str
    slope: tuple[float, ...]
    curve: tuple[float, ...]
    order: int = 2
    seeds: tuple[int, ...] = (0, 1, 2)

    scale, trained, width = "toy_a", True, 1
    components = tuple(f"block_{i}" for i in range(len(SLOPES)))

    @property
    def fingerprint(self) -> str:
        return self.name

    def intervention_tokens(self, n: int) -> Tensor:
        return torch.zeros(min(n, 4), 3, dtype=torch.long)

    def mean_writes(self, model: int) -> Tensor:
        return torch.ones(len(self.components), 1)

    def clean_run(self, model: int, tokens: Tensor, dtype: torch.dtype) -> Any:
        kept = torch.ones_like(tokens, dtype=torch.bool)
        writes = torch.zeros(len(self.components), *tokens.shape, 1, dtype=dtype)
        slope, curve = (torch.tensor(x) for x in (self.slope, self.curve_of(model)))
        return CurvedRun(kept, writes, slope, curve, self.order)

    def curve_of(self, model: int) -> tuple[float, ...]:
        return self.curve


@dataclass(frozen=True)
class Bending(Curved):
    """One run's checkpoints, whose `seeds` are steps. sizes: of the curve, by checkpoint."""

    sizes: tuple[float, ...] = ()

    def curve_of(self, model: int) -> tuple[float, ...]:
        return tuple(self.sizes[model] * c for c in self.curve)


ALTERNATING = (9.0, -9.0, 9.0, -9.0, 9.0, -9.0)
"""A curve unrelated to the slopes: the more of it, the less attribution patching tells."""
STEPS, SIZES = (1, 10, 100, 1000, 2000, 4000), (0.01, 0.1, 0.3, 1.0, 2.0, 4.0)

LOSSES = {
    loss.name: loss
    for loss in (
        Curved("nearly linear loss", SLOPES, (0.01,) * 6),
        Curved("loss at its minimum", tuple(-s for s in SLOPES), tuple(3 * s for s in SLOPES)),
        Curved("effect unrelated to slope", SLOPES, (5.0, 7.0, 8.0, 6.0, 3.0, 1.0)),
        Curved("cubic loss", SLOPES, SLOPES, order=3),
        Curved(
            "loss at its minimum, five seeds",
            tuple(-s for s in SLOPES),
            tuple(3 * s for s in SLOPES),
            seeds=(0, 1, 2, 3, 4),
        ),
        Curved("effect far beyond the slope", SLOPES, tuple(30 * s for s in SLOPES)),
        Bending("a run that bends", SLOPES, ALTERNATING, seeds=STEPS, sizes=SIZES),
        Bending("a run that straightens", SLOPES, ALTERNATING, seeds=STEPS, sizes=SIZES[::-1]),
    )
}
