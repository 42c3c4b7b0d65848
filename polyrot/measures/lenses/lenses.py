"""The five lenses on one toy seed: weights, dictionaries, interventions, regions, specification.

`python -m polyrot.measures.lenses --seed 0` prints a readable account.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from polyrot.measured import Interval, Measured, jackknifed
from polyrot.measures.attribution import Table
from polyrot.measures.bars.kept import models
from polyrot.measures.lenses import graph, transcoders
from polyrot.measures.lenses.circuits import Circuits, measure_circuits
from polyrot.measures.lenses.neurons import Neurons
from polyrot.measures.lenses.patching import Patching, measure_patching
from polyrot.measures.lenses.regions import Regions, measure_regions
from polyrot.measures.lenses.specification import Readouts, measure_readouts, roles
from polyrot.measures.lenses.transcoders import TranscoderQuality
from polyrot.store import Artifact, Checkpoint
from polyrot.toy import task, transformer
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import largest_logit_change
from polyrot.toy.training import can_compile
from polyrot.toy.transformer import COMPONENTS, HEAD_NAMES, N_HEADS
from polyrot.workshop.workshop import Workshop

RECIPE_VERSION = 1  # raise when a change of code changes a figure
CIRCUIT_SEQUENCES = 256


@dataclass(frozen=True)
class Lenses:
    """What the lenses show of one seed, but for the transcoders, which take long to train."""

    seed: int
    circuits: Circuits
    patching: Patching
    regions: Regions
    readouts: Readouts

    def roles(self) -> tuple[str, ...]:
        """The annotated specification: one line per component."""
        return roles(self.readouts, self.patching.mean)


_PARTS: dict[str, type[Any]] = {
    "circuits": Circuits,
    "patching": Patching,
    "regions": Regions,
    "readouts": Readouts,
}


def measure_lenses(workshop: Workshop, cohort: ToyCohort, model: int = 0) -> Lenses:
    """Look at one model of a cohort through all lenses; kept in the store."""

    def build(_: Checkpoint) -> Artifact:
        progress = workshop.runtime.progress
        stage = f"lenses of seed {cohort.seeds[model]}"
        found: dict[str, Any] = {}
        makers = {
            "circuits": lambda: measure_circuits(
                cohort.folded(model), cohort.tokens("score")[:CIRCUIT_SEQUENCES]
            ),
            "patching": lambda: measure_patching(cohort, model),
            "regions": lambda: measure_regions(cohort, model),
            "readouts": lambda: measure_readouts(cohort, model),
        }
        for done, (name, make) in enumerate(makers.items()):
            progress(stage, done, len(makers))
            found[name] = make()
        progress(stage, len(makers), len(makers))
        return Artifact(
            {
                f"{name}.{f.name}": getattr(part, f.name).cpu().contiguous()
                for name, part in found.items()
                for f in fields(part)
            },
            {},
        )

    recipe = {"version": RECIPE_VERSION, "cohort": cohort.fingerprint, "model": model}
    name = f"{cohort.scale}-seed{cohort.seeds[model]}"
    tensors = workshop.runtime.store.get_or_build("toy-lenses", recipe, build, name=name).tensors
    parts = {
        name: kind(**{f.name: tensors[f"{name}.{f.name}"] for f in fields(kind)})
        for name, kind in _PARTS.items()
    }
    return Lenses(cohort.seeds[model], **parts)


def transcoder_quality(workshop: Workshop, cohort: ToyCohort, model: int = 0) -> TranscoderQuality:
    """Train (or fetch) the transcoders of one model and judge them on held-out tokens."""
    profile = workshop.profile
    schedule = profile.other_dictionaries or profile.dictionaries
    found = transcoders.trained(
        workshop.runtime,
        cohort,
        model,
        schedule,
        compiled=schedule.steps >= 500 and (workshop.runtime.device == "cuda" or can_compile()),
    )
    return transcoders.judge(cohort, model, found)


# ----------------------------------------------------------------------------- labelled for claims


@torch.no_grad()
def folding_change(cohort: ToyCohort) -> Measured:
    """Largest |logit change| by the cohort's own folding, per seed, on the score split."""
    folded = models(cohort)
    worst = torch.zeros(len(cohort.seeds), device=folded.position.device)
    for chunk in cohort.tokens("score").split(256):
        plain = transformer.forward(cohort.params, chunk)
        change = largest_logit_change(plain, folded.run(chunk), chunk != task.PAD)
        worst = torch.maximum(worst, change)
    labels = tuple(f"seed {seed}" for seed in cohort.seeds)
    values = worst.double().cpu().numpy()
    return Measured(values, labels, counts={"sequences": len(cohort.tokens("score"))})


def lowest_readout(found: Lenses) -> Measured:
    """The lowest of depth's R^2 and the accuracies of validity and family, at the last site."""
    last = found.readouts.last()
    judged = {feature: last[feature] for feature in ("depth", "validity", "family")}
    worst = min(judged, key=lambda feature: judged[feature])
    chance = dict(zip(last, found.readouts.chance.tolist(), strict=True))
    return Measured(np.array([judged[worst]]), (worst,)).also(
        **last, chance_validity=chance["validity"], chance_family=chance["family"]
    )


