"""Earlier checkpoints' dictionaries on later ones: what a run's drift does to them.

Of one run's checkpoints as in `polyrot.measures.drift`; explained variances on the score split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort
from polyrot.cohorts.run import EARLY, nearest
from polyrot.dictionaries.sae import Dictionary
from polyrot.maps.bootstrap import SequenceSums, sequence_weights
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.procrustes import fit_rotation
from polyrot.measured import Measured, PairSite
from polyrot.measures.fits import NULL_DRAWS_SEED
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact

DRAWS = 400
"""Of sequences, for the interval of an explained variance."""


@dataclass(frozen=True)
class Reconstructions:
    """Earlier checkpoints' dictionaries on later ones, explained variances on the score split.

    Each [steps, steps, sites], earlier by later; NaN where the first has no dictionary or is not
    earlier. naive: on the later as it is. rotated: centred, rotated back by what was fitted on the
    fit split, with the earlier's mean. own: [steps, sites], on the earlier itself. draws: "naive"
    and "rotated" -> [draws], of the early checkpoint's at the middle site on the last, on sequences
    drawn with replacement; empty in tables kept before they were taken, which have no interval.
    """

    steps: tuple[int, ...]
    sites: tuple[str, ...]
    middle: str
    own: np.ndarray
    naive: np.ndarray
    rotated: np.ndarray
    draws: Mapping[str, np.ndarray] = field(default_factory=dict)

    def to_artifact(self) -> Artifact:
        """Plain tensors and values, for the store."""
        tables = {"own": self.own, "naive": self.naive, "rotated": self.rotated}
        tables |= {f"draws.{name}": drawn for name, drawn in self.draws.items()}
        meta = {"steps": list(self.steps), "sites": list(self.sites)}
        return Artifact({n: torch.from_numpy(t) for n, t in tables.items()}, meta)

    @classmethod
    def from_artifact(cls, artifact: Artifact, middle: str) -> Reconstructions:
        """What `to_artifact` wrote."""
        found = {name: tensor.numpy() for name, tensor in artifact.tensors.items()}
        tables = {name: found[name] for name in ("own", "naive", "rotated")}
        draws = {name.removeprefix("draws."): x for name, x in found.items() if name not in tables}
        steps, sites = (tuple(artifact.meta[name]) for name in ("steps", "sites"))
        return cls(steps, sites, middle, **tables, draws=draws)

    def early(self, which: Literal["naive", "rotated"]) -> Measured:
        """The early checkpoint's dictionary on the last checkpoint, middle site. What it scores at
        home is the ceiling of what it scores rotated: a rotated copy of the early checkpoint is,
        rotated back, that checkpoint."""
        i, site = nearest(self.steps, EARLY), self.middle
        j = self.sites.index(site)
        beside: dict[str, float | str] = {
            "self_ev": float(self.own[i, j]),
            "naive_ev": float(self.naive[i, -1, j]),
            "rotated_ev": float(self.rotated[i, -1, j]),
            "early_step": float(self.steps[i]),
            "site": site,
        }
        value, drawn = getattr(self, which)[i, -1, j], self.draws.get(which)
        found = PairSite(
            np.array([[value]]),
            ("early to last",),
            (site,),
            beside,
            unit="ev",
            resamples=None if drawn is None else drawn[:, None, None],
        ).each()
        return found.below(float(self.own[i, j])) if which == "rotated" else found

    def half_way(self) -> dict[str, float]:
        """Scores of the half-way checkpoint's dictionaries on the last, by site."""
        i = nearest(self.steps, 0.5)
        return {
            f"{name}_ev_{site}": float(row[j])
            for name, row in (
                ("self", self.own[i]),
                ("naive", self.naive[i, -1]),
                ("rotated", self.rotated[i, -1]),
            )
            for j, site in enumerate(self.sites)
        }


