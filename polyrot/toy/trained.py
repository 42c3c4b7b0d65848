"""What a training of toy models leaves, and how it is kept."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

from polyrot.runtime.device import Stretches
from polyrot.store import Artifact
from polyrot.toy.evaluation import GOAL, Evaluation, lowest
from polyrot.toy.transformer import Params


@dataclass(frozen=True)
class Trained:
    """Trained models and what happened.

    params: one model per seed. snapshots: step -> params of the first model.
    history: the evaluations, oldest first, each with "step" and "loss" (per model).
    chosen: the step whose weights `params` are, per model. precision: [first step, precision] of
    each stretch of the run.
    """

    seeds: tuple[int, ...]
    params: Params
    snapshots: dict[int, Params]
    early_losses: list[list[float]]
    history: list[dict[str, Any]]
    stopped_at: list[int]
    accuracies: Evaluation = field(default_factory=dict)
    seconds: float = 0.0
    device: str = "cpu"
    chosen: list[int] = field(default_factory=list)
    precision: Stretches = field(default_factory=list)

    def reached(self, model: int) -> int | None:
        """Step of the first evaluation on the way at which a model met the paper's goal, on which
        the paper's stop rule turns."""
        for row in self.history:
            if lowest(row["accuracy"], model) >= GOAL:
                return int(row["step"])
        return None

    def replaced(self, by: Trained) -> Trained:
        """With the models of `by`, a further training of some of these seeds, their accuracies,
        where they ended and which weights were chosen; precision and device of both."""
        begun = by.precision[0][0] if by.precision else 0
        params = {name: p.clone() for name, p in self.params.items()}
        accuracies = copy.deepcopy(self.accuracies)
        stopped_at, chosen = list(self.stopped_at), list(self.chosen)
        devices = [self.device]
        for m, seed in enumerate(by.seeds):
            here = self.seeds.index(seed)
            for name, p in params.items():
                p[here] = by.params[name][m]
            for distribution, heads in accuracies.items():
                for head, values in heads.items():
                    values[here] = by.accuracies[distribution][head][m]
            stopped_at[here], chosen[here] = by.stopped_at[m], by.chosen[m]
            if by.device != self.device.split("; ")[0]:
                last = f"the last {by.stopped_at[m] - begun:,} steps"
                devices.append(f"{last} of seed {seed} {by.device}")
        return replace(
            self,
            params=params,
            accuracies=accuracies,
            precision=[*self.precision, *by.precision],
            device="; ".join(devices),
            stopped_at=stopped_at,
            chosen=chosen,
        )

    def to_artifact(self) -> Artifact:
        """Plain tensors and values, for the store."""
        tensors = {f"params.{n}": p for n, p in self.params.items()}
        for step, params in self.snapshots.items():
            tensors |= {f"snapshot.{step}.{n}": p for n, p in params.items()}
        meta = {
            "seeds": list(self.seeds),
            "early_losses": self.early_losses,
            "history": self.history,
            "stopped_at": self.stopped_at,
            "accuracies": self.accuracies,
            "seconds": self.seconds,
            "device": self.device,
            "chosen": self.chosen,
            "precision": self.precision,
        }
        return Artifact(tensors, meta)

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Trained:
        """What `to_artifact` wrote."""
        snapshots: dict[int, Params] = {}
        params: Params = {}
        for name, tensor in artifact.tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "params":
                params[rest] = tensor
            elif kind == "snapshot":
                step, _, key = rest.partition(".")
                snapshots.setdefault(int(step), {})[key] = tensor
        meta = artifact.meta
        return cls(
            tuple(meta["seeds"]),
            params,
            dict(sorted(snapshots.items())),
            meta["early_losses"],
            meta["history"],
            meta["stopped_at"],
            meta["accuracies"],
            meta["seconds"],
            meta["device"],
            meta.get("chosen", meta["stopped_at"]),
            meta.get("precision", []),
        )
