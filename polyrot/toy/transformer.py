"""The Dyck-3 transformer: many models as one batched program, every site open to edits.

Parameters are a flat dict of tensors with a leading model dimension, so that a cohort trains and
runs as one program; a single model is a cohort of one. Activations are [model, batch, position, d]
and weights act from the right (`x @ w`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from polyrot.runtime.relu import relu
from polyrot.toy import task

N_LAYERS = 2
D_MODEL = 64
N_HEADS = 4
D_HEAD = 16
D_MLP = 256
NORM_EPS = 1e-5
INIT_STD = 0.02
N_POSITION_DIMS = 6

SITES: tuple[str, ...] = (
    "resid_pre_0",
    "resid_mid_0",
    "resid_post_0",
    "resid_mid_1",
    "resid_post_1",
)
HEAD_NAMES = tuple(f"head_{layer}_{h}" for layer in range(N_LAYERS) for h in range(N_HEADS))
MLP_NAMES = tuple(f"mlp_{layer}" for layer in range(N_LAYERS))
COMPONENTS = HEAD_NAMES + MLP_NAMES

Params = dict[str, Tensor]
Edit = Callable[[Tensor], Tensor]
IO_NAMES = ("embed", *(f"unembed_{head}" for head in task.HEADS))


def shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every trainable tensor of one model."""
    out: dict[str, tuple[int, ...]] = {"embed": (task.VOCABULARY, D_MODEL)}
    for layer in range(N_LAYERS):
        out[f"norm_attn_{layer}"] = (D_MODEL,)
        for name in ("q", "k", "v", "o"):
            out[f"w_{name}_{layer}"] = (D_MODEL, D_MODEL)
        out[f"norm_mlp_{layer}"] = (D_MODEL,)
        out[f"w_in_{layer}"] = (D_MODEL, D_MLP)
        out[f"w_out_{layer}"] = (D_MLP, D_MODEL)
    out["norm_final"] = (D_MODEL,)
    for head in task.HEADS:
        out[f"unembed_{head}"] = (D_MODEL, task.HEAD_CLASSES[head])
    return out


def n_parameters(params: Mapping[str, Tensor]) -> int:
    """Trainable parameters of one model of the batch."""
    return sum(p[0].numel() for p in params.values())


def initialise(seeds: Sequence[int], device: torch.device | str = "cpu") -> Params:
    """Fresh weights, one model per seed: N(0, 0.02^2), gains of the norms 1.

    Drawn on the CPU so that a seed means the same weights on every device.
    """
    models: list[Params] = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        models.append(
            {
                name: torch.ones(shape)
                if name.startswith("norm")
                else INIT_STD * torch.randn(shape, generator=generator)
                for name, shape in shapes().items()
            }
        )
    return {name: torch.stack([m[name] for m in models]).to(device) for name in shapes()}


def select(params: Mapping[str, Tensor], models: Sequence[int]) -> Params:
    """The chosen models of a batch, as a smaller batch."""
    index = list(models)
    return {name: p[index] for name, p in params.items()}


def position_buffer(device: torch.device | str = "cpu") -> Tensor:
    """The fixed position features, [context, d_model], nonzero in the first six dimensions."""
    t = torch.arange(task.CONTEXT, dtype=torch.float64, device=device)
    angle = 2 * math.pi * t / task.CONTEXT
    columns = [
        t / task.CONTEXT,
        1 / (t + 1),
        torch.log(t + 1) / math.log(task.CONTEXT),
        (t == 0).double(),
        torch.cos(angle),
        torch.sin(angle),
    ]
    out = torch.zeros(task.CONTEXT, D_MODEL, dtype=torch.float64, device=device)
    out[:, :N_POSITION_DIMS] = torch.stack(columns, dim=1)
    return out.float()


