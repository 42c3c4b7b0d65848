"""Trainings of a few steps, and a checkpoint in memory, for the tests of the toy's training."""

import torch

from polyrot.runtime.device import FLOAT32
from polyrot.store import Artifact
from polyrot.toy import training
from polyrot.toy.schedule import Schedule

TINY = Schedule(
    steps=30,
    batch=8,
    warmup=5,
    precision=FLOAT32,
    evaluate_every=10,
    evaluation_sequences=2,
    patience=1000,
)


class Memory:
    """A checkpoint that lives in memory and can pull the plug."""

    path = "memory"

    def __init__(self, kill_at=None):
        self.state, self.kill_at = None, kill_at

    def load(self):
        return self.state

    def save(self, artifact: Artifact):
        self.state = Artifact(
            {n: t.clone() for n, t in artifact.tensors.items()}, dict(artifact.meta)
        )
        if self.kill_at == artifact.meta["step"]:
            raise KeyboardInterrupt


def train(seed_list, **more):
    return training.train(seed_list, TINY, compiled=False, **more)


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)
