"""Ways to carry a steering direction to a sibling, all tried in one batch of runs at dose 1.

Which of them steers tells what the carrying needs. By arm, with v [width] the anchor's direction,
rows of the sibling a and of the anchor b:

- `own`: the sibling's own difference of means in place of v: what steering can do there;
- `rotated`: v @ r.T, where a @ r ~ b;
- `scaled`, `affine`: v @ w, where b @ w ~ a; w is r.T with its least-squares scale, or any matrix.
  Fitted the way they are used, as the inverse of a fit the other way would amplify noise;
- `naive`: v as it is;
- `principal`: through principal axes matched by rank of variance: second moments alone. They do not
  tell the sign of an axis; N_DRAWS draws of all signs, each with its opposite, mean effect;
- `shuffled`: through Procrustes on tokens paired at random, N_DRAWS orders, mean effect.

One draw of signs or orders steers up or down by chance: hence the mean over draws. Effects are
signed (see `polyrot.measures.effects`); the steering is that of arXiv 2605.24577, section 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import pair_labels
from polyrot.cohorts.copies import TURN_SEED, RotatedCopy
from polyrot.cohorts.interventions import InterventionCohort
from polyrot.maps.moments import Moments, pair_moments
from polyrot.maps.null_space import haar_block
from polyrot.maps.procrustes import (
    Rotation,
    affine_from_moments,
    fit_from_moments,
    fit_rotation,
    principal_axes_from_moments,
    scaled_from_moments,
)
from polyrot.measured import Measured
from polyrot.measures.effects import (
    N_SEQUENCES,
    TARGETS,
    Effects,
    mean_over_pairs,
    steer,
    tokens_at_stake,
)
from polyrot.measures.fits import NULL_DRAWS_SEED
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact

ARMS = ("own", "rotated", "scaled", "affine", "naive", "principal", "shuffled")
DRAWN = ("principal", "shuffled")
"""Those whose map is drawn at random."""
COPIES = 8
"""Of the anchor, for ceilings: what an untouched direction does in one turned copy is chance."""
N_DRAWS = 32
"""One draw scatters by up to half of the effect in the anchor, the mean of so many by a tenth."""
RECIPE_VERSION = 1  # raise when a change of code changes what is measured


@dataclass(frozen=True)
class Arms:
    """What each arm does at dose 1.

    within: [contrasts], the direction's signed effect in the anchor, logits, and within_kl, nats.
    gain, kl: arm -> [contrasts, pairs], the same in siblings, of drawn arms the mean over draws.
    spread: drawn arm -> [contrasts, pairs], standard deviation of the gain over draws.
    targets: positions that a contrast's effects are averaged over.
    """

    contrasts: tuple[str, ...]
    pairs: tuple[str, ...]
    seeds: tuple[int, ...]
    targets: tuple[int, ...]
    draws: int
    within: np.ndarray
    within_kl: np.ndarray
    gain: Mapping[str, np.ndarray]
    kl: Mapping[str, np.ndarray]
    spread: Mapping[str, np.ndarray]

    def share(self, arm: str) -> np.ndarray:
        """[contrasts, pairs]: the arm's effect over that of the direction in the anchor."""
        return self.gain[arm] / self.within[:, None]

    def over_own(self) -> np.ndarray:
        """[contrasts, pairs]: the effect through R over that of the sibling's own direction."""
        return self.gain["rotated"] / self.gain["own"]

    def beyond(self, arm: str) -> np.ndarray:
        """[contrasts, pairs]: effect through R minus through `arm`, over that in the anchor."""
        return self.share("rotated") - self.share(arm)

    def to_artifact(self) -> Artifact:
        """Plain tensors and values, for the store."""
        tables = {"within": self.within, "within_kl": self.within_kl}
        for name in ("gain", "kl", "spread"):
            tables |= {f"{name}.{arm}": table for arm, table in getattr(self, name).items()}
        plain = ("contrasts", "pairs", "seeds", "targets", "draws")
        return Artifact(
            {name: torch.from_numpy(table) for name, table in tables.items()},
            {name: getattr(self, name) for name in plain},
        )

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Arms:
        """What `to_artifact` wrote."""
        found: dict[str, Any] = {"gain": {}, "kl": {}, "spread": {}}
        for name, tensor in artifact.tensors.items():
            table, _, arm = name.partition(".")
            if arm:
                found[table][arm] = tensor.numpy()
            else:
                found[table] = tensor.numpy()
        for name in ("contrasts", "pairs", "seeds", "targets"):
            found[name] = tuple(artifact.meta[name])
        return cls(**found, draws=artifact.meta["draws"])


