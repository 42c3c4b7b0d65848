"""The two passes of streaming Procrustes over language models: moments, then scores.

A pass is handed the activations of some tokens at a time and keeps sums only, O(d^2) of memory
whatever their number. Several processes may each hand their own copy of a pass their own
tokens; `collect` brings the sums to the first of them. Orientation as everywhere: `a` is a sibling,
`b` the anchor, `a @ r ~ b`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from polyrot.maps.explained_variance import EVSums
from polyrot.maps.moments import MomentAccumulator, Moments, adds_up, check_fit
from polyrot.maps.procrustes import (
    ActivationMap,
    Affine,
    Rotation,
    Shift,
    affine_from_moments,
    fit_from_moments,
)
from polyrot.streaming.ranks import Ranks

Activations = Sequence[Mapping[str, Tensor]]
"""For each model, the anchor first: site -> [tokens, d]. Row i is one token in all of them."""
Reconstruct = Callable[[Tensor], Tensor]
"""A dictionary: [tokens, d] to [tokens, d]."""

PREDICTORS = ("untouched", "shift", "rotation", "affine")
"""Of the anchor's activations, from the sibling's: as they are, with the anchor's mean, through the
rotation, through the unconstrained affine map."""
RECONSTRUCTIONS = ("self", "naive", "shifted", "rotated")
"""What the anchor's dictionary makes of the anchor's activations; of the sibling's untouched;
with the anchor's mean; rotated. Each is scored against its own input, as by
`polyrot.measures.transfer`."""


class Pass(Protocol):
    """One walk over a stream of tokens."""

    def update(self, activations: Activations) -> None:
        """Add tokens."""
        ...

    def begin(self, ranks: Ranks) -> None:
        """Agree with the first rank, which was handed some tokens or restored, on how to begin. The
        other ranks begin anew. Collective."""
        ...

    def collect(self, ranks: Ranks) -> None:
        """Move all sums to the first rank; the others go on from 0. Collective."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that a killed process needs to go on."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`."""
        ...


class MomentPass:
    """Means, covariances and cross-covariances at every site: see `MomentAccumulator`.

    covariances: gathered too; without them only rotation and shift can be fitted. The sums of a
    site take one matrix [d, d] in float64 for each sibling, and with covariances one more for each
    model, on the device of the anchor's activations. device: where another rank begins.
    """

    def __init__(
        self,
        sites: Sequence[str],
        siblings: int = 1,
        covariances: bool = True,
        precision: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self._device = device
        self._sites = {
            site: MomentAccumulator(siblings, covariances, precision, f"moments at {site}")
            for site in sites
        }

    def update(self, activations: Activations) -> None:
        """Raises BadActivations, naming the site."""
        anchor, *siblings = activations
        for site, accumulator in self._sites.items():
            accumulator.update([found[site] for found in siblings], anchor[site])

    def begin(self, ranks: Ranks) -> None:
        """Have every rank start from the sums of the first."""
        if ranks.size == 1:
            return
        # Around one mean the sums of all ranks are simply added.
        for accumulator in self._sites.values():
            means = {str(i): m for i, m in enumerate(accumulator.provisional_means())}
            shared = ranks.share_tensors(means, self._device)
            if not ranks.first:
                accumulator.begin(list(shared.values()))

    def collect(self, ranks: Ranks) -> None:
        """Add up the sums of all ranks in the first."""
        if ranks.size == 1:
            return
        for accumulator in self._sites.values():
            state = accumulator.state()
            ranks.add_to_first(tensor for name, tensor in state.items() if adds_up(name))
            accumulator.restore(state)

    def state(self) -> dict[str, Tensor]:
        """The sums, for a checkpoint."""
        return {
            f"{site}/{name}": tensor
            for site, accumulator in self._sites.items()
            for name, tensor in accumulator.state().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        for site, accumulator in self._sites.items():
            own = {n[len(site) + 1 :]: t for n, t in state.items() if n.startswith(f"{site}/")}
            accumulator.restore(own)

    def moments(self) -> dict[str, list[Moments]]:
        """By site, one for each sibling. Raises BadActivations where there were no tokens."""
        return {site: accumulator.moments() for site, accumulator in self._sites.items()}


@dataclass(frozen=True)
class Maps:
    """From one sibling's activations at one site to the anchor's."""

    rotation: Rotation
    shift: Shift
    affine: Affine | None

    @classmethod
    def fit(cls, moments: Sequence[Moments], where: str) -> list[Maps]:
        """One for each sibling; affine only where covariances were gathered.

        Raises BadActivations, naming `where` and the sibling, counted from 0: fewer tokens than
        dimensions, a constant dimension.
        """
        for i, m in enumerate(moments):
            check_fit(m, f"{where}, sibling {i}", ("sibling", "anchor"))
        return [
            cls(
                rotation,
                Shift(m.mean_a, m.mean_b),
                None if m.auto_a is None else affine_from_moments(m),
            )
            for m, rotation in zip(moments, fit_from_moments(moments), strict=True)
        ]

    def predictors(self) -> dict[str, ActivationMap | None]:
        """By the names of `PREDICTORS`; None stands for the activations as they are."""
        found: dict[str, ActivationMap | None] = {
            "untouched": None,
            "shift": self.shift,
            "rotation": self.rotation,
        }
        return found if self.affine is None else {**found, "affine": self.affine}


class ScorePass:
    """Explained variances of maps and dictionaries, on tokens that the maps were not fitted on.

    maps: by site, one for each sibling. dictionaries: the anchor's, at some of the sites.
    """

    def __init__(
        self,
        maps: Mapping[str, Sequence[Maps]],
        dictionaries: Mapping[str, Reconstruct] | None = None,
    ) -> None:
        self._maps = maps
        self._dictionaries = dict(dictionaries or {})
        self._sums: dict[str, EVSums] = {}

    def update(self, activations: Activations) -> None:
        """Raises BadActivations: shapes, values that are not finite."""
        anchor, *siblings = activations
        for site, maps in self._maps.items():
            b, dictionary = anchor[site], self._dictionaries.get(site)
            if dictionary is not None:
                self._reconstruct(f"{site}/-/self", dictionary, b)
            for i, (found, each) in enumerate(zip(siblings, maps, strict=True)):
                a = found[site].to(b.device)
                for name, mapping in each.predictors().items():
                    mapped = a if mapping is None else mapping.apply(a)
                    self._add(f"{site}/{i}/{name}", b, mapped)
                    rebuilt = {"untouched": "naive", "shift": "shifted", "rotation": "rotated"}
                    if dictionary is not None and name in rebuilt:
                        self._reconstruct(f"{site}/{i}/{rebuilt[name]}", dictionary, mapped)

    def _reconstruct(self, key: str, dictionary: Reconstruct, x: Tensor) -> None:
        wide = x.float()  # dictionaries are in single precision
        self._add(key, wide, dictionary(wide))

    def _add(self, key: str, x: Tensor, x_hat: Tensor) -> None:
        new = EVSums.of(x, x_hat)
        self._merge(key, EVSums(new.tokens, new.mean.cpu(), new.spread.cpu(), new.error))

    def _merge(self, key: str, new: EVSums) -> None:
        self._sums[key] = self._sums[key] + new if key in self._sums else new

    def begin(self, ranks: Ranks) -> None:
        """Nothing to agree on: sums around different means are merged without loss."""

    def collect(self, ranks: Ranks) -> None:
        """Add up the sums of all ranks in the first."""
        if ranks.size == 1:
            return
        keys = ranks.share(list(self._sums))
        d = ranks.share(len(next(iter(self._sums.values())).mean) if ranks.first else 0)
        table = torch.zeros(len(keys), 2 * d + 2, dtype=torch.float64)
        for row, key in zip(table, keys, strict=True):
            if key in self._sums:  # a rank may have had no tokens
                row.copy_(_row(self._sums[key]))
        tables, self._sums = ranks.gather(table), {}
        for part in tables:
            for row, key in zip(part, keys, strict=True):
                if row[0] > 0:
                    self._merge(key, _sums(row))

    def state(self) -> dict[str, Tensor]:
        """The sums, for a checkpoint."""
        return {key: _row(sums) for key, sums in self._sums.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self._sums = {key: _sums(row) for key, row in state.items()}

    def scores(self) -> dict[str, dict[int, dict[str, EVSums]]]:
        """By site, sibling, and name of `PREDICTORS` or `RECONSTRUCTIONS`."""
        found: dict[str, dict[int, dict[str, EVSums]]] = {}
        for site, maps in self._maps.items():
            found[site] = {i: {} for i in range(len(maps))}
            for key, sums in self._sums.items():
                of, sibling, name = key.split("/")
                if of == site:
                    for i in found[site] if sibling == "-" else [int(sibling)]:
                        found[site][i][name] = sums
        return found


def _row(sums: EVSums) -> Tensor:
    head = torch.tensor([sums.tokens, sums.error], dtype=torch.float64)
    return torch.cat([head, sums.mean, sums.spread])


def _sums(row: Tensor) -> EVSums:
    mean, spread = row[2:].chunk(2)
    return EVSums(int(row[0]), mean.clone(), spread.clone(), float(row[1]))


__all__ = [
    "PREDICTORS",
    "RECONSTRUCTIONS",
    "Activations",
    "Maps",
    "MomentPass",
    "Pass",
    "ScorePass",
]
