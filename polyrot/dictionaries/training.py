"""Training many dictionaries as one batched program."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from polyrot.cohorts import departures
from polyrot.dictionaries.activations import Activation, JumpReLU, scale_of
from polyrot.dictionaries.sae import Dictionary
from polyrot.maps.checks import check_finite
from polyrot.runtime.device import BF16, FLOAT32
from polyrot.runtime.progress import Progress, silent
from polyrot.runtime.relu import relu
from polyrot.runtime.seeding import torch_generator

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Schedule:
    """How dictionaries are trained. The defaults are the paper's for the toy.

    activation: TopK or JumpReLU; None is the paper's ReLU.
    """

    steps: int = 6000
    batch: int = 4096
    rate: float = 5e-4
    precision: str = FLOAT32
    activation: Activation | None = None

    def recipe(self) -> dict[str, Any]:
        """What decides it, for its fingerprint: of ReLU's dictionaries, what it always was."""
        found = asdict(self)
        del found["activation"]
        return (
            found if self.activation is None else found | {"activation": self.activation.recipe()}
        )

    def departures(
        self, *, language: bool = False, checkpoints: bool = False, l1: float | None = None
    ) -> tuple[str, ...]:
        """How it departs from the paper's protocol, in sentences: of a language model or the toy,
        of a run's checkpoints or of seeds, with the sparsity `l1` where that is to be compared.

        >>> Schedule(batch=1024).departures()
        ("toys' dictionaries: batches of 1,024 where the paper takes 4,096",)
        """
        made = {**self.recipe(), **({} if l1 is None else {"l1": l1})}
        return departures.of_dictionaries(made, language, checkpoints)


def initialise(starts: Sequence[int], d_in: int, d_out: int, features: int) -> Weights:
    """Fresh dictionaries, one per start seed: encoder N(0, 1/d), random unit decoder rows.

    Drawn on the CPU, encoder and decoder independently, so that equal starts are equal weights.
    Returns w_enc [n, d_in, f], b_enc [n, f], w_dec [n, f, d_out], b_in [n, d_in].
    """
    encoders, decoders = [], []
    for start in starts:
        encoder = torch_generator(start, "encoder start", d_in, features)
        decoder = torch_generator(start, "decoder start", d_out, features)
        encoders.append(torch.randn(d_in, features, generator=encoder) / d_in**0.5)
        decoders.append(torch.randn(features, d_out, generator=decoder))
    w_dec = torch.stack(decoders)
    return {
        "w_enc": torch.stack(encoders),
        "b_enc": torch.zeros(len(starts), features),
        "w_dec": w_dec / w_dec.norm(dim=-1, keepdim=True),
        "b_in": torch.zeros(len(starts), d_in),
    }


def loss(
    weights: Weights, x: Tensor, target: Tensor, l1: Tensor, activation: Activation | None = None
) -> Tensor:
    """Per dictionary, mean squared error over all entries + l1 * mean over rows of sum |f|, and
    what the activation asks beside.

    x [n, batch, d_in], target [n, batch, d_out], l1 [n]. Without "b_out" the input bias serves the
    output too (autoencoder).
    """
    hidden = torch.baddbmm(
        weights["b_enc"][:, None], x - weights["b_in"][:, None], weights["w_enc"]
    )
    f = relu(hidden) if activation is None else activation.features(hidden, weights)
    b_out = weights.get("b_out", weights["b_in"])
    error = torch.bmm(f, weights["w_dec"]) + b_out[:, None] - target
    found = error.float().square().mean((1, 2)) + l1 * f.float().sum(2).mean(1)
    return found if activation is None else found + activation.penalty(hidden, weights)


def _autocast_loss(
    weights: Weights,
    x: Tensor,
    target: Tensor,
    l1: Tensor,
    bf16: bool = False,
    activation: Activation | None = None,
) -> Tensor:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        return loss(weights, x, target, l1, activation)


def trial_step(
    count: int, width: int, features: int, schedule: Schedule, device: torch.device | str
) -> Callable[[], object]:
    """Forward and backward of so many dictionaries at once on one batch."""
    weights = {
        name: w.to(device).requires_grad_()
        for name, w in initialise(range(count), width, width, features).items()
    }
    x = torch.randn(count, schedule.batch, width, device=device)
    l1 = torch.full((count,), 1e-3, device=device)
    bf16 = schedule.precision == BF16
    return lambda: _autocast_loss(weights, x, x, l1, bf16).sum().backward()


def project_gradient(w_dec: Tensor, gradient: Tensor) -> Tensor:
    """The decoder gradient [n, f, d] less its component along each (unit) decoder row."""
    return gradient - (gradient * w_dec).sum(-1, keepdim=True) * w_dec


def renormalise(weights: Weights) -> None:
    """In place: decoder rows to unit norm, their scale moved into the encoder, same function."""
    norm = weights["w_dec"].norm(dim=-1)
    weights["w_dec"] /= norm[..., None]
    weights["w_enc"] *= norm[:, None, :]
    weights["b_enc"] *= norm
    if "log_threshold" in weights:
        weights["log_threshold"] += norm.log()


