"""What both files of store tests build with."""

from __future__ import annotations

from pathlib import Path

import torch

from polyrot.store import Artifact, Checkpoint

RECIPE = {"seed": 3, "rate": 5e-4, "sites": ["resid_mid_0", "resid_post_0"], "frozen": None}


class Builder:
    """Counts how often it is called."""

    def __init__(self, value: float = 1.0) -> None:
        self.calls = 0
        self.value = value

    def __call__(self, checkpoint: Checkpoint) -> Artifact:
        self.calls += 1
        weight = torch.full((3, 4), self.value)
        return Artifact({"weight": weight, "steps": torch.tensor(7)}, {"accuracy": 0.5})


def never(checkpoint: Checkpoint) -> Artifact:
    raise AssertionError("this should have been found, not built")


def artifacts(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*.safetensors") if not p.name.startswith("."))


def flip_byte(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where] ^= 0x10
    path.write_bytes(data)
