"""Dose curves of steering in the anchor and its siblings, and what the claims ask of them.

See `polyrot.measures.effects` for the effects and for arXiv 2605.24577's section 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import pair_labels
from polyrot.cohorts.copies import RotatedCopy
from polyrot.cohorts.interventions import InterventionCohort
from polyrot.maps.procrustes import Rotation, fit_rotation
from polyrot.measured import Interval, Measured, Unit
from polyrot.measures.effects import (
    BEYOND,
    DOSES,
    N_RANDOM,
    N_SEQUENCES,
    RANDOM_SEED,
    TARGETS,
    DoseNeeded,
    Effects,
    dose_needed,
    mean_over_pairs,
    random_directions,
    ratio_of_doses,
    rotated_direction,
    steer,
    tokens_at_stake,
)
from polyrot.store import Artifact

Arm = Literal["naive", "rotated", "own"]
ARMS = ("within", "naive", "rotated", "own")
NULLS = ("random_kl", "random_sd", "beside_random", "norms")
RECIPE_VERSION = 3  # raise when a change of code changes what is measured


@dataclass(frozen=True)
class Curves:
    """Effects by contrast, model and dose, each [contrasts, models, doses]."""

    gain: np.ndarray
    accuracy: np.ndarray
    kl: np.ndarray


@dataclass(frozen=True)
class Steering:
    """Dose curves of the paper's directions: in the anchor (`within`, one model) and in siblings.

    naive: the anchor's direction as it is. rotated: carried by the Procrustes rotation. own: the
    sibling's own difference of means, what steering can do there at all. random_kl: [contrasts,
    pairs, paper's doses], mean KL of random directions of the norm of dose times direction, and
    random_sd over them, on the first `sequences`; beside_random: on the very same ones, that of the
    anchor's direction. targets: positions that a contrast's effects are averaged over.
    """

    contrasts: tuple[str, ...]
    doses: tuple[float, ...]
    pairs: tuple[str, ...]
    within: Curves
    naive: Curves
    rotated: Curves
    own: Curves
    random_kl: np.ndarray
    random_sd: np.ndarray
    beside_random: np.ndarray
    norms: np.ndarray
    seeds: tuple[int, ...]
    sequences: int
    targets: tuple[int, ...]

    def to_artifact(self) -> Artifact:
        """Plain tensors and values, for the store."""
        tables = {
            f"{arm}.{name}": table
            for arm in ARMS
            for name, table in vars(getattr(self, arm)).items()
        }
        tables |= {name: getattr(self, name) for name in NULLS}
        plain = ("contrasts", "doses", "pairs", "seeds", "sequences", "targets")
        return Artifact(
            {name: torch.from_numpy(table) for name, table in tables.items()},
            {name: getattr(self, name) for name in plain},
        )

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Steering:
        """What `to_artifact` wrote."""
        t = {name: tensor.numpy() for name, tensor in artifact.tensors.items()}
        meta = artifact.meta
        curves: Any = {
            arm: Curves(*(t[f"{arm}.{name}"] for name in ("gain", "accuracy", "kl")))
            for arm in ARMS
        }
        lists = ("contrasts", "doses", "pairs", "seeds", "targets")
        plain: Any = {name: tuple(meta[name]) for name in lists}
        nulls: Any = {name: t[name] for name in NULLS}
        return cls(
            **plain,
            **curves,
            **nulls,
            sequences=meta["sequences"],
        )

    def _arm(self, arm: Arm) -> Curves:
        return {"naive": self.naive, "rotated": self.rotated, "own": self.own}[arm]

    def _measured(
        self,
        by_pair: np.ndarray,
        labels: Sequence[str],
        beside: Mapping[str, float | str],
        unit: Unit = "real",
    ) -> Measured:
        """by_pair: [values, pairs]; the mean over pairs is the value."""
        return self._given(by_pair.mean(1), labels, mean_over_pairs(by_pair, unit), unit, beside)

    def _given(
        self,
        values: np.ndarray,
        labels: Sequence[str],
        intervals: tuple[Interval | None, ...],
        unit: Unit,
        beside: Mapping[str, float | str],
    ) -> Measured:
        return Measured(
            values,
            tuple(labels),
            None,
            beside,
            {"models": list(self.seeds), "random directions": RANDOM_SEED},
            {"pairs": len(self.pairs), "sequences at least": self.sequences},
            intervals,
            unit,
        )

    def signed_ratio(self, contrast: str, dose: float, arm: Arm = "naive") -> Measured:
        """Effect on the contrast in siblings over that in the anchor, mean over pairs."""
        i, j = self.contrasts.index(contrast), self.doses.index(dose)
        curves = self._arm(arm)
        ratio = curves.gain[i] / self.within.gain[i]
        # Past the peak of the anchor's curve a ratio near 1 is no sign that curves agree.
        curve = {
            f"ratio_at_{d:g}": float(r) for d, r in zip(self.doses, ratio.mean(0), strict=True)
        }
        beside = curve | {
            "within_gain": float(self.within.gain[i, 0, j]),
            "within_accuracy": float(self.within.accuracy[i, 0, j]),
            "cross_accuracy": float(curves.accuracy[i, :, j].mean()),
            "kl_ratio": float((curves.kl[i, :, j] / self.within.kl[i, 0, j]).mean()),
            "targets": float(self.targets[i]),
            "own_ratio": float((self.own.gain[i, :, j] / self.within.gain[i, 0, j]).mean()),
        }
        return self._measured(ratio[None, :, j], [contrast], beside)

    def signed_ratios(self, arm: Arm = "naive", doses: Sequence[float] = DOSES) -> Measured:
        """`signed_ratio` of every direction, mean over pairs and `doses`."""
        at = [self.doses.index(dose) for dose in doses]
        curves = self._arm(arm)
        ratio = (curves.gain / self.within.gain)[:, :, at].mean(2)
        other = (self.naive.gain / self.within.gain)[:, :, at].mean((1, 2))
        beside = {f"naive_{name}": float(x) for name, x in zip(self.contrasts, other, strict=True)}
        beside |= {
            f"targets_{n}": float(x) for n, x in zip(self.contrasts, self.targets, strict=True)
        }
        return self._measured(ratio, self.contrasts, beside)

    def kl_ratios(self) -> Measured:
        """KL in siblings over KL in the anchor, every direction at each of the paper's doses."""
        n = len(DOSES)
        ratio = (self.naive.kl / self.within.kl)[:, :, :n]
        labels = [f"{name} at {dose:g}" for name in self.contrasts for dose in DOSES]
        by_pair = ratio.transpose(0, 2, 1).reshape(-1, len(self.pairs))
        return self._measured(by_pair, labels, {}, "positive")

    def against_random(self, alike: Steering) -> Measured:
        """KL in siblings over the mean KL of random directions of equal norm, every direction,
        mean over pairs and the paper's doses.

        alike: the same of a copy of the anchor in its own basis, recorded beside. It is no ceiling:
        what is read out more in a sibling than in the anchor lies above it.
        """
        ratio, same = ((s.beside_random / s.random_kl).mean(2) for s in (self, alike))
        beside = {"random_relative_sd": float((self.random_sd / self.random_kl).mean())}
        beside |= {
            f"in_the_anchor_{name}": float(row.mean())
            for name, row in zip(self.contrasts, same, strict=True)
        }
        return self._measured(ratio, self.contrasts, beside, "positive")

    def dose_ratio(self, contrast: str, reference: float = 1.0) -> Measured:
        """Dose at which the siblings' mean curve reaches the anchor's effect at `reference`, over
        `reference`. Where no dose does, the largest tried, as a bound: its interval is open."""
        i, j = self.contrasts.index(contrast), self.doses.index(reference)
        effect, curves = float(self.within.gain[i, 0, j]), self.naive.gain[i]

        def of(chosen: np.ndarray) -> DoseNeeded:
            return dose_needed(self.doses, chosen.mean(0).tolist(), effect)

        needed, n = of(curves), len(curves)
        rest = [of(np.delete(curves, k, axis=0)) for k in range(n if n > 1 else 0)]
        beside: dict[str, float | str] = {
            "within_gain": effect,
            "pairs_that_never_reach_it": float(sum(of(c[None]).censored for c in curves)),
            "without_one_pair_never_reached": float(sum(d.censored for d in rest)),
        }
        value, interval = ratio_of_doses(needed, rest, reference)
        if needed.censored:
            beside["bound"] = f"at least {value:g}: never reached"
        return self._given(np.array([value]), [contrast], (interval,), "positive", beside)


