"""One toy model on one batch, open to interventions: see `polyrot.cohorts.interventions.CleanRun`.

A variant of a run differs from the clean one only after the site of the intervention, so it is
computed from that site on: an intervention before the last MLP costs no attention at all. Unlike
`transformer.forward`, which trains in mixed precision, every step keeps the dtype of the weights:
the Taylor remainder of section 8 is lost in float32's rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from polyrot.toy import task
from polyrot.toy.folding import Folded
from polyrot.toy.transformer import COMPONENTS, D_HEAD, D_MODEL, N_HEADS, NORM_EPS, SITES

MLPS = {"mlp_0": "resid_post_0", "mlp_1": "resid_post_1"}
SITE_AFTER = {name: MLPS.get(name, f"resid_mid_{name.split('_')[1]}") for name in COMPONENTS}
"""Component -> the residual site right after its write."""


class ToyRun:
    """A clean run of one folded model (leading dimension 1) on tokens int64 [batch, position].

    Positions at the end that are padding in every sequence are left out everywhere.
    """

    def __init__(self, folded: Folded, tokens: Tensor, dtype: torch.dtype = torch.float32) -> None:
        if len(folded) != 1:
            raise ValueError(f"a run is of one model, not of {len(folded)}: select one")
        self._w = {name: tensor[0].to(dtype) for name, tensor in folded.items()}
        self.tokens = tokens = cropped(tokens)
        self.kept = tokens != task.PAD
        self.labels = task.label(tokens)
        self._unembed = torch.cat([self._w[f"unembed_{head}"] for head in task.HEADS], dim=-1)
        self._keys: dict[str, Tensor] = {}
        self._sites: dict[str, Tensor] = {}
        self._parts: list[Tensor] = []
        with torch.no_grad():
            x = F.embedding(tokens, self._w["embed"]) + self._w["position"][: tokens.shape[1]]
            self._sites["resid_pre_0"] = x
            self._walk(x[None], SITES[0], record=True)
            parts = dict(zip(_order(), self._parts, strict=True))
            self.writes = torch.stack([parts[name] for name in COMPONENTS])
        del self._parts

    def loss(self, components: Sequence[int], writes: Tensor) -> Tensor:
        """See `CleanRun.loss`: the sum over heads of the mean cross-entropy over kept positions."""
        if len(components) != len(writes) or writes.shape[1:] != self.writes.shape[1:]:
            raise ValueError(
                f"{len(components)} components for writes {list(writes.shape)}; each variant needs "
                f"one component and {list(self.writes.shape[1:])}"
            )
        by_site: dict[str, list[int]] = {}
        for i, component in enumerate(components):
            by_site.setdefault(SITE_AFTER[COMPONENTS[component]], []).append(i)
        order, losses = [], []
        for site, rows in by_site.items():
            clean = self.writes[[components[i] for i in rows]]
            x = self._sites[site] + (writes[rows] - clean)
            losses.append(self._loss(self._walk(x, site)))
            order += rows
        return torch.cat(losses)[torch.tensor(order, device=writes.device).argsort()]

    def outputs(self, site: str, shift: Tensor) -> dict[str, Tensor]:
        """See `CleanRun.outputs`. Raises KeyError for an unknown site."""
        if site not in self._sites:
            raise KeyError(f"no such site: {site}; have {', '.join(self._sites)}")
        logits = self._walk(self._sites[site] + shift.to(self._unembed), site)
        split = logits.split([task.HEAD_CLASSES[h] for h in task.HEADS], dim=-1)
        return dict(zip(task.HEADS, split, strict=True))

    def keys(self, mlp: str) -> Tensor:
        """See `CleanRun.keys`: the hidden activations, after the ReLU."""
        return self._keys[mlp]

    def site(self, name: str) -> Tensor:
        """The clean residual stream, [batch, position, width]. Raises KeyError: unknown site."""
        return self._sites[name]

    def answers(self) -> dict[str, Tensor]:
        """See `OpenRun.answers`: the labels of the three heads."""
        return {head: self.labels.head(head) for head in task.HEADS}

    def _loss(self, logits: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        offset = 0
        logits = logits[:, self.kept]
        for head in task.HEADS:
            classes = task.HEAD_CLASSES[head]
            wanted = self.labels.head(head)[self.kept].expand(len(logits), -1)
            entropy = F.cross_entropy(
                logits[..., offset : offset + classes].flatten(0, 1),
                wanted.flatten(),
                reduction="none",
            )
            total = total + entropy.unflatten(0, (len(logits), -1)).mean(1)
            offset += classes
        assert isinstance(total, Tensor)
        return total

    def _walk(self, x: Tensor, site: str, record: bool = False) -> Tensor:
        """Logits [variants, batch, position, 51] from the residual stream x at `site` on."""
        for here in SITES[SITES.index(site) + 1 :]:
            kind, layer = here.split("_")[1:]
            normed = _rms_norm(x)
            if kind == "mid":
                x = x + self._attention(normed, layer, record)
            else:
                hidden = torch.relu(normed @ self._w[f"w_in_{layer}"])
                write = hidden @ self._w[f"w_out_{layer}"]
                x = x + write
                if record:
                    self._keys[f"mlp_{layer}"] = hidden[0]
                    self._parts.append(write[0])
            if record:
                self._sites[here] = x[0]
        return _rms_norm(x) @ self._unembed

    def _attention(self, x: Tensor, layer: str, record: bool) -> Tensor:
        shape = x.shape
        rows = x.flatten(0, 1)
        q, k, v = (
            (rows @ self._w[f"w_{n}_{layer}"]).unflatten(-1, (N_HEADS, D_HEAD)).transpose(1, 2)
            for n in "qkv"
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        w_o = self._w[f"w_o_{layer}"]
        if record:
            by_head = torch.einsum("bthk,hkd->hbtd", mixed, w_o.reshape(N_HEADS, D_HEAD, D_MODEL))
            self._parts.extend(by_head)
        return (mixed.flatten(-2) @ w_o).reshape(shape)


def _rms_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS)


def _order() -> list[str]:
    """Components in the order in which a run meets them."""
    return sorted(COMPONENTS, key=lambda name: SITES.index(SITE_AFTER[name]))


def mean_writes(folded: Folded, tokens: Tensor, chunk: int = 256) -> Tensor:
    """[components, width]: mean write of each component over kept positions of the tokens."""
    total: Tensor | float = 0.0
    for part in cropped(tokens).split(chunk):
        run = ToyRun(folded, part)
        total = total + run.writes[:, run.kept].double().sum(1)
    assert isinstance(total, Tensor)
    return (total / (tokens != task.PAD).sum()).to(folded.position)


def cropped(tokens: Tensor) -> Tensor:
    """Without the last positions, at which every sequence is padding."""
    return tokens[:, : int((tokens != task.PAD).any(0).sum())]


def readers(folded: Folded) -> Tensor:
    """[width, 51]: what the output heads read from the last site, each head around its mean (a
    constant added to all of a head's logits changes nothing)."""
    heads = [folded[f"unembed_{head}"][0] for head in task.HEADS]
    return torch.cat([w - w.mean(1, keepdim=True) for w in heads], dim=1)
