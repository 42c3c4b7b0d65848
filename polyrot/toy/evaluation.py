"""How well toy models do their task: accuracy of each output head on each distribution."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from polyrot.runtime.seeding import torch_generator
from polyrot.toy import task, transformer
from polyrot.toy.transformer import Params

GOAL = 0.9999
"""What the paper asks of every head on every distribution."""

Evaluation = dict[str, dict[str, list[float]]]
"""Distribution -> head -> accuracy per model."""


def evaluate(
    params: Params,
    n_sequences: int,
    *,
    seed: int = 0,
    purpose: str = "evaluation",
    chunk: int = 256,
) -> tuple[Evaluation, list[float]]:
    """Accuracy of each head on each distribution over held-out sequences, PAD left out, fp32; and
    each model's mean cross-entropy over positions, in nats, summed over heads and distributions."""
    device = params["embed"].device
    out: Evaluation = {}
    loss = torch.zeros(params["embed"].shape[0], dtype=torch.float64, device=device)
    for name in task.DISTRIBUTIONS:
        tokens, labels = _held_out(name, n_sequences, seed, purpose, str(device))
        keep = tokens != task.PAD
        total = torch.zeros_like(loss)
        right = {h: torch.zeros(params["embed"].shape[0], device=device) for h in task.HEADS}
        with torch.no_grad():
            for part in torch.arange(n_sequences, device=device).split(chunk):
                logits = transformer.forward(params, tokens[part]).logits
                for head in task.HEADS:
                    hit = (logits[head].argmax(-1) == labels.head(head)[part]) & keep[part]
                    right[head] += hit.sum((1, 2))
                    entropy = F.cross_entropy(
                        logits[head].movedim(-1, 1),
                        labels.head(head)[part].expand(len(loss), -1, -1),
                        reduction="none",
                    )
                    total += (entropy * keep[part]).sum((1, 2)).double()
        n = keep.sum()
        loss += total / n
        out[name] = {h: (right[h].double() / n).tolist() for h in task.HEADS}
    return out, loss.tolist()


@lru_cache(maxsize=2 * len(task.DISTRIBUTIONS))
def _held_out(
    name: task.Distribution, n: int, seed: int, purpose: str, device: str
) -> tuple[Tensor, task.Labels]:
    """Sequences and their labels; a training asks for the same ones again and again."""
    tokens = task.sequences(n, torch_generator(seed, purpose, name, device=device), name)
    return tokens, task.label(tokens)


def lowest(evaluation: Evaluation, model: int) -> float:
    """The lowest accuracy of one model over heads and distributions."""
    return min(by_head[h][model] for by_head in evaluation.values() for h in by_head)