@dataclass(frozen=True)
class Perfect:
    """Steering of exact copies of the anchor. turned: of a Haar-rotated one, at dose 1: the ceiling
    of what goes through R. alike: of one in the anchor's own basis: that of what goes untouched."""

    turned: Steering
    alike: Steering

    def to_artifact(self) -> Artifact:
        """Plain tensors and values, for the store."""
        parts = {"turned": self.turned.to_artifact(), "alike": self.alike.to_artifact()}
        return Artifact(
            {f"{part}.{name}": t for part, a in parts.items() for name, t in a.tensors.items()},
            {part: a.meta for part, a in parts.items()},
        )

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Perfect:
        """What `to_artifact` wrote."""

        def part(name: str) -> Steering:
            prefix = f"{name}."
            tensors = {
                key.removeprefix(prefix): tensor
                for key, tensor in artifact.tensors.items()
                if key.startswith(prefix)
            }
            return Steering.from_artifact(Artifact(tensors, artifact.meta[name]))

        return cls(part("turned"), part("alike"))


def measure_perfect(
    cohort: InterventionCohort, *, n_sequences: int = N_SEQUENCES, n_random: int = N_RANDOM
) -> Perfect:
    """`measure_steering` of exact copies of the cohort's anchor."""
    turned = RotatedCopy(cohort)
    alike = RotatedCopy(cohort, torch.eye(cohort.width))

    def steered(copy: RotatedCopy, doses: Sequence[float], n: int) -> Steering:
        anchor, sibling = copy.activations("fit", copy.steering_site)
        rotation = fit_rotation(sibling, anchor)
        return measure_steering(copy, [rotation], n_sequences=n_sequences, n_random=n, doses=doses)

    return Perfect(steered(turned, (1.0,), 2), steered(alike, DOSES, n_random))


