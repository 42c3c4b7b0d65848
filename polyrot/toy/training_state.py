"""What a training of toy models knows on its way, beside weights and moments."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polyrot.runtime.device import Stretches
from polyrot.store import Artifact
from polyrot.toy.evaluation import GOAL, Evaluation, evaluate, lowest
from polyrot.toy.optimiser import Held
from polyrot.toy.schedule import Schedule
from polyrot.toy.trained import Trained
from polyrot.toy.transformer import Params

FINAL_TIMES = 32  # sequences of the last evaluation to those of one on the way
N_EARLY = 20  # losses of the first steps, kept so that a retraining can be compared


class TrainingState:
    """What a run knows beside weights and moments: all of it goes into the checkpoint.

    buffers: of its optimiser (see `polyrot.toy.optimiser`). begin: steps that its models had behind
    them, which its optimiser has not seen."""

    def __init__(self, n_models: int, buffers: Mapping[str, str], begin: int = 0) -> None:
        self.buffers = buffers
        self.step = self.begin = begin
        self.loss = torch.zeros(n_models)
        self.early: list[list[float]] = []
        self.history: list[dict[str, Any]] = []
        self.reached: list[int | None] = [None] * n_models
        self.final: dict[int, tuple[int, Params]] = {}
        self.best: dict[int, tuple[list[float], int, Params]] = {}
        self.precision: Stretches = []
        self.snapshots: dict[int, Params] = {}
        self.n_models = n_models
        self.seconds = 0.0
        self.resumed = time.monotonic()

    @property
    def all_stopped(self) -> bool:
        """Whether every model has ended."""
        return len(self.final) == self.n_models

    def after_step(self, loss: Tensor, params: Params, snapshot_at: Sequence[int]) -> None:
        """Count a step, and keep what is kept of it."""
        self.step += 1
        self.loss = loss
        if len(self.early) < N_EARLY:
            self.early.append(loss.tolist())
        if self.step in snapshot_at and 0 not in self.final:
            self.snapshots[self.step] = one_model(params, 0)

    def evaluate(self, params: Params, schedule: Schedule, *, keep_snapshots: bool) -> None:
        """Held-out accuracies: who met the goal, who ends, whose weights are the best so far.

        Raises FloatingPointError where the loss is not finite.
        """
        if not torch.isfinite(self.loss).all():
            raise FloatingPointError(
                f"the loss is not finite at step {self.step}: {self.loss.tolist()}; "
                "lower the peak rate (pytest claims: another --schedule, or --device cpu)"
            )
        accuracy, held_out = evaluate(params, schedule.evaluation_sequences)
        self.history.append({"step": self.step, "loss": self.loss.tolist(), "accuracy": accuracy})
        for m in range(self.n_models):
            if self.reached[m] is None and lowest(accuracy, m) >= GOAL:
                self.reached[m] = self.step
            rank = [lowest(accuracy, m), -held_out[m]]
            first = m not in self.best
            running = schedule.choose == "best" and m not in self.final
            if running and (first or rank > self.best[m][0]):
                self.best[m] = rank, self.step, one_model(params, m)
            since = self.reached[m]
            if m not in self.final and since is not None and self.step - since >= schedule.patience:
                self.final[m] = (self.step, one_model(params, m))
                if m == 0 and keep_snapshots:  # where the run ends is the last of its checkpoints
                    self.snapshots[self.step] = one_model(params, 0)

    def note(self) -> str:
        """Loss and lowest accuracies, for the progress line."""
        text = f"loss {', '.join(f'{x:.4f}' for x in self.loss.tolist())}"
        if self.history:
            accuracy = self.history[-1]["accuracy"]
            worst = [lowest(accuracy, m) for m in range(self.n_models)]
            text += f"; lowest accuracy {', '.join(f'{x:.2%}' for x in worst)}"
        return text

    def clock(self) -> float:
        """Seconds of training so far, over all processes that shared in it."""
        now = time.monotonic()
        self.seconds += now - self.resumed
        self.resumed = now
        return self.seconds

    def to_artifact(self, params: Params, optimiser: torch.optim.Optimizer, held: Held) -> Artifact:
        """Everything that `restore` needs."""
        tensors = {f"params.{n}": p.detach() for n, p in params.items()}
        for name, p in held.params.items():
            known = optimiser.state[p]
            tensors |= {f"{ours}.{name}": known[torchs] for ours, torchs in self.buffers.items()}
        if held.turns is not None:
            tensors |= {f"held.{name}": p for name, p in held.params.items()}
        for step, snapshot in self.snapshots.items():
            tensors |= {f"snapshot.{step}.{n}": p for n, p in snapshot.items()}
        for m, (step, model) in self.final.items():
            tensors |= {f"final.{m}.{step}.{n}": p for n, p in model.items()}
        for m, (_, step, model) in self.best.items():
            tensors |= {f"best.{m}.{step}.{n}": p for n, p in model.items()}
        meta = {
            "step": self.step,
            "loss": self.loss.tolist(),
            "early": self.early,
            "history": self.history,
            "reached": self.reached,
            "ranks": {str(m): rank for m, (rank, _, _) in self.best.items()},
            "precision": self.precision,
            "seconds": self.clock(),
            "device": params["embed"].device.type,
        }
        return Artifact({n: t.cpu().contiguous() for n, t in tensors.items()}, meta)

    def restore(
        self, saved: Artifact, params: Params, optimiser: torch.optim.Optimizer, held: Held
    ) -> None:
        """Go on from what `to_artifact` gave."""
        self.step, self.early = saved.meta["step"], saved.meta["early"]
        self.history, self.reached = saved.meta["history"], saved.meta["reached"]
        self.loss = torch.tensor(saved.meta["loss"])
        self.seconds = saved.meta["seconds"]
        self.precision = saved.meta.get("precision", [])
        with torch.no_grad():
            for name, p in params.items():
                p.copy_(saved.tensors[f"params.{name}"])
        for name, p in held.params.items():
            if held.turns is not None:
                p.copy_(saved.tensors[f"held.{name}"])
            optimiser.state[p] = {
                "step": torch.tensor(float(self.step - self.begin), device=p.device),
                **{
                    torchs: saved.tensors[f"{ours}.{name}"].to(p.device)
                    for ours, torchs in self.buffers.items()
                },
            }
        for name, tensor in saved.tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "snapshot":
                step, _, key = rest.partition(".")
                self.snapshots.setdefault(int(step), {})[key] = tensor
            elif kind == "final":
                model, step, key = rest.split(".", 2)
                self.final.setdefault(int(model), (int(step), {}))[1][key] = tensor
            elif kind == "best":
                model, step, key = rest.split(".", 2)
                found = saved.meta["ranks"][model], int(step), dict[str, Tensor]()
                self.best.setdefault(int(model), found)[2][key] = tensor

    def finish(self, seeds: tuple[int, ...], params: Params, schedule: Schedule) -> Trained:
        """The models that the schedule chooses, and what happened."""
        out = {n: p.detach().clone() for n, p in params.items()}
        stopped = [self.final[m][0] if m in self.final else self.step for m in range(self.n_models)]
        chosen = [self.best[m][1] if m in self.best else stopped[m] for m in range(self.n_models)]
        taken = {m: model for m, (_, model) in self.final.items()}
        taken |= {m: model for m, (_, _, model) in self.best.items()}
        for m, model in taken.items():
            for name, p in model.items():
                out[name][m] = p[0].to(out[name].device)
        accuracy: Evaluation = {}
        if self.step == schedule.steps or self.all_stopped:
            n = FINAL_TIMES * schedule.evaluation_sequences
            accuracy, _ = evaluate(out, n, purpose="final evaluation")
        return Trained(
            seeds,
            {n: p.cpu() for n, p in out.items()},
            {s: {n: p.cpu() for n, p in model.items()} for s, model in self.snapshots.items()},
            self.early,
            self.history,
            stopped,
            accuracy,
            self.clock(),
            params["embed"].device.type,
            chosen,
            self.precision,
        )


def one_model(params: Params, model: int) -> Params:
    """A copy of one model of the batch, leading dimension 1, on the CPU."""
    return {n: p.detach()[model : model + 1].cpu().clone() for n, p in params.items()}
