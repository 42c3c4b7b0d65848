"""Which neurons of the two MLPs are in use: those that fire, and whose firing a logit feels.

A neuron is ablated by taking what it writes out of the residual stream, at every position of a
sequence, with everything after it recomputed in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from polyrot.store import Artifact, Runtime
from polyrot.toy import task
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import Folded
from polyrot.toy.run import MLPS, ToyRun

RECIPE_VERSION = 1  # raise when a change of code changes a figure
POSITIONS = 100_000
LEAST_CHANGE = 1e-6
"""Of a logit, for a neuron to be in use."""
AT_ONCE = 256
"""Sequences run as one batch."""


@dataclass(frozen=True)
class Neurons:
    """Of one model's MLPs, in the order of `MLPS`.

    fires: bool [2, d_mlp], on some position. change: float64 [2, d_mlp], the largest |change| of a
    logit by ablation in the sequences that were tried: those in which the neuron fires, the
    strongest first, until it exceeds `LEAST_CHANGE`. size: float64 [2, d_mlp], norm of what it
    reads times norm of what it writes, by which the paper calls neurons alive. positions: int64
    [1], how many were looked at.
    """

    fires: Tensor
    change: Tensor
    size: Tensor
    positions: Tensor

    @property
    def alive(self) -> Tensor:
        """bool [2, d_mlp]."""
        return self.fires & (self.change > LEAST_CHANGE)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Neurons:
        """From tensors by the names of the fields."""
        return cls(**{f.name: tensors[f.name] for f in fields(cls)})


def first_positions(tokens: Tensor, n: int) -> Tensor:
    """The first sequences that hold `n` positions together, padding left out; all where they hold
    fewer. tokens: [sequences, position]."""
    held = (tokens != task.PAD).sum(1).cumsum(0)
    return tokens[: int((held < n).sum()) + 1]


@torch.no_grad()
def measure_neurons(cohort: ToyCohort, model: int = 0, n_positions: int = POSITIONS) -> Neurons:
    """Look at every neuron of one model on the dictionary split, of which no weights were chosen.

    Every neuron that fires is ablated where it fires most; one that no logit feels there, in the
    sequences where it fires next to most, and so on to the last in which it fires at all.
    """
    folded = cohort.folded(model).to(torch.float64)
    tokens = first_positions(cohort.tokens("dictionary"), n_positions)
    strongest: list[Tensor] = []
    for part in tokens.split(AT_ONCE):
        run = ToyRun(folded, part, torch.float64)
        keys = torch.stack([run.keys(mlp) for mlp in MLPS])  # [2, batch, position, d_mlp]
        strongest.append((keys * run.kept[..., None]).amax(2))
    firing = torch.cat(strongest, 1)  # [2, sequences, d_mlp]
    change = torch.zeros_like(firing[:, 0])
    for i, mlp in enumerate(MLPS):
        size, order = firing[i].sort(0, descending=True)
        done = 0
        while done < len(tokens):
            open_ = ((size[done] > 0) & (change[i] <= LEAST_CHANGE)).nonzero()[:, 0]
            if not len(open_):
                break
            ranks = range(done, min(len(tokens), done + max(1, AT_ONCE // len(open_))))
            neurons = open_.repeat(len(ranks))
            chosen = torch.cat([order[rank, open_] for rank in ranks])
            felt = _felt(ToyRun(folded, tokens[chosen], torch.float64), mlp, folded, neurons)
            change[i].scatter_reduce_(0, neurons, felt, "amax")
            done = ranks.stop
    positions = torch.tensor([int((tokens != task.PAD).sum())])
    layers = range(len(MLPS))
    reads, writes = (torch.cat([folded[f"w_{n}_{i}"] for i in layers]) for n in ("in", "out"))
    sizes = (reads.norm(dim=1) * writes.norm(dim=2)).cpu()
    return Neurons((firing.amax(1) > 0).cpu(), change.cpu(), sizes, positions)


def _felt(run: ToyRun, mlp: str, weights: Folded, neurons: Tensor) -> Tensor:
    """[batch]: largest |change| of a logit of each sequence when its own neuron writes nothing."""
    sequence = torch.arange(len(neurons), device=neurons.device)
    active = run.keys(mlp)[sequence, :, neurons]  # [batch, position]
    written = weights[f"w_out_{mlp.split('_')[1]}"][0][neurons]  # [batch, width]
    shift = torch.stack([torch.zeros_like(active), -active])[..., None] * written[:, None]
    gaps = []
    for logits in run.outputs(MLPS[mlp], shift).values():
        gap = (logits[1] - logits[0]).abs().amax(-1)
        gaps.append((gap * run.kept).amax(1))
    return torch.stack(gaps).amax(0)


def kept_neurons(runtime: Runtime, cohort: ToyCohort, model: int = 0) -> Neurons:
    """`measure_neurons` through the store."""

    def build(_: object) -> Artifact:
        found = measure_neurons(cohort, model)
        return Artifact({f.name: getattr(found, f.name).contiguous() for f in fields(found)})

    recipe = {
        "version": RECIPE_VERSION,
        "cohort": cohort.fingerprint,
        "model": model,
        "positions": POSITIONS,
        "least_change": LEAST_CHANGE,
    }
    name = f"{cohort.scale}-seed{cohort.seeds[model]}"
    found = runtime.store.get_or_build("toy-neurons", recipe, build, name=name)
    return Neurons.from_tensors(found.tensors)