def measure_steering(
    cohort: InterventionCohort,
    rotations: Sequence[Rotation],
    *,
    n_sequences: int = N_SEQUENCES,
    n_random: int = N_RANDOM,
    doses: Sequence[float] = DOSES + BEYOND,
) -> Steering:
    """Dose curves of the cohort's contrasts in every model.

    rotations: from each sibling to the anchor at the steering site, fitted on the fit split.
    Effects are averaged over the sequences of `tokens_at_stake`, the KL of random directions, which
    has no target, over the first `n_sequences`.
    Raises ValueError if there is not one rotation a sibling.
    """
    pairs = pair_labels(cohort)
    if len(rotations) != len(pairs):
        raise ValueError(f"{len(rotations)} rotations for {len(pairs)} siblings")
    doses = tuple(doses)
    few = cohort.intervention_tokens(n_sequences)
    arms: dict[str, list[list[Effects]]] = {"within": [], "naive": [], "rotated": [], "own": []}
    random, beside, norms, targets = [], [], [], []
    for name in cohort.contrasts:
        tokens, v = tokens_at_stake(cohort, name, n_sequences), cohort.direction(name)
        targets.append(int(cohort.target(name, tokens).where.sum()))
        dosed = torch.tensor(doses).to(v)[:, None]
        arms["within"].append([steer(cohort, 0, tokens, name, dosed * v[0])])
        rows: dict[str, list[Effects]] = {"naive": [], "rotated": [], "own": []}
        for m, rotation in enumerate(rotations, start=1):
            carried = rotated_direction(v[0], rotation)
            stacked = torch.cat([dosed * v[0], dosed * carried, dosed * v[m]])
            found = steer(cohort, m, tokens, name, stacked)
            for i, arm in enumerate(rows):
                rows[arm].append(_part(found, slice(i * len(doses), (i + 1) * len(doses))))
        for arm, row in rows.items():
            arms[arm].append(row)
        norms.append(float(v[0].norm()))
        own, drawn = _kl_beside_random(cohort, few, name, v[0], n_random)
        beside.append(own)
        random.append(drawn)
    null = np.stack(random)
    return Steering(
        cohort.contrasts,
        doses,
        pairs,
        **{arm: _curves(found) for arm, found in arms.items()},
        random_kl=null.mean(-1),
        random_sd=null.std(-1, ddof=1),
        beside_random=np.stack(beside),
        norms=np.array(norms),
        seeds=tuple(cohort.seeds),
        sequences=len(few),
        targets=tuple(targets),
    )


def recipe(cohort: InterventionCohort) -> dict[str, object]:
    """What decides `measure_steering`, and `measure_perfect`, with defaults, for a fingerprint."""
    return {
        "version": RECIPE_VERSION,
        "cohort": cohort.fingerprint,
        "contrasts": list(cohort.contrasts),
        "doses": list(DOSES + BEYOND),
        "sequences": [N_SEQUENCES, TARGETS],
        "random": [N_RANDOM, RANDOM_SEED],
    }


def _kl_beside_random(
    cohort: InterventionCohort, tokens: Tensor, name: str, v: Tensor, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """KL of the direction v [width] in each sibling, [siblings, paper's doses], and of n random
    directions of its norm, [.., n], the same for every sibling and dose."""
    units = v.norm() * random_directions(n, cohort.width).to(v)
    vectors = torch.cat([dose * torch.cat([v[None], units]) for dose in DOSES])
    siblings = range(1, len(cohort.seeds))
    found = [steer(cohort, m, tokens, name, vectors).kl for m in siblings]
    table = np.stack(found).reshape(len(siblings), len(DOSES), 1 + n)
    return table[..., 0], table[..., 1:]


def _part(found: Effects, rows: slice) -> Effects:
    return Effects(found.gain[rows], found.accuracy[rows], found.kl[rows], found.kl_elsewhere[rows])


def _curves(found: list[list[Effects]]) -> Curves:
    def table(name: str) -> np.ndarray:
        return np.array([[getattr(effect, name) for effect in row] for row in found])

    return Curves(table("gain"), table("accuracy"), table("kl"))
