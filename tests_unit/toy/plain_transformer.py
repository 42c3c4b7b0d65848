"""The toy transformer written as plainly as possible: one model, one nn.Module, eager."""

import torch
import torch.nn.functional as F
from torch import nn

from polyrot.toy import task, transformer


class PlainTransformer(nn.Module):
    """Built straight from the protocol; weights are taken from one model of a batch."""

    def __init__(self, params, model=0):
        super().__init__()
        one = {name: p[model].detach().clone() for name, p in params.items()}
        self.weights = nn.ParameterDict(one)
        self.register_buffer("positions", transformer.position_buffer())

    def norm(self, x, name):
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.weights[name]

    def forward(self, tokens):
        n = tokens.shape[1]
        x = self.weights["embed"][tokens] + self.positions[:n]
        sites = [x]
        mask = torch.ones(n, n, dtype=torch.bool).tril()
        for layer in range(2):
            normed = self.norm(x, f"norm_attn_{layer}")
            q, k, v = (
                (normed @ self.weights[f"w_{c}_{layer}"]).unflatten(-1, (4, 16)).transpose(1, 2)
                for c in "qkv"
            )
            scores = (q @ k.transpose(-1, -2) / 4).masked_fill(~mask, float("-inf"))
            mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)
            x = x + mixed @ self.weights[f"w_o_{layer}"]
            sites.append(x)
            normed = self.norm(x, f"norm_mlp_{layer}")
            hidden = F.relu(normed @ self.weights[f"w_in_{layer}"])
            x = x + hidden @ self.weights[f"w_out_{layer}"]
            sites.append(x)
        final = self.norm(x, "norm_final")
        logits = {head: final @ self.weights[f"unembed_{head}"] for head in task.HEADS}
        return logits, sites