@dataclass(frozen=True)
class SteeringArms:
    """The arms in siblings, and in perfect ones: exact copies of the anchor, Haar-turned."""

    siblings: Arms
    perfect: Arms

    def reaches_own(self) -> Measured:
        """Effect through R over that of the sibling's own direction, by direction."""
        return self._measured(self.siblings.over_own(), self.perfect.over_own())

    def beyond(self, arm: str) -> Measured:
        """Effect through R minus through `arm`, both over the anchor's, by direction."""
        return self._measured(self.siblings.beyond(arm), self.perfect.beyond(arm))

    def _measured(self, by_pair: np.ndarray, perfect: np.ndarray) -> Measured:
        """by_pair: [contrasts, pairs]. perfect: [contrasts, copies]: their means are ceilings."""
        found = self.siblings
        beside = {
            f"{arm}_{name}": float(row.mean())
            for arm in ARMS
            for name, row in zip(found.contrasts, found.share(arm), strict=True)
        }
        for arm in DRAWN:
            spread = found.spread[arm].mean(1) / abs(found.within)
            beside |= {
                f"sd_over_draws_{arm}_{name}": float(x)
                for name, x in zip(found.contrasts, spread, strict=True)
            }
        beside |= {
            f"targets_{n}": float(x) for n, x in zip(found.contrasts, found.targets, strict=True)
        }
        return Measured(
            by_pair.mean(1),
            found.contrasts,
            None,
            beside,
            {"models": list(found.seeds), "null draws": NULL_DRAWS_SEED},
            {"pairs": len(found.pairs), "draws of a null": found.draws},
            mean_over_pairs(by_pair),
        ).below(perfect.mean(1))

    def to_artifact(self) -> Artifact:
        """Plain tensors and values, for the store."""
        parts = {field.name: getattr(self, field.name).to_artifact() for field in fields(self)}
        return Artifact(
            {f"{part}/{name}": t for part, a in parts.items() for name, t in a.tensors.items()},
            {part: a.meta for part, a in parts.items()},
        )

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> SteeringArms:
        """What `to_artifact` wrote."""
        tensors: dict[str, dict[str, Tensor]] = {field.name: {} for field in fields(cls)}
        for name, tensor in artifact.tensors.items():
            part, _, rest = name.partition("/")
            tensors[part][rest] = tensor
        parts = {p: Arms.from_artifact(Artifact(t, artifact.meta[p])) for p, t in tensors.items()}
        return cls(**parts)


