"""A pipeline with the names of the paper's, written as plainly as possible from its protocol.

Independent of the suite: NumPy, loops and autograd, one model and often one sequence at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MODEL = '''
import numpy as np
import torch
from torch import nn


class Part(nn.Module):
    def __init__(self, **shapes):
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        heads = {f"W_{n}": (4, 16, 64) for n in "QKV"}
        self.ln1, self.ln2 = Part(gain=(64,)), Part(gain=(64,))
        self.attn = Part(**heads, W_O=(4, 64, 16))
        self.mlp = Part(W_in=(256, 64), W_out=(64, 256))


class Network(Part):
    def __init__(self):
        super().__init__(W_E=(40, 64), W_U_tok=(40, 64), W_U_depth=(9, 64), W_U_valid=(2, 64))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.ln_f = Part(gain=(64,))
        places = np.zeros((64, 64), dtype=np.float32)
        for t in range(64):
            turn = 2 * np.pi * t / 64
            shares = [t / 64, 1 / (t + 1), np.log(t + 1) / np.log(64), t == 0]
            places[t, :6] = [*shares, np.cos(turn), np.sin(turn)]
        self.register_buffer("W_pos", torch.from_numpy(places))

    def walk(self, tokens, write=lambda name, x: x):
        """Logits and residual sites; `write` may change what a component adds."""
        n = tokens.shape[1]
        x = self.W_E[tokens] + self.W_pos[:n]
        sites = {"resid_pre_0": x}
        for i, block in enumerate(self.blocks):
            seen, total = norm(x, block.ln1.gain), 0
            for h in range(4):
                q, k, v = (seen @ getattr(block.attn, f"W_{c}")[h].T for c in "QKV")
                scores = q @ k.transpose(1, 2) / 4
                scores = scores + torch.full((n, n), -1e30).triu(1)
                out = scores.softmax(-1) @ v @ block.attn.W_O[h].T
                total = total + write(f"attn_{i}_h{h}", out)
            x = x + total
            sites[f"resid_mid_{i}"] = x
            hidden = (norm(x, block.ln2.gain) @ block.mlp.W_in.T).clamp(min=0)
            x = x + write(f"mlp_{i}", hidden @ block.mlp.W_out.T)
            sites[f"resid_post_{i}"] = x
        last = norm(x, self.ln_f.gain)
        heads = ("tok", "depth", "valid")
        return {name: last @ getattr(self, f"W_U_{name}").T for name in heads}, sites

    def forward(self, tokens):
        return self.walk(tokens)[0]


def norm(x, gain):
    return x / ((x**2).mean(-1, keepdim=True) + 1e-5).sqrt() * gain


def make_model(cfg=None, seed=None):
    return Network()
'''

TASK = """
import torch


def label_sequence(tokens):
    depth, valid = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for row in range(len(tokens)):
        stack, invalid = [], False
        for t, token in enumerate(tokens[row].tolist()):
            if token >= 3 and not invalid:
                family, opens = (token - 3) // 2, token % 2 == 1
                if opens and len(stack) == 8:
                    invalid = True
                elif opens:
                    stack.append(family)
                elif stack and stack[-1] == family:
                    stack.pop()
                else:
                    invalid = True
            depth[row, t], valid[row, t] = len(stack), invalid
    return {"tok": tokens, "depth": depth, "valid": valid, "mask": tokens != 0}
"""

FOLD = """
import copy

import torch


def fold_rmsnorm(model):
    made = copy.deepcopy(model)
    with torch.no_grad():
        for block in made.blocks:
            for name in ("W_Q", "W_K", "W_V"):
                getattr(block.attn, name).mul_(block.ln1.gain)
            block.mlp.W_in.mul_(block.ln2.gain)
            block.ln1.gain.fill_(1)
            block.ln2.gain.fill_(1)
        for name in ("tok", "depth", "valid"):
            getattr(made, f"W_U_{name}").mul_(made.ln_f.gain)
        made.ln_f.gain.fill_(1)
    return made
"""

UTILS = """
import torch


@torch.no_grad()
def evaluate_outputs(model, batch, device="cuda"):
    logits, found = model(batch["tok"]), {}
    counted = batch["mask"]
    for head in ("tok", "depth", "valid"):
        right = logits[head].argmax(-1) == batch[head]
        found[f"acc_{head}"] = int((right & counted).sum()) / int(counted.sum())
    return found


@torch.no_grad()
def collect_acts_flat(model, sites, batch, device="cuda"):
    _, found = model.walk(batch["tok"])
    return {site: found[site][batch["mask"]] for site in sites}
"""

SAES = """
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..model import Part


@dataclass
class SAEConfig:
    d_in: int = 64
    expansion: int = 8