@dataclass(frozen=True)
class Run:
    """What a forward pass returns.

    logits: head name -> [model, batch, position, classes].
    captured: site or component name -> [model, batch, position, d_model], after any edit to it.
    """

    logits: dict[str, Tensor]
    captured: dict[str, Tensor]


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """x / rms(x) * gain over the last dimension; gain [model, d]."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS)
    return x * scale * gain[:, None, None, :]


def _project(x: Tensor, w: Tensor) -> Tensor:
    """[model, batch, position, a] @ [model, a, b], one matrix product per model."""
    m, b, t, a = x.shape
    return torch.bmm(x.reshape(m, b * t, a), w).reshape(m, b, t, -1)


def attention_bias(segments: Tensor | None, length: int, device: torch.device) -> Tensor:
    """0 where attention may look (causal, within one segment), else -inf.

    segments: int64 [model, batch, position] or None.
    Returns [model, batch, 1, query, key], or [query, key] without segments.
    """
    allowed = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    if segments is not None:
        allowed = allowed & (segments[..., None, :, None] == segments[..., None, None, :])
    return torch.zeros(allowed.shape, device=device).masked_fill(~allowed, float("-inf"))


def _attention(
    params: Mapping[str, Tensor],
    layer: int,
    x: Tensor,
    bias: Tensor,
    per_head: bool,
    edit: Edit,
) -> Tensor:
    """The attention write [m, b, t, d], or per head [m, b, t, head, d]. edit: of the patterns
    [m, b, head, query, key], by which it attends then."""
    m, b, t, _ = x.shape
    w_qkv = torch.cat([params[f"w_{n}_{layer}"] for n in "qkv"], dim=-1)
    qkv = _project(x, w_qkv).reshape(m, b, t, 3, N_HEADS, D_HEAD)
    q, k, v = (qkv[:, :, :, i].permute(0, 1, 3, 2, 4).reshape(-1, t, D_HEAD) for i in range(3))
    scores = torch.bmm(q, k.transpose(1, 2)).reshape(m, b, N_HEADS, t, t)
    pattern = edit(torch.softmax(torch.add(bias, scores, alpha=D_HEAD**-0.5), dim=-1))
    mixed = torch.bmm(pattern.reshape(-1, t, t).to(v.dtype), v).reshape(m, b, N_HEADS, t, D_HEAD)
    mixed = mixed.permute(0, 1, 3, 2, 4)
    w_o = params[f"w_o_{layer}"]
    if not per_head:
        return _project(mixed.reshape(m, b, t, D_MODEL), w_o)
    w_heads = w_o.reshape(m, N_HEADS, D_HEAD, D_MODEL)
    return torch.einsum("mbthk,mhkd->mbthd", mixed, w_heads)


def forward(
    params: Mapping[str, Tensor],
    tokens: Tensor,
    *,
    positions: Tensor | None = None,
    segments: Tensor | None = None,
    bias: Tensor | None = None,
    edits: Mapping[str, Edit] | None = None,
    capture: Sequence[str] = (),
) -> Run:
    """Run every model of the batch.

    tokens: int64 [batch, position], the same for every model, or [model, batch, position].
    positions, segments: as in `task.Packed`, same leading shape as `tokens`; default is one
    sequence to a row.
    edits: site, component, `pattern_L`, `mlp_in_L`, `hidden_L` or `position` name -> a function of
    the tensor there, whose result takes its place; later computation sees it. `position` is the
    position feature [.., d_model] before it is added to the embedding, `pattern_L` is [model,
    batch, head, query, key] after the softmax.
    capture: names of the same kind to return, as they stand after their edit.

    Raises KeyError for a name that is no site or component.
    """
    edits = edits or {}
    extra = {f"{n}_{i}" for n in ("pattern", "mlp_in", "hidden") for i in range(N_LAYERS)}
    known = {*SITES, *COMPONENTS, *extra, "position"}
    unknown = sorted({*edits, *capture} - known)
    if unknown:
        raise KeyError(f"no such site or component: {', '.join(unknown)}; have {sorted(known)}")
    captured: dict[str, Tensor] = {}

    def pass_through(name: str, x: Tensor) -> Tensor:
        if name in edits:
            x = edits[name](x)
        if name in capture:
            captured[name] = x
        return x

    n_models = params["embed"].shape[0]
    if tokens.ndim == 2:
        tokens = tokens.expand(n_models, -1, -1)
    offset = task.VOCABULARY * torch.arange(n_models, device=tokens.device)[:, None, None]
    embedded = F.embedding(tokens + offset, params["embed"].reshape(-1, D_MODEL))
    buffer = position_buffer(tokens.device)
    position = buffer[: tokens.shape[-1]] if positions is None else buffer[positions]
    x = pass_through("resid_pre_0", embedded + pass_through("position", position))

    if bias is None:
        bias = attention_bias(segments, tokens.shape[-1], tokens.device)
    for layer in range(N_LAYERS):
        names = HEAD_NAMES[layer * N_HEADS : (layer + 1) * N_HEADS]
        per_head = any(n in edits or n in capture for n in names)
        normed = rms_norm(x, params[f"norm_attn_{layer}"])
        seen = partial(pass_through, f"pattern_{layer}")
        write = _attention(params, layer, normed, bias, per_head, seen)
        if per_head:
            parts = [pass_through(n, write[..., i, :]) for i, n in enumerate(names)]
            write = torch.stack(parts).sum(0)
        x = pass_through(f"resid_mid_{layer}", x + write)
        normed = pass_through(f"mlp_in_{layer}", rms_norm(x, params[f"norm_mlp_{layer}"]))
        hidden = relu(_project(normed, params[f"w_in_{layer}"]))
        hidden = pass_through(f"hidden_{layer}", hidden)
        write = pass_through(f"mlp_{layer}", _project(hidden, params[f"w_out_{layer}"]))
        x = pass_through(f"resid_post_{layer}", x + write)

    final = rms_norm(x, params["norm_final"])
    w_unembed = torch.cat([params[f"unembed_{head}"] for head in task.HEADS], dim=-1)
    logits = _project(final, w_unembed)
    split = torch.split(logits, [task.HEAD_CLASSES[h] for h in task.HEADS], dim=-1)
    return Run(dict(zip(task.HEADS, split, strict=True)), captured)
