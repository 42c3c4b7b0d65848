"""Lens 2: dictionaries. A transcoder reads an MLP's normed input and writes its output
(Dunefsky et al. 2024, arXiv 2406.11944); residual SAEs are in `polyrot.dictionaries.groups`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from polyrot.dictionaries import training
from polyrot.dictionaries.sae import Dictionary, quality, stack, unstack
from polyrot.dictionaries.training import Schedule
from polyrot.measures.lenses import specification
from polyrot.store import Artifact, Checkpoint, Runtime
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.transformer import D_MODEL, MLP_NAMES, N_LAYERS

RECIPE_VERSION = 1
EXPANSION = 8
L1 = 1e-3
INPUTS = tuple(f"mlp_in_{layer}" for layer in range(N_LAYERS))


@dataclass(frozen=True)
class TranscoderQuality:
    """By layer: explained variance of the MLP's output on held-out tokens, active features a
    token, share of dead features."""

    ev: tuple[float, ...]
    l0: tuple[float, ...]
    dead: tuple[float, ...]


def trained(
    runtime: Runtime,
    cohort: ToyCohort,
    model: int,
    schedule: Schedule,
    *,
    compiled: bool = False,
) -> list[Dictionary]:
    """The transcoders of one model's two MLPs: shipped, cached, or trained now."""

    def build(_: Checkpoint) -> Artifact:
        names = (*INPUTS, *MLP_NAMES)
        data = specification.capture(cohort.folded(model), cohort.tokens("dictionary"), names)
        made, early = training.train(
            torch.stack([data.x[name] for name in INPUTS]),
            range(N_LAYERS),
            [0] * N_LAYERS,
            [L1] * N_LAYERS,
            EXPANSION * D_MODEL,
            schedule,
            target=torch.stack([data.x[name] for name in MLP_NAMES]),
            progress=runtime.progress,
            stage=f"{cohort.scale} transcoders of seed {cohort.seeds[model]}",
            compiled=compiled,
        )
        return Artifact(stack(made), {"early_losses": [list(r) for r in zip(*early, strict=True)]})

    recipe = {
        "version": RECIPE_VERSION,
        "cohort": cohort.fingerprint,
        "model": model,
        "schedule": schedule.recipe(),
        "expansion": EXPANSION,
        "l1": L1,
    }
    name = f"{cohort.scale}-seed{cohort.seeds[model]}"
    return unstack(runtime.store.get_or_build("transcoders", recipe, build, name=name).tensors)


def judge(cohort: ToyCohort, model: int, transcoders: list[Dictionary]) -> TranscoderQuality:
    """How well they account for the MLPs on the score split."""
    data = specification.capture(
        cohort.folded(model), cohort.tokens("score"), (*INPUTS, *MLP_NAMES)
    )
    found = [
        quality(each.to(data.token.device), data.x[INPUTS[i]], data.x[MLP_NAMES[i]])
        for i, each in enumerate(transcoders)
    ]
    return TranscoderQuality(
        tuple(q.ev for q in found), tuple(q.l0 for q in found), tuple(q.dead for q in found)
    )
