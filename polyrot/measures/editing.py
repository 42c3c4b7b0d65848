"""Rank-one edits of an MLP's output weight, and what becomes of them in a sibling.

As in ROME (Meng et al. 2022, arXiv 2202.05262): with h [d_mlp] what the output weight reads and
C = E[h h^T] over the data, the edit that answers a key k with the change delta [width] and disturbs
other inputs least is w + u delta^T, u = C^-1 k / (k^T C^-1 k). So it writes (h . u) delta more,
which is how it is computed here: as a vector added right after the MLP.

An edit has a factor in each of two spaces. The rotation of the claim is the residual stream's,
`a @ r ~ b`, so its rotated edit is (u, delta @ r.T): `rotated`. It reads the sibling's neurons in
the anchor's order, which no rotation of the stream sets right. `both_rotated` is the alternative
that could show the claim empty: the neurons too have a map to the anchor's, h_a @ q ~ h_b
(Procrustes without centring, as there is no bias to carry a mean), and (u @ q.T, delta @ r.T)
carries both factors. All maps are fitted on the fit split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import pair_labels
from polyrot.cohorts.interventions import CleanRun, InterventionCohort
from polyrot.maps.procrustes import Rotation
from polyrot.measured import Measured
from polyrot.measures.effects import (
    N_SEQUENCES,
    TARGETS,
    Effects,
    effects,
    mean_over_pairs,
    rotated_direction,
    tokens_at_stake,
)
from polyrot.store import Artifact

N_KEYS = 320
"""Sequences of the fit split that keys and their covariance are taken on."""
RIDGE = 1e-3
"""Added to the covariance, in units of its mean variance: dead neurons make it singular."""
CHUNK = 128
ARMS = ("naive", "rotated", "both_rotated", "own")
EFFECTS = ("gain", "accuracy", "damage")
RECIPE_VERSION = 2  # raise when a change of code changes what is measured


@dataclass(frozen=True)
class RankOne:
    """w + u delta^T for an output weight w [d_mlp, width] with outputs h @ w.

    u: [d_mlp]. delta: [width].
    """

    mlp: str
    u: Tensor
    delta: Tensor

    def change(self) -> Tensor:
        """[d_mlp, width], what is added to the weight."""
        return torch.outer(self.u, self.delta)

    def shift(self, run: CleanRun) -> Tensor:
        """What the edited MLP writes more, [1, batch, position, width]."""
        return ((run.keys(self.mlp) @ self.u)[..., None] * self.delta)[None]


def rank_one(mlp: str, key: Tensor, covariance: Tensor, delta: Tensor) -> RankOne:
    """The edit that writes `delta` [width] more at `key` [d_mlp] and least elsewhere.

    covariance: E[h h^T], uncentred, [d_mlp, d_mlp]. Raises ValueError: shapes, a key of norm 0,
    values that are not finite.
    """
    d = len(key)
    if key.ndim != 1 or covariance.shape != (d, d) or delta.ndim != 1:
        raise ValueError(
            f"key {list(key.shape)}, covariance {list(covariance.shape)}, change "
            f"{list(delta.shape)}: expected [d_mlp], [d_mlp, d_mlp], [width]"
        )
    if not all(bool(x.isfinite().all()) for x in (key, covariance, delta)) or not key.any():
        raise ValueError("a key must not be 0, and key, covariance and change must be finite")
    wide = covariance.double()
    ridge = RIDGE * wide.diagonal().mean() * torch.eye(d, dtype=torch.float64, device=key.device)
    solved = torch.linalg.solve(wide + ridge, key.double())
    return RankOne(mlp, (solved / (solved @ key.double())).to(delta), delta)


def key_rotation(cross: Tensor) -> Tensor:
    """Orthogonal q [d_mlp, d_mlp] with h_a @ q ~ h_b, from cross = E[h_a h_b^T], uncentred."""
    u, _, vh = torch.linalg.svd(cross.double())
    return u @ vh


@dataclass(frozen=True)
class Keys:
    """First and second moments of what an output weight reads, float64.

    covariance: [models, d_mlp, d_mlp], uncentred. cross: [models, d_mlp, d_mlp], each model (rows)
    with the anchor (columns). mean: contrast -> [models, d_mlp], over the contrast's target.
    """

    covariance: Tensor
    cross: Tensor
    mean: Mapping[str, Tensor]


@torch.no_grad()
def key_moments(cohort: InterventionCohort, mlp: str, n_sequences: int = N_KEYS) -> Keys:
    """Moments of the inputs of `mlp`'s output weight over the first sequences of the fit split.

    Raises KeyError for an unknown MLP, ValueError where a contrast has no target there.
    """
    if mlp not in cohort.mlps:
        raise KeyError(f"no MLP {mlp!r}; have {', '.join(cohort.mlps)}")
    n_models = len(cohort.seeds)
    auto: list[Tensor | float] = [0.0] * n_models
    cross: list[Tensor | float] = [0.0] * n_models
    sums: dict[str, list[Tensor | float]] = {c: [0.0] * n_models for c in cohort.contrasts}
    kept, hits = 0, dict.fromkeys(cohort.contrasts, 0)
    for part in cohort.tokens("fit")[:n_sequences].split(CHUNK):
        runs = [cohort.clean_run(m, part) for m in range(n_models)]
        keys = [run.keys(mlp) for run in runs]
        flat = [k[run.kept] for k, run in zip(keys, runs, strict=True)]
        kept += len(flat[0])
        for m, h in enumerate(flat):
            auto[m] = auto[m] + (h.T @ h).double()
            cross[m] = cross[m] + (h.T @ flat[0]).double()
        for name in cohort.contrasts:
            where = cohort.target(name, part).where & runs[0].kept
            hits[name] += int(where.sum())
            for m, k in enumerate(keys):
                sums[name][m] = sums[name][m] + k[where].double().sum(0)
    missing = [name for name, n in hits.items() if not n]
    if missing:
        raise ValueError(f"no target of {', '.join(missing)} among the keys: use more sequences")
    return Keys(
        _stack(auto) / kept,
        _stack(cross) / kept,
        {name: _stack(found) / hits[name] for name, found in sums.items()},
    )


def _stack(parts: Sequence[Tensor | float]) -> Tensor:
    return torch.stack([torch.as_tensor(part) for part in parts])


@dataclass(frozen=True)
class Edits:
    """What edits made for the anchor do there (`within`) and in siblings, by arm.

    Every table [contrasts, pairs]; within [contrasts, 1]. naive: factors as they are.
    rotated: delta by the stream's rotation, u as it is. both_rotated: u through the neurons' map
    too. own: made from the sibling's own key
    and direction. gain, accuracy: efficacy on the target. damage: KL elsewhere, nats.
    """

    contrasts: tuple[str, ...]
    pairs: tuple[str, ...]
    mlp: str
    gain: Mapping[str, np.ndarray]
    accuracy: Mapping[str, np.ndarray]
    damage: Mapping[str, np.ndarray]
    seeds: tuple[int, ...]
    sequences: int

    def to_artifact(self) -> Artifact:
        """Plain tensors and values, for the store."""
        tables = {
            f"{what}.{arm}": torch.from_numpy(table)
            for what in EFFECTS
            for arm, table in getattr(self, what).items()
        }
        plain = ("contrasts", "pairs", "mlp", "seeds", "sequences")
        return Artifact(tables, {name: getattr(self, name) for name in plain})

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Edits:
        """What `to_artifact` wrote."""
        found: dict[str, dict[str, np.ndarray]] = {what: {} for what in EFFECTS}
        for name, tensor in artifact.tensors.items():
            what, _, arm = name.partition(".")
            found[what][arm] = tensor.numpy()
        plain: Any = {n: tuple(artifact.meta[n]) for n in ("contrasts", "pairs", "seeds")}
        tables: Any = found
        more: Any = {name: artifact.meta[name] for name in ("mlp", "sequences")}
        return cls(**plain, **tables, **more)

    def transfer(self, arm: str = "rotated") -> Measured:
        """Effect of the edit in siblings over its effect in the anchor, by contrast."""
        ratio = {name: self.gain[name] / self.gain["within"] for name in ARMS}
        beside = {
            f"{name}_{contrast}": float(row.mean())
            for name in ARMS
            for contrast, row in zip(self.contrasts, ratio[name], strict=True)
        }
        for name in ("within", arm):
            beside |= {
                f"damage_{name}_{contrast}": float(row.mean())
                for contrast, row in zip(self.contrasts, self.damage[name], strict=True)
            }
        return Measured(
            ratio[arm].mean(1),
            self.contrasts,
            None,
            beside,
            {"models": list(self.seeds)},
            {"pairs": len(self.pairs), "sequences at least": self.sequences},
            mean_over_pairs(ratio[arm]),
        )


def recipe(cohort: InterventionCohort) -> dict[str, object]:
    """What decides `measure` with its defaults, for a fingerprint."""
    return {
        "version": RECIPE_VERSION,
        "cohort": cohort.fingerprint,
        "contrasts": list(cohort.contrasts),
        "sequences": [N_SEQUENCES, TARGETS, N_KEYS],
        "ridge": RIDGE,
    }


def measure_edits(
    cohort: InterventionCohort,
    rotations: Mapping[str, Sequence[Rotation]],
    *,
    mlp: str | None = None,
    n_sequences: int = N_SEQUENCES,
) -> Edits:
    """Edit `mlp` (default: the last) of the anchor for every contrast, and carry the edits over.

    The key is the mean input on the contrast's target, the change its direction at the site after
    the MLP, dose 1. rotations: site -> one per sibling, fitted on the fit split.
    Raises ValueError if there is not one rotation a sibling; as `key_moments`.
    """
    mlp = list(cohort.mlps)[-1] if mlp is None else mlp
    keys = key_moments(cohort, mlp)
    site = cohort.mlps[mlp]
    pairs = pair_labels(cohort)
    if len(rotations[site]) != len(pairs):
        raise ValueError(f"{len(rotations[site])} rotations for {len(pairs)} siblings")
    turns = [key_rotation(cross) for cross in keys.cross[1:]]
    found: dict[str, list[list[Effects]]] = {arm: [] for arm in ("within", *ARMS)}
    for name in cohort.contrasts:
        tokens = tokens_at_stake(cohort, name, n_sequences)
        directions = cohort.direction(name, site)
        own = [
            rank_one(mlp, k, c, v)
            for k, c, v in zip(keys.mean[name], keys.covariance, directions, strict=True)
        ]
        u, delta = own[0].u, own[0].delta
        rows: dict[str, list[Effects]] = {arm: [] for arm in found}
        rows["within"].append(effects(cohort, 0, tokens, name, site, own[0].shift))
        for m, (rotation, q) in enumerate(zip(rotations[site], turns, strict=True), start=1):
            value, key = rotated_direction(delta, rotation), u @ q.to(u).T
            arms = {
                "naive": own[0],
                "rotated": RankOne(mlp, u, value),
                "both_rotated": RankOne(mlp, key, value),
                "own": own[m],
            }
            for arm, edit in arms.items():
                rows[arm].append(effects(cohort, m, tokens, name, site, edit.shift))
        for arm, row in rows.items():
            found[arm].append(row)

    def table(what: str) -> dict[str, np.ndarray]:
        return {
            arm: np.array([[float(getattr(e, what)[0]) for e in row] for row in rows])
            for arm, rows in found.items()
        }

    return Edits(
        cohort.contrasts,
        pairs,
        mlp,
        table("gain"),
        table("accuracy"),
        table("kl_elsewhere"),
        tuple(cohort.seeds),
        len(cohort.intervention_tokens(n_sequences)),
    )
