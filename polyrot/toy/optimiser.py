"""The optimiser of a training of toys, and the basis of the residual stream in which it steps.

AdamW divides each coordinate of a step by the root of that coordinate's own second moment, so its
steps depend on the basis in which a weight is written down; SGD with momentum, whose steps are sums
of gradients, turns with the basis. A schedule may ask for either, and for AdamW in a fixed random
basis of each seed, in which it prefers the directions of that basis and not the coordinate axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from polyrot.maps.null_space import haar_block
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import transformer
from polyrot.toy.schedule import ADAMW, RANDOM, STANDARD, Schedule
from polyrot.toy.symmetry import turned
from polyrot.toy.transformer import Params

BUFFERS: Mapping[str, Mapping[str, str]] = {
    "adamw": {"first": "exp_avg", "second": "exp_avg_sq"},
    "sgd": {"momentum": "momentum_buffer"},
}
"""What an optimiser knows of each weight: a checkpoint's name for it, and torch's."""


def bases(
    seeds: Sequence[int], schedule: Schedule, device: torch.device | str = "cpu"
) -> Tensor | None:
    """[model, d, d]: the basis of each seed's optimiser, one direction a column, a Haar draw of the
    seed; None where it is the standard one. Raises ValueError for a basis of another name."""
    if schedule.optimiser_basis == STANDARD:
        return None
    if schedule.optimiser_basis != RANDOM:
        known = f"{STANDARD} or {RANDOM}"
        raise ValueError(f"no basis {schedule.optimiser_basis!r} of an optimiser: {known}")
    drawn = [
        haar_block(transformer.D_MODEL, torch_generator(seed, "optimiser basis")) for seed in seeds
    ]
    return torch.stack(drawn).float().to(device)


class Held:
    """The weights that an optimiser holds: those that are trained, or the same in its own basis.

    trained: the model's weights, [model, ...] each, which need gradients. turns: of `bases`.
    `params` are the optimiser's; in a basis of its own they are what is stepped, and the model's
    weights are they turned back.
    """

    def __init__(self, trained: Params, turns: Tensor | None) -> None:
        self.trained, self.turns = trained, turns
        self.params = trained
        if turns is not None:
            self.params = {
                name: turned(name, p.detach(), turns).clone() for name, p in trained.items()
            }

    def take_gradients(self) -> None:
        """Hand the gradients of the model's weights to the optimiser's."""
        if self.turns is None:
            return
        for name, p in self.trained.items():
            assert p.grad is not None
            self.params[name].grad = turned(name, p.grad, self.turns)
            p.grad = None

    @torch.no_grad()
    def give_weights(self) -> None:
        """Hand the optimiser's weights, after its step, to the model."""
        if self.turns is None:
            return
        for name, p in self.trained.items():
            p.copy_(turned(name, self.params[name], self.turns.mT))


def optimiser_of(
    held: Iterable[Tensor], schedule: Schedule, rate: float | Tensor, *, captured: bool = False
) -> torch.optim.Optimizer:
    """The optimiser that a schedule asks for, over these weights. captured: within a CUDA graph.

    Raises ValueError: the schedule asks for neither "adamw" nor "sgd".
    """
    if schedule.optimiser == ADAMW:
        return torch.optim.AdamW(
            held,
            lr=rate,
            betas=schedule.betas,
            weight_decay=schedule.weight_decay,
            fused=True,
            capturable=captured,
        )
    if schedule.optimiser not in BUFFERS:
        raise ValueError(f"no optimiser {schedule.optimiser!r}: one of {', '.join(BUFFERS)}")
    return torch.optim.SGD(
        held,
        lr=rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        fused=True,
    )
