"""Does the optimiser privilege a basis? Three arms of five toys each (see `optimiser_arms`)."""

from __future__ import annotations

from polyrot.store import Runtime
from polyrot.studies import optimiser_arms


def train(runtime: Runtime) -> None:
    """The rate trial of SGD, and every seed of every arm."""
    optimiser_arms.train(runtime, list(optimiser_arms.ARMS))