def reconstruct(
    checkpoints: Cohort, dictionaries: Mapping[tuple[int, str], Dictionary]
) -> Reconstructions:
    """Score dictionaries, by checkpoint number and site, on their own and on later checkpoints."""
    steps, sites = tuple(checkpoints.seeds), tuple(checkpoints.sites)
    own = np.full((len(steps), len(sites)), np.nan)
    naive = np.full((len(steps), len(steps), len(sites)), np.nan)
    rotated, draws = naive.copy(), {}
    asked = nearest(steps, EARLY), len(steps) - 1, checkpoints.middle
    for (early, site), dictionary in dictionaries.items():
        j = sites.index(site)
        fit, score = (checkpoints.activations(split, site) for split in ("fit", "score"))
        own[early, j] = explained_variance(score[early], dictionary(score[early]))
        for late in range(early + 1, len(steps)):
            turned = fit_rotation(fit[late], fit[early]).apply(score[late])
            naive[early, late, j] = explained_variance(score[late], dictionary(score[late]))
            rotated[early, late, j] = explained_variance(turned, dictionary(turned))
            if (early, late, site) == asked:
                sequence = checkpoints.sequences("score")
                for name, x in (("naive", score[late]), ("rotated", turned)):
                    draws[name] = _drawn(x, dictionary(x), sequence)
    return Reconstructions(steps, sites, checkpoints.middle, own, naive, rotated, draws)


def ends(checkpoints: Cohort) -> tuple[int, int]:
    """Numbers of the half-way checkpoint and of the last."""
    return nearest(checkpoints.seeds, 0.5), len(checkpoints.seeds) - 1


def half_way_to_last(
    checkpoints: Cohort, dictionaries: Mapping[tuple[int, str], Dictionary]
) -> dict[str, PairSite]:
    """Explained variances of the half-way checkpoint's dictionaries, by checkpoint number and site,
    on the last: "naive", as it is; "rotated", centred, rotated back by what was fitted on the fit
    split, with the half-way checkpoint's mean. On the score split, one "pair" of checkpoints.

    What they score at home is the ceiling of both: of a last checkpoint that is the half-way one,
    and of one that is a rotated copy of it.
    """
    half, _ = ends(checkpoints)
    steps, sites = (checkpoints.seeds[half], checkpoints.seeds[-1]), tuple(checkpoints.sites)
    sequence = checkpoints.sequences("score")
    own: list[float] = []
    values: dict[str, list[float]] = {"naive": [], "rotated": []}
    draws: dict[str, list[np.ndarray]] = {"naive": [], "rotated": []}
    for site in sites:
        dictionary = dictionaries[half, site]
        fit, score = (checkpoints.activations(split, site) for split in ("fit", "score"))
        turned = fit_rotation(fit[-1], fit[half]).apply(score[-1])
        own.append(explained_variance(score[half], dictionary(score[half])))
        for name, x in (("naive", score[-1]), ("rotated", turned)):
            x_hat = dictionary(x)
            values[name].append(explained_variance(x, x_hat))
            draws[name].append(_drawn(x, x_hat, sequence))
    return {
        name: PairSite(
            np.array([values[name]]),
            (f"step {steps[0]} to {steps[1]}",),
            sites,
            {"half_way_step": float(steps[0]), "last_step": float(steps[1])},
            counts={"sequences": int(sequence.max()) + 1, "tokens": len(sequence)},
            unit="ev",
            resamples=np.stack(draws[name], 1)[:, None],
            ceiling=np.array(own),
        )
        for name in values
    }


def _drawn(x: Tensor, x_hat: Tensor, sequence: Tensor) -> np.ndarray:
    """Explained variance of x by x_hat on sequences drawn with replacement, [DRAWS]."""
    sums = SequenceSums.of(x, x_hat, sequence)
    generator = torch_generator(NULL_DRAWS_SEED, "drift, sequences", device=x.device)
    drawn = sums.scores(sequence_weights(len(sums.tokens), DRAWS, generator))
    return np.asarray(drawn.cpu())
