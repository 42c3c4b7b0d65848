"""Lens 3: what interventions say. Mean and resample ablation of components, by output head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from polyrot.measures.bars.causal import constant
from polyrot.measures.lenses import graph
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import task
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import Folded
from polyrot.toy.transformer import COMPONENTS, Edit

SEQUENCES = 256
GRAPH_SEQUENCES = 32
RESAMPLE_SEED = 20260611
DRAWS = 2


@dataclass(frozen=True)
class Patching:
    """Of the 10 components of one model, in the order of `COMPONENTS`, in nats.

    mean, resampled: [10, 3], loss rise by output head when the component writes its dataset mean,
    or what it wrote at the same position of another sequence. paths: [54], KL from the whole model
    when one edge is cut. kept: bool [54], edges that the greedy pruning keeps; left: the KL of
    what it leaves, [1].
    """

    mean: Tensor
    resampled: Tensor
    paths: Tensor
    kept: Tensor
    left: Tensor


def measure_patching(cohort: ToyCohort, model: int) -> Patching:
    """All interventions of lens 3 on one model, on the score split."""
    folded, means = cohort.folded(model), cohort.mean_writes(model)
    tokens = cohort.intervention_tokens(SEQUENCES)
    stream = cohort.activations("fit", cohort.sites[0])[model].mean(0)
    written = dict(zip(COMPONENTS, means, strict=True)) | {"embed": stream}
    few = graph.Graph(
        folded,
        cohort.tokens("score")[:GRAPH_SEQUENCES],
        torch.stack([written[name].to(stream) for name in graph.SENDERS]),
    )
    kept, left = graph.prune(few)
    return Patching(
        mean_ablation(folded, means, tokens),
        resample_ablation(folded, tokens, torch_generator(RESAMPLE_SEED, "resample")),
        graph.path_patching(few),
        kept,
        torch.tensor([left], dtype=torch.float64),
    )


def mean_ablation(folded: Folded, means: Tensor, tokens: Tensor) -> Tensor:
    """[10, 3], float64: loss rise by output head. means: [10, 64]; one model."""
    clean = _losses(folded, tokens, {})
    return torch.stack(
        [
            _losses(folded, tokens, {name: partial(constant, means[i])}) - clean
            for i, name in enumerate(COMPONENTS)
        ]
    )


@torch.no_grad()
def resample_ablation(
    folded: Folded, tokens: Tensor, generator: torch.Generator, draws: int = DRAWS
) -> Tensor:
    """[10, 3], float64: loss rise when each sequence gets another's write, position by position.

    Averaged over `draws` shuffles of the batch; where the other sequence is shorter its padding's
    write is what arrives. generator: on the CPU.
    """
    clean = _losses(folded, tokens, {})
    own = folded.run(tokens, capture=COMPONENTS).captured
    total = torch.zeros(len(COMPONENTS), len(task.HEADS), dtype=torch.float64, device=tokens.device)
    for _ in range(draws):
        order = torch.randperm(len(tokens), generator=generator).to(tokens.device)
        for i, name in enumerate(COMPONENTS):
            other = own[name][:, order]
            total[i] += _losses(folded, tokens, {name: partial(_instead, other)}) - clean
    return total / draws


def _instead(other: Tensor, _: Tensor) -> Tensor:
    return other


@torch.no_grad()
def _losses(folded: Folded, tokens: Tensor, edits: Mapping[str, Edit]) -> Tensor:
    """[3], float64: mean cross-entropy of each output head over kept positions."""
    keep, labels = tokens != task.PAD, task.label(tokens)
    logits = folded.run(tokens, edits=edits).logits
    return torch.stack(
        [
            torch.nn.functional.cross_entropy(
                logits[head][0, keep].double(), labels.head(head)[keep]
            )
            for head in task.HEADS
        ]
    )