def train(
    x: Tensor,
    source: Sequence[int],
    starts: Sequence[int],
    l1: Sequence[float],
    features: int,
    schedule: Schedule,
    *,
    target: Tensor | None = None,
    progress: Progress = silent,
    stage: str = "dictionaries",
    compiled: bool = False,
    stop_after: int | None = None,
    states: Mapping[int, list[Dictionary]] | None = None,
    remedy: str = "lower the rate of the schedule",
) -> tuple[list[Dictionary], list[list[float]]]:
    """Train len(starts) dictionaries as one batched program.

    x: activations [m, tokens, d_in]; dictionary i is trained on x[source[i]] from the start seed
    starts[i], which also orders its batches, with sparsity l1[i].
    target: [m, tokens, d_out] for transcoders; default x.
    states: by step, a list to which the dictionaries are added as they are after so many steps.
    Returns the dictionaries and the losses of the first steps [step][dictionary].
    remedy: what a message on a loss that is not finite offers.
    Raises ValueError for activations that are not finite, FloatingPointError for such a loss.
    """
    check_finite(x.flatten(0, 1), "activations to train dictionaries on")
    device = x.device
    weights = {
        n: w.to(device)
        for n, w in initialise(
            starts, x.shape[-1], (x if target is None else target).shape[-1], features
        ).items()
    }
    if target is not None:
        weights["b_out"] = torch.zeros(len(starts), target.shape[-1], device=device)
    activation = schedule.activation
    fixed: Weights = {}
    rates: list[dict[str, Any]] = [{"params": list(weights.values())}]
    if activation is not None:
        fixed["scale"] = torch.stack([scale_of(x[s]) for s in source])
        more = activation.parameters(fixed["scale"], features)
        weights |= more
        if isinstance(activation, JumpReLU):
            rates.append({"params": list(more.values()), "lr": schedule.rate * activation.rate})
    for w in weights.values():
        w.requires_grad_()
    optimiser = torch.optim.Adam(rates, lr=schedule.rate, fused=True)
    penalties = torch.tensor(l1, dtype=torch.float32, device=device)
    orders = [torch_generator(s, "batches", device=device) for s in starts]
    loss_of: Callable[..., Tensor] = torch.compile(_autocast_loss) if compiled else _autocast_loss
    bf16 = schedule.precision == BF16
    early: list[list[float]] = []
    end = min(schedule.steps, stop_after or schedule.steps)
    for step in range(end):
        rows = [
            torch.randint(x.shape[1], (schedule.batch,), generator=g, device=device) for g in orders
        ]
        batch = torch.stack([x[s][r] for s, r in zip(source, rows, strict=True)])
        wanted = batch
        if target is not None:
            wanted = torch.stack([target[s][r] for s, r in zip(source, rows, strict=True)])
        losses = loss_of(weights | fixed, batch, wanted, penalties, bf16, activation)
        losses.sum().backward()
        with torch.no_grad():
            decoder = weights["w_dec"]
            assert decoder.grad is not None
            decoder.grad.copy_(project_gradient(decoder, decoder.grad))
            optimiser.step()
            optimiser.zero_grad()
            renormalise(weights)
        if step < N_EARLY:
            early.append(losses.tolist())
        if states is not None and step + 1 in states:
            states[step + 1].extend(_dictionaries(weights, activation))
        if (step + 1) % 100 == 0 or step + 1 == end:
            mean = float(losses.detach().mean())
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"{stage}: the loss is {mean} at step {step}, of activations as large as "
                    f"{float(x.abs().max()):.3g}: {remedy}"
                )
            progress(stage, step + 1, end, f"loss {mean:.5f}")
    return _dictionaries(weights, activation), early


def remedy(scale: str) -> str:
    """What a user of `pytest claims` can change where dictionaries of a scale diverge.

    >>> remedy("pythia")
    'leave a large first position out with --skip-positions 1, or train in single precision with \
--device cpu'
    """
    if scale not in ("pair", "pythia", "neox"):
        return "train by another --schedule, or in single precision with --device cpu"
    first = "leave a large first position out with --skip-positions 1"
    own = ", or bring a dictionary of model A with --sae DIR" if scale == "pair" else ""
    return f"{first}, or train in single precision with --device cpu{own}"


def _dictionaries(weights: Weights, activation: Activation | None) -> list[Dictionary]:
    """The dictionaries that these weights are at this moment, on the CPU."""
    now = {n: w.detach().cpu().clone() for n, w in weights.items()}
    found = [
        Dictionary(
            now["w_enc"][i],
            now["b_enc"][i],
            now["w_dec"][i],
            now["b_in"][i],
            now.get("b_out", now["b_in"])[i],
        )
        for i in range(len(now["w_enc"]))
    ]
    if activation is None:
        return found
    thresholds = now["log_threshold"].exp() if "log_threshold" in now else [None] * len(found)
    return [activation.dictionary(d, t) for d, t in zip(found, thresholds, strict=True)]


N_EARLY = 20  # losses of the first steps, kept so that a retraining can be compared
