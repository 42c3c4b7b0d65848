"""How a dictionary decides which features are active: beside ReLU, TopK and JumpReLU.

ReLU's features are made few by the L1 penalty, which also shrinks those that are active. Of the two
here neither does: TopK keeps the k largest, and JumpReLU learns a threshold for each feature, which
is paid for by the number of active features, whatever their size. A number of features has no
derivative, so JumpReLU's thresholds follow a straight-through estimator of that of its expectation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from polyrot.dictionaries.loading.values import LoadedDictionary
from polyrot.dictionaries.sae import Dictionary

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class TopK:
    """The k largest pre-activations of each token are kept, those of them that are positive (Gao et
    al. 2024, arXiv 2406.04093): L0 is k at most, and no penalty is needed. The source's auxiliary
    loss for features that are never active is left out: how many there are is part of `quality`.

    Raises ValueError for a k below 1.
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"TopK keeps at least one feature, not {self.k}")

    def recipe(self) -> dict[str, Any]:
        """What decides it, for a fingerprint."""
        return {"name": "topk", **asdict(self)}

    def parameters(self, scale: Tensor, features: int) -> dict[str, Tensor]:  # noqa: ARG002
        """What it learns beside the weights: nothing."""
        return {}

    def features(self, hidden: Tensor, weights: Weights) -> Tensor:  # noqa: ARG002
        """Pre-activations [n, batch, f] to features."""
        kept = hidden.topk(min(self.k, hidden.shape[-1]), dim=-1, sorted=False)
        return torch.zeros_like(hidden).scatter(-1, kept.indices, kept.values.relu())

    def penalty(self, hidden: Tensor, weights: Weights) -> Tensor:  # noqa: ARG002
        """[n]: zero, as L0 is what it is."""
        return hidden.new_zeros(len(hidden), dtype=torch.float32)

    def dictionary(self, plain: Dictionary, threshold: Tensor | None) -> LoadedDictionary:  # noqa: ARG002
        """The dictionary of these weights."""
        return LoadedDictionary(**vars(plain), k=self.k)


@dataclass(frozen=True)
class JumpReLU:
    """A pre-activation passes where it is above its feature's threshold (Rajamanoharan et al. 2024,
    arXiv 2407.14435), as it is.

    The penalty is `weight` * (L0 / l0 - 1)^2, the form with which the source aims at a given L0. It
    and all that follows is in units of the activations' scale, the root mean squared distance from
    their mean: an error of its square costs 1. start: of the thresholds. bandwidth: of the
    rectangular kernel with which their derivative is estimated. rate: of the thresholds'
    logarithms, as a multiple of the schedule's, as they have far to go.
    Raises ValueError where one of these is not positive.
    """

    l0: float
    weight: float = 1.0
    start: float = 0.03
    bandwidth: float = 0.03
    rate: float = 10.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"JumpReLU's {name} must be positive, not {value}")

    def recipe(self) -> dict[str, Any]:
        """What decides it, for a fingerprint."""
        return {"name": "jumprelu", **asdict(self)}

    def parameters(self, scale: Tensor, features: int) -> dict[str, Tensor]:
        """ "log_threshold" [n, f] at the start. scale: [n]."""
        return {"log_threshold": (self.start * scale).log()[:, None].repeat(1, features)}

    def features(self, hidden: Tensor, weights: Weights) -> Tensor:
        """Pre-activations [n, batch, f] to features."""
        found: Tensor = _Jump.apply(hidden, *self._threshold(weights))
        return found

    def penalty(self, hidden: Tensor, weights: Weights) -> Tensor:
        """[n], in the units of the mean squared error over entries."""
        passed: Tensor = _Passed.apply(hidden, *self._threshold(weights))
        beyond = passed.float().sum(2).mean(1) / self.l0 - 1
        unit = weights["scale"].square() / weights["w_dec"].shape[-1]
        return self.weight * unit * beyond.square()

    def dictionary(self, plain: Dictionary, threshold: Tensor | None) -> LoadedDictionary:
        """The dictionary of these weights."""
        return LoadedDictionary(**vars(plain), threshold=threshold)

    def _threshold(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """Thresholds [n, 1, f] and the width of the kernel [n, 1, 1]."""
        width = (self.bandwidth * weights["scale"])[:, None, None]
        return weights["log_threshold"].exp()[:, None], width


Activation = TopK | JumpReLU


def scale_of(x: Tensor) -> Tensor:
    """Root mean squared distance of activations x [tokens, d] from their mean."""
    return x.var(0, correction=0).sum().sqrt()


def _near(hidden: Tensor, threshold: Tensor, width: Tensor) -> Tensor:
    """The rectangular kernel around the thresholds, over its width."""
    return ((hidden - threshold).abs() < width / 2).to(hidden.dtype) / width


class _Jump(torch.autograd.Function):
    """hidden where it is above its threshold; equations 9 to 11 of arXiv 2407.14435."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, threshold: Tensor, width: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, threshold, width)
        return hidden * (hidden > threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden, threshold, width = ctx.saved_tensors
        of_threshold = -(grad * _near(hidden, threshold, width)).sum(1, keepdim=True) * threshold
        return grad * (hidden > threshold), of_threshold, None


class _Passed(torch.autograd.Function):
    """1 where hidden is above its threshold; only the thresholds are told of it."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, threshold: Tensor, width: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, threshold, width)
        return (hidden > threshold).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        hidden, threshold, width = ctx.saved_tensors
        return None, -(grad * _near(hidden, threshold, width)).sum(1, keepdim=True), None
