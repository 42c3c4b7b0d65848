"""The folded toy as a graph: components read what earlier ones wrote, and every edge can be cut.

A cut edge delivers the sender's dataset mean to that one receiver, while all other receivers still
get what the sender wrote. Cutting one edge is path patching (Wang et al. 2022, arXiv 2211.00593);
cutting them greedily is the pruning of Conmy et al. 2023 (ACDC, arXiv 2304.14997).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from polyrot.toy import task
from polyrot.toy.folding import Folded
from polyrot.toy.transformer import D_HEAD, HEAD_NAMES, N_HEADS, N_LAYERS, NORM_EPS, attention_bias

SENDERS = (
    "embed",
    *(name for i in range(N_LAYERS) for name in (*HEAD_NAMES[4 * i : 4 * i + 4], f"mlp_{i}")),
)
RECEIVERS = (*SENDERS[1:], "output")


def _edges() -> tuple[tuple[int, int], ...]:
    out = []
    for r, receiver in enumerate(RECEIVERS):
        for s, sender in enumerate(SENDERS):
            alike = receiver.startswith("head") and sender[:6] == receiver[:6]
            if s <= r and not alike:
                out.append((r, s))
    return tuple(out)


EDGES = _edges()
"""(receiver, sender) by index: 54 edges; heads of one layer do not read each other."""


def edge_name(edge: tuple[int, int]) -> str:
    """ "sender -> receiver"."""
    return f"{SENDERS[edge[1]]} -> {RECEIVERS[edge[0]]}"


@dataclass(frozen=True)
class Graph:
    """One folded model on one batch, with the means of everything that writes.

    means: [11, 64], in the order of `SENDERS`.
    """

    folded: Folded
    tokens: Tensor
    means: Tensor

    @torch.no_grad()
    def logits(self, cut: Tensor | None = None) -> dict[str, Tensor]:
        """Logits [batch, position, classes] with the edges of cut, bool [11, 11], cut."""
        w = {name: tensor[0] for name, tensor in self.folded.items()}
        if cut is None:
            cut = torch.zeros(len(RECEIVERS), len(SENDERS), dtype=torch.bool)
        length = self.tokens.shape[1]
        writes = [w["embed"][self.tokens] + w["position"][:length]]
        stream = writes[0]
        bias = attention_bias(None, length, self.tokens.device)

        def read(receiver: int) -> Tensor:
            x = stream
            for s in cut[receiver, : len(writes)].nonzero()[:, 0].tolist():
                x = x - writes[s] + self.means[s]
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS)

        for layer in range(N_LAYERS):
            first = len(writes) - 1
            heads = []
            for h in range(N_HEADS):
                part = slice(h * D_HEAD, (h + 1) * D_HEAD)
                x = read(first + h)
                q, k, v = (x @ w[f"w_{n}_{layer}"][:, part] for n in "qkv")
                pattern = torch.softmax(q @ k.mT / math.sqrt(D_HEAD) + bias, -1)
                heads.append(pattern @ v @ w[f"w_o_{layer}"][part])
            writes += heads
            stream = stream + torch.stack(heads).sum(0)
            hidden = torch.relu(read(first + N_HEADS) @ w[f"w_in_{layer}"])
            writes.append(hidden @ w[f"w_out_{layer}"])
            stream = stream + writes[-1]
        final = read(len(RECEIVERS) - 1)
        return {h: final @ w[f"unembed_{h}"] for h in task.HEADS}


def divergence(reference: dict[str, Tensor], logits: dict[str, Tensor], keep: Tensor) -> float:
    """KL(reference || logits) in nats, mean over heads and kept positions."""
    parts = []
    for head in task.HEADS:
        p, q = (x[head][keep].double().log_softmax(-1) for x in (reference, logits))
        parts.append((p.exp() * (p - q)).sum(-1).mean())
    return float(torch.stack(parts).mean())


def path_patching(graph: Graph) -> Tensor:
    """[len(EDGES)], float64: KL from the whole model when one edge alone is cut."""
    whole, keep = graph.logits(), graph.tokens != task.PAD
    out = []
    for receiver, sender in EDGES:
        cut = torch.zeros(len(RECEIVERS), len(SENDERS), dtype=torch.bool)
        cut[receiver, sender] = True
        out.append(divergence(whole, graph.logits(cut), keep))
    return torch.tensor(out, dtype=torch.float64)


def prune(graph: Graph, threshold: float = 1e-3) -> tuple[Tensor, float]:
    """Cut, from the output backwards, every edge that raises the KL by less than `threshold`.

    Returns which of `EDGES` are kept, bool [len(EDGES)], and the KL of what is left.
    """
    whole, keep = graph.logits(), graph.tokens != task.PAD
    cut = torch.zeros(len(RECEIVERS), len(SENDERS), dtype=torch.bool)
    reached = 0.0
    for receiver, sender in reversed(EDGES):
        cut[receiver, sender] = True
        now = divergence(whole, graph.logits(cut), keep)
        if now - reached < threshold:
            reached = now
        else:
            cut[receiver, sender] = False
    return torch.tensor([not bool(cut[edge]) for edge in EDGES]), reached