def depth_counter_entropy(found: Lenses) -> Measured:
    """Attention entropy of the first-layer head that the depth head needs most; norms beside."""
    needed = found.patching.mean[:N_HEADS, task.HEADS.index("depth")]
    head = int(needed.argmax())
    circuits = found.circuits
    qk, ov = circuits.qk_norm[:N_HEADS], circuits.ov_norm[:N_HEADS]
    return Measured(circuits.entropy[head : head + 1].numpy(), (HEAD_NAMES[head],)).also(
        qk_norm=float(qk[head]),
        ov_norm=float(ov[head]),
        rank_of_its_qk_from_below=float((qk < qk[head]).sum() + 1),
        rank_of_its_ov_from_above=float((ov > ov[head]).sum() + 1),
        depth_loss_rise=float(needed[head]),
    )


def least_used_of_ordinary_norm(found: Lenses) -> Measured:
    """Smallest ablation loss among heads whose OV norm is at least half the median."""
    norms, loss = found.circuits.ov_norm, found.patching.mean.sum(1)[: len(HEAD_NAMES)]
    ordinary = norms >= norms.median() / 2
    least = int(torch.where(ordinary, loss, torch.inf).argmin())
    resampled = found.patching.resampled.sum(1)
    return Measured(loss[least : least + 1].numpy(), (HEAD_NAMES[least],)).also(
        ov_norm=float(norms[least]),
        median_ov_norm=float(norms.median()),
        resample_ablation=float(resampled[least]),
        heads_below_1e_4=float((loss < 1e-4).sum()),
    )


def heads_kept(found: Lenses) -> Measured:
    """Heads with an edge from them that the greedy pruning keeps."""
    kept = [
        edge for edge, kept in zip(graph.EDGES, found.patching.kept.tolist(), strict=True) if kept
    ]
    senders = {graph.SENDERS[sender] for _, sender in kept}
    heads = [name for name in HEAD_NAMES if name in senders]
    return Measured.of(float(len(heads))).also(
        heads=", ".join(heads),
        edges=float(len(kept)),
        kl_of_what_is_left=float(found.patching.left),
    )


NEGLIGIBLE = 1e-4
"""Nats, below which what a head costs is nothing."""


def vestigial_heads(effects: Table) -> Measured:
    """Heads of the anchor whose mean ablation costs less than 1e-4 nats: a range where that is
    undecided of some. effects: of the anchor first."""
    costs, ends = {}, []
    for i, name in enumerate(effects.components):
        if name in HEAD_NAMES:
            costs[name] = cost = float(effects.measured[0, i])
            ends.append(jackknifed(cost, effects.effects_without[0, :, 1, i], "sequences"))
    surely, perhaps = (
        float(sum(getattr(end, side) < NEGLIGIBLE for end in ends)) for side in ("high", "low")
    )
    count = float(sum(cost < NEGLIGIBLE for cost in costs.values()))
    return Measured(
        np.array([count]),
        ("",),
        beside={f"cost_{name}": cost for name, cost in costs.items()},
        counts={"heads": len(costs), "sequences": effects.sequences[0]},
        intervals=(Interval(surely, perhaps, "sequences"),),
    )


def neurons_alive(found: Neurons) -> Measured:
    """Fraction of the neurons of both MLPs that fire and that some logit feels; beside it the
    smallest by the norms of what they read and write, in units of the median."""
    each = zip(found.alive.tolist(), found.fires.tolist(), strict=True)
    beside: dict[str, float] = {}
    for i, (alive, fires) in enumerate(each):
        beside |= {
            f"alive_mlp_{i}": float(sum(alive)),
            f"fire_mlp_{i}": float(sum(fires)),
            f"smallest_by_norms_mlp_{i}": float(found.size[i].min() / found.size[i].median()),
        }
    return Measured(
        np.array([float(found.alive.double().mean())]),
        ("",),
        beside={**beside, "least_change": float(found.change.min())},
        counts={"neurons": found.alive.numel(), "positions": int(found.positions)},
    )


def region_errors(found: Lenses) -> Measured:
    """Largest relative error of a region's map over both MLPs; pattern counts beside."""
    worst = found.regions.error.amax(1)
    layer = int(worst.argmax())
    counted = {f"patterns_mlp_{i}": float(row[-1]) for i, row in enumerate(found.regions.patterns)}
    return Measured(
        worst[layer : layer + 1].numpy(),
        (f"mlp_{layer}",),
        beside=counted,
        counts={
            "regions": found.regions.error.numel(),
            "inputs": int(found.regions.inputs[-1]),
        },
    )


def transcoder_ev(found: TranscoderQuality) -> Measured:
    """Explained variance of each MLP's output; sparsity beside."""
    beside = {f"l0_mlp_{i}": value for i, value in enumerate(found.l0)}
    beside |= {f"dead_mlp_{i}": value for i, value in enumerate(found.dead)}
    return Measured(np.array(found.ev), ("mlp_0", "mlp_1"), beside=beside)


__all__ = [
    "COMPONENTS",
    "Lenses",
    "depth_counter_entropy",
    "folding_change",
    "heads_kept",
    "least_used_of_ordinary_norm",
    "lowest_readout",
    "measure_lenses",
    "neurons_alive",
    "region_errors",
    "transcoder_ev",
    "transcoder_quality",
    "vestigial_heads",
]