def carriers(
    cohort: InterventionCohort,
    rotations: Sequence[Rotation],
    draws: int = N_DRAWS,
    labels: Sequence[str] = (),
) -> list[dict[str, Tensor]]:
    """For each sibling, arm -> [maps, width, width], float64: v @ map is the anchor's direction v
    carried there. One map an arm, `draws` (even) of a drawn one; `own`, which carries nothing, is
    absent.

    rotations: from each sibling to the anchor at the steering site, fitted on the fit split, where
    the other maps are fitted, too. labels: of the pairs (default: theirs), by which maps are drawn.
    """
    labels = labels or pair_labels(cohort)
    site = cohort.steering_site
    anchor, *siblings = cohort.activations("fit", site)
    called = f"{cohort.scale}, {site}, steering arms"
    found = []
    for label, a, rotation in zip(labels, siblings, rotations, strict=True):
        (onto_anchor,) = pair_moments([a], anchor, auto=True, where=called)
        (back,) = pair_moments([anchor], a, auto=True, where=called)
        turned_back = replace(rotation, r=rotation.r.T)
        signs = torch_generator(NULL_DRAWS_SEED, "arms, signs", site, label, device=a.device)
        axes = [principal_axes_from_moments(onto_anchor, signs).r.T for _ in range(draws // 2)]
        maps = {
            "rotated": [rotation.r.T],
            "scaled": [scaled_from_moments(turned_back, back).w],
            "affine": [affine_from_moments(back).w],
            "naive": [torch.eye(cohort.width)],
            "principal": [sign * r for r in axes for sign in (1, -1)],
            "shuffled": [r.T for r in _unrelated(a, anchor, onto_anchor, site, label, draws)],
        }
        found.append(
            {arm: torch.stack([m.double().cpu() for m in each]) for arm, each in maps.items()}
        )
    return found


def _unrelated(
    a: Tensor, anchor: Tensor, moments: Moments, site: str, label: str, draws: int
) -> list[Tensor]:
    """Procrustes rotations of a sibling's rows onto the anchor's in `draws` random orders."""
    orders = torch_generator(NULL_DRAWS_SEED, "arms, shuffled tokens", site, label)
    crossed = []
    for _ in range(draws):
        mixed = a[torch.randperm(len(a), generator=orders).to(a.device)]
        (of_mixed,) = pair_moments([mixed], anchor, where="shuffled tokens")
        crossed.append(replace(moments, cross=of_mixed.cross))
    null = [torch_generator(NULL_DRAWS_SEED, "arms, null", site, label, i) for i in range(draws)]
    return [rotation.r for rotation in fit_from_moments(crossed, generators=null)]


def measure_arms(
    cohort: InterventionCohort,
    rotations: Sequence[Rotation],
    *,
    n_sequences: int = N_SEQUENCES,
    draws: int = N_DRAWS,
    labels: Sequence[str] = (),
) -> Arms:
    """Every arm of every contrast in every sibling, at dose 1; see `carriers` for the rest.

    Raises ValueError if there is not one rotation a sibling.
    """
    pairs = tuple(labels) or pair_labels(cohort)
    if len(rotations) != len(pairs):
        raise ValueError(f"{len(rotations)} rotations for {len(pairs)} siblings")
    maps = carriers(cohort, rotations, draws, pairs)
    within, targets = [], []
    rows: list[list[dict[str, tuple[float, float, float]]]] = []
    for name in cohort.contrasts:
        tokens, v = tokens_at_stake(cohort, name, n_sequences), cohort.direction(name)
        targets.append(int(cohort.target(name, tokens).where.sum()))
        anchor = steer(cohort, 0, tokens, name, v[:1])
        within.append((float(anchor.gain[0]), float(anchor.kl[0])))
        row = []
        for m, of_sibling in enumerate(maps, start=1):
            vectors = {arm: v[0].double().cpu() @ each for arm, each in of_sibling.items()}
            vectors["own"] = v[m].double().cpu()[None]
            stacked = torch.cat([vectors[arm] for arm in ARMS]).to(v)
            row.append(_by_arm(steer(cohort, m, tokens, name, stacked), vectors))
        rows.append(row)

    def table(i: int, arms: Sequence[str] = ARMS) -> dict[str, np.ndarray]:
        return {arm: np.array([[pair[arm][i] for pair in row] for row in rows]) for arm in arms}

    own_gain, own_kl = np.array(within).T
    return Arms(
        tuple(cohort.contrasts),
        pairs,
        tuple(cohort.seeds),
        tuple(targets),
        draws,
        own_gain,
        own_kl,
        table(0),
        table(1),
        table(2, DRAWN),
    )


def _by_arm(found: Effects, vectors: Mapping[str, Tensor]) -> dict[str, tuple[float, float, float]]:
    """Mean gain, mean KL and standard deviation of the gain over an arm's maps."""
    by_arm, first = {}, 0
    for arm in ARMS:
        part = slice(first, first + len(vectors[arm]))
        gain, first = found.gain[part], part.stop
        spread = float(gain.std(ddof=1)) if len(gain) > 1 else 0.0
        by_arm[arm] = float(gain.mean()), float(found.kl[part].mean()), spread
    return by_arm


def measure_perfect_arms(
    cohort: InterventionCohort,
    *,
    n_sequences: int = N_SEQUENCES,
    draws: int = N_DRAWS,
    copies: int = COPIES,
) -> Arms:
    """`measure_arms` of exact copies of the cohort's anchor, each Haar-turned its own way; the
    `draws` are shared out among them, two each at least."""
    found = []
    for i in range(copies):
        q = haar_block(cohort.width, torch_generator(TURN_SEED, "steering arms", i))
        copy = RotatedCopy(cohort, q)
        anchor, sibling = copy.activations("fit", copy.steering_site)
        rotation, called = fit_rotation(sibling, anchor), (f"copy {i}",)
        few = max(2, draws // copies)
        found.append(
            measure_arms(copy, [rotation], n_sequences=n_sequences, draws=few, labels=called)
        )

    def table(name: str) -> dict[str, np.ndarray]:
        first: Mapping[str, np.ndarray] = getattr(found[0], name)
        return {arm: np.concatenate([getattr(x, name)[arm] for x in found], 1) for arm in first}

    return replace(
        found[0],
        pairs=tuple(label for each in found for label in each.pairs),
        gain=table("gain"),
        kl=table("kl"),
        spread=table("spread"),
    )


def recipe(cohort: InterventionCohort) -> dict[str, object]:
    """What decides `measure_arms` and `measure_perfect_arms`, with defaults, for a fingerprint."""
    return {
        "version": RECIPE_VERSION,
        "cohort": cohort.fingerprint,
        "contrasts": list(cohort.contrasts),
        "sequences": [N_SEQUENCES, TARGETS],
        "draws": [N_DRAWS, NULL_DRAWS_SEED],
        "copies": [COPIES, TURN_SEED],
    }