class SAE(Part):
    def __init__(self, cfg):
        d, f = cfg.d_in, cfg.d_in * cfg.expansion
        super().__init__(pre_bias=(d,), W_enc=(f, d), b_enc=(f,), W_dec=(d, f))

    def forward(self, x):
        features = ((x - self.pre_bias) @ self.W_enc.T + self.b_enc).clamp(min=0)
        return features @ self.W_dec.T + self.pre_bias, features


def cross_seed_feature_stability(state_a, state_b, threshold=0.5):
    a, b = (state["W_dec"].numpy().astype(float) for state in (state_a, state_b))
    best = []
    for u in a.T:
        best.append(max((u @ b) / np.linalg.norm(u) / np.linalg.norm(b, axis=0)))
    return {
        "fraction_stable": np.mean(np.array(best) > threshold),
        "mean_max_cos": np.mean(best),
    }
"""

AUDIT = """
import numpy as np
import scipy.linalg
import torch


@torch.no_grad()
def sae_metrics(sae, acts):
    error = (sae(acts)[0] - acts).double().numpy()
    x = acts.double().numpy()
    return {"explained_var": 1 - np.mean(error**2) / x.var(ddof=1)}


def best_orthogonal(acts_src, acts_tgt):
    a, b = (x.double().numpy() for x in (acts_src, acts_tgt))
    r, _ = scipy.linalg.orthogonal_procrustes(a - a.mean(0), b - b.mean(0))
    return torch.from_numpy(r).to(acts_src.dtype)
"""

SPECTRUM = """
import numpy as np
import scipy.optimize
import scipy.stats


def eigen_angles(R):
    return np.abs(np.angle(np.linalg.eigvals(R.numpy())))


def ks_test_uniform(thetas, haar_thetas):
    gaps = [(thetas <= x).mean() - (haar_thetas <= x).mean() for x in [*thetas, *haar_thetas]]
    p = scipy.stats.ks_2samp(thetas, haar_thetas).pvalue
    return {"ks_stat": max(np.abs(gaps)), "ks_pvalue": p}


def best_permutation_distance(R):
    r = R.numpy()
    size = np.abs(r)
    rows, columns = scipy.optimize.linear_sum_assignment(-size)
    p = np.zeros_like(r)
    p[rows, columns] = np.sign(r[rows, columns])
    return np.linalg.norm(r - p)
"""

CAUSAL = '''
import torch
import torch.nn.functional as F


def loss_at(model, batch, name, mean, share):
    """Loss with a component `share` of the way from its clean write to its mean, and its slope."""
    share = torch.tensor(share, dtype=torch.float64, requires_grad=True)

    def write(here, x):
        if here != name:
            return x
        return x.detach() + share * (mean - x.detach())

    logits, _ = model.walk(batch["tok"], write)
    keep = batch["mask"]
    loss = sum(F.cross_entropy(logits[h][keep], batch[h][keep]) for h in ("tok", "depth", "valid"))
    return float(torch.autograd.grad(loss, share)[0])


def attribution_patch(model, batch, means, device="cuda"):
    found = {name: loss_at(model, batch, name, mean, 0.0) for name, mean in means.items()}
    return {"predicted_effects": found}


def integrated_gradients_patch(
    model, batch, means, n_steps=32, per_component=True, device="cuda"
):
    points = [1 - k / n_steps for k in range(1, n_steps + 1)]
    return {
        name: sum(loss_at(model, batch, name, mean, f) for f in points) / n_steps
        for name, mean in means.items()
    }
'''

PARAMETRIC = """
import numpy as np


def per_tensor_mse(p_aligned, p_ref):
    def mse(name):
        gap = p_aligned[name].numpy() - p_ref[name].numpy()
        return float(np.mean(gap.astype(float) ** 2))

    return {name: {"mse": mse(name)} for name in p_ref}
"""

FILES: Mapping[str, str] = {
    "__init__.py": "",
    "model.py": MODEL,
    "task.py": TASK,
    "rmsnorm_fold.py": FOLD,
    "analysis/lens2_saes.py": SAES,
    "analysis/lens3_causal.py": CAUSAL,
    "experiments/cross_seed/utils.py": UTILS,
    "experiments/cross_seed/exp1d_rotation_audit.py": AUDIT,
    "experiments/scale/eigenvalue_spectrum.py": SPECTRUM,
    "verification/bar_parametric.py": PARAMETRIC,
}


def write(directory: Path, *changes: tuple[str, str, str]) -> Path:
    """The stub as a checkout below `directory`. changes: (file, text, its replacement)."""
    files = dict(FILES)
    for file, old, new in changes:
        assert files[file].count(old) == 1, f"{file} has {old!r} {files[file].count(old)} times"
        files[file] = files[file].replace(old, new)
    for file, text in files.items():
        path = directory / "src" / "polymorphism" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return directory
